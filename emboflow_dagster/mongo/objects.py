"""Versions of blobs: one document a blob holds the newest, `object_history` the others.

A new version is ONE atomic update (the outbox head): it moves the old head into ``tail`` and puts the
new one in its place, so any number of writers get consecutive versions without a retry loop. The tail
is then archived to `object_history`; whoever comes next finishes an archive left half-done. Head, tail
and history together are the sequence that readers see.

Source: spec/reliability.md finding 1 (1000 of 1000 writers acknowledged, gapless) and finding 7
(``$literal`` around every value).
"""

from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from emboflow_dagster.errors import AlreadyExistsError, NotFoundError, TransitionError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, Raw, Session, find_one_and_update, translated

_KEPT_REQUESTS = 16
_DUPLICATE_KEY = 11000
# Given by the head, not by the writer of a new version.
_KEPT = ("created_at", "created_by")


def put_version(mongo: Mongo, blob: BlobObject, *, request_id: str | None = None) -> tuple[BlobObject, bool]:
    """Make ``blob`` the newest version of its object.

    Args:
        mongo: The open database.
        blob: Metadata of a payload that is already stored; its version numbers are ignored.
        request_id: Repeating a request with the same id makes no second version.

    Returns:
        The newest version as stored, and whether it is new: content equal to the latest is not.

    Raises:
        AlreadyExistsError: The id belongs to an object outside this workspace.
    """
    fields = blob.to_mongo()
    new: Raw = {k: {"$literal": v} for k, v in fields.items()}
    marks = [request_id] if request_id else []
    first = {
        **new,
        "version": 0,
        "prev_version": None,
        "request_ids": {"$literal": marks},
        "tail": [],
    }
    known: Raw = {"$ifNull": ["$request_ids", []]}
    marked: Raw = {"$slice": [{"$concatArrays": [{"$literal": marks}, known]}, _KEPT_REQUESTS]}
    old = {
        "$arrayToObject": {
            "$filter": {
                "input": {"$objectToArray": "$$ROOT"},
                "cond": {"$not": {"$in": ["$$this.k", ["tail", "request_ids"]]}},
            }
        }
    }
    following = {
        **new,
        **{name: f"${name}" for name in _KEPT},
        "version": {"$add": ["$version", 1]},
        "prev_version": "$version",
        "request_ids": marked,
        "tail": {"$concatArrays": [{"$ifNull": ["$tail", []]}, [old]]},
    }
    step = {
        "$replaceWith": {
            "$switch": {
                "branches": [
                    {"case": {"$eq": [{"$type": "$version"}, "missing"]}, "then": first},
                    {"case": {"$in": [{"$literal": request_id}, known]}, "then": "$$ROOT"},
                    {
                        "case": {"$eq": ["$data_sha256", {"$literal": fields["data_sha256"]}]},
                        # Remembered although nothing is written: repeated later, it makes no version either.
                        "then": {"$mergeObjects": ["$$ROOT", {"request_ids": marked}]},
                    },
                ],
                "default": following,
            }
        }
    }
    try:
        before = _step(mongo, blob, step)
    except AlreadyExistsError:
        # Another writer made the first version meanwhile: this is the second. The server repeats such an
        # upsert only when the filter is the unique key alone.
        try:
            before = _step(mongo, blob, step)
        except AlreadyExistsError as error:
            raise AlreadyExistsError(f"objects: the id {blob.object_id!r} is taken") from error
    if before is None:
        return blob.model_copy(update={"version": 0, "prev_version": None}), True
    if before["data_sha256"] == fields["data_sha256"] or (
        request_id and request_id in before.get("request_ids", [])
    ):
        return head(mongo, blob.workspace_id, blob.object_id), False
    archive(mongo, blob.object_id)
    return at_version(mongo, blob.workspace_id, blob.object_id, before["version"] + 1), True


def _step(mongo: Mongo, blob: BlobObject, step: Raw) -> Raw | None:
    with translated():
        return find_one_and_update(
            mongo["objects"],
            {"_id": blob.object_id, "workspace_id": blob.workspace_id},
            [step],
            upsert=True,
            return_document=ReturnDocument.BEFORE,
            projection={"version": 1, "data_sha256": 1, "request_ids": 1},
        )


def archive(mongo: Mongo, object_id: str) -> int:
    """Move what lies in the tail to `object_history`; idempotent. Returns how many it moved."""
    with translated():
        raw = mongo["objects"].find_one({"_id": object_id, "tail.0": {"$exists": True}}, {"tail": 1})
        if raw is None:
            return 0
        rows = [{**row, "_id": f"{object_id}.v{row['version']}"} for row in raw["tail"]]
        try:
            mongo["object_history"].insert_many(rows, ordered=False)
        except BulkWriteError as error:
            other = [e for e in error.details["writeErrors"] if e["code"] != _DUPLICATE_KEY]
            # Not yet durable is not yet archived: the tail keeps it for whoever comes next.
            if other or error.details["writeConcernErrors"]:
                raise
        except DuplicateKeyError:
            pass
        mongo["objects"].update_one(
            {"_id": object_id}, {"$pull": {"tail": {"version": {"$in": [row["version"] for row in rows]}}}}
        )
    return len(rows)


def head(mongo: Mongo, workspace_id: str, object_id: str, *, session: Session | None = None) -> BlobObject:
    """The newest version.

    Raises:
        NotFoundError: There is no such object in the workspace.
    """
    with translated():
        raw = mongo["objects"].find_one(
            {"_id": object_id, "workspace_id": workspace_id}, {"tail": 0}, session=session
        )
    if raw is None:
        raise NotFoundError(f"Object not found for object_id={object_id}.")
    return BlobObject.from_mongo(raw)


def at_version(mongo: Mongo, workspace_id: str, object_id: str, version: int) -> BlobObject:
    """One version, wherever it is kept.

    Raises:
        NotFoundError: There is no such object or version in the workspace.
    """
    scoped = {"workspace_id": workspace_id}
    with translated():
        raw = mongo["objects"].find_one({"_id": object_id, **scoped})
        if raw is not None:
            rows = [raw, *raw.get("tail", [])]
            found = next((row for row in rows if row["version"] == version), None)
            if found is None:
                found = mongo["object_history"].find_one(
                    {"object_id": object_id, "version": version, **scoped}
                )
            if found is not None:
                return BlobObject.from_mongo(found)
    raise NotFoundError(f"Object not found for object_id={object_id}, version={version}.")


def history(
    mongo: Mongo, workspace_id: str, object_id: str, *, below: int | None = None, limit: int = 100
) -> list[BlobObject]:
    """Versions newest first, at most ``limit``, all below ``below`` when given; ``[]`` for an unknown id."""
    scoped = {"workspace_id": workspace_id}
    with translated():
        raw = mongo["objects"].find_one({"_id": object_id, **scoped})
        if raw is None:
            return []
        top = raw["version"] + 1 if below is None else below
        rows = {row["version"]: row for row in [raw, *raw.get("tail", [])] if row["version"] < top}
        older = mongo["object_history"].find({"object_id": object_id, "version": {"$lt": top}, **scoped})
        for row in older.sort("version", DESCENDING).limit(limit):
            rows.setdefault(row["version"], row)
    newest_first = sorted(rows.values(), key=lambda row: -row["version"])[:limit]
    return [BlobObject.from_mongo(row) for row in newest_first]


def insert_owned(mongo: Mongo, blob: BlobObject, session: Session) -> None:
    """Record a new blob that has its owner from the first moment, in the owner's own transaction."""
    mongo["objects"].insert_one({**blob.to_mongo(), "request_ids": [], "tail": []}, session=session)


def own(
    mongo: Mongo,
    scope: Scope,
    session: Session,
    *,
    object_id: str,
    version: int,
    record: str,
    field: str,
    record_id: str,
) -> None:
    """Make a record the owner of the newest version of a blob, in the record's own transaction.

    Raises:
        TransitionError: The version is not the newest any more, is meant for another record or field,
            or has an owner.
    """
    changed = mongo["objects"].update_one(
        {
            "_id": object_id,
            "version": version,
            "workspace_id": scope.workspace_id,
            "owner_record_id": None,
            "owner_record": {"$in": [None, record]},
            "owner_record_field": {"$in": [None, field]},
        },
        {"$set": {"owner_record": record, "owner_record_field": field, "owner_record_id": record_id}},
        session=session,
    )
    if changed.matched_count != 1:
        raise TransitionError(
            f"objects {object_id} version {version}: is not the newest version, is meant for another "
            f"record than {record}.{field}, or has an owner; nothing was changed"
        )
