"""Dagster runs that died with the process that started them, which Dagster itself never notices.

A run worker is a child of its code server. When both are gone (power, `kill -9` of everything, a
container that was replaced) nobody is left to report: the run stays STARTED for ever, keeps its place
under ``max_concurrent_runs``, and its document stays `running`. The launcher leaves the code server's
socket in a tag of the run; a socket that nobody answers says that the run is over. A run that a
command executes in its own process names that process in a tag likewise.
"""

import json
import os
import socket
from pathlib import Path
from typing import Final

import dagster as dg

# Dagster's own, not public: where the launcher notes the code server of a run. One place, one test.
SERVER_TAG: Final = ".dagster/grpc_info"
PROCESS_TAG: Final = "emboflow/process"
_AT_WORK: Final = frozenset(
    {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}
)


def ended_if_orphaned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    """``run`` as it is; one whose server or process is gone is reported as failed (cancelled) first.

    A worker that lives on as an orphan changes nothing after that: its documents are settled, and
    every write of a task is fenced on the task still being its own.
    """
    if run.status not in _AT_WORK or not (_server_is_gone(run) or _process_is_gone(run)):
        return run
    why = "The process that executed this run is gone, and the run with it."
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, why)
    else:
        instance.report_run_failed(run, why)
    return instance.get_run_by_id(run.run_id) or run


def _server_is_gone(run: dg.DagsterRun) -> bool:
    """Whether the run's code server listened on this machine and does not any more."""
    try:
        noted = json.loads(run.tags.get(SERVER_TAG, "{}"))
    except ValueError:
        return False
    path = noted.get("socket") if isinstance(noted, dict) else None
    if not isinstance(path, str):
        return False  # another machine's, or somebody else's launcher: theirs to judge
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
    return False


def process_mark() -> str:
    """This process, told from every other one: host, id, and when it started."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _process_is_gone(run: dg.DagsterRun) -> bool:
    """Whether the run was executed by a process of this machine that is no more."""
    host, pid, started = [*run.tags.get(PROCESS_TAG, "").rsplit(":", 2), "", "", ""][:3]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process started, in clock ticks since the machine did; empty when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The command's name, in parentheses, may hold anything; the start time is the 20th field after it.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
