"""Compressed streams, unpacked in bounded pieces: nothing is held or written, and a bomb ends early."""

import bz2
import io
import lzma
import zlib
from typing import BinaryIO

from emboflow_dagster.formats.archives.members import is_bomb

PIECE = 256 * 1024
#: The most that is unpacked to count bytes; beyond it the listing is incomplete.
MAX_UNPACKED = 64 * 1024**3
LZMA_MEMORY = 256 * 1024 * 1024


class BombError(ValueError):
    """The stream gives more bytes than honest data does."""


class Unpacked(io.RawIOBase):
    """The unpacked bytes of a gzip, bzip2 or xz stream; `count` came out so far, `taken` went in.

    Raises on read:
        BombError: The ratio is above the bound.
        EOFError: The stream ends too early.
        ValueError, OSError: Damaged bytes (`zlib.error` and `lzma.LZMAError` are turned into it).
    """

    def __init__(self, stream: BinaryIO, kind: str) -> None:
        self._stream = stream
        self._kind = kind
        self._decoder = self._new()
        self._fresh = True
        self._rest = b""
        self._out = b""
        self.count = 0
        self.taken = 0

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

    def _new(self) -> "zlib._Decompress | bz2.BZ2Decompressor | lzma.LZMADecompressor":
        if self._kind == "gzip":
            return zlib.decompressobj(31)
        return bz2.BZ2Decompressor() if self._kind == "bzip2" else lzma.LZMADecompressor(memlimit=LZMA_MEMORY)

    def _more(self) -> bytes:
        try:
            return self._decode()
        except (zlib.error, lzma.LZMAError) as error:
            raise ValueError(str(error)) from error

    def _decode(self) -> bytes:
        while True:
            if self._decoder.eof:
                # Several streams may stand one after another; padding of zeros may end the file.
                self._rest = self._unused().lstrip(b"\0")
                if not self._rest:
                    self._rest = self._take().lstrip(b"\0")
                if not self._rest:
                    return b""
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

    def _step(self, data: bytes) -> bytes:
        decoder = self._decoder
        if isinstance(decoder, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
            return decoder.decompress(data, PIECE)
        out = decoder.decompress(data, PIECE)
        self._rest = b"" if decoder.eof else decoder.unconsumed_tail
        return out

    def _pending(self) -> bool:
        decoder = self._decoder
        if isinstance(decoder, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
            return not decoder.needs_input and not decoder.eof
        return False

    def _unused(self) -> bytes:
        return self._decoder.unused_data

    def _take(self) -> bytes:
        data = self._stream.read(PIECE)
        self.taken += len(data)
        return data
