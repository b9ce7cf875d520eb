"""A new version of a blob's metadata: the payload stays where it is, no byte of it moves (P-12).

The same one atomic step as :func:`emboflow_dagster.mongo.objects.put_version`; the new head takes the pointer
(or the bytes inside the document) over from the old one on the server.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pymongo import ReturnDocument

from emboflow_dagster.errors import ObjectNotFoundError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.mongo.client import Mongo, Raw, find_one_and_update, translated
from emboflow_dagster.mongo.objects import FULL_BYTES, SUPERSEDED, archive, as_stored, refusal


def update_metadata(
    mongo: Mongo,
    workspace_id: str,
    object_id: str,
    changes: Mapping[str, Any],
    *,
    actor: str,
    controlled: bool = True,
) -> BlobObject:
    """Make a version that differs from the newest in its metadata only; none where nothing differs.

    Args:
        mongo: The open database.
        workspace_id: Whose object.
        object_id: Which.
        changes: Names of metadata to their new, checked values.
        actor: Who does it.
        controlled: Keep the version before.

    Raises:
        NotFoundError: There is no such object in the workspace.
        ConflictError: The object's versions are kept and this one's would not be.
        IntegrityError: The object is an upload that is not complete.
    """
    put_id = uuid4().hex
    step = _step(changes, put_id, actor, controlled=controlled)
    wanted = as_stored(changes)
    while True:
        with translated():
            after = find_one_and_update(
                mongo["objects"],
                {"_id": object_id, "workspace_id": workspace_id},
                [step],
                return_document=ReturnDocument.AFTER,
                projection={"data": 0, "tail.data": 0},
            )
        if after is None:
            raise ObjectNotFoundError(f"Object not found for object_id={object_id}.")
        if after.get("put_id") == put_id:
            archive(mongo, object_id)
            return BlobObject.from_mongo(after)
        if after.get("upload_status") != "completed":
            raise refusal(after, kept=False)
        if all(after.get(name) == value for name, value in wanted.items()):
            return BlobObject.from_mongo(after)
        if not controlled and isinstance(after.get("tail"), list):
            raise refusal(after, kept=True)
        archive(mongo, object_id)  # full: whoever has to wait finishes what the others left


def _step(changes: Mapping[str, Any], put_id: str, actor: str, *, controlled: bool) -> Raw:
    following: Raw = {
        **{name: {"$literal": value} for name, value in changes.items()},
        "version": {"$add": ["$version", 1]},
        "prev_version": "$version",
        "updated_at": {"$literal": utc_now()},
        "updated_by": {"$literal": actor},
        "owner_record_id": None,  # a new version belongs to nobody yet (C-09)
        "request_id": None,
        "put_id": put_id,
    }
    if controlled:
        following |= {
            "tail": {"$concatArrays": [{"$ifNull": ["$tail", []]}, [SUPERSEDED]]},
            "first_kept": {
                "$cond": [{"$isArray": "$tail"}, {"$ifNull": ["$first_kept", "$$REMOVE"]}, "$version"]
            },
        }
    # A repetition, by someone who did not hear of the first time.
    same = [{"$eq": [f"${name}", {"$literal": value}]} for name, value in changes.items()]
    left: list[Raw] = [
        {"case": {"$ne": ["$upload_status", "completed"]}, "then": "$$ROOT"},
        {"case": {"$and": same}, "then": "$$ROOT"},
        {"case": {"$gt": [{"$bsonSize": "$$ROOT"}, FULL_BYTES]}, "then": "$$ROOT"},
    ]
    if not controlled:
        left.append({"case": {"$isArray": "$tail"}, "then": "$$ROOT"})
    return {
        "$replaceWith": {"$switch": {"branches": left, "default": {"$mergeObjects": ["$$ROOT", following]}}}
    }
