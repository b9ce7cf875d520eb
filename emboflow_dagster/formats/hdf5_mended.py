"""HDF5 files that a recorder never closed, or that were cut off: opened as far as they go, never written to.

The library refuses a file whose first block says "open for writing", or names another length than the file
has. What `h5clear` changes in the file is changed here in what is read of it: eight to sixty bytes of the
first block, laid over the file's own. What stood behind a cut cannot be read, and :func:`readable_rows` says
how many rows stand before it.

Source: HDF5 File Format Specification 3.0, II.A "Disk Format: Level 0A - Format Signature and Superblock".
"""

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from emboflow_dagster.formats.hdf5_heaps import check_heaps
from emboflow_dagster.formats.read_only import ReadOnly

if TYPE_CHECKING:
    import h5py

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
MAX_USER_BLOCK: Final = 1 << 26
#: Metadata is read ahead by such pieces, which may reach behind a cut; numbers that do are refused.
_READ_AHEAD: Final = 512
_BLOCK: Final = 96
_WIDE: Final = 8


@dataclass(frozen=True, slots=True)
class Damage:
    """Why the library does not take a file as it is.

    Attributes:
        code: ``unclean_close``: the writer never closed it, and all of its bytes are there. ``truncated``:
            bytes are missing at the end.
        size: Bytes that are there.
        declared: Bytes that the first block speaks of.
        at: Where the first block begins (behind a user block).
        block: What is laid over the file there.
    """

    code: str
    size: int
    declared: int
    at: int
    block: bytes

    @property
    def text(self) -> str:
        """What is wrong, for people."""
        if self.code == "truncated":
            return f"{self.size} of {self.declared} bytes are there"
        if self.block[8] <= 1:
            # The old format has no word for "open": its length alone tells.
            return f"it speaks of {self.declared} of its {self.size} bytes: never closed by what wrote it"
        return "it was never closed by what wrote it"


class Mended(ReadOnly):
    """A damaged file with its first block as a closed file has it."""

    def __init__(self, path: Path, damage: Damage) -> None:
        self._file = path.open("rb", buffering=0)
        self.damage = damage
        self._size = max(damage.size, damage.declared)
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the end is where the first block has it."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill from the file and what is laid over it.

        Raises:
            OSError: It stood behind the cut.
        """
        view = memoryview(buffer).cast("B")
        start, wanted, damage = self._at, len(view), self.damage
        there = max(0, min(damage.size - start, wanted))
        if there < wanted and (not there or wanted > _READ_AHEAD):
            raise OSError(f"truncated file: {wanted} bytes at {start} stood behind its end")
        done = 0
        while done < there:
            piece = os.preadv(self._file.fileno(), [view[done:there]], start + done)
            if not piece:
                raise OSError(f"the file has become shorter than {damage.size} bytes")
            done += piece
        view[there:] = b"\xff" * (wanted - there)
        first, last = max(start, damage.at), min(start + wanted, damage.at + len(damage.block))
        if first < last:
            view[first - start : last - start] = damage.block[first - damage.at : last - damage.at]
        self._at += wanted
        return wanted

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


_OPEN: "WeakValueDictionary[str, Mended]" = WeakValueDictionary()


def open_hdf5(path: Path) -> "h5py.File":
    """Open for reading, as far as it goes, without the lock that a read-only file system refuses.

    Raises:
        OSError: No HDF5 file, or so little of it that not even its root can be read.
    """
    import h5py

    check_heaps(path)
    damage = look(path)
    if damage is None:
        return h5py.File(path, "r", locking=False)
    stream = Mended(path, damage)
    # The library keeps the object itself to itself, and its name as the file's.
    _OPEN[repr(stream)] = stream
    try:
        file = h5py.File(stream, "r")
        file.keys()
        len(file)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        stream.close()
        raise OSError(f"{damage.code}: {damage.text}, and nothing in it can be read: {error}") from error
    return file


def damage_of(file: "h5py.File") -> Damage | None:
    """What is wrong with an open file; ``None`` for one that the library takes as it is."""
    stream = _OPEN.get(file.filename)
    return stream.damage if stream else None


def signature_at(path: Path) -> int | None:
    """Where a file's first block begins: at 0, or behind a user block of 512, 1024, 2048, ... bytes."""
    with path.open("rb") as stream:
        at = 0
        while at <= MAX_USER_BLOCK:
            stream.seek(at)
            found = stream.read(len(SIGNATURE))
            if found == SIGNATURE:
                return at
            if len(found) < len(SIGNATURE):
                return None
            at = at * 2 or 512
    return None


def look(path: Path) -> Damage | None:
    """Whether a file's first block keeps the library from reading it, and what has to be laid over it."""
    at = signature_at(path)
    if at is None:
        return None
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(at)
        block = bytearray(stream.read(_BLOCK))
    if len(block) < _BLOCK // 2:
        return None
    version = block[8]
    if version <= 1:
        # Offsets of eight bytes are the only ones that the library writes by itself.
        wide, place, flags, whole = block[13], 24 + 4 * version + 16, 0, 24 + 4 * version + 32
    elif version <= 3:  # noqa: PLR2004 - no newer version is known
        wide, place, flags, whole = block[9], 12 + 16, block[11], 12 + 32 + 4
    else:
        return None
    if wide != _WIDE or len(block) < whole:
        return None
    (declared,) = struct.unpack_from("<Q", block, place)
    if declared == size and not flags & 5:
        return None
    if version > 1 and declared < size and not flags & 5:
        return None  # bytes behind the end are nobody's
    if declared > 1 << 62:
        return None
    struct.pack_into("<Q", block, place, max(declared, size))
    if version > 1:
        block[11] = flags & ~5
        struct.pack_into("<I", block, whole - 4, lookup3(bytes(block[: whole - 4])))
    code = "truncated" if declared > size else "unclean_close"
    return Damage(code, size, declared, at, bytes(block[:whole]))


def readable_rows(dataset: Any, size: int) -> int | None:
    """How many rows of a dataset stand before a cut, one after the other from the first.

    Args:
        dataset: A low-level dataset of a damaged file.
        size: Bytes that are there.

    Returns:
        ``None`` for a dataset without rows (a scalar), or one whose values stand with its header.
    """
    from h5py import h5d  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    shape: tuple[int, ...] = tuple(dataset.shape or ())
    layout = dataset.get_create_plist().get_layout()
    if not shape or layout == h5d.COMPACT:
        return None
    if layout == h5d.CONTIGUOUS:
        offset = dataset.get_offset()
        each = dataset.get_type().get_size()
        for length in shape[1:]:
            each *= length
        if offset is None or not each:
            return 0 if each else shape[0]
        return max(0, min(shape[0], (size - offset) // each))
    if layout != h5d.CHUNKED:
        return None
    chunks: Any = dataset.get_create_plist().get_chunk()
    beside = 1
    for length, chunk in zip(shape[1:], chunks[1:], strict=True):
        beside *= -(-length // chunk)
    if not beside:
        return shape[0]
    there: dict[int, int] = {}

    def see(chunk: Any) -> None:
        if chunk.byte_offset + chunk.size <= size:
            first = chunk.chunk_offset[0]
            there[first] = there.get(first, 0) + 1

    try:
        dataset.chunk_iter(see)
    except (OSError, RuntimeError, ValueError):
        return 0
    row = 0
    while row < shape[0] and there.get(row, 0) >= beside:
        row += chunks[0]
    return min(row, shape[0])


def lookup3(data: bytes) -> int:
    """Bob Jenkins' ``lookup3`` of bytes, which the library writes behind its blocks.

    >>> hex(lookup3(b"Four score and seven years ago"))
    '0x17770551'
    """
    mask = 0xFFFFFFFF

    def rot(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    at, left = 0, len(data)
    while left > 12:  # noqa: PLR2004 - three words at a time
        x, y, z = struct.unpack_from("<3I", data, at)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        a = ((a - c) & mask) ^ rot(c, 4)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rot(a, 6)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rot(b, 8)
        b = (b + a) & mask
        a = ((a - c) & mask) ^ rot(c, 16)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rot(a, 19)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rot(b, 4)
        b = (b + a) & mask
        at, left = at + 12, left - 12
    x, y, z = struct.unpack("<3I", data[at:].ljust(12, b"\0"))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    c = ((c ^ b) - rot(b, 14)) & mask
    a = ((a ^ c) - rot(c, 11)) & mask
    b = ((b ^ a) - rot(a, 25)) & mask
    c = ((c ^ b) - rot(b, 16)) & mask
    a = ((a ^ c) - rot(c, 4)) & mask
    b = ((b ^ a) - rot(a, 14)) & mask
    return ((c ^ b) - rot(b, 24)) & mask
