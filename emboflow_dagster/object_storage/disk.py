"""The few things done to files here, each durable, each failure named."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import EmboflowError, ErrorKind, UnavailableError
from emboflow_dagster.object_storage.pump import BUFFER_BYTES, BUFFERS

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


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


class Writer:
    """Writes past the page cache once the payload proves long; an ordinary write where that is refused."""

    def __init__(self, fd: int, folder: Path) -> None:
        self._fd = fd
        self._folder = folder
        self._buffered_blocks = BUFFERS
        self._direct = False

    def write(self, block: memoryview) -> None:
        """Append all of ``block``; while direct, that is a full buffer at a multiple of its size.

        Raises:
            UnavailableError: The disk did not take it.
        """
        if len(block) < BUFFER_BYTES:
            self._set_direct(on=False)  # the tail is no multiple of a sector
        elif self._buffered_blocks == 0:
            self._set_direct(on=True)
        else:
            self._buffered_blocks -= 1
        with naming_failures(self._folder):
            while block:
                try:
                    block = block[os.write(self._fd, block) :]
                except OSError as error:
                    if error.errno != errno.EINVAL or not self._direct:
                        raise
                    self._buffered_blocks = -1  # this file system only seemed to have it: never again
                    self._set_direct(on=False)

    def _set_direct(self, *, on: bool) -> None:
        if on == self._direct:
            return
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
        except OSError:
            self._buffered_blocks = -1
            return
        self._direct = on
