"""Internal notes beside the documents: rows of `_emboflow_meta`, one kind a purpose.

A note's id is ``<kind>:<name>``, so that writing it twice is writing it once, and a kind can be listed by its
prefix. What a note says is up to the module that owns its kind; a user's document never lies here.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated


class Mark(StrEnum):
    """The kinds of notes, each with the name that follows it."""

    HOLD = "hold"  #: <object_id>: retention and legal hold
    RELEASE = "release"  #: <object_id>.v<n>: let go by its owner or withdrawn, since when
    TOMBSTONE = "tombstone"  #: <object_id>.v<n>: its bytes were collected, when and why
    QUARANTINE = "quarantine"  #: <object_id>.v<n>: its bytes are damaged, both digests
    PENDING = "pending"  #: <key>:<writer>, or since:<writer>: about to be referred to
    CONDEMNED = "condemned"  #: <key>: about to be collected from a store that takes nothing aside
    TEMPORARY = "temporary"  #: <id>: a blob without owner that expires
    UPLOAD = "upload"  #: <object_id>: what is known about an announced upload
    REQUEST = "request"  #: <project>:<hash of the id>: a request to `ef.cud`, and what it wrote
    SCRUB = "scrub"  #: <workspace>: how far a verification came
    SCHEDULE = "schedule"  #: <project>:<name>: a schedule, or what became of the one in a workflow's file
    TAKEN = "taken"  #: <schedule>:<asset>: a run of the schedule has bound the asset
    FORGOTTEN = "forgotten"  #: <project>:<id>: episodes that were forgotten, and all that went with them
    REINSTATED = "reinstated"  #: <project>:<id>: what was forgotten under that id may be made again
    RECORDER = "recorder"  #: <project>:<Dagster storage>: how far its runs were looked through


def name_of(object_id: str, version: int) -> str:
    """One version of one blob, as notes are named.

    >>> name_of("model", 3)
    'model.v3'
    """
    return f"{object_id}.v{version}"


def write(
    mongo: Mongo, kind: Mark, name: str, workspace_id: str, session: Session | None = None, **fields: Any
) -> None:
    """Make or replace a note."""
    row = {"kind": kind.value, "name": name, "workspaceId": workspace_id, "createdAt": utc_now(), **fields}
    with translated():
        mongo[META].replace_one({"_id": f"{kind.value}:{name}"}, row, upsert=True, session=session)


def once(
    mongo: Mongo, kind: Mark, name: str, workspace_id: str, session: Session | None = None, **fields: Any
) -> bool:
    """Make a note unless there is one, which stays as it is; whether it was made."""
    row = {"kind": kind.value, "name": name, "workspaceId": workspace_id, "createdAt": utc_now(), **fields}
    with translated():
        done = mongo[META].update_one(
            {"_id": f"{kind.value}:{name}"}, {"$setOnInsert": row}, upsert=True, session=session
        )
    return done.upserted_id is not None


def read(mongo: Mongo, kind: Mark, name: str, session: Session | None = None) -> Raw | None:
    """A note, or ``None``."""
    with translated():
        return mongo[META].find_one({"_id": f"{kind.value}:{name}"}, session=session)


def erase(mongo: Mongo, kind: Mark, name: str, session: Session | None = None) -> bool:
    """Remove a note; whether there was one."""
    with translated():
        gone = mongo[META].delete_one({"_id": f"{kind.value}:{name}"}, session=session)
    return gone.deleted_count == 1


def every(
    mongo: Mongo,
    kind: Mark,
    prefix: str = "",
    workspace_id: str | None = None,
    *,
    session: Session | None = None,
    leave_out: Mapping[str, int] | None = None,
) -> Iterator[Raw]:
    """The notes of a kind whose names begin with ``prefix``, in order, of one workspace or of all.

    ``leave_out`` names fields that are not read, each with 0.
    """
    limits = {"workspaceId": workspace_id} if workspace_id is not None else {}
    start = re.escape(f"{kind.value}:{prefix}")
    with translated():
        found = mongo[META].find({"_id": {"$regex": f"^{start}"}, **limits}, leave_out, session=session)
        yield from found.sort("_id", 1)
