"""Versions that were let go, as who reads or puts meets them (decision 13)."""

from typing import Any

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import marks, objects
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.mongo.objects import Put


def explained(
    mongo: Mongo, workspace_id: str, object_id: str, version: int, error: IntegrityError
) -> IntegrityError:
    """The failure of a read; of a version whose bytes were collected it says when and why."""
    if error.kind is not ErrorKind.PAYLOAD_MISSING:
        return error
    note = marks.read(mongo, Mark.TOMBSTONE, name_of(object_id, version))
    if note is None or note.get("workspaceId") != workspace_id:
        return error
    return IntegrityError(
        f"{object_id} version {version}: was withdrawn ({note.get('why')}); its bytes were collected by "
        f"{note.get('by')} on {note['createdAt']:%Y-%m-%d %H:%M} UTC (sha256 {note.get('sha256')})",
        kind=ErrorKind.BLOB_WITHDRAWN,
        hint="put the bytes again: that makes a new version",
    )


def kept(mongo: Mongo, put: Put, blob: BlobObject, *, request_id: str | None, **how: Any) -> Put:
    """``put``, or a version of its own where content equal to a version that was let go made none.

    What was put is kept, so it cannot be a version that is about to be collected. The second try has a
    request id that follows from the first one's: repeated, both are answered as before.
    """
    if put.new:
        return put
    name = name_of(put.blob.object_id, put.blob.version)
    notes = [f"{kind.value}:{name}" for kind in (Mark.RELEASE, Mark.TOMBSTONE)]
    with translated():
        let_go = mongo[META].find_one({"_id": {"$in": notes}}, {"_id": 1}) is not None
    if not let_go or _answered(put, blob, request_id):
        return put
    again = f"{request_id}/kept" if request_id else None
    return objects.put_version(mongo, blob, request_id=again, compare=False, **how)


def _answered(put: Put, blob: BlobObject, request_id: str | None) -> bool:
    """Whether the version is this request's own from long ago, rather than equal to what is put now."""
    return request_id is not None and (
        put.blob.request_id == request_id or put.blob.data_sha256 != blob.data_sha256
    )
