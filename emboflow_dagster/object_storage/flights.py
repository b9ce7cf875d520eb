"""Files that say who is writing in a folder of payloads: see `collecting`.

A file is made once and used again by the next writer of the process: making and removing one took longer than
many a payload. It is locked as long as the process lives, and between two writers it says so by its time.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import finalize

from emboflow_dagster.object_storage.disk import create

FLIGHT: Final = "flight-"
#: The time of a file whose process has nobody in flight: nothing is as young. It is the most that 32 bits can
#: say; a file system that keeps less has its own latest time instead.
ON_THE_GROUND: Final = (1 << 32) - 1


class Flights:
    """The files of one open store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: list[tuple[str, int]] = []
        self._process = os.getpid()
        finalize(self, _end, self._free, self._process)

    def begin(self) -> tuple[str, int]:
        """A file that from now on says that somebody writes: its path, and it open."""
        if os.getpid() != self._process:  # forked: the locks are the parent's
            self._free, self._process = [], os.getpid()
            finalize(self, _end, self._free, self._process)
        while self._free:
            try:
                path, fd = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if _is_there(path, fd):
                os.utime(fd)
                return path, fd
            os.close(fd)  # somebody cleared the folder, or put another in its place
        path = os.path.join(self._folder, f"{FLIGHT}{os.getpid()}-{secrets.token_hex(8)}")  # noqa: PTH118 - as below
        fd = create(Path(path), os.O_RDWR, 0o644)
        fcntl.flock(fd, fcntl.LOCK_SH)
        return path, fd

    def end(self, flight: tuple[str, int]) -> None:
        """What was put under it is referred to, or never will be."""
        path, fd = flight
        try:
            os.utime(fd, (ON_THE_GROUND, ON_THE_GROUND))
        except OSError:  # the put is done: at worst gc waits a minute for a file that nobody has locked
            os.close(fd)
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - as below
            return
        self._free.append(flight)


def _is_there(path: str, fd: int) -> bool:
    """Whether gc, which goes by names, finds the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))  # noqa: PTH116 - on the way of every put
    except OSError:
        return False


def _end(free: list[tuple[str, int]], process: int) -> None:
    if os.getpid() != process:
        return
    while free:
        path, fd = free.pop()
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - when the interpreter ends, as little as possible
        os.close(fd)
