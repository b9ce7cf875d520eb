"""Versions of blobs: one document a blob holds the newest, `object_history` the others.

A new version is ONE atomic update (the outbox head): it moves the old head into ``tail`` and puts the
new one in its place, so any number of writers get consecutive versions without a retry loop. The tail
is then archived to `object_history`; whoever comes next finishes an archive left half-done. Head, tail
and history together are the sequence that readers see. What costs what: decisions 16 and 38.

A head without ``tail`` is one whose versions are not kept (``control_version=False``, C-08).

Source: spec/reliability.md finding 1 (1000 of 1000 writers acknowledged, gapless) and finding 7
(``$literal`` around every value).
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple
from uuid import uuid4

from bson import decode, encode
from bson.binary import Binary
from pymongo import DESCENDING, ReturnDocument

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConflictError,
    EmboflowError,
    ErrorKind,
    IntegrityError,
    ObjectNotFoundError,
    TransitionError,
)
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import CODEC, Mongo, Raw, Session, find_one_and_update, translated
from emboflow_dagster.mongo.outbox import Tail, copy, finish, outbox_of
from emboflow_dagster.mongo.settling import settling_of

KEPT_REQUESTS: Final = 64
# Given by the head, not by the writer of a new version.
_KEPT: Final = ("created_at", "created_by")
# Belong to the head alone; a version that moves on leaves them behind.
_HEAD_ONLY: Final = ("tail", "request_ids", "first_kept", "put_id")
# A head this large lets nobody in before its tail is archived; the validator allows 8 MiB.
FULL_BYTES: Final = 4 << 20
WITHOUT_BYTES: Final = {"data": 0, "tail.data": 0}


class Put(NamedTuple):
    """The version that a put came to, and whether it is new."""

    blob: BlobObject
    new: bool


class Found(NamedTuple):
    """A version and, where its home is the document, its bytes."""

    blob: BlobObject
    data: bytes | None


def put_version(
    mongo: Mongo,
    blob: BlobObject,
    *,
    data: bytes | None = None,
    request_id: str | None = None,
    controlled: bool = True,
    compare: bool = True,
    fresh: bool = False,
    keep: Collection[str] = (),
    alike: Collection[str] = (),
) -> Put:
    """Make ``blob`` the newest version of its object.

    Args:
        mongo: The open database.
        blob: Metadata of a payload that is already stored; its version numbers are ignored.
        data: The payload itself, of a blob whose home is the document.
        request_id: Repeating a request with the same id makes no second version.
        controlled: Keep the version before; an object is controlled from the first such put on.
        compare: Content equal to the newest version, in the same home, makes no new one.
        fresh: The id was made up for this put, so that it is most probably new: one insert is tried first.
        keep: Names of metadata that a new version takes over from the one before.
        alike: Names of metadata that must be equal too for :attr:`compare` to call a version equal.

    Returns:
        The version of this request, and whether it is new.

    Raises:
        AlreadyExistsError: The id belongs to an object outside this workspace.
        ConflictError: The object's versions are kept and this one's would not be.
        IntegrityError: The object is an upload that is not complete.
    """
    blob = blob.model_copy(update={"request_id": request_id})
    put_id = uuid4().hex
    fields: Raw = {**blob.to_mongo(), "put_id": put_id}
    if data is not None:
        fields["data"] = Binary(data)
    outbox = outbox_of(mongo)
    # What is remembered of a request leaves the head after some others: by then history must have it.
    stream = outbox.streams(blob.object_id) and not request_id
    if fresh and _inserted(mongo, blob, fields, controlled=controlled):
        return Put(blob.model_copy(update={"version": 0, "prev_version": None}), new=True)
    if request_id and (earlier := _of_request(mongo, blob, request_id)):
        return Put(earlier, new=False)
    step = _step(blob, fields, controlled=controlled, compare=compare, keep=keep, alike=alike)
    while True:
        with outbox.turn(blob.object_id):
            after = carry_out(mongo, blob, step, newest_of_tail=stream)
        if after.get("put_id") == put_id:
            if after.get("tail"):
                moved = follow if stream else archive
                moved(mongo, blob.object_id, after["tail"])
            return Put(_made(after, blob, keep), new=True)
        for row in after.get("request_ids", []):
            if row["id"] == request_id:
                return Put(at_version(mongo, blob.workspace_id, blob.object_id, row["version"]), new=False)
        if after.get("upload_status") != "completed":
            raise refusal(after, kept=False)
        if compare and _equal(after, blob, alike):
            return Put(BlobObject.from_mongo(after), new=False)
        if not controlled and isinstance(after.get("tail"), list):
            raise refusal(after, kept=True)
        archive(mongo, blob.object_id)  # full: whoever has to wait finishes what the others left


def _inserted(mongo: Mongo, blob: BlobObject, fields: Raw, *, controlled: bool) -> bool:
    """Whether this became the first version of a new object."""
    marks = [{"id": blob.request_id, "version": 0}] if blob.request_id else []
    row: Raw = {**fields, "version": 0, "prev_version": None, "request_ids": marks}
    if controlled:
        row["tail"] = []
    try:
        with translated():
            mongo["objects"].insert_one(row)
    except AlreadyExistsError:
        return False
    return True


# The server decides in one step whether there is a new version. The head says whose put it shows: where that
# is another one's, nothing was written, and what is in the head says why. All that the caller gave is one
# literal: thirty, sent twice, take the server longer to parse than to write.


def _step(
    blob: BlobObject,
    fields: Raw,
    *,
    controlled: bool,
    compare: bool,
    keep: Collection[str],
    alike: Collection[str],
) -> Raw:
    known: Raw = {"$ifNull": ["$request_ids", []]}
    number = {"$add": ["$version", 1]}
    first: Raw = {"version": 0, "prev_version": None, "request_ids": marks_of(blob, 0)}
    following: Raw = {
        **{name: f"${name}" for name in (*_KEPT, *keep)},
        "version": number,
        "prev_version": "$version",
        "request_ids": {"$slice": [{"$concatArrays": [marks_of(blob, number), known]}, KEPT_REQUESTS]},
    }
    for name in ("owner_record", "owner_record_field"):  # meant for the same record as before (C-09)
        following[name] = {"$ifNull": [f"$$new.{name}", f"${name}"]}
    if controlled:
        first["tail"] = []
        following |= {
            "tail": {"$concatArrays": [{"$ifNull": ["$tail", []]}, [SUPERSEDED]]},
            "first_kept": {
                "$cond": [{"$isArray": "$tail"}, {"$ifNull": ["$first_kept", "$$REMOVE"]}, "$version"]
            },
        }
    branches: list[Raw] = [
        {
            "case": {"$eq": [{"$type": "$version"}, "missing"]},
            "then": {"$mergeObjects": ["$$new", first]},
        }
    ]

    def leave(condition: Any, then: Any = "$$ROOT") -> None:
        branches.append({"case": condition, "then": then})

    if blob.request_id:
        leave({"$in": [{"$literal": blob.request_id}, {"$ifNull": ["$request_ids.id", []]}]})
    leave({"$ne": ["$upload_status", "completed"]})
    if compare:
        marked = {
            "$slice": [{"$concatArrays": [marks_of(blob, "$version"), known]}, KEPT_REQUESTS]
        }  # remembered although nothing is written: repeated later, it makes no version either
        same = [
            {"$eq": ["$data_sha256", "$$new.data_sha256"]},
            {"$eq": [_HOME, {"$literal": blob.storage_type.value}]},
            *({"$eq": [f"${name}", f"$$new.{name}"]} for name in alike),
        ]
        leave({"$and": same}, {"$mergeObjects": ["$$ROOT", {"request_ids": marked}]})
    if not controlled:
        leave({"$isArray": "$tail"})
    leave({"$gt": [{"$bsonSize": "$$ROOT"}, FULL_BYTES]})
    decided = {"$switch": {"branches": branches, "default": {"$mergeObjects": ["$$new", following]}}}
    return {"$replaceWith": {"$let": {"vars": {"new": {"$literal": fields}}, "in": decided}}}


#: The head as it goes into the tail.
SUPERSEDED: Final = {
    "$arrayToObject": {
        "$filter": {
            "input": {"$objectToArray": "$$ROOT"},
            "cond": {"$not": {"$in": ["$$this.k", list(_HEAD_ONLY)]}},
        }
    }
}
_HOME: Final = {
    "$switch": {
        "branches": [
            {
                "case": {"$eq": [{"$type": "$storage_ref"}, "object"]},
                "then": StorageType.OBJECT_STORE.value,
            },
            {
                "case": {"$in": [{"$type": "$grid_fs_file_id"}, ["string", "objectId"]]},
                "then": StorageType.GRIDFS.value,
            },
        ],
        "default": StorageType.IN_OBJECT.value,
    }
}


def marks_of(blob: BlobObject, number: Any) -> list[Raw]:
    """How a head remembers the request that made the version ``number``."""
    return [{"id": {"$literal": blob.request_id}, "version": number}] if blob.request_id else []


def _equal(raw: Raw, blob: BlobObject, alike: Collection[str]) -> bool:
    found = BlobObject.from_mongo(raw)
    if (found.data_sha256, found.storage_type) != (blob.data_sha256, blob.storage_type):
        return False
    wanted = as_stored({name: getattr(blob, name) for name in alike})
    return all(raw.get(name) == wanted[name] for name in alike)


def as_stored(values: Mapping[str, Any]) -> Raw:
    """Values as the server gives them back: it knows no microseconds."""
    return decode(encode(values), CODEC)


def _made(after: Raw, blob: BlobObject, keep: Collection[str]) -> BlobObject:
    """What was asked for, with what the head gave; dates and dicts are the caller's own, not read back."""
    given = ("version", "prev_version", "created_at", "created_by", "owner_record", "owner_record_field")
    return blob.model_copy(update={name: after[name] for name in (*given, *keep)})


def refusal(raw: Raw, *, kept: bool) -> EmboflowError:
    """Why a head takes no new version: its versions are kept, or its upload is not complete."""
    name = f"{raw['object_id']} version {raw['version']}"
    if kept:
        return ConflictError(
            f"{name}: its versions are kept; a put without version control would lose this one",
            kind=ErrorKind.BLOB_UNCONTROLLED,
            hint="put it with control_version=True, or to another object_id",
        )
    return IntegrityError(
        f"{name}: the upload is {raw.get('upload_status')}, not completed; nothing was stored",
        kind=ErrorKind.BLOB_INCOMPLETE,
        hint="complete the upload first",
    )


def carry_out(mongo: Mongo, blob: BlobObject, step: Raw, *, newest_of_tail: bool = False) -> Raw:
    """Do one step on the head of a blob, which may not be there yet; returns the head after it.

    Of what waits in the tail comes all, or the row alone that the step put there. The bytes of the head do
    not come: the caller has them.
    """
    shown: Raw = {"data": 0, "tail": {"$slice": -1}} if newest_of_tail else {"data": 0}

    def once() -> Raw:
        with translated():
            after = find_one_and_update(
                mongo["objects"],
                {"_id": blob.object_id, "workspace_id": blob.workspace_id},
                [step],
                projection=shown,
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        return after or {}  # an upsert leaves a document

    try:
        return once()
    except AlreadyExistsError:
        # Another writer made the first version meanwhile: this is the second. The server repeats such an
        # upsert only when the filter is the unique key alone.
        try:
            return once()
        except AlreadyExistsError as error:
            raise AlreadyExistsError(f"objects: the id {blob.object_id!r} is taken") from error


def _of_request(mongo: Mongo, blob: BlobObject, request_id: str) -> BlobObject | None:
    """The version that a request made so long ago that the head has forgotten it."""
    scoped = {"object_id": blob.object_id, "request_id": request_id, "workspace_id": blob.workspace_id}
    with translated():
        raw = mongo["object_history"].find_one(scoped, WITHOUT_BYTES)
    return None if raw is None else BlobObject.from_mongo(raw)


def archive(mongo: Mongo, object_id: str, tail: list[Raw] | None = None) -> int:
    """Move what lies in the tail to `object_history`; idempotent. Returns how many it moved.

    Args:
        mongo: The open database.
        object_id: Whose tail.
        tail: What lies in it, when the caller has just read it. Left out: when this returns, nobody reads
            there any more what was moved; else that may follow some moments later.
    """
    if tail is None:
        return finish(mongo, object_id)
    if tail:
        # One version is what every put leaves; more were left by somebody who died, or by a crowd.
        outbox_of(mongo).move(mongo, Tail(object_id, tail, settle=len(tail) > 1))
    return len(tail)


def follow(mongo: Mongo, object_id: str, tail: list[Raw]) -> int:
    """Send rows of a tail to `object_history` and wait for nothing; they stay until they are found there.

    Rows that are too large to be carried along are waited for, as in :func:`archive`.
    """
    sent = Tail(object_id, tail)
    if not sent.light:
        outbox_of(mongo).wait_again(object_id)  # the next one moves whatever else is in the tail
        return archive(mongo, object_id, tail)
    copy(mongo, sent)
    settling_of(mongo).add(object_id)  # what else waits in the tail is found by the way
    return len(tail)


def head(mongo: Mongo, workspace_id: str, object_id: str, *, session: Session | None = None) -> BlobObject:
    """The newest version.

    Raises:
        NotFoundError: There is no such object in the workspace.
    """
    with translated():
        raw = mongo["objects"].find_one(
            {"_id": object_id, "workspace_id": workspace_id}, {"tail": 0, "data": 0}, session=session
        )
    if raw is None:
        raise ObjectNotFoundError(f"Object not found for object_id={object_id}.")
    return BlobObject.from_mongo(raw)


def at_version(mongo: Mongo, workspace_id: str, object_id: str, version: int) -> BlobObject:
    """One version, wherever it is kept.

    Raises:
        NotFoundError: There is no such object or version in the workspace.
    """
    found = _row(mongo, workspace_id, object_id, version, WITHOUT_BYTES)
    if found is None:
        raise ObjectNotFoundError(f"Object not found for object_id={object_id}, version={version}.")
    return BlobObject.from_mongo(found)


def with_data(mongo: Mongo, workspace_id: str, object_id: str, version: int | None) -> Found:
    """The newest or one exact version, with its payload where that is in the document; one command.

    Raises:
        NotFoundError: There is no such object or version in the workspace.
    """
    if version is None:
        with translated():
            raw = mongo["objects"].find_one({"_id": object_id, "workspace_id": workspace_id}, {"tail": 0})
    else:
        raw = _row(mongo, workspace_id, object_id, version, None)
    if raw is None:
        number = "" if version is None else f", version={version}"
        raise ObjectNotFoundError(f"Object not found for object_id={object_id}{number}.")
    content = raw.pop("data", None)
    return Found(BlobObject.from_mongo(raw), None if content is None else bytes(content))


def data(mongo: Mongo, workspace_id: str, object_id: str, version: int) -> bytes:
    """The payload of a version whose home is its document.

    Raises:
        IntegrityError: It is not there.
    """
    found = _row(mongo, workspace_id, object_id, version, None) or {}
    content = found.get("data")
    if content is None:
        raise IntegrityError(
            f"{object_id} version {version}: no payload is recorded", kind=ErrorKind.PAYLOAD_MISSING
        )
    return bytes(content)


def _row(
    mongo: Mongo, workspace_id: str, object_id: str, version: int, projection: Mapping[str, int] | None
) -> Raw | None:
    scoped = {"workspace_id": workspace_id}
    older = {"object_id": object_id, "version": version, **scoped}
    with translated():
        raw = mongo["objects"].find_one({"_id": object_id, **scoped}, projection)
        if raw is None:
            return None
        for row in [raw, *_waiting(raw)]:
            if row["version"] == version:
                found: Raw = row
                return found
        return mongo["object_history"].find_one(older, projection) if version < raw["version"] else None


def _waiting(raw: Raw) -> list[Raw]:
    """What is in a head's tail, under the ids that it has in the history."""
    return Tail(raw["object_id"], raw.get("tail") or []).history()


def history(
    mongo: Mongo, workspace_id: str, object_id: str, *, below: int | None = None, limit: int = 100
) -> list[BlobObject]:
    """Versions newest first, at most ``limit``, all below ``below`` when given; ``[]`` for an unknown id."""
    scoped = {"workspace_id": workspace_id}
    with translated():
        raw = mongo["objects"].find_one({"_id": object_id, **scoped}, WITHOUT_BYTES)
        if raw is None:
            return []
        top = raw["version"] + 1 if below is None else below
        rows = {row["version"]: row for row in [raw, *_waiting(raw)] if row["version"] < top}
        older = mongo["object_history"].find(
            {"object_id": object_id, "version": {"$lt": top}, **scoped}, WITHOUT_BYTES
        )
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
