"""Damage that the HDF5 library does not come back from, found before the library is asked.

Texts of varying length lie in global heaps: collections of objects one behind the other, of which number 0 is
the free rest. The library (2.0.0 and those before) steps from object to object by their sizes, and stands for
ever before a step of 0 bytes, which is native code that nothing but the end of its process interrupts.

Source: HDF5 file format specification, III.E, "Global Heap"; ``H5HG__cache_heap_deserialize`` of the library.
"""

import mmap
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Bytes at the beginning that are looked through; what lies behind has the time limit of its child process.
MOST_BYTES: Final = 64 << 20
_HEAP: Final = b"GCOL\x01\0\0\0"
_OBJECT: Final = struct.Struct("<HH4xQ")
_WRAP: Final = 1 << 64


def check_heaps(path: Path) -> None:
    """Walk the global heaps of a file as the library does; once, however often a process opens it.

    Raises:
        OSError: One of them has a step of no bytes.
    """
    there = path.stat()
    _check(path, there.st_ino, there.st_size, there.st_mtime_ns)


@lru_cache(maxsize=4_096)
def _check(path: Path, _inode: int, _size: int, _changed_ns: int) -> None:
    """Whoever fails is not kept, and is looked through again."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            return
        with mmap.mmap(stream.fileno(), min(size, MOST_BYTES), access=mmap.ACCESS_READ) as data:
            at = data.find(_HEAP)
            while at >= 0:
                if not _is_passable(data, at):
                    raise OSError(f"the global heap at byte {at} is damaged")
                at = data.find(_HEAP, at + len(_HEAP))


def _is_passable(data: mmap.mmap, at: int) -> bool:
    """Whether each step through the collection leads further."""
    start = at + len(_HEAP)
    if start + 8 > len(data):
        return True
    end = min(at + int.from_bytes(data[start : start + 8], "little"), len(data))
    at = start + 8
    while at + _OBJECT.size <= end:
        number, _, length = _OBJECT.unpack_from(data, at)
        step = (_OBJECT.size + length + 7) // 8 * 8 % _WRAP if number else length
        if step == 0:
            return False
        at += step
    return True
