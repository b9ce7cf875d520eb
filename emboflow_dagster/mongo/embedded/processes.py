"""Which process is ours, by what the kernel says about it: a number in a file proves nothing."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

PROC = Path("/proc")


class Process(NamedTuple):
    """One incarnation of a pid: after a reuse or a reboot ``started`` differs."""

    pid: int
    started: str  # boot id and the start time in clock ticks since that boot


def process(pid: int) -> Process | None:
    """The live process with that pid; ``None`` when there is none or it is a zombie."""
    try:
        # The command's name, in parentheses, may hold spaces and parentheses itself.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    if fields[0] in {"Z", "X"}:
        return None
    return Process(pid, f"{boot}/{fields[19]}")


def mongod_port(pid: int, data_dir: Path) -> int | None:
    """The port of that pid if it is a `mongod` on ``data_dir``; ``None`` when it is anything else."""
    try:
        arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    options = dict(pairwise(arguments))
    port = options.get(b"--port", b"")
    if options.get(b"--dbpath") != os.fsencode(data_dir) or not port.isdigit():
        return None
    return int(port)


def mongods_on(data_dir: Path) -> Iterator[tuple[Process, int]]:
    """Every live `mongod` on ``data_dir`` with its port, whoever started it."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        port = mongod_port(int(entry.name), data_dir)
        found = process(int(entry.name)) if port else None
        if port and found:
            yield found, port


class Handle:
    """Signals to and waits for exactly one process, even if its pid is given to another meanwhile."""

    def __init__(self, target: Process) -> None:
        self.target = target
        self._fd: int | None = None

    def __enter__(self) -> Self:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(self.target.pid)
            if process(self.target.pid) == self.target:
                self._fd = fd
            else:
                os.close(fd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self._fd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended within ``timeout_s`` seconds."""
        return self._fd is None or bool(select.select([self._fd], [], [], max(0.0, timeout_s))[0])
