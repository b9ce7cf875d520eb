"""The few things done to files here, each durable, each failure named."""

import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import EmboflowError, ErrorKind, UnavailableError
from emboflow_dagster.object_storage.pump import BUFFER_BYTES

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SYNC_FILE_RANGE_WRITE: Final = 2


@contextmanager
def naming_failures(folder: Path) -> Iterator[None]:
    """Failures of the disk as errors of our tree, naming ``folder``.

    Raises:
        UnavailableError: Kind `disk-full` when there is no room, else `unavailable`.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, EmboflowError):
            raise
        full = error.errno in NO_ROOM
        raise UnavailableError(
            f"{folder}: {error.strerror or error}",
            kind=ErrorKind.DISK_FULL if full else ErrorKind.UNAVAILABLE,
            hint="make room and run it again: nothing was stored" if full else None,
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: Path, access: int, mode: int) -> int:
    """A new file, open for ``access`` (``os.O_WRONLY`` or so); its folder is made where it is missing."""
    flags = access | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, mode)


def names(folder: Path) -> list[str]:
    """The names in a folder, sorted; none if there is no folder."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths: a shard may hold a million
    except FileNotFoundError:
        return []


def append(fd: int, folder: Path, block: memoryview) -> None:
    """Write all of ``block`` to the end of a file in ``folder``.

    Raises:
        UnavailableError: The disk did not take it.
    """
    with naming_failures(folder):
        while block:
            block = block[os.write(fd, block) :]


class Writer:
    """Appends to a file that will be synced, and has the disk begin with each block at once.

    A sync waits for what is not yet on the disk; what began while later blocks were read and hashed is there
    by then. The page cache keeps it: a read right after a put does not come from the disk (decision 16).
    """

    def __init__(self, fd: int, folder: Path) -> None:
        self._fd = fd
        self._folder = folder
        self._at = 0

    def write(self, block: memoryview) -> None:
        """Append all of ``block``.

        Raises:
            UnavailableError: The disk did not take it.
        """
        size = len(block)
        append(self._fd, self._folder, block)
        if size >= BUFFER_BYTES:  # a shorter one is the last: the sync comes now
            _begin_writing(self._fd, self._at, size)
        self._at += size


def _begin_writing(fd: int, offset: int, length: int) -> None:
    """Ask the system to write a range of a file back now, waiting for nothing; it may decline."""
    call = _sync_file_range()
    if call is not None:
        call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Linux's call of that name, ``None`` elsewhere; Python has none for it."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call
