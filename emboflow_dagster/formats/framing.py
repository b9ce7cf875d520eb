"""Reading length-framed records of a recording without holding more than one small record in memory.

ROS1 bags and MCAP files are both "length, content" records, some of which are compressed chunks of further
records. The public readers hold a whole chunk in memory and give nothing for a file that was cut; one chunk
may be the whole recording. A :class:`Window` reads through both layers in blocks, and raises
:class:`CutError` exactly where the bytes end, so that all before the cut is used.
"""

import bz2
import io
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.extras import needs_extra

BLOCK = 256 * 1024
WHOLE_CHUNK = 16 * 1024 * 1024


class CutError(InvalidInputError):
    """The bytes end before the record they announce."""

    default_kind = ErrorKind.FILE_TRUNCATED


class DamagedError(InvalidInputError):
    """The bytes are there but are not what the format allows."""

    default_kind = ErrorKind.FILE_CORRUPT


class Readable(Protocol):
    """Anything that gives up to ``size`` bytes; fewer only at its end."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes."""
        ...


class Window:
    """``size`` bytes of a stream, from where it stands.

    Args:
        stream: Read in order.
        size: How many bytes belong to this window.
        crc: Whether to keep a CRC-32 of the bytes read and skipped (then skipping reads them).
    """

    __slots__ = ("_seek", "_stream", "crc", "left")

    def __init__(self, stream: Readable, size: int, *, crc: bool = False) -> None:
        self._stream = stream
        self._seek: Callable[[int, int], int] | None = (
            stream.seek if not crc and isinstance(stream, io.BufferedReader) and stream.seekable() else None
        )
        self.left = size
        self.crc: int | None = 0 if crc else None

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes.

        Raises:
            CutError: The window or the stream ends before.
        """
        if size > self.left:
            raise CutError(f"a record of {size} bytes is announced where {self.left} bytes are left")
        data = self._stream.read(size)
        self.left -= len(data)
        if len(data) != size:
            self.left = 0
            raise CutError(f"{size} bytes are announced, {len(data)} found")
        if self.crc is not None:
            self.crc = zlib.crc32(data, self.crc)
        return data

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes, in blocks.

        Raises:
            CutError: The window or the stream ends before.
        """
        if size > self.left:
            self.left = 0
            raise CutError(f"a record of {size} bytes goes beyond the end")
        if self._seek is not None:
            self._seek(size, io.SEEK_CUR)
            self.left -= size
            return
        while size > 0:
            step = min(size, BLOCK)
            self.read(step)
            size -= step


class Section:
    """The next ``size`` bytes of a file, as a stream that ends there."""

    __slots__ = ("_file", "_left")

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, all that are left by default."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool | None: ...

    @property
    def needs_input(self) -> bool | None: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflated:
    """Decompressed bytes of a source, block by block; what stands before damage or a cut is still given."""

    __slots__ = ("_buffer", "_damage", "_decompressor", "_source")

    def __init__(self, source: Readable, decompressor: _Decompressor) -> None:
        self._source = source
        self._decompressor = decompressor
        self._buffer = b""
        self._damage: DamagedError | None = None

    def read(self, size: int, /) -> bytes:
        if len(self._buffer) >= size:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        if self._damage is not None and not self._buffer:
            raise self._damage
        parts = [self._buffer]
        have = len(self._buffer)
        self._buffer = b""
        while have < size and not self._decompressor.eof and self._damage is None:
            compressed = self._source.read(BLOCK) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not compressed:
                break
            try:
                block = self._decompressor.decompress(compressed, max(BLOCK, size - have))
            except (OSError, RuntimeError, ValueError) as error:
                self._damage = DamagedError(f"a compressed chunk is damaged: {error}")
                break
            parts.append(block)
            have += len(block)
        if self._damage is not None and not have:
            raise self._damage
        data = b"".join(parts)
        self._buffer = data[size:]
        return data[:size]


class _Zstd:
    __slots__ = ("_reader",)

    def __init__(self, source: Readable) -> None:
        with needs_extra("rosbag"):
            import zstandard

        self._reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)  # pyright: ignore[reportArgumentType]

    def read(self, size: int, /) -> bytes:
        import zstandard

        try:
            return self._reader.read1(size)
        except zstandard.ZstdError as error:
            raise DamagedError(f"a compressed chunk is damaged: {error}") from error


def inflated(source: Readable, compression: str, size: int) -> Readable:
    """A stream of the decompressed bytes of ``source``.

    Chunks of usual size are decompressed at once, which is much faster; larger ones block by block.

    Args:
        source: The compressed bytes.
        compression: ``bz2``, ``lz4`` or ``zstd``, as chunk headers name them.
        size: How many bytes are announced; more are never read.

    Raises:
        DamagedError: The compression has another name.
        ConfigurationError: The library for it is not installed.
    """
    if compression == "bz2":
        stream: Readable = _Inflated(source, bz2.BZ2Decompressor())
    elif compression == "lz4":
        with needs_extra("rosbag"):
            import lz4.frame

        stream = _Inflated(source, lz4.frame.LZ4FrameDecompressor())
    elif compression == "zstd":
        stream = _Zstd(source)
    else:
        raise DamagedError(f"the chunk compression {compression!r} is unknown; bz2, lz4 and zstd are read")
    if size > WHOLE_CHUNK:
        return io.BufferedReader(_Raw(stream), BLOCK)
    parts: list[bytes] = []
    try:
        while size and (part := stream.read(size)):
            parts.append(part)
            size -= len(part)
    except DamagedError:
        if not parts:
            raise
    return io.BytesIO(b"".join(parts))


class _Raw(io.RawIOBase):
    """Puts a C read buffer before a decompressor: records are a few bytes long."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
