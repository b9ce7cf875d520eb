"""Why a server of this machine went away: mostly because its disk is full, and it could not say so.

`mongod` ends itself when it cannot write, and its clients see a closed connection.
"""

import re
import shutil
from pathlib import Path
from typing import Final

#: Less than that is no room for a server.
FULL_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 256 << 10
_STARTING: Final = b'"id":4615611'
_NO_ROOM: Final = b"No space left on device"

_logs: Final[dict[int, Path]] = {}


def remember(port: int, log: Path) -> None:
    """The server that listens on a port of this machine is the one with this log."""
    _logs[port] = log


def full_disk(error: Exception) -> str | None:
    """Which disk is full, when that ended the server that a driver's error tells of; else ``None``."""
    for port in re.findall(r"\b(?:127\.0\.0\.1|localhost):(\d+)", str(error)):
        log = _logs.get(int(port))
        if log is None:
            continue
        try:
            free = shutil.disk_usage(log.parent).free
            full = free < FULL_BYTES or _said(log)
        except OSError:
            continue
        if full:
            return f"no space is left on the disk of {log.parent.parent}"
    return None


def _said(log: Path) -> bool:
    """Whether the server wrote, since its last start, that it had no room."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    return _NO_ROOM in tail[max(0, tail.rfind(_STARTING)) :]
