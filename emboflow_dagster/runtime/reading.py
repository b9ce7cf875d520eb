"""How much a child has read so far, told now and then while a parser is at work.

The kernel counts what the process reads, so that every parser is seen alike, those in C too.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emboflow_dagster.runtime.child_main import log

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@contextmanager
def told(path: Path, every: float | None) -> Iterator[None]:
    """Log how many bytes this process has read, every so many seconds until the block ends.

    Args:
        path: What is read; a file's size is said beside it.
        every: Seconds; ``None`` says nothing.
    """
    start = _read_so_far() if every is not None else None
    if every is None or start is None:
        yield
        return
    size = path.stat().st_size if path.is_file() else None
    done = threading.Event()

    def tell() -> None:
        while not done.wait(every):
            now = _read_so_far()
            if now is not None:
                log(f"{amount(now - start)}{'' if size is None else f' of {amount(size)}'} read")

    watcher = threading.Thread(target=tell, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()  # the result must not be written into the middle of a text


def amount(size: int) -> str:
    """Bytes for people.

    >>> amount(3 << 29)
    '1.5 GiB'
    """
    value = float(size)
    for unit in _UNITS[:-1]:
        if value < 1024:  # noqa: PLR2004 - of a unit in the next one
            return f"{value:.{0 if unit == 'B' else 1}f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def _read_so_far() -> int | None:
    """Bytes of all reads of this process; ``None`` where the kernel does not say."""
    try:
        text = Path(f"/proc/{os.getpid()}/io").read_text("ascii")
        return int(text.partition("rchar:")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return None
