"""Which bytes a Flowcept row means: of two payloads its recorded hash tells the right one (P-22)."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from emboflow_dagster.blobs.flowcept_report import Code
from emboflow_dagster.blobs.flowcept_rows import Say
from emboflow_dagster.errors import IntegrityError
from emboflow_dagster.mongo.flowcept import FlowceptDatabase, as_json


class LostError(Exception):
    """A row's bytes are not to be had; carries why. Never leaves the import."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Found:
    """A payload: bytes that were in the document, or a stream from GridFS."""

    inside: bytes | None = None
    chunks: Iterator[bytes] = field(default_factory=lambda: iter(()))
    content_type: str = "application/octet-stream"

    @property
    def source(self) -> bytes | Iterator[bytes]:
        """What to store."""
        return self.chunks if self.inside is None else self.inside


def payload_of(database: FlowceptDatabase, row: dict[str, Any], say: Say) -> Found:
    """The payload that a row means.

    Raises:
        LostError: There is none, or it cannot be read.
    """
    recorded = row.get("data_sha256")
    pointer = row.get("grid_fs_file_id")
    inside = _inside(row, say)
    if inside is None and pointer is None:
        raise LostError(Code.PAYLOAD_MISSING, "the row has neither data nor a GridFS pointer")
    if inside is None:
        return Found(chunks=_stream(database, pointer))
    if pointer is None:
        return inside
    return _one_of_two(database, inside, pointer, recorded, say)


def _inside(row: dict[str, Any], say: Say) -> Found | None:
    data = row.get("data")
    if "data" not in row or (data is None and row.get("grid_fs_file_id") is not None):
        return None
    if isinstance(data, bytes):
        return Found(data)
    if isinstance(data, str):
        return Found(data.encode(), content_type="text/plain; charset=utf-8")
    say(Code.DATA_NOT_BYTES, f"the payload is a {type(data).__name__}; kept as Extended JSON")
    return Found(as_json(data).encode(), content_type="application/json")


def _one_of_two(database: FlowceptDatabase, inside: Found, pointer: Any, recorded: Any, say: Say) -> Found:
    content = inside.inside or b""
    if recorded is None or hashlib.sha256(content).hexdigest() == recorded:
        say(Code.STALE_POINTER, "beside the recorded data there is a GridFS pointer, left over")
        return inside
    try:
        digest, _ = measured(_stream(database, pointer))
    except LostError as error:
        say(Code.STALE_POINTER, f"data and a GridFS pointer, and {error.message}; data came over")
        return inside
    if digest != recorded:  # neither is what was recorded: what Flowcept itself returns
        say(Code.STALE_POINTER, "data and a GridFS pointer, and neither is what was recorded; data came over")
        return inside
    say(Code.STALE_DATA, "Flowcept returns the bytes of an older version here; the right ones are in GridFS")
    return Found(chunks=_stream(database, pointer))


def _stream(database: FlowceptDatabase, pointer: Any) -> Iterator[bytes]:
    chunks = database.payload(pointer)
    if chunks is None:
        raise LostError(Code.GRIDFS_MISSING, f"there is no GridFS file {pointer}")
    return _reporting(chunks)


def _reporting(chunks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except IntegrityError as error:
        raise LostError(Code.GRIDFS_DAMAGED, error.message) from None


def measured(chunks: Iterable[bytes]) -> tuple[str, int]:
    """Hex sha256 and length of a payload that is read and not stored."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
