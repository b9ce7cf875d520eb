"""Calls on the files of a store as points to be killed at: before each, after it, in the middle of a write.

Only calls that can change something are points: between two of them the disk looks the same. They are what a
child really calls (`os`, which `pathlib` uses too), so a step that the store gets is a point by itself.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

BEFORE: Final = "before"
AFTER: Final = "after"
#: Half of the bytes are written.
TORN: Final = "torn"

_BY_PATH: Final = ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir", "utime")
_BY_FD: Final = ("fchmod", "fsync", "fdatasync", "ftruncate", "close")
_CHANGING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

At = Callable[[str, str], None]
"""Told the name of a call and the moment."""


def moments(name: str) -> tuple[str, ...]:
    """When one can be killed at a call."""
    return (BEFORE, TORN, AFTER) if name == "write" else (BEFORE, AFTER)


def watch(root: Path, at: At) -> None:  # noqa: C901 - one small wrapper a kind of call
    """From now on tell ``at`` of every changing call below ``root``; for a process that ends soon."""
    mine: set[int] = set()
    inside = str(root) + os.sep

    def ours(path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and (os.fspath(path) + os.sep).startswith(inside)

    def by_path(name: str) -> Any:
        real = getattr(os, name)

        def call(path: Any, *args: Any, **how: Any) -> Any:
            if not (ours(path) or (args and ours(args[0]))):
                return real(path, *args, **how)
            at(name, BEFORE)
            try:
                return real(path, *args, **how)
            finally:
                at(name, AFTER)

        return call

    def by_fd(name: str) -> Any:
        real = getattr(os, name)

        def call(fd: int, *args: Any) -> Any:
            if fd not in mine:
                return real(fd, *args)
            at(name, BEFORE)
            if name == "close":
                mine.discard(fd)
            try:
                return real(fd, *args)
            finally:
                at(name, AFTER)

        return call

    open_, write_ = os.open, os.write

    def opened(path: Any, flags: int, *args: Any, **how: Any) -> int:
        if not ours(path):
            return open_(path, flags, *args, **how)
        if not flags & _CHANGING:
            return open_(path, flags, *args, **how)
        at("open", BEFORE)
        try:
            fd = open_(path, flags, *args, **how)
            mine.add(fd)
        finally:
            at("open", AFTER)
        return fd

    def write(fd: int, block: Any) -> int:
        if fd not in mine:
            return write_(fd, block)
        at("write", BEFORE)
        view = memoryview(block)
        done = 0
        if len(view) > 1 and len(view) % 8192:  # half a block of a direct write would be none
            done = write_(fd, view[: len(view) // 2])
        at("write", TORN)
        done += write_(fd, view[done:])
        at("write", AFTER)
        return done

    os.open, os.write = opened, write  # type: ignore[assignment]
    for name in _BY_PATH:
        setattr(os, name, by_path(name))
    for name in _BY_FD:
        setattr(os, name, by_fd(name))
