"""What ends by its time: temporary blobs, and uploads that nobody completed. For gc."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from emboflow_dagster.model.blob import UploadStatus
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark


@dataclass(frozen=True, slots=True)
class Expired:
    """How many there were: uploads never completed, and temporary blobs."""

    uploads: int
    temporary: int


def temporary_refs(mongo: Mongo, now: datetime) -> Iterator[Raw]:
    """The stored references of every temporary blob that can still be read, of all workspaces.

    Their bytes have no version and no record: without this they would look as if nobody needed them.
    """
    for note in marks.every(mongo, Mark.TEMPORARY):
        if note["expiresAt"] > now:
            yield note["ref"]


def remove_expired(mongo: Mongo, now: datetime, *, dry_run: bool = False) -> Expired:
    """Remove the notes of temporary blobs, and the heads and notes of uploads, that ended before ``now``.

    An upload that was completed meanwhile keeps its head and loses its note; no bytes are removed here.
    """
    ended = {"expiresAt": {"$lte": now}}
    temporary: dict[str, Any] = {"kind": Mark.TEMPORARY.value, **ended}
    with translated():
        uploads = [row["name"] for row in mongo[META].find({"kind": Mark.UPLOAD.value, **ended}, {"name": 1})]
        if dry_run:
            return Expired(len(uploads), mongo[META].count_documents(temporary))
        gone = mongo[META].delete_many(temporary).deleted_count
    removed = sum(
        mongo.in_transaction(lambda session, id_=id_: _remove(mongo, session, id_)) for id_ in uploads
    )
    return Expired(removed, gone)


def _remove(mongo: Mongo, session: Session, object_id: str) -> int:
    unfinished = {"_id": object_id, "upload_status": {"$ne": UploadStatus.COMPLETED.value}}
    with translated():
        gone = mongo["objects"].delete_one(unfinished, session=session).deleted_count
    marks.erase(mongo, Mark.UPLOAD, object_id, session)
    return gone
