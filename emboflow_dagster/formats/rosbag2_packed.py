"""Recordings that were compressed as a whole: ``rec_0.db3.zstd`` of rosbag2, or an MCAP somebody packed.

A recorder that was killed leaves such files without a ``metadata.yaml`` that would say what they are, so the
first bytes inside say it, and not the name.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.formats.detect import signature
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.recording import Facts, Message, Reader, Wanted

SUFFIXES = (".zstd", ".zst")
MAX_UNPACKED_BYTES = 16 * 1024**3

_FIRST_BYTES = 4_096
_PIECE = 4_096
"""Compressed bytes taken at once: 128 KiB for each four of them are the most that zstd can make of it."""


class UnpackedTooLargeError(ValueError):
    """It unpacks to more than :data:`MAX_UNPACKED_BYTES`."""


def kind_inside(head: bytes, name: str) -> str | None:
    """The container (``sqlite3``, ``mcap``, ``rosbag1``, ...) in a zstd file that starts with ``head``.

    Args:
        head: Its first bytes.
        name: What the file is called; asked only where its bytes cannot be unpacked.
    """
    try:
        with needs_extra("rosbag"):
            import zstandard
    except ConfigurationError:
        return _kind_by_name(name)  # the probe says what is missing
    try:
        inside = zstandard.ZstdDecompressor().decompressobj().decompress(head[:_FIRST_BYTES])
    except zstandard.ZstdError:
        inside = b""
    # Nothing comes out before the first block is whole; it has up to 128 KiB.
    return signature(inside[:_FIRST_BYTES]) or _kind_by_name(name)


def unpacked_reader(inner: Reader) -> Reader:
    """Reads the recording inside by way of a temporary copy: SQLite needs to seek."""

    def read(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
        with needs_extra("rosbag"):
            import zstandard

        with TemporaryDirectory(prefix="emboflow-probe-") as folder:
            copy = Path(folder) / path.name
            with path.open("rb") as packed, copy.open("wb") as target:
                try:
                    if not _unpack(packed, target):
                        text = f"the compressed stream ends too early; {target.tell()} bytes were unpacked"
                        facts.warn("truncated", text, path.name)
                except UnpackedTooLargeError:
                    text = f"not read: it unpacks to more than {MAX_UNPACKED_BYTES} bytes"
                    facts.warn("compressed_files", text, path.name)
                    return
                except zstandard.ZstdError as error:
                    facts.warn("truncated", f"unpacked {target.tell()} bytes, then: {error}", path.name)
                size = target.tell()
            facts.details["unpackedBytes"] = size
            if size:
                yield from inner(copy, facts, wanted)

    return read


def _unpack(packed: BinaryIO, target: BinaryIO) -> bool:
    """Unpack frame after frame; whether the last one is whole.

    The library's own streams end in silence where a frame was cut.
    """
    import zstandard

    frame = None
    size = 0
    while piece := packed.read(_PIECE):
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            block = frame.decompress(piece)
            size += len(block)
            if size > MAX_UNPACKED_BYTES:
                raise UnpackedTooLargeError
            target.write(block)
            piece = b""
            if frame.eof:
                piece, frame = frame.unused_data, None
    return frame is None


def _kind_by_name(name: str) -> str | None:
    inner = name.lower().removesuffix(".zstd").removesuffix(".zst")
    found = {".mcap": "mcap", ".db3": "sqlite3"}
    return next((kind for suffix, kind in found.items() if inner.endswith(suffix)), None)
