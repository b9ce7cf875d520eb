"""What goes into a store and what is known about it afterwards."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Final, TypeAlias

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.model.text import check_sha256

#: A payload, read once from its current position to its end; a stream is not closed.
Source: TypeAlias = bytes | bytearray | memoryview | Path | IO[bytes] | Iterable[bytes]
#: Fills a buffer from its start; fewer bytes than fit only at the end of the payload.
Fill: TypeAlias = Callable[[memoryview], int]
PREFIX: Final = "sha256"
#: A put that did not go on for so long will not any more.
STALE_AFTER_S: Final = 24 * 3600


@dataclass(frozen=True)
class StoredObject:
    """One stored payload: where it is, its hex sha256 and its size in bytes.

    ``young``: it was written or touched by this put, so its time alone protects it from gc.
    """

    bucket: str
    key: str
    uri: str
    sha256: str
    size: int
    young: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class ObjectStat:
    """What the store says about a key without reading it: size in bytes, last put in UTC."""

    key: str
    size: int
    modified_at: datetime


@dataclass(frozen=True)
class StaleUpload:
    """A put that began and never ended: its temporary file, or its multipart upload and that one's key.

    ``size`` is what it holds in bytes, where the store says so; ``upload_id`` is what the server calls a
    multipart upload.
    """

    name: str
    started_at: datetime
    size: int | None
    upload_id: str | None = None


def key_of(sha256: str) -> str:
    """The key of a payload: its hash, with a two-character shard.

    >>> key_of("ab" + "cd" * 31)[:16]
    'sha256/ab/cdcdcd'
    """
    check_sha256(sha256)
    return f"{PREFIX}/{sha256[:2]}/{sha256[2:]}"


@contextmanager
def filling(source: Source) -> Iterator[Fill]:
    """A function that fills buffers from ``source``.

    Raises:
        InvalidInputError: It is no payload: text, a folder, a file that is not there.
    """
    if isinstance(source, str):
        raise InvalidInputError(f"a payload is bytes, a Path or a binary stream; found text {shown(source)}")
    if isinstance(source, Path):
        with opened(source) as file:
            yield from_stream(file)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield _from_chunks(iter([source]))
    elif hasattr(source, "read"):
        yield from_stream(source)  # pyright: ignore[reportArgumentType] - it has `read`: a stream
    elif isinstance(source, Iterable):
        yield _from_chunks(iter(source))
    else:
        raise InvalidInputError(f"a payload is bytes, a Path or a stream; found {type(source).__name__}")


def opened(path: Path) -> io.FileIO:
    """The file at ``path``, for reading.

    Raises:
        InvalidInputError: It is no file, or cannot be read.
    """
    try:
        if not path.is_file():  # a FIFO would block, a folder is a listing of payloads
            raise InvalidInputError(f"{path} is not a file", kind=ErrorKind.FILE_UNREADABLE)
        return io.FileIO(path)
    except OSError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}", kind=ErrorKind.FILE_UNREADABLE
        ) from error


def from_stream(stream: IO[bytes] | io.FileIO) -> Fill:
    """A function that fills buffers from a binary stream."""
    readinto = getattr(stream, "readinto", None)
    if readinto is None:
        return _from_chunks(iter(lambda: stream.read(1 << 20), b""))

    def fill(buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            count = readinto(buffer[filled:])
            if count is None:
                raise InvalidInputError("a non-blocking stream is no payload")
            if count == 0:
                break
            filled += count
        return filled

    return fill


def rejoined(block: memoryview, fill: Fill) -> Fill:
    """A function that gives ``block`` first, and then what ``fill`` gives."""
    rest = block

    def refill(buffer: memoryview) -> int:
        nonlocal rest
        count = min(len(rest), len(buffer))
        buffer[:count] = rest[:count]
        rest = rest[count:] or memoryview(b"")  # the block is needed no more
        return count if count == len(buffer) else count + fill(buffer[count:])

    return refill


def _from_chunks(chunks: Iterator[object]) -> Fill:
    rest = memoryview(b"")

    def fill(buffer: memoryview) -> int:
        nonlocal rest
        filled = 0
        while filled < len(buffer):
            if not rest:
                chunk = next(chunks, None)
                if chunk is None:
                    break
                if not isinstance(chunk, bytes | bytearray | memoryview):
                    raise InvalidInputError(f"a payload is made of bytes; found {type(chunk).__name__}")
                rest = memoryview(chunk).cast("B")
                continue
            count = min(len(rest), len(buffer) - filled)
            buffer[filled : filled + count] = rest[:count]
            rest = rest[count:]
            filled += count
        return filled

    return fill
