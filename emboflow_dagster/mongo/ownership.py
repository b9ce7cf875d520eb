"""Who owns a version of a blob: checked, claimed and let go, always in the transaction of the record.

Owner fields are on the newest version alone and never change in `object_history` (C-09): what was superseded
keeps the owner it had, and cannot be claimed. A version that was let go has no owner and a note since when;
until it is collected another record may claim it.

Source: Voedger "BLOBs" (R-418..R-430); conflicts C-09..C-12; texts after spec/parity.md P-35.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from pymongo import UpdateOne

from emboflow_dagster.errors import ConflictError, ErrorKind, Problem
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import BlobRef
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark, name_of

_WITHOUT_BYTES: Final = {"data": 0, "tail.data": 0}
NOBODY: Final[Mapping[str, None]] = {
    "owner_record": None,
    "owner_record_field": None,
    "owner_record_id": None,
}


class Mention(NamedTuple):
    """A version of a blob as a field of a record names it."""

    ref: BlobRef
    record: str
    record_id: str
    field: str
    path: str = ""
    """Where in the request, for messages."""
    kept: bool = False
    """The record names it already: nothing is to be done when it is its owner."""

    @property
    def owner(self) -> dict[str, str]:
        """The owner fields of a version that this record owns."""
        return {
            "owner_record": self.record,
            "owner_record_field": self.field,
            "owner_record_id": self.record_id,
        }

    def owns(self, blob: BlobObject) -> bool:
        """Whether the version is this record's."""
        return all(getattr(blob, name) == value for name, value in self.owner.items())


class Version(NamedTuple):
    """A version that was looked up: its metadata, whether it is the newest, and what is noted about it."""

    blob: BlobObject
    newest: bool
    notes: frozenset[str]


class Checked(NamedTuple):
    """What became of the mentions of a request, in its order."""

    blobs: list[BlobObject | None]
    """The version of each mention; ``None`` where it cannot be used."""
    claims: list[Mention]
    problems: list[list[Problem]]


def check(mongo: Mongo, scope: Scope, session: Session, mentions: Sequence[Mention]) -> Checked:
    """Hold every mention of a request against the blobs, in the fixed order of C-11; nothing is written.

    Args:
        mongo: The open database.
        scope: Whose blobs; one of another workspace is not told from none.
        session: The transaction that will claim them.
        mentions: All of a request: a version may be named once.
    """
    there = versions(mongo, scope, session, [m.ref for m in mentions])
    checked = Checked([], [], [])
    first: dict[BlobRef, Mention] = {}
    for mention in mentions:
        version = there.get(mention.ref)
        found: list[Problem] = []
        if not (mention.kept and version and version.newest and mention.owns(version.blob)):
            found = _problems(mention, version, first.get(mention.ref))
            checked.claims.append(mention)
        first.setdefault(mention.ref, mention)
        checked.blobs.append(None if found or version is None else version.blob)
        checked.problems.append(found)
    return checked


def versions(
    mongo: Mongo, scope: Scope, session: Session | None, refs: Iterable[BlobRef]
) -> dict[BlobRef, Version]:
    """The versions that exist in this workspace, wherever they are kept."""
    wanted = sorted(set(refs), key=lambda ref: (ref.object_id, ref.version))
    if not wanted:
        return {}
    scoped = {"workspace_id": scope.workspace_id}
    ids = sorted({ref.object_id for ref in wanted})
    names = {ref: name_of(ref.object_id, ref.version) for ref in wanted}
    kinds = (Mark.TOMBSTONE.value, Mark.QUARANTINE.value)
    with translated():
        heads: dict[str, Raw] = {
            raw["_id"]: raw
            for raw in mongo["objects"].find({"_id": {"$in": ids}, **scoped}, _WITHOUT_BYTES, session=session)
        }
        noted = {
            str(row["_id"])
            for row in mongo[META].find(
                {"_id": {"$in": [f"{kind}:{name}" for kind in kinds for name in names.values()]}},
                {"_id": 1},
                session=session,
            )
        }
        found: dict[BlobRef, Version] = {}
        for ref in wanted:
            head = heads.get(ref.object_id)
            if head is None:
                continue
            rows = [head, *(head.get("tail") or [])]
            row = next((row for row in rows if row["version"] == ref.version), None)
            if row is None and ref.version < head["version"]:
                older = {"object_id": ref.object_id, "version": ref.version, **scoped}
                row = mongo["object_history"].find_one(older, _WITHOUT_BYTES, session=session)
            if row is not None:
                notes = frozenset(kind for kind in kinds if f"{kind}:{names[ref]}" in noted)
                found[ref] = Version(BlobObject.from_mongo(row), row is head, notes)
    return found


def _problems(mention: Mention, version: Version | None, earlier: Mention | None) -> list[Problem]:
    name = f"blob {mention.ref.object_id} version {mention.ref.version}"
    place = f"{mention.record}.{mention.field}"
    found: list[Problem] = []

    def add(kind: ErrorKind, text: str) -> list[Problem]:
        found.append(Problem(kind, mention.path, f"[{kind.value}] {text}"))
        return found

    if version is None:
        return add(
            ErrorKind.REF_NOT_FOUND, f"{name} mentioned in CUD {place}: there is none in this workspace"
        )
    blob = version.blob
    if not blob.completed:
        return add(
            ErrorKind.BLOB_INCOMPLETE,
            f"{name} mentioned in CUD {place}: the upload is {blob.upload_status}, not completed",
        )
    if Mark.TOMBSTONE.value in version.notes:
        return add(ErrorKind.BLOB_WITHDRAWN, f"{name} mentioned in CUD {place}: its bytes were collected")
    if Mark.QUARANTINE.value in version.notes:
        return add(ErrorKind.BLOB_QUARANTINED, f"{name} mentioned in CUD {place}: its bytes are damaged")
    intended = f"{blob.owner_record}.{blob.owner_record_field}"
    if blob.owner_record_id is not None:
        owner = f"{blob.owner_record}.{blob.owner_record_id}.{blob.owner_record_field}"
        add(ErrorKind.BLOB_OWNER_NOT_EMPTY, f"{name} mentioned in CUD {place} is used already in {owner}")
    if blob.owner_record not in (None, mention.record):
        add(
            ErrorKind.BLOB_OWNER_MISMATCH,
            f"{name} is intended for {intended} whereas it is being used in {place}",
        )
    if blob.owner_record_field not in (None, mention.field):
        add(
            ErrorKind.BLOB_OWNER_FIELD_MISMATCH,
            f"{name} is intended for {intended} whereas it is being used in {place}",
        )
    if earlier is not None:
        other = f"{earlier.record}.{earlier.record_id}.{earlier.field}"
        add(
            ErrorKind.BLOB_DUPLICATE_REFERENCE,
            f"{name} mentioned in CUD {place} is used already in CUD {other}",
        )
    if not version.newest:
        add(
            ErrorKind.BLOB_NOT_CLAIMABLE,
            f"{name} mentioned in CUD {place} is in the history already; only the newest can be claimed",
        )
    return found


def claim(mongo: Mongo, scope: Scope, session: Session, mentions: Sequence[Mention]) -> None:
    """Make each record the owner of the version it names: compare and set, all or nothing.

    The version number stays, `object_history` is not touched (AT-057).

    Raises:
        ConflictError: Somebody else was first, or it is not the newest version any more.
    """
    if not mentions:
        return
    steps = [
        UpdateOne(
            {
                "_id": m.ref.object_id,
                "version": m.ref.version,
                "workspace_id": scope.workspace_id,
                "upload_status": "completed",
                "owner_record_id": None,
                "owner_record": {"$in": [None, m.record]},
                "owner_record_field": {"$in": [None, m.field]},
            },
            {"$set": m.owner},
        )
        for m in mentions
    ]
    with translated():
        matched = mongo["objects"].bulk_write(steps, session=session).matched_count
        _refuse_unless(matched == len(mentions), mentions)
        # Claimed again before it was collected.
        notes = [f"{Mark.RELEASE.value}:{name_of(m.ref.object_id, m.ref.version)}" for m in mentions]
        mongo[META].delete_many({"_id": {"$in": notes}}, session=session)


def move(mongo: Mongo, scope: Scope, session: Session, before: Mention, after: Mention) -> None:
    """Make another record the owner of a version; it belongs to one of them at every moment.

    Raises:
        ConflictError: It is not ``before``'s any more, or not the newest version.
    """
    with translated():
        changed = mongo["objects"].update_one(_owned(scope, before), {"$set": after.owner}, session=session)
    _refuse_unless(changed.matched_count == 1, [before])


def let_go(mongo: Mongo, scope: Scope, session: Session, mention: Mention, *, since: datetime) -> None:
    """Take a version from its owner and note since when nobody has it; gc collects it after the grace.

    A version in the history keeps the owner it had there, which is part of an immutable document: for it the
    note alone counts.
    """
    with translated():
        mongo["objects"].update_one(_owned(scope, mention), {"$set": dict(NOBODY)}, session=session)
    marks.write(
        mongo,
        Mark.RELEASE,
        name_of(mention.ref.object_id, mention.ref.version),
        scope.workspace_id,
        session=session,
        releasedAt=since,
        releasedBy=scope.actor,
        record=mention.record,
        field=mention.field,
        recordId=mention.record_id,
    )


def _owned(scope: Scope, mention: Mention) -> dict[str, Any]:
    return {
        "_id": mention.ref.object_id,
        "version": mention.ref.version,
        "workspace_id": scope.workspace_id,
        **mention.owner,
    }


def _refuse_unless(fine: bool, mentions: Sequence[Mention]) -> None:  # noqa: FBT001 - says what it is about
    if not fine:
        names = ", ".join(f"{m.ref.object_id} version {m.ref.version}" for m in mentions[:3])
        raise ConflictError(
            f"blob {names}: another owner or version came meanwhile; nothing was changed",
            hint="read it again and repeat the request",
        )
