"""Reading with the hash in hand: the last byte is handed out only if all of them were the right ones."""

import hashlib
import io
import os
import secrets
from abc import abstractmethod
from pathlib import Path
from typing import IO, Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.object_storage.disk import naming_failures

BUFFER_BYTES: Final = 1024 * 1024
#: How far the disk reads ahead of the hash.
AHEAD_BYTES: Final = 8 * BUFFER_BYTES


class VerifiedReader(io.BufferedReader):
    """A binary stream over one payload. Only what was read to its end is verified; see :attr:`verified`."""

    def __init__(self, raw: "HashingRaw") -> None:
        super().__init__(raw, BUFFER_BYTES)
        self._hashing = raw

    @property
    def verified(self) -> bool:
        """Whether the whole payload went by and matched. ``False`` for a range, or a stream closed early."""
        return self._hashing.verified


def open_verified(
    path: Path, key: str, *, sha256: str, size: int, offset: int = 0, length: int | None = None
) -> VerifiedReader:
    """Open ``path`` for reading; a whole read is verified, a range is only checked for its length.

    Raises:
        IntegrityError: The file's size is not ``size``. Later, from a read: the digest is not ``sha256``.
        FileNotFoundError: There is no such file.
    """
    file = _HashingFile(path, key, sha256, size, offset, length)
    try:
        return VerifiedReader(file)
    except BaseException:
        file.close()
        raise


def save(stream: IO[bytes], path: Path) -> Path:
    """Write a verified stream to ``path``, which is replaced only when all of it was right.

    Raises:
        IntegrityError: From the stream; nothing is left there.
        UnavailableError: The disk did not take it.
    """
    part = part_of(path)
    with naming_failures(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        out = io.FileIO(part, "x")
    try:
        with out:
            while chunk := stream.read(BUFFER_BYTES):
                with naming_failures(path.parent):
                    view = memoryview(chunk)
                    while view:
                        view = view[out.write(view) :]
        with naming_failures(path.parent):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def part_of(path: Path) -> Path:
    """The name beside ``path`` of what is being written there."""
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")


def mismatch(key: str, found_sha256: str, found_size: int, sha256: str, size: int) -> IntegrityError:
    """The error for a payload that is not what was recorded; names both sizes and both digests."""
    return IntegrityError(
        f"{key}: found {found_size} bytes with sha256 {found_sha256}, recorded are {size} with {sha256}",
        kind=ErrorKind.HASH_MISMATCH if found_size == size else ErrorKind.SIZE_MISMATCH,
    ).with_found(found_sha256, found_size)


class HashingRaw(io.RawIOBase):
    """``offset`` to ``offset + length`` of one payload, hashed as it goes by; where from, a subclass says."""

    def __init__(self, key: str, sha256: str, size: int, offset: int = 0, length: int | None = None) -> None:
        super().__init__()
        self.verified = False
        self._key = key
        self._expected = sha256
        self._size = size
        end = size if length is None else min(size, offset + length)
        self._whole = offset == 0 and end == size
        self._left = max(0, end - offset)
        self._digest = hashlib.sha256()

    @abstractmethod
    def _take(self, view: memoryview) -> int:
        """Fill the beginning of ``view``, never with nothing."""

    def _settle(self, last: memoryview) -> None:
        """Decide about the payload before its ``last`` bytes are handed out.

        Raises:
            IntegrityError: The digest is another one.
        """
        del last
        found = self._digest.hexdigest()
        if found != self._expected:
            raise mismatch(self._key, found, self._size, self._expected, self._size)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the beginning of ``buffer``; 0 only at the end."""
        view = memoryview(buffer).cast("B")[: self._left]
        if not view:
            return 0
        count = self._take(view)
        self._passed(view[:count])
        return count

    def readall(self) -> bytes:
        """All that is left."""
        content = bytearray(self._left)
        view = memoryview(content)
        while view:
            view = view[self.readinto(view[:BUFFER_BYTES]) :]
        return bytes(content)

    def _passed(self, block: memoryview) -> None:
        self._digest.update(block)
        self._left -= len(block)
        if self._left == 0 and self._whole:
            # Before these bytes are returned: whoever reads to the end has verified bytes or an error.
            self._settle(block)
            self.verified = True


class _HashingFile(HashingRaw):
    def __init__(self, path: Path, key: str, sha256: str, size: int, offset: int, length: int | None) -> None:
        super().__init__(key, sha256, size, offset, length)
        self._folder = path.parent
        self._hinted = offset
        self._at = offset
        self._file = io.FileIO(path)
        try:
            self._check_size(size)
            self._file.seek(offset)
            if self._whole and size == 0:
                self._passed(memoryview(b""))
        except BaseException:
            self._file.close()
            raise

    def _check_size(self, size: int) -> None:
        found = self._file.seek(0, io.SEEK_END)
        if found != size:
            self._file.seek(0)  # damaged: read it all, to name both digests
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()
            raise mismatch(self._key, digest, found, self._expected, size)

    def _take(self, view: memoryview) -> int:
        with naming_failures(self._folder):
            if self._left > BUFFER_BYTES and self._at + AHEAD_BYTES // 2 >= self._hinted:
                # What a long put wrote is in no cache: let the disk work while this one hashes.
                os.posix_fadvise(self._file.fileno(), self._hinted, AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
                self._hinted += AHEAD_BYTES
            count = self._file.readinto(view)
        self._at += count or 0
        if not count:
            raise IntegrityError(
                f"{self._key}: the file ended {self._left} bytes early (sha256 {self._expected})",
                kind=ErrorKind.SIZE_MISMATCH,
            )
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
