"""Versions that keep the numbers they had elsewhere.

The one atomic step of :mod:`emboflow_dagster.mongo.objects`, with the number given instead of counted: it
happens only on the head that comes right before. So a half-done import is a shorter object, whole in itself.
"""

from collections.abc import Sequence
from contextlib import suppress
from uuid import uuid4

from bson.binary import Binary

from emboflow_dagster.errors import ConflictError, NotFoundError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.mongo.client import Mongo, Raw
from emboflow_dagster.mongo.objects import (
    FULL_BYTES,
    KEPT_REQUESTS,
    SUPERSEDED,
    Put,
    archive,
    at_version,
    carry_out,
    marks_of,
    refusal,
)


def put_exactly(
    mongo: Mongo, blob: BlobObject, *, data: bytes | None = None, lost: Sequence[BlobObject] = ()
) -> Put:
    """Make ``blob`` the newest version of its object, under the number that it has.

    Args:
        mongo: The open database.
        blob: A version whose payload is stored, with a ``request_id``; repeated, it makes no second one.
            Where there is no such object yet, its versions are kept from this one on.
        data: The payload itself, of a blob whose home is the document.
        lost: Versions between the head and ``blob`` that have no payload; they take their numbers.

    Raises:
        AlreadyExistsError: The id belongs to an object outside this workspace.
        ConflictError: The object is here, and its newest version is not the one before.
        IntegrityError: The object is an upload that is not complete.
    """
    put_id = uuid4().hex
    step = _step(blob, data, put_id, lost)
    before = blob.version - 1 - len(lost)
    while True:
        after = carry_out(mongo, blob, step)
        if after.get("put_id") == put_id:
            archive(mongo, blob.object_id)
            return Put(blob, new=True)
        if after["version"] != before:
            if earlier := _same(mongo, blob, after["version"]):
                return Put(earlier, new=False)
            raise ConflictError(
                f"{blob.object_id}: its newest version here is {after['version']}; "
                f"version {blob.version} can only follow {before}"
            )
        if after.get("upload_status") != "completed":
            raise refusal(after, kept=False)
        archive(mongo, blob.object_id)  # full: whoever has to wait finishes what the others left


def _same(mongo: Mongo, blob: BlobObject, newest: int) -> BlobObject | None:
    """The version, where an earlier or another import has brought it already."""
    if newest < blob.version:
        return None
    with suppress(NotFoundError):
        found = at_version(mongo, blob.workspace_id, blob.object_id, blob.version)
        return found if found.request_id == blob.request_id else None
    return None


def _step(blob: BlobObject, data: bytes | None, put_id: str, lost: Sequence[BlobObject]) -> Raw:
    fields: Raw = {**blob.to_mongo(), "put_id": put_id}
    if data is not None:
        fields["data"] = Binary(data)
    marks = marks_of(blob, blob.version)
    known = {"$ifNull": ["$request_ids", []]}
    new: Raw = {name: {"$literal": value} for name, value in fields.items()}
    first: Raw = {**new, "tail": [], "request_ids": marks}
    if blob.version:
        first["first_kept"] = blob.version
    rows = [{"$literal": row.to_mongo()} for row in lost]
    following: Raw = {
        **new,
        "tail": {"$concatArrays": [{"$ifNull": ["$tail", []]}, [SUPERSEDED, *rows]]},
        "request_ids": {"$slice": [{"$concatArrays": [marks, known]}, KEPT_REQUESTS]},
        "first_kept": {
            "$cond": [{"$isArray": "$tail"}, {"$ifNull": ["$first_kept", "$$REMOVE"]}, "$version"]
        },
    }
    left = [
        {"$ne": ["$version", blob.version - 1 - len(lost)]},
        {"$ne": ["$upload_status", "completed"]},
        {"$gt": [{"$bsonSize": "$$ROOT"}, FULL_BYTES]},
    ]
    branches: list[Raw] = [
        {"case": {"$eq": [{"$type": "$version"}, "missing"]}, "then": first},
        {"case": {"$or": left}, "then": "$$ROOT"},
    ]
    return {"$replaceWith": {"$switch": {"branches": branches, "default": following}}}
