"""The code servers below ``dagster dev``: one that was killed comes back.

``dagster dev`` keeps a code server in two processes, one that others talk to and one that holds the code. It
starts neither of them again: with the second one gone sensors do not tick and no run starts, until somebody
presses Reload. (Linux; elsewhere nothing is watched.)
"""

from pathlib import Path
from typing import Final

from emboflow_dagster.errors import EmboflowError, ErrorKind, ExecutionError
from emboflow_dagster.orchestration.webserver import Webserver

#: Missing in so many looks in a row: while a location reloads there may be none for a moment.
LOOKS: Final = 3
#: After a reload so many looks pass until the next: the new one has to come up first.
PAUSE: Final = 20
_OUTER: Final = b"code-server\0start"
_INNER: Final = b"api\0grpc"


class CodeServers:
    """Looks at the processes below one process, every time it is asked to."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._missed = 0
        self._pause = 0

    def look(self, server: Webserver, location: str) -> bool:
        """Reload a location whose code server is gone.

        Returns:
            Whether it was reloaded.

        Raises:
            ExecutionError: The process that others talk to is gone, and nothing brings it back.
        """
        commands = {pid: command_of(pid) for pid in below(self._pid)}
        outer = [pid for pid, words in commands.items() if _OUTER in words]
        if not commands:
            return False
        if self._pause:
            self._pause -= 1
            return False
        held = [pid for pid, words in commands.items() if _INNER in words]
        self._missed = 0 if outer and held else self._missed + 1
        if self._missed < LOOKS:
            return False
        if not outer:
            raise ExecutionError("Dagster's code server ended by itself", kind=ErrorKind.CHILD_CRASHED)
        self._missed, self._pause = 0, PAUSE
        try:
            server.reload(location)
        except EmboflowError:
            # It starts the new one, then says good-bye to the old one, which does not answer.
            return True
        return True


def below(pid: int) -> list[int]:
    """The living processes below one: its children, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in parentheses, may hold anything.
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def command_of(pid: int) -> bytes:
    """The command line of a process, its words with a zero byte after each; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
