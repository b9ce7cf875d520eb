"""A run after one of its tasks moved, worked out from that task and its children, however large the graph is.

The summary that a run carries is the aggregate over its tasks. What moved is taken out of it as it was and
put in as it is. That stays exact because whoever moves a task writes its run in the same transaction, from
what it read there: of two at once the server refuses the later one (the run is the revision that both
compare), and the driver repeats it from the beginning. When a run ends it is summed over all of its tasks.

Source: spec/state-machines.md 4.2 and 4.4; requirements R-358, R-360..R-365; decision 22.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.run import (
    RUN_TERMINAL,
    TASK_TERMINAL,
    RunStatus,
    RunSummary,
    RunTask,
    TaskStatus,
    WorkflowRun,
)
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.runtime import machine
from emboflow_dagster.runtime.machine import promotions
from emboflow_dagster.runtime.node import Narrowing

#: Left out where only the state of tasks is needed: they can be large.
HEAVY: Final = dict.fromkeys(
    ("logLines", "stdoutLines", "stderrLines", "lastResultPreview", "codeHookSpec"), 0
)
#: What of a run changes while it is executed.
_MOVING: Final = (
    "status",
    "summary",
    "startedAt",
    "finishedAt",
    "durationMs",
    "updatedAt",
    "dagsterRunIds",
    "recordedUpTo",
)
_NAMES: Final = {field.alias or name: name for name, field in WorkflowRun.model_fields.items()}
_UNDONE: Final = [status.value for status in TaskStatus if status is not TaskStatus.SUCCESS]


class Moved(NamedTuple):
    """A task before and after it was written to."""

    before: RunTask
    after: RunTask


class _Standing(NamedTuple):
    status: TaskStatus


class Recording(Protocol):
    """As much of :class:`~emboflow_dagster.runtime.record.Recorder` as is needed here."""

    runs: Documents[WorkflowRun]
    tasks: Documents[RunTask]
    narrowings: Mapping[str, Narrowing | None]

    def settle_run(
        self,
        run: WorkflowRun,
        tasks: Sequence[RunTask],
        changed: Mapping[str, RunTask],
        now: datetime,
        session: Session,
    ) -> WorkflowRun:
        """Sums a run up over all of its tasks."""
        ...

    def in_order(self, run: WorkflowRun, session: Session | None = None) -> list[RunTask]:
        """A run's tasks in graph order."""
        ...


def read_again(recorder: Recording, run: WorkflowRun, session: Session | None = None) -> WorkflowRun:
    """``run`` as it is now; what was frozen when it was requested is not read again.

    Raises:
        NotFoundError: It is gone.
    """
    scoped = recorder.runs.scoped({"_id": run.id})
    raw = recorder.runs.raw.find_one(scoped, dict.fromkeys(_MOVING, 1), session=session)
    if raw is None:
        return recorder.runs.get(run.id, session=session)
    return _with(run, raw)


def read_beside(
    recorder: Recording, run: WorkflowRun, tasks: Mapping[str, Any], session: Session
) -> tuple[WorkflowRun, list[RunTask]]:
    """``run`` as it is now and, of the same moment and in the same round trip, some of its tasks.

    Args:
        recorder: Of the run's scope.
        run: As it was read before.
        tasks: Which tasks, beside their being of this run; without their logs and previews.
        session: The transaction.

    Raises:
        NotFoundError: It is gone.
    """
    of_it = [{"$match": {"workflowRunId": run.id, **tasks}}, {"$project": HEAVY}]
    pipeline: list[dict[str, Any]] = [
        {"$match": recorder.runs.scoped({"_id": run.id})},
        {"$project": dict.fromkeys(_MOVING, 1)},
        {"$lookup": {"from": recorder.tasks.row.name, "pipeline": of_it, "as": "tasks"}},
    ]
    for raw in recorder.runs.raw.aggregate(pipeline, session=session):
        return _with(run, raw), [RunTask.from_mongo(row) for row in raw["tasks"]]
    raise recorder.runs.not_found(run.id)


def pending_below(run: WorkflowRun, node_id: str) -> dict[str, Any]:
    """Which tasks a node's success may queue, for :func:`read_beside`."""
    below = [edge.to for edge in run.runtime_snapshot.edges if edge.from_ == node_id]
    return {"status": TaskStatus.PENDING.value, "nodeId": {"$in": below}}


def advanced(summary: RunSummary, moved: Sequence[Moved]) -> RunSummary:
    """A summary with tasks taken out as they were and put in as they are; the failed ids of ``summary``."""
    counts = dict(summary.task_counts)
    artifacts, out, err = summary.artifact_count, summary.stdout_line_count, summary.stderr_line_count
    for before, after in moved:
        for task, sign in ((before, -1), (after, 1)):
            counts[task.status] += sign
            artifacts += sign * len(task.output_artifact_ids)
            if task.summary is not None:
                out += sign * task.summary.stdout_line_count
                err += sign * task.summary.stderr_line_count
    return summary.model_copy(
        update={
            "completed_task_count": sum(counts[status] for status in TASK_TERMINAL),
            "task_counts": counts,
            "artifact_count": artifacts,
            "stdout_line_count": out,
            "stderr_line_count": err,
        }
    )


def settle_step(
    recorder: Recording, run: WorkflowRun, moved: Sequence[Moved], now: datetime, session: Session
) -> WorkflowRun:
    """Bring a run's summary, status and times to what the tasks that moved make them.

    The same as :meth:`Recorder.settle_run` writes, which is asked where the run ends or is over.

    Args:
        recorder: Of the run's scope.
        run: As it was read in this transaction, before anything moved.
        moved: Tasks that were written in this transaction.
        now: When.
        session: The transaction.
    """
    summary = advanced(run.summary, moved)
    standing = [_Standing(TaskStatus(name)) for name, count in summary.task_counts.items() if count]
    status = machine.run_status(standing, run.status)
    if run.status in RUN_TERMINAL or status in RUN_TERMINAL:
        return recorder.settle_run(run, recorder.in_order(run, session), {}, now, session)
    if any(TaskStatus.FAILED in (before.status, after.status) for before, after in moved):
        summary = summary.model_copy(update={"failed_task_ids": _failed(recorder, run, session)})
    changes: dict[str, Any] = {"summary": summary.to_mongo(), "updatedAt": now}
    starts = [at for at in (run.started_at, *(row.after.started_at for row in moved)) if at is not None]
    if starts:
        changes["startedAt"] = min(starts)
        status = RunStatus.RUNNING
    if status != run.status:
        changes["status"] = status.value
    expected = {"_id": run.id, "status": run.status.value}
    written = recorder.runs.raw.update_one(recorder.runs.scoped(expected), {"$set": changes}, session=session)
    if written.matched_count != 1:
        raise TransitionError(f"run {run.id} is not {run.status} any more; nothing was changed")
    return _with(run, changes)


def promote(
    recorder: Recording,
    run: WorkflowRun,
    done: RunTask,
    below: Sequence[RunTask],
    now: datetime,
    session: Session,
) -> list[Moved]:
    """Queue the children of a task that has just succeeded, those that wait for nothing else.

    ``below`` are its pending children as this transaction has read them (:func:`pending_below`). Reads the
    parents of those that are ready; one write for all with the same assets.
    """
    children = ready(recorder, run, done, below, session)
    if not children:
        return []
    parents = {up for child in children for up in child.upstream_node_ids} - {done.node_id}
    known = [done, *_nodes(recorder, run, sorted(parents), session)]
    by_id = {child.id: child for child in children}
    groups: dict[tuple[int, tuple[str, ...]], list[RunTask]] = {}
    for task_id, asset_ids in promotions([*known, *children], run.asset_ids, recorder.narrowings).items():
        child = by_id[task_id]
        groups.setdefault((child.attempt, tuple(asset_ids)), []).append(child)
    moved: list[Moved] = []
    for (attempt, asset_ids), members in groups.items():
        ids = [child.id for child in members]
        written = recorder.tasks.raw.update_many(
            {"_id": {"$in": ids}, "status": TaskStatus.PENDING.value, "attempt": attempt},
            {"$set": {"status": TaskStatus.QUEUED.value, "assetIds": list(asset_ids), "updatedAt": now}},
            session=session,
        )
        if written.modified_count != len(ids):
            raise TransitionError(
                f"run {run.id}: a task below {done.node_id} is not pending any more", kind=ErrorKind.FENCED
            )
        queued = {"status": TaskStatus.QUEUED, "asset_ids": list(asset_ids), "updated_at": now}
        moved += [Moved(child, child.model_copy(update=queued)) for child in members]
    return moved


def ready(
    recorder: Recording, run: WorkflowRun, done: RunTask, below: Sequence[RunTask], session: Session
) -> list[RunTask]:
    """Those of a task's pending children of which no other parent is open."""
    children = list(below)
    others = {up for child in children for up in child.upstream_node_ids} - {done.node_id}
    if not others:
        return children
    undone = {"workflowRunId": run.id, "status": {"$in": _UNDONE}, "nodeId": {"$in": sorted(others)}}
    rows = recorder.tasks.raw.find(undone, {"_id": 0, "nodeId": 1}, session=session)
    # Where many join in one, the first that is open decides.
    open_ = {row["nodeId"] for row in (rows.limit(1) if len(children) == 1 else rows)}
    return [child for child in children if not open_.intersection(child.upstream_node_ids)]


def _nodes(recorder: Recording, run: WorkflowRun, node_ids: Sequence[str], session: Session) -> list[RunTask]:
    if not node_ids:
        return []
    rows = recorder.tasks.raw.find(
        {"workflowRunId": run.id, "nodeId": {"$in": list(node_ids)}}, HEAVY, session=session
    )
    return [RunTask.from_mongo(row) for row in rows]


def _failed(recorder: Recording, run: WorkflowRun, session: Session) -> list[str]:
    rows = recorder.tasks.raw.find(
        {"workflowRunId": run.id, "status": TaskStatus.FAILED.value}, {"nodeId": 1}, session=session
    )
    place = {node: i for i, node in enumerate(run.runtime_snapshot.node_types)}
    return [row["_id"] for row in sorted(rows, key=lambda row: place.get(row["nodeId"], len(place)))]


def _with(run: WorkflowRun, raw: Mapping[str, Any]) -> WorkflowRun:
    """``run`` with stored fields of :data:`_MOVING` in the place of its own."""
    read: dict[str, Any] = {
        "status": RunStatus,
        "summary": lambda value: RunSummary.model_validate(value, extra="ignore", by_alias=True),
    }
    return run.model_copy(
        update={_NAMES[key]: read.get(key, _same)(raw[key]) for key in _MOVING if key in raw}
    )


def _same(value: Any) -> Any:
    return value
