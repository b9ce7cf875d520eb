"""A run while it goes on: a table that moves on a terminal, a line a change anywhere else.

The run document is asked twice a second for what changed of it (one small read by id); its tasks are read
only when it did. That works from any machine and needs no privilege, and a thousand watchers cost a server
less than change streams, each of which reads the whole oplog (decision 22).
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from emboflow_dagster.cli import figures, output, run_tasks, state
from emboflow_dagster.errors import EmboflowError, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from emboflow_dagster.model.run import RunTask, WorkflowRun
    from emboflow_dagster.project.handle import EmboFlow

LOOK_EVERY_S: Final = 0.5
_HEADER: Final = 5
_LEAST_ROWS: Final = 4
_BAR: Final = 24


class Seen(NamedTuple):
    """A run and its tasks at one moment."""

    run: "WorkflowRun"
    tasks: "Sequence[RunTask]"

    @property
    def over(self) -> bool:
        """Whether nothing of it will move any more."""
        return self.run.finished_at is not None


def until_over(ef: "EmboFlow", run: "WorkflowRun") -> Seen:
    """Show a run on standard output until it is over; interrupting this leaves the run alone."""
    last = None
    try:
        with _view(run) as show:
            for seen in looks(ef, run):
                last = seen
                show(seen)
                if seen.over:
                    return seen
    except KeyboardInterrupt:
        output.note(f"the run goes on: emboflow run show {run.id} --watch")
        raise
    raise AssertionError(last)


def looks(ef: "EmboFlow", run: "WorkflowRun") -> Iterator[Seen]:
    """The run twice a second; its tasks are read again when it changed. An outage is outwaited."""
    seen: Seen | None = None
    while True:
        try:
            now = ef.runs.refreshed(seen.run if seen else run)
            if seen is None or (now.updated_at, now.summary, now.status) != (
                seen.run.updated_at,
                seen.run.summary,
                seen.run.status,
            ):
                seen = Seen(now, ef.runs.recorder.in_order(now))
        except EmboflowError as error:
            if error.kind != ErrorKind.UNAVAILABLE:
                raise
        if seen is not None:
            yield seen
        time.sleep(LOOK_EVERY_S)


@contextmanager
def _view(run: "WorkflowRun") -> Iterator[Callable[[Seen], Any]]:
    if state.current().json:
        yield lambda _seen: None
    elif not sys.stdout.isatty():
        yield Lines(run.id).tell
    else:
        from rich.live import Live

        with Live(
            console=output.console(), transient=True, redirect_stdout=False, redirect_stderr=False
        ) as live:
            yield lambda seen: live.update(picture(seen, output.console().height), refresh=True)


class Lines:
    """What changed since the last look, a line each."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._said: dict[str, tuple[str, int]] = {}

    def tell(self, seen: Seen) -> None:
        """Say what is new: tasks that moved, and how the run ended."""
        for task, row in zip(seen.tasks, run_tasks.rows(seen.tasks), strict=True):
            now = (row.status, task.attempt)
            if row.status in ("pending", "queued") or self._said.get(task.node_id) == now:
                continue
            self._said[task.node_id] = now
            took = f" after {figures.duration(task.duration_ms)}" if task.duration_ms is not None else ""
            try_ = f" (try {task.attempt})" if task.attempt > 1 else ""
            note = row.cells[-1] if row.status == "blocked" or task.cache_hit else None
            why = (task.error_message or "").partition("\n")[0] if row.status == "failed" else note
            output.lines([f"{task.node_id} {row.status}{try_}{took}{f': {why}' if why else ''}"])
        if seen.over:
            summary, took = seen.run.summary, figures.duration(seen.run.duration_ms) or "no time"
            done = f"{summary.completed_task_count} of {summary.total_task_count} tasks done"
            output.lines([f"run {self._run_id} {seen.run.status.value}: {done} in {took}"])


def picture(seen: Seen, height: int, now: datetime | None = None) -> "RenderableType":
    """The run as a terminal of ``height`` lines shows it: where it is, and the tasks that matter most."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    run, now = seen.run, now or datetime.now(UTC)
    summary = run.summary
    elapsed = run.duration_ms
    if elapsed is None and run.started_at is not None:
        elapsed = max(0, round((now - run.started_at).total_seconds() * 1000))
    head = Text.assemble(
        (output.clean(run.id), "bold"),
        f"  {run.runtime_snapshot.workflow_slug} version {run.runtime_snapshot.version_number}  ",
        output.cell(run.status.value, status=True),
        f"  {figures.duration(elapsed) or ''}",
    )
    bar = Table.grid(padding=(0, 2, 0, 0))
    bar.add_column()
    bar.add_column(no_wrap=True)
    bar.add_column(no_wrap=True, overflow="ellipsis")
    share = ProgressBar(
        total=max(1, summary.total_task_count),
        completed=summary.completed_task_count,
        width=_BAR,
        complete_style="red" if summary.failed_task_ids else "cyan",
        finished_style="red" if summary.failed_task_ids else "green",
    )
    bar.add_row(
        share,
        f"{summary.completed_task_count}/{summary.total_task_count}",
        run_tasks.counts(summary.task_counts) or "",
    )
    every = run_tasks.rows(seen.tasks, now)
    shown, rest = run_tasks.chosen(every, max(_LEAST_ROWS, height - _HEADER))
    grid = output.grid(run_tasks.COLUMNS, [row.cells for row in shown])
    return Group(head, bar, grid, *([Text(rest, style="dim")] if rest else []))
