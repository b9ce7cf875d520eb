"""Files in GridFS, by the driver's own layout (`fs.files`, `fs.chunks`): every client can read them.

Chunks first, the file's document last: a crash leaves chunks without a file, which :func:`orphan_chunks`
finds, never a file without its bytes. Nothing here is made before the first file, so a deployment that allows
no GridFS has no such collections (R-034).

Source: MongoDB's GridFS specification. Ours: ids are strings (``gfs_...``); a file that another program wrote
has an ``ObjectId``, and is found by its 24 hexadecimal digits as well.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from bson.objectid import ObjectId
from pymongo import ASCENDING

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo.client import Mongo, Raw, translated

FILES: Final = "fs.files"
CHUNKS: Final = "fs.chunks"
CHUNK_BYTES: Final = 256 << 10
# Chunks a round trip: 4 MiB are in memory, and a reader may be as slow as it likes, for no cursor stays open.
_BATCH: Final = 16


class GridFile(NamedTuple):
    """One file: its id as a blob names it, its length in bytes, when it was uploaded (UTC)."""

    file_id: str
    size: int
    uploaded_at: datetime


class Upload:
    """A file that is being written, block after block; it is there when :meth:`finish` returned.

    Args:
        mongo: The open database.
        file_id: Its id: of ours a string, of another program's database whatever that uses.
        metadata: Kept in the file's document.
    """

    def __init__(self, mongo: Mongo, file_id: object, metadata: Raw) -> None:
        self._mongo = mongo
        self._id = file_id
        self._metadata = metadata
        self._number = 0
        self._size = 0
        with translated():  # the driver makes the same two, on the first file
            mongo[FILES].create_index([("filename", ASCENDING), ("uploadDate", ASCENDING)])
            mongo[CHUNKS].create_index([("files_id", ASCENDING), ("n", ASCENDING)], unique=True)

    def write(self, block: memoryview) -> None:
        """The next bytes; only the last block may be no multiple of ``CHUNK_BYTES``."""
        rows = [
            {
                "files_id": self._id,
                "n": self._number + number,
                "data": bytes(block[start : start + CHUNK_BYTES]),
            }
            for number, start in enumerate(range(0, len(block), CHUNK_BYTES))
        ]
        if rows:
            with translated():
                self._mongo[CHUNKS].insert_many(rows, ordered=True)
        self._number += len(rows)
        self._size += len(block)

    def finish(self, **more: Any) -> None:
        """Make the file visible, with what is known about it by now."""
        row = {
            "_id": self._id,
            "length": self._size,
            "chunkSize": CHUNK_BYTES,
            "uploadDate": utc_now(),
            "metadata": {**self._metadata, **more},
        }
        with translated():
            self._mongo[FILES].insert_one(row)

    def abort(self) -> None:
        """Take away what was written."""
        with translated():
            self._mongo[CHUNKS].delete_many({"files_id": self._id})


def find(mongo: Mongo, file_id: object) -> Raw | None:
    """The file's document (`fs.files`), or ``None``."""
    with translated():
        return mongo[FILES].find_one({"_id": {"$in": _spellings(file_id)}})


def chunks(mongo: Mongo, file: Raw) -> Iterator[bytes]:
    """The bytes of a file, a chunk at a time.

    Args:
        mongo: The open database.
        file: Its document, as :func:`find` returns it.

    Raises:
        IntegrityError: A chunk is missing or is no chunk.
    """
    number, left = 0, int(file["length"])
    while left > 0:
        with translated():
            rows = list(
                mongo[CHUNKS]
                .find({"files_id": file["_id"], "n": {"$gte": number, "$lt": number + _BATCH}})
                .sort("n", ASCENDING)
            )
        for row in rows:
            if row["n"] != number or left <= 0:
                break
            number, left = number + 1, left - len(row["data"])
            yield bytes(row["data"])
        if left > 0 and (not rows or rows[-1]["n"] != number - 1):
            raise IntegrityError(
                f"GridFS file {file['_id']}: chunk {number} is missing, with it {left} bytes",
                kind=ErrorKind.SIZE_MISMATCH if number else ErrorKind.PAYLOAD_MISSING,
            )


def delete(mongo: Mongo, file_id: object) -> bool:
    """Remove a file; whether there was one. Its document goes first: no reader finds half a file."""
    spellings = _spellings(file_id)
    with translated():
        gone = mongo[FILES].delete_one({"_id": {"$in": spellings}})
        mongo[CHUNKS].delete_many({"files_id": {"$in": spellings}})
    return gone.deleted_count == 1


def iter_files(
    mongo: Mongo, workspace_id: str | None = None, *, before: datetime | None = None
) -> Iterator[GridFile]:
    """Every file, in order of its id, without holding them all in memory.

    Args:
        mongo: The open database.
        workspace_id: Only those of this workspace.
        before: Only those uploaded before.
    """
    limits: Raw = {}
    if workspace_id is not None:
        limits["metadata.workspace_id"] = workspace_id
    if before is not None:
        limits["uploadDate"] = {"$lt": before}
    with translated():
        for row in mongo[FILES].find(limits, {"length": 1, "uploadDate": 1}).sort("_id", ASCENDING):
            yield GridFile(str(row["_id"]), int(row["length"]), row["uploadDate"])


def orphan_chunks(mongo: Mongo, *, before: datetime) -> Iterator[str]:
    """Ids of files that have chunks and no document, their last chunk older than ``before``.

    An upload that died leaves them; one that is still going on has a young last chunk.
    """
    pipeline: list[Raw] = [
        {"$sort": {"files_id": 1, "n": 1}},  # with the group a scan over distinct keys of the index
        {"$group": {"_id": "$files_id"}},
        {"$lookup": {"from": FILES, "localField": "_id", "foreignField": "_id", "as": "file"}},
        {"$match": {"file": []}},
        {"$project": {"_id": 1}},
    ]
    with translated():
        for row in mongo[CHUNKS].aggregate(pipeline):
            last = mongo[CHUNKS].find_one({"files_id": row["_id"]}, {"_id": 1}, sort=[("n", -1)])
            made = last["_id"] if last else None
            # An id that is no ObjectId tells no time; such a chunk is not ours to judge.
            if isinstance(made, ObjectId) and made.generation_time.astimezone(UTC) < before:
                yield str(row["_id"])


def _spellings(file_id: object) -> list[object]:
    if isinstance(file_id, str) and ObjectId.is_valid(file_id):
        return [file_id, ObjectId(file_id)]
    return [file_id]
