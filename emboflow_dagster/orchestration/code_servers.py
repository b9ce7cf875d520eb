"""The code servers below ``dagster dev``: one that was killed comes back.

``dagster dev`` keeps a code server in two processes, one that others talk to and one that holds the code.
It starts the first again by itself, but not the second: with that gone sensors do not tick and no run
starts until somebody presses Reload, so that is what is done here. Run workers of the dead one live on.
(Linux; elsewhere nothing is watched.)
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration.webserver import LOCATION, Webserver

LOOK_SECONDS: Final = 1.0
#: Missing in so many looks in a row: while a location reloads there may be none for a moment.
LOOKS: Final = 2
#: A code server that dies while it loads is not started again faster than this.
PAUSE_SECONDS: Final = 15.0
_TALKS: Final = b"code-server\0start\0"
_HOLDS: Final = b"api\0grpc\0"


class CodeServers:
    """Looks at the processes below one process, as often as it is asked to and at most once a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._whole: set[int] = set()
        self._missed: dict[int, int] = {}
        self._next = 0.0

    def look(self, server: Webserver) -> str | None:
        """Reload a location of which the process that holds the code is gone.

        Returns:
            The location, where one was reloaded.
        """
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + LOOK_SECONDS
        children = _children()
        for pid, command in _with(_TALKS, children.get(self._pid, [])):
            if _with(_HOLDS, children.get(pid, [])):
                self._whole.add(pid)
                self._missed[pid] = 0
            elif pid in self._whole:  # one that has never had another below it still starts
                self._missed[pid] += 1
                if self._missed[pid] >= LOOKS:
                    return self._reload(server, pid, command)
        return None

    def _reload(self, server: Webserver, pid: int, command: bytes) -> str:
        self._missed[pid] = 0
        location = _location(command)
        # Dagster starts the new one, then says good-bye to the old one, which does not answer.
        with suppress(EmboflowError):
            server.reload(location)
        self._next = time.monotonic() + PAUSE_SECONDS
        return location


def _children() -> dict[int, list[int]]:
    """The living processes of this machine, by their parent."""
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in parentheses, may hold anything.
            state, parent = stat.read_bytes().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != b"Z":
            found.setdefault(int(parent), []).append(int(stat.parent.name))
    return found


def _with(words: bytes, pids: list[int]) -> list[tuple[int, bytes]]:
    """Those of the processes that have these words in their command line, and those lines."""
    found = []
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if words in command:
            found.append((pid, command))
    return found


def _location(command: bytes) -> str:
    words = command.split(b"\0")
    if b"--location-name" not in words[:-1]:
        return LOCATION
    return words[words.index(b"--location-name") + 1].decode()
