"""Dagster runs that died with the process that started them, which Dagster itself never notices.

A run worker is a child of its code server. When both are gone (power, `kill -9` of everything, a
container that was replaced) nobody is left to report: the run stays STARTED for ever, keeps its place
under ``max_concurrent_runs``, and its document stays `running`. The worker logs its process id first of
all, and lives on where its server does not; before that the launcher leaves the code server's socket in
a tag of the run, and a socket that nobody answers says that the run is over. A daemon that was killed
between taking a run from Dagster's queue and starting it leaves it STARTING. A run that a command executes
in its own process names that process in a tag. Of a worker on another machine nothing is seen from here: it
is gone when its code server does not know of it (or does not answer) and nobody works at the document either.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

# Dagster's own, not public: what its launcher asks a code server. Importing gRPC takes a tenth of a second,
# and only a run of another process needs it.
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster_shared.serdes import deserialize_value

if TYPE_CHECKING:
    from dagster._grpc.client import DagsterGrpcClient

# Dagster's own, not public: where the launcher notes the code server of a run. One place, one test.
SERVER_TAG: Final = ".dagster/grpc_info"
PROCESS_TAG: Final = "emboflow/process"
# What the worker of a run logs first (not public either), and how long it may take until it does.
_STARTED: Final = re.compile(r"^Started process for run \(pid: (\d+)\)")
START_SECONDS: Final = 45
_AT_WORK: Final = frozenset(
    {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}
)


def ended_if_orphaned(
    instance: dg.DagsterInstance, run: dg.DagsterRun, *, is_quiet: Callable[[], bool] | None = None
) -> dg.DagsterRun:
    """``run`` as it is; one whose server or process is gone is reported as failed (cancelled) first.

    A worker that lives on as an orphan changes nothing after that: its documents are settled, and
    every write of a task is fenced on the task still being its own.

    Args:
        instance: Of Dagster.
        run: One of its runs.
        is_quiet: Whether nobody works at its document. Without it a run that has begun on another machine is
            left alone.
    """
    if run.status not in _AT_WORK:
        return run
    if not (
        _worker_is_gone(instance, run) or _process_is_gone(run) or _is_lost_elsewhere(instance, run, is_quiet)
    ):
        return run
    why = "The process that executed this run is gone, and the run with it."
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, why)
    else:
        instance.report_run_failed(run, why)
    return instance.get_run_by_id(run.run_id) or run


def _worker_is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a code server of this machine was to execute the run, and no process does."""
    path = _socket_of(run)
    if path is None:
        never = SERVER_TAG not in run.tags and isinstance(instance.run_launcher, dg.DefaultRunLauncher)
        return never and run.status is dg.DagsterRunStatus.STARTING and _waits_too_long(instance, run)
    logged = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=50, ascending=True
    )
    for record in logged.records:
        found = _STARTED.match(record.event_log_entry.message)
        if found is not None:
            return not _lived_at(int(found[1]), record.event_log_entry.timestamp)
    if _is_silent(path):
        return True
    # A loaded machine may take minutes to start a process: its server knows that it is about to.
    return (
        run.status is not dg.DagsterRunStatus.STARTED
        and _waits_too_long(instance, run)
        and not _is_known(_client(socket=path), run.run_id, silent=True)
    )


def _is_lost_elsewhere(
    instance: dg.DagsterInstance, run: dg.DagsterRun, is_quiet: Callable[[], bool] | None
) -> bool:
    """Whether a code server of another machine was to execute the run, and nobody does.

    A worker outlives its server, so that one which does not know of the run says nothing by itself.
    """
    client = _elsewhere(run)
    if client is None or not _waits_too_long(instance, run):
        return False
    if is_quiet is None:
        return run.status is dg.DagsterRunStatus.STARTING and not _is_known(client, run.run_id, silent=False)
    return is_quiet() and not _is_known(client, run.run_id, silent=False)


def _noted(run: dg.DagsterRun) -> dict[str, Any]:
    """Where the code server of a run listens, as the launcher has noted it; empty when it has not."""
    try:
        noted = json.loads(run.tags.get(SERVER_TAG, "{}"))
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}


def _socket_of(run: dg.DagsterRun) -> str | None:
    """Where the run's code server listens on this machine."""
    path = _noted(run).get("socket")
    return path if isinstance(path, str) else None


def _elsewhere(run: dg.DagsterRun) -> "DagsterGrpcClient | None":
    """The run's code server, where it may be on another machine."""
    noted = _noted(run)
    host, port = noted.get("host"), noted.get("port")
    if not isinstance(host, str) or not isinstance(port, int):
        return None
    return _client(host=host, port=port, use_ssl=bool(noted.get("use_ssl")))


def _client(**where: Any) -> "DagsterGrpcClient":
    from dagster._grpc.client import DagsterGrpcClient

    return DagsterGrpcClient(**where)


def _waits_too_long(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    record = instance.get_run_record_by_id(run.run_id)
    return record is not None and time.time() - record.update_timestamp.timestamp() > START_SECONDS


def _lived_at(pid: int, moment: float) -> bool:
    """Whether the process with this id, on this machine, is one that lived at that time already."""
    started = _started(pid)
    if not started:
        return False
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    # The clock may have been set meanwhile; a number is not used again within a minute.
    return boot + int(started) / os.sysconf("SC_CLK_TCK") < moment + START_SECONDS


def _is_known(client: "DagsterGrpcClient", run_id: str, *, silent: bool) -> bool:
    """Whether a code server has a process for the run; ``silent`` when it does not answer."""
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=5)
    except DagsterUserCodeUnreachableError:
        return silent
    return deserialize_value(answer, CanCancelExecutionResult).can_cancel


def _is_silent(path: str) -> bool:
    """Whether nobody answers at a socket."""
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
