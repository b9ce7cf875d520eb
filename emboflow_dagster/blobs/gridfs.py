"""The home of payloads in GridFS: streamed in and out, as well verified as the object store."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, UnavailableError
from emboflow_dagster.model.base import new_id
from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.object_storage.payload import Source, filling
from emboflow_dagster.object_storage.pump import Digest, new_buffer, pump
from emboflow_dagster.object_storage.verified import BUFFER_BYTES, mismatch

PREFIX: Final = "gfs"


def put(mongo: Mongo, source: Source, *, workspace_id: str, content_type: str) -> tuple[str, Digest]:
    """Store a payload as a new file; memory does not grow with its size.

    Returns:
        The file's id, and what it holds: hex sha256 and bytes.

    Raises:
        InvalidInputError: ``source`` is no payload.
        UnavailableError: The database does not take it; nothing is left there but what it cannot remove.
    """
    file_id = new_id(PREFIX)
    with filling(source) as fill:
        first = new_buffer()
        filled = fill(first)
        upload = gridfs.Upload(mongo, file_id, {"workspace_id": workspace_id, "content_type": content_type})
        try:
            digest = pump(fill, upload.write, first, filled)
            upload.finish(sha256=digest.sha256)
        except BaseException:
            # Best effort: what stays is a file without its document, which gc collects.
            _abort(upload)
            raise
    return file_id, digest


def _abort(upload: gridfs.Upload) -> None:
    with suppress(UnavailableError):  # the one that stopped the upload
        upload.abort()


def open_verified(mongo: Mongo, file_id: str, *, sha256: str, size: int) -> IO[bytes]:
    """A stream over a file, hashed as it is read; the last bytes of a damaged one are never returned.

    Raises:
        IntegrityError: It is missing, or not of that size; from a read: a chunk is missing, or the digest is
            another one.
    """
    name = f"GridFS file {file_id}"
    file = gridfs.find(mongo, file_id)
    if file is None:
        raise IntegrityError(
            f"{name}: the payload is missing (sha256 {sha256})", kind=ErrorKind.PAYLOAD_MISSING
        )
    content = gridfs.chunks(mongo, file)
    if file["length"] != size:  # damaged: read it all, to name both digests
        digest, found = hashlib.sha256(), 0
        for chunk in content:
            digest.update(chunk)
            found += len(chunk)
        raise mismatch(name, digest.hexdigest(), found, sha256, size)
    return io.BufferedReader(_Hashing(content, name, sha256, size), BUFFER_BYTES)


class _Hashing(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes], name: str, sha256: str, size: int) -> None:
        super().__init__()
        self._chunks = chunks
        self._name = name
        self._recorded = (sha256, size)
        self._digest = hashlib.sha256()
        self._found = 0
        self._rest = memoryview(b"")
        self.verified = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._rest and not self.verified:
            self._rest = memoryview(self._next())
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self) -> bytes:
        """The next chunk, the last one only when all of them were the right ones."""
        chunk = next(self._chunks, b"")
        self._digest.update(chunk)
        self._found += len(chunk)
        sha256, size = self._recorded
        if self._found >= size or not chunk:
            digest = self._digest.hexdigest()
            if (digest, self._found) != (sha256, size):
                raise mismatch(self._name, digest, self._found, sha256, size)
            self.verified = True
        return chunk
