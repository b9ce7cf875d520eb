"""The parent's end of one worker: commands out, answers in."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

WORKER = Path(__file__).parent / "worker.py"
SYNCS = ("fsync", "fdatasync", "msync", "syncfs", "sync_file_range")


class SideError(RuntimeError):
    """What a side could not do, in its own words."""


class Process:
    """One side in a process of its own."""

    def __init__(
        self, python: Path, side: str, folder: Path, options: dict[str, Any], *, trace: Path | None = None
    ) -> None:
        command = [str(python), str(WORKER), side, str(folder), json.dumps(options)]
        if trace is not None:
            command = ["strace", "-f", "-qq", "-e", f"trace={','.join(SYNCS)}", "-o", str(trace), *command]
        self._log = (folder.parent / f"{folder.name}.log").open("wb")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
        )
        self._rest = b""
        self.hello = self._answer(180)

    def ask(self, timeout_s: float = 300, **command: Any) -> dict[str, Any]:
        """One command and its answer.

        Raises:
            SideError: The side failed, died, or took too long.
        """
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideError("the process died") from None
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        end = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._process.kill()
                raise SideError(f"no answer within {timeout_s:g} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise SideError("the process died")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer

    def kill(self) -> None:
        """End it as a power cut would: no chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


def can_trace() -> bool:
    """Whether system calls can be counted here."""
    return shutil.which("strace") is not None


def syncs_in(trace: Path) -> int:
    """How many of the calls that make files durable a traced process did."""
    return sum("(" in line for line in trace.read_text(errors="replace").splitlines())
