"""The one way that a stored version is written again: with the very bytes that it records."""

from bson.binary import Binary

from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.mongo.client import Mongo, Raw, translated


def put_back(
    mongo: Mongo, blob: BlobObject, *, data: bytes | None = None, grid_fs_file_id: str | None = None
) -> None:
    """Give a version its payload again, where it is not in the object store.

    Nothing but the payload is written, and only into the version that has the recorded hash: a head that
    moved on meanwhile is left alone, its old version is found in the outbox or in the history.

    Raises:
        NotFoundError: The version is not there any more.
    """
    new: Raw = {"data": Binary(data)} if data is not None else {"grid_fs_file_id": grid_fs_file_id}
    version = {
        "object_id": blob.object_id,
        "version": blob.version,
        "workspace_id": blob.workspace_id,
        "data_sha256": blob.data_sha256,
    }
    in_tail = {"version": blob.version, "data_sha256": blob.data_sha256}
    with translated():
        for _ in range(2):  # it may move from head to outbox to history while it is looked for
            if mongo["objects"].update_one(version, {"$set": new}).matched_count:
                return
            tail = mongo["objects"].update_one(
                {"_id": blob.object_id, "workspace_id": blob.workspace_id, "tail": {"$elemMatch": in_tail}},
                {"$set": {f"tail.$[row].{name}": value for name, value in new.items()}},
                array_filters=[{f"row.{name}": value for name, value in in_tail.items()}],
            )
            history = mongo["object_history"].update_one(version, {"$set": new})
            if tail.matched_count or history.matched_count:
                return
    raise NotFoundError(f"Object not found for object_id={blob.object_id}, version={blob.version}.")
