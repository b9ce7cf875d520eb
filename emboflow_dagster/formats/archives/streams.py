"""Compressed streams, unpacked in bounded pieces: nothing is held or written, and a bomb ends early."""

import bz2
import io
import lzma
import zlib
from typing import Any, BinaryIO, Final

from emboflow_dagster.formats.archives.members import is_bomb
from emboflow_dagster.formats.extras import needs_extra

PIECE = 256 * 1024
#: The most that is unpacked to count bytes; beyond it the listing is incomplete.
MAX_UNPACKED = 64 * 1024**3
LZMA_MEMORY = 256 * 1024 * 1024
#: What zstd's decoder may look back, 128 MiB: more is only made by who asks for it (``--long=31``).
ZSTD_WINDOW: Final = 27
_MAGIC: Final = {
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0",),
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))),
}
_LONGEST_MAGIC: Final = 6
#: Two blocks as tarfile reads them.
_KEPT: Final = 20 * 1024


class BombError(ValueError):
    """The stream gives more bytes than honest data does."""


class Unpacked(io.RawIOBase):
    """The unpacked bytes of a gzip, bzip2, xz or zstd stream; `count` came out so far, `taken` went in.

    Bytes behind the stream that begin no other one are not read: `trailing` says that there are some.

    Raises on read:
        BombError: The ratio is above the bound.
        EOFError: The stream ends too early.
        ConfigurationError: The library for zstd is not installed.
        ValueError, OSError: Damaged bytes (`zlib.error` and `lzma.LZMAError` are turned into it).
    """

    def __init__(self, stream: BinaryIO, kind: str) -> None:
        self._stream = stream
        self._kind = kind
        self._damage: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError)
        self._decoder = self._new()
        self._fresh = True
        self._rest = b""
        self._out = b""
        self.count = 0
        self.taken = 0
        self.trailing = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill from the stream."""
        if not self._out:
            self._out = self._more()
        piece = self._out[: len(buffer)]
        self._out = self._out[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def drain(self) -> int:
        """Read to the end and return how many bytes there were."""
        while self.read(PIECE):
            pass
        return self.count

    def _new(self) -> Any:
        if self._kind == "gzip":
            return zlib.decompressobj(31)
        if self._kind == "zstd":
            with needs_extra("archive"):
                from backports import zstd

            self._damage = (zlib.error, lzma.LZMAError, zstd.ZstdError)
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})
        return bz2.BZ2Decompressor() if self._kind == "bzip2" else lzma.LZMADecompressor(memlimit=LZMA_MEMORY)

    def _more(self) -> bytes:
        try:
            return self._decode()
        except self._damage as error:
            raise ValueError(str(error)) from error

    def _decode(self) -> bytes:
        while not self.trailing:
            if self._decoder.eof:
                # Several streams may stand one after another; padding of zeros may end the file.
                self._rest = self._unused().lstrip(b"\0")
                while len(self._rest) < _LONGEST_MAGIC and (more := self._take()):
                    self._rest = (self._rest + more).lstrip(b"\0")
                if not self._rest:
                    return b""
                self.trailing = not self._rest.startswith(_MAGIC[self._kind])
                if self.trailing:
                    break
                self._decoder, self._fresh = self._new(), True
            data = self._rest or (b"" if self._pending() else self._take())
            self._rest = b""
            if not data and not self._pending():
                if self._fresh:
                    return b""
                raise EOFError("the compressed stream ends too early")
            out = self._step(data)
            self._fresh = False
            self.count += len(out)
            if is_bomb(self.count, self.taken) or self.count > MAX_UNPACKED:
                raise BombError(f"{self.count} bytes from {self.taken}")
            if out:
                return out
        return b""

    def _step(self, data: bytes) -> bytes:
        out = self._decoder.decompress(data, PIECE)
        if self._kind == "gzip":  # the other decoders keep what they were given until it is asked for
            self._rest = b"" if self._decoder.eof else self._decoder.unconsumed_tail
        return out

    def _pending(self) -> bool:
        return self._kind != "gzip" and not self._decoder.needs_input and not self._decoder.eof

    def _unused(self) -> bytes:
        return self._decoder.unused_data

    def _take(self) -> bytes:
        data = self._stream.read(PIECE)
        self.taken += len(data)
        return data


class Counted:
    """A stream that is read once, and where in it the last byte stands that is not zero.

    Attributes:
        count: Bytes that were read.
        last: Behind the last one that is not zero.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._recent = b""
        self.count = 0
        self.last = 0

    def read(self, size: int = -1, /) -> bytes:
        """As the stream does."""
        data = self._stream.read(size)
        whole = len(data.rstrip(b"\0"))
        if whole:
            self.last = self.count + whole
        self.count += len(data)
        self._recent = self._recent[-_KEPT:] + data[-_KEPT:]
        return data

    def recent(self, place: int, size: int) -> bytes:
        """Bytes at a place in the last few that were read; nothing where it is further back."""
        begin = place - (self.count - len(self._recent))
        return self._recent[begin : begin + size] if begin >= 0 else b""
