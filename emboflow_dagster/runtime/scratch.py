"""Folders for as long as a process needs them; those of processes that were killed go with the next one."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_LOCK: Final = ".held"
#: A folder this young may be about to be locked.
_YOUNG_S: Final = 60


@contextmanager
def scratch_folder(below: Path, prefix: str = "asset-") -> Iterator[Path]:
    """An empty folder in ``below`` whose name begins with ``prefix``, removed behind the block.

    A lock that the system lets go with the process says that it is in use: a prefix of 200 GiB that a
    killed process had brought is not there for ever.
    """
    below.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(below, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=below))
    try:
        with _lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with suppress(OSError):  # a file system without locks: the folder is as it was before there were any
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(below: Path, prefix: str) -> None:
    for folder in below.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _YOUNG_S:
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
