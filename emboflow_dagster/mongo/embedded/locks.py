"""Who may start or stop the server, and who uses it. The kernel drops both locks when a process dies."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import UnavailableError

POLL_S: Final = 0.02
_registered: dict[Path, int] = {}
_registering = threading.Lock()


@contextmanager
def exclusively(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold the lock file alone, waiting up to ``timeout_s`` seconds for it.

    Raises:
        UnavailableError: Another process held it all that time.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while not _try_lock(fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
                raise UnavailableError(
                    f"another process (pid {holder}) has been starting or stopping the embedded database "
                    f"for more than {timeout_s:.0f} s"
                )
            time.sleep(POLL_S)
        os.pwrite(fd, f"{os.getpid():<20}".encode(), 0)
        yield
    finally:
        os.close(fd)


def register_user(path: Path) -> None:
    """Count this process as a user of the server until it ends (or :func:`unregister_user`).

    Waits while :func:`unused` is held, that is while the server is being stopped for want of users.
    """
    with _registering:
        if path in _registered and path.exists():
            return
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except BaseException:
            os.close(fd)
            raise
        stale = _registered.pop(path, None)
        if stale is not None:
            os.close(stale)
        _registered[path] = fd


def unregister_user(path: Path) -> None:
    """This process uses the server no longer."""
    with _registering:
        fd = _registered.pop(path, None)
        if fd is not None:
            os.close(fd)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no process uses the server; while the block runs, none can begin to."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
