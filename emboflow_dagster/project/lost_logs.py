"""Logs of workers that died: what they had sent becomes the log of their task.

A sweep, idempotent and harmless beside another one: it looks at logs of which chunks are left, and leaves
those alone whose task is still at that execution.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.errors import NotFoundError, TransitionError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import TASK_TERMINAL, RunTask, TaskStatus, TaskSummary
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.log_chunks import LogOf
from emboflow_dagster.project.task_logs import TaskLogs, log_fields, stamp
from emboflow_dagster.runtime.live_log import records_of
from emboflow_dagster.runtime.log_records import NOTE, STREAMS, Record, record
from emboflow_dagster.runtime.log_tail import LogTail, tails_of

_TOLD: Final = b"the worker was lost: this is what it had sent"


def collect(logs: TaskLogs) -> list[RunTask]:
    """Store every log that its worker left behind; returns the tasks that were given theirs."""
    given = []
    for log_id, of in logs.chunks.logs():
        task = logs.documents.find_one({"_id": of.task_id})
        if task is not None:
            if _is_at(task, of) and task.status not in TASK_TERMINAL:
                continue
            if (found := _collect(logs, log_id, of, task)) is not None:
                given.append(found)
        logs.chunks.drop(log_id)
    return given


def attach(logs: TaskLogs, of: LogOf, fields: dict[str, Any], counts: dict[str, int]) -> RunTask | None:
    """Give a task that was settled without its log what is known of it; ``None`` when it has one or went on.

    Args:
        logs: Of the task's project.
        of: The execution.
        fields: As :func:`.task_logs.log_fields` makes them.
        counts: Stream name to its lines.
    """
    recorder = logs.recorder

    def body(session: Session) -> RunTask | None:
        task = logs.documents.get(of.task_id, session=session)
        if not _is_at(task, of) or task.status not in TASK_TERMINAL or task.log_ref is not None:
            return None
        now = utc_now()
        summary = TaskSummary(
            executor=task.executor_type.value,
            outcome=task.summary.outcome if task.summary else _outcome(task),
            asset_count=len(task.asset_ids),
            artifact_ids=task.output_artifact_ids,
            stdout_line_count=counts["stdout"],
            stderr_line_count=counts["stderr"],
        )
        changed = logs.documents.change(
            task.id,
            {**fields, "summary": summary.to_mongo(), "updatedAt": now},
            expected={"status": task.status.value, "attempt": task.attempt, "logRef": None},
            session=session,
        )
        run = recorder.runs.get(task.workflow_run_id, session=session)
        recorder.settle_run(run, recorder.in_order(run, session), {task.id: changed}, now, session)
        return changed

    try:
        return recorder.mongo.in_transaction(body)
    except (TransitionError, NotFoundError):
        return None


def _is_at(task: RunTask, of: LogOf) -> bool:
    return (task.attempt, task.started_at) == (of.attempt, of.started_at)


def _outcome(task: RunTask) -> str:
    return "cancelled" if task.status == TaskStatus.CANCELLED else "failed"


@dataclass(slots=True)
class _Left:
    """What the chunks of a log amount to."""

    tails: dict[str, LogTail]
    ranges: list[list[int]] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.ranges[-1][1] if self.ranges else 0


def _collect(logs: TaskLogs, log_id: str, of: LogOf, task: RunTask) -> RunTask | None:
    settled = _is_at(task, of) and task.status in TASK_TERMINAL
    if settled and task.log_ref is not None:
        return None  # its worker has stored the whole of it
    left = _look(logs, log_id)
    blob = logs.stored(of.task_id, of.attempt)
    if blob is not None and blob.custom_metadata.get("startedAt") == stamp(of.started_at):
        ref = logs.ref(blob)  # stored by its worker, which could not settle any more
    else:
        then = task.model_copy(update={"attempt": of.attempt, "started_at": of.started_at})
        counts = {name: tail.count for name, tail in left.tails.items()}
        data = _bytes(logs, log_id, left.end)
        ref = logs.put(then, data, counts, recovered=True, ranges=left.ranges)
    if not settled:
        return None
    counts = {name: tail.count for name, tail in left.tails.items()}
    return attach(logs, of, log_fields(left.tails, ref), counts)


def _look(logs: TaskLogs, log_id: str) -> _Left:
    ranges: list[list[int]] = []
    counts: dict[str, int] = {}

    def records() -> Iterator[Record]:
        for chunk in logs.chunks.read(log_id):
            if ranges and ranges[-1][1] == chunk.start:
                ranges[-1][1] = chunk.end
            else:
                ranges.append([chunk.start, chunk.end])
            counts.update(chunk.counts or {})
            yield from records_of(chunk)

    tails = tails_of(records())
    whole = len(ranges) == 1 and ranges[0][0] == 0
    for name in STREAMS:
        # Lines that were left out were counted by the worker.
        if not whole and name in counts:
            tails[name].count = max(tails[name].count, counts[name])
    return _Left(tails, ranges)


def _bytes(logs: TaskLogs, log_id: str, end: int) -> Iterator[bytes]:
    # Nothing is put between the chunks: a reader in the middle finds its place by counting (`ranges`).
    behind, missing = 0, 0
    for chunk in logs.chunks.read(log_id):
        if chunk.end > end:
            break
        missing += chunk.start - behind
        behind = chunk.end
        yield chunk.data
    lacking = f"; {missing} bytes of it are missing" if missing else ""
    yield record(NOTE, _TOLD + lacking.encode())
