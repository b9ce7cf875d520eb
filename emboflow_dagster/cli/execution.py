"""Runs carried to their end from the command line: by a Dagster that runs, else in this process."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import figures, output, run_page, run_tasks, watch
from emboflow_dagster.errors import EmboflowError, ErrorKind, ExecutionError, TransitionError

if TYPE_CHECKING:
    from emboflow_dagster.model.run import RunTask, WorkflowRun
    from emboflow_dagster.project.handle import EmboFlow

LOOK_EVERY_S: Final = 0.5
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", help="Stay until it is over; execute it here when no Dagster daemon would start it."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.1, metavar="S", help="With --wait: give up after S seconds."),
]


def check_timeout(timeout_s: float | None, *, wait: bool) -> None:
    """Refuse ``--timeout`` where nothing waits."""
    if timeout_s is not None and not wait:
        raise typer.BadParameter("needs --wait", param_hint="'--timeout'")


def finish(ef: "EmboFlow", queued: "WorkflowRun", *, wait: bool, timeout_s: float | None) -> None:
    """Print a requested run; with ``wait``, carried to its end.

    Raises:
        ExecutionError: It did not succeed (kind ``run-failed``), or is not over (kind ``timeout``).
    """
    found = carry_out(ef, queued, timeout_s=timeout_s) if wait else queued
    tasks = ef.runs.tasks(found)
    how = None if wait else outlook(ef)
    output.emit(found.to_json(), lambda: run_page.show(found, tasks))
    if how:
        output.note(f"{how}: emboflow run wait {found.id}")
    if wait:
        require_success(found, tasks)


def carry_out(ef: "EmboFlow", run: "WorkflowRun", *, timeout_s: float | None) -> "WorkflowRun":
    """Wait until a run is over; execute it here when no Dagster daemon would.

    Raises:
        ExecutionError: It is not over after ``timeout_s`` seconds (kind ``timeout``).
    """
    from emboflow_dagster.orchestration import direct

    with direct.opened(ef) as instance:
        return _carried(ef, run, instance, timeout_s)


def _carried(ef: "EmboFlow", run: "WorkflowRun", instance: Any, timeout_s: float | None) -> "WorkflowRun":
    from emboflow_dagster.orchestration import direct

    if direct.daemon_is_alive(ef, instance=instance):
        with watched(ef, run):
            return waited(ef, run, timeout_s)
    with watched(ef, run), _limited(run.id, timeout_s):
        try:
            with _ended_with_us(ef, run), _interruptible():
                return direct.execute_queued(ef, run.id, instance=instance)
        except TransitionError:
            # A worker or a daemon that has just come up was faster: the run is in its hands.
            return ef.runs.wait(run.id)


def waited(ef: "EmboFlow", run: "WorkflowRun", timeout_s: float | None) -> "WorkflowRun":
    """The run when it is over.

    Raises:
        ExecutionError: It is not after ``timeout_s`` seconds (kind ``timeout``).
        TransitionError: It is not, and waits for people; the hint says for what.
    """
    try:
        return ef.runs.wait(run.id, timeout_s=timeout_s)
    except ExecutionError as error:
        if error.kind == ErrorKind.TIMEOUT:
            run_tasks.require_decided(run, ef.runs.tasks(run))
        raise


def outlook(ef: "EmboFlow") -> str:
    """How a queued run will be executed, in words."""
    from emboflow_dagster.orchestration.webserver import Webserver

    if Webserver.known(ef.settings.dagster_home) is not None:
        return "queued; the running Dagster takes it within seconds"
    return "queued; `emboflow dev` or `emboflow worker --once` executes it"


def require_success(run: "WorkflowRun", tasks: "Sequence[RunTask]") -> None:
    """Nothing for a run that succeeded.

    Raises:
        ExecutionError: It failed or was cancelled; names the first task that did (kind ``run-failed``).
        TransitionError: It waits for people (kind ``waits-for-people``); the hint says for what.
    """
    if run.status == "success":
        return
    run_tasks.require_decided(run, tasks)
    failed = next((t for t in tasks if t.status == "failed"), None)
    why = f": {failed.node_id}: {failed.error_message or 'no message'}" if failed else ""
    hint = f"`emboflow task logs {run.id}:{failed.node_id}` shows its log" if failed else None
    raise ExecutionError(f"run {run.id} is {run.status}{why}", kind=ErrorKind.RUN_FAILED, hint=hint)


@contextmanager
def watched(ef: "EmboFlow", run: "WorkflowRun") -> Iterator[None]:
    """Show the run's tasks on stderr while the block waits: a table that moves, or a line a change."""
    done = threading.Event()
    show = _moving if sys.stderr.isatty() else _plain
    watcher = threading.Thread(target=show, args=(ef, run, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _moving(ef: "EmboFlow", run: "WorkflowRun", done: threading.Event) -> None:
    from rich.live import Live

    if done.wait(LOOK_EVERY_S):
        return
    with Live(
        console=output.error_console(), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        while not done.wait(LOOK_EVERY_S):
            with suppress(EmboflowError):  # the command itself says what is wrong
                now = ef.runs.refreshed(run)
                seen = watch.Seen(now, ef.runs.recorder.in_order(now))
                live.update(watch.picture(seen, output.error_console().height))


def _plain(ef: "EmboFlow", run: "WorkflowRun", done: threading.Event) -> None:
    from emboflow_dagster.runtime.gates import waits_for

    seen: dict[str, str] = {}
    if done.wait(1.0):
        return
    while not done.wait(LOOK_EVERY_S):
        with suppress(EmboflowError):
            for task in ef.runs.recorder.in_order(run):
                gate = waits_for(task)
                if gate and seen.get(task.node_id) != gate:
                    seen[task.node_id] = gate
                    output.note(f"{task.node_id}: waits for people: emboflow annotation show {gate}")
                elif not gate and task.status != "pending" and seen.get(task.node_id) != task.status:
                    seen[task.node_id] = task.status
                    took = (
                        f" after {figures.duration(task.duration_ms)}" if task.duration_ms is not None else ""
                    )
                    output.note(f"{task.node_id}: {task.status.value}{took}")


@contextmanager
def _ended_with_us(ef: "EmboFlow", run: "WorkflowRun") -> Iterator[None]:
    """A run that is executed here and given up is cancelled, also when nothing of it had started."""
    try:
        yield
    except KeyboardInterrupt:
        ef.runs.settle_lost(run.id, "interrupted", cancelled=True)
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a ctrl-c end the command although Dagster answers it, by ending the run in good order.

    Raises:
        KeyboardInterrupt: There was one.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        try:
            heard = os.read(reading, 64)
        except BlockingIOError:
            heard = b""
        os.close(reading)
        os.close(writing)
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


@contextmanager
def _limited(run_id: str, timeout_s: float | None) -> Iterator[None]:
    """Interrupt the block, as ctrl-c does, after ``timeout_s`` seconds.

    Raises:
        ExecutionError: It was interrupted (kind ``timeout``).
    """
    if timeout_s is None:
        yield
        return
    late = threading.Event()

    def interrupt() -> None:
        late.set()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(timeout_s, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException as error:
        if not late.is_set():
            raise
        raise ExecutionError(
            f"run {run_id} was stopped after {timeout_s:g} s", kind=ErrorKind.TIMEOUT
        ) from error
    finally:
        timer.cancel()
    if late.is_set():
        raise ExecutionError(f"run {run_id} was stopped after {timeout_s:g} s", kind=ErrorKind.TIMEOUT)
