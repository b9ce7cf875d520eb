"""The tasks of a run as people read them: what went wrong first, and no more rows than one can take in."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from emboflow_dagster.cli import figures, output
from emboflow_dagster.errors import ErrorKind, TransitionError

if TYPE_CHECKING:
    from datetime import datetime

    from emboflow_dagster.model.run import RunTask, WorkflowRun

COLUMNS: Final = (
    "NODE",
    "TYPE?",
    "STATUS",
    ">TRY?",
    ">ASSETS?",
    ">ARTIFACTS?",
    ">TOOK",
    "CACHE?",
    "OUTCOME?",
)
MANY: Final = 40
_FIRST: Final = ("failed", "running", "cancelled", "queued", "blocked", "success", "pending")
_ERRORS: Final = 5


class Row(NamedTuple):
    """One task: its cells, and the word that it stands under."""

    status: str
    cells: tuple[object, ...]


def rows(tasks: "Sequence[RunTask]", now: "datetime | None" = None) -> list[Row]:
    """A row of :data:`COLUMNS` a task, in graph order; with ``now``, how long what runs has taken so far."""
    from emboflow_dagster.runtime.standing import blocked_by

    blocked = blocked_by(tasks)
    return [_row(task, blocked.get(task.node_id), now) for task in tasks]


def _row(task: "RunTask", blocker: str | None, now: "datetime | None") -> Row:
    status = "blocked" if blocker else task.status.value
    took: float | None = task.duration_ms
    if now is not None and task.status == "running" and task.started_at is not None:
        took = max(0.0, (now - task.started_at).total_seconds() * 1000)
    outcome = f"by {blocker}" if blocker else task.summary.outcome if task.summary else None
    return Row(
        status,
        (
            task.node_id,
            task.node_type,
            status,
            task.attempt,
            len(task.asset_ids),
            len(task.output_artifact_ids),
            figures.duration(took),
            {True: "hit", False: "miss", None: None}[task.cache_hit],
            outcome,
        ),
    )


def chosen(every: Sequence[Row], room: int) -> tuple[list[Row], str | None]:
    """The rows to show, what matters most first, and what the others are, in words; all where they fit."""
    if len(every) <= room:
        return list(every), None
    order = sorted(range(len(every)), key=lambda place: (_FIRST.index(every[place].status), place))
    shown = [every[place] for place in order[:room]]
    rest = Counter(every[place].status for place in order[room:])
    counted = ", ".join(f"{rest[status]} {status}" for status in _FIRST if rest[status])
    return shown, f"and {sum(rest.values())} more: {counted}"


def table(tasks: "Sequence[RunTask]", *, everything: bool) -> None:
    """The tasks of a run, those that failed first where they are many."""
    shown, rest = chosen(rows(tasks), len(tasks) if everything else MANY)
    title = "Tasks" if rest is None else f"Tasks ({len(shown)} of {len(tasks)})"
    output.table(COLUMNS, [row.cells for row in shown], title=title)
    if rest is not None:
        output.lines([f"  {rest}"])
        output.note("--all shows every task")


def errors(tasks: "Sequence[RunTask]", *, everything: bool) -> None:
    """Why tasks failed: the first few in full, as many as one reads."""
    failed = [task for task in tasks if task.error_message]
    first = failed if everything else failed[:_ERRORS]
    for task in first:
        output.heading(f"{task.node_id} {task.status.value}")
        output.lines(f"  {line}" for line in (task.error_message or "").splitlines())
    if len(first) < len(failed):
        output.lines(["", f"and {len(failed) - len(first)} more with a message of their own"])


def waiting(tasks: "Sequence[RunTask]") -> None:
    """What of a run waits for people, and how they are asked."""
    from emboflow_dagster.runtime.gates import waits_for

    held = [(task.node_id, gate) for task in tasks if (gate := waits_for(task))]
    for node_id, gate in held[:_ERRORS]:
        output.heading(f"{node_id} waits for people")
        output.lines([f"  emboflow annotation show {gate}"])
    if len(held) > _ERRORS:
        output.lines(["", f"and {len(held) - _ERRORS} more: emboflow annotation list"])


def require_decided(run: "WorkflowRun", tasks: "Sequence[RunTask]") -> None:
    """Nothing for a run that does not wait for people.

    Raises:
        TransitionError: It does (kind ``waits-for-people``); it goes on by itself when they have decided.
    """
    from emboflow_dagster.runtime.gates import waits_for

    for task in tasks:
        gate = waits_for(task)
        if gate:
            raise TransitionError(
                f"run {run.id} waits for people: {task.node_id}",
                kind=ErrorKind.WAITS_FOR_PEOPLE,
                hint=f"`emboflow annotation show {gate}`; approved, it is in the queue again",
            )


def counts(task_counts: "dict[str, int]") -> str | None:
    """What of a run is where, in words, the worst first: ``2 failed, 3 running``.

    >>> counts({"failed": 2, "success": 5, "running": 3, "pending": 0})
    '2 failed, 3 running, 5 success'
    """
    return ", ".join(f"{task_counts[s]} {s}" for s in _FIRST if task_counts.get(s)) or None
