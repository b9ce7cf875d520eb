"""What is going on, for people, on stderr: quiet for what takes less than a second.

A terminal gets a line that moves, anything else a plain line now and then.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emboflow_dagster.cli import output

if TYPE_CHECKING:
    from rich.status import Status

PATIENCE_S: Final = 1.0
PLAIN_EVERY_S: Final = 5.0
MOVING_EVERY_S: Final = 0.2


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Say ``text`` when the block takes longer than a second; the callable changes it."""
    latest, done = [text], threading.Event()
    watcher = threading.Thread(target=_tell, args=(latest, done), daemon=True)
    watcher.start()
    try:
        yield lambda changed: latest.__setitem__(0, changed)
    finally:
        done.set()
        watcher.join()


def _tell(latest: list[str], done: threading.Event) -> None:
    if done.wait(PATIENCE_S):
        return
    if sys.stderr.isatty():
        status: Status = output.error_console().status(output.clean(latest[0]))
        with status:
            while not done.wait(MOVING_EVERY_S):
                status.update(output.clean(latest[0]))
        return
    said = None
    while True:
        if latest[0] != said:
            said = latest[0]
            output.note(f"{said} ...")
        if done.wait(PLAIN_EVERY_S):
            return
