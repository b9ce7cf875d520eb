"""What people do to runs: cancel one, retry one, retry a task of one. Each is one short transaction.

A run that is retried in part waits for a Dagster run of its own: an empty entry at the end of
``dagsterRunIds`` says so until one has claimed it.

Source: spec/state-machines.md 4.2 and 4.3; requirements R-368..R-379.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from emboflow_dagster.errors import ErrorKind, NotFoundError, TransitionError
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.run import (
    RUN_ACTIVE,
    TASK_TERMINAL,
    WAITING,
    RunStatus,
    RunTask,
    TaskStatus,
    WorkflowRun,
)
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.runtime import gates
from emboflow_dagster.runtime.machine import below, effective_assets, not_retryable, summarise
from emboflow_dagster.runtime.record import CLEARED, Recorder


def cancel(recorder: Recorder, run_id: str) -> WorkflowRun:
    """Cancel what of a run has not begun; running tasks end by themselves or are interrupted.

    Cancelling a cancelled run again is no error.

    Raises:
        TransitionError: The run has succeeded or failed (kind ``run-finished``); nothing was changed.
        NotFoundError: There is no such run.
    """

    def body(session: Session) -> WorkflowRun:
        run = recorder.runs.get(run_id, session=session)
        if run.status == RunStatus.CANCELLED:
            return run
        if run.status not in RUN_ACTIVE:
            raise TransitionError(
                f"run {run_id} is {run.status}; only one that is queued or running can be cancelled",
                kind=ErrorKind.RUN_FINISHED,
            )
        now = utc_now()
        tasks = recorder.in_order(run, session)
        changed = {}
        for task in tasks:
            if task.status in (TaskStatus.PENDING, TaskStatus.QUEUED):
                changed[task.id] = recorder.tasks.change(
                    task.id,
                    {
                        "status": TaskStatus.CANCELLED.value,
                        "finishedAt": now,
                        "updatedAt": now,
                        "leaseOwner": None,
                    },
                    expected={"status": task.status.value, "attempt": task.attempt},
                    session=session,
                )
        gates.withdraw(recorder, tasks, session)
        _audit(recorder, session, "run.cancel", run, {"cancelled": len(changed)})
        ended = recorder.runs.change(
            run.id,
            {"status": RunStatus.CANCELLED.value, "updatedAt": now},
            expected={"status": run.status.value},
            session=session,
        )
        return recorder.settle_run(ended, tasks, changed, now, session)

    return recorder.mongo.in_transaction(body)


def retry_tasks(
    recorder: Recorder, run_id: str, targets: Collection[str], *, dagster_run_id: str | None = None
) -> WorkflowRun:
    """Reset nodes of a run, and all that stands below them, so that they are executed again.

    Each target is queued with the assets its upstream tasks pass on now, its attempt one higher; what is
    below waits again. Everything else stays as it is, byte for byte. Old artifacts stay.

    Args:
        recorder: Of the run's scope.
        run_id: The run.
        targets: Node ids; none of them below another.
        dagster_run_id: The Dagster run that executes them, when it is there already; repeating the call with
            it changes nothing.

    Raises:
        TransitionError: A target cannot be retried (kind ``task-not-retryable``); nothing was changed.
        NotFoundError: The run, or a task in it, does not exist.
    """

    def body(session: Session) -> WorkflowRun:
        run = recorder.runs.get(run_id, session=session)
        if dagster_run_id and dagster_run_id in run.dagster_run_ids:
            return run
        tasks = recorder.in_order(run, session)
        _refuse(run, tasks, targets)
        now = utc_now()
        changed = _reset(recorder, run, tasks, targets, now, session)
        current = [changed.get(task.id, task) for task in tasks]
        _audit(recorder, session, "task.retry", run, {"nodes": sorted(targets), "reset": len(changed)})
        known = run.dagster_run_ids[:-1] if run.waits_again else run.dagster_run_ids
        return recorder.runs.change(
            run.id,
            {
                **_reopened(current),
                "dagsterRunIds": [*known, dagster_run_id or WAITING],
                "updatedAt": now,
            },
            expected={"status": run.status.value},
            session=session,
        )

    return recorder.mongo.in_transaction(body)


def _refuse(run: WorkflowRun, tasks: Sequence[RunTask], targets: Collection[str]) -> None:
    nodes = {task.node_id for task in tasks}
    for target in sorted(targets):
        if target not in nodes:
            raise NotFoundError(
                f"run {run.id}: there is no task for node {target!r}",
                hint=f"its nodes are {', '.join(sorted(nodes)[:20])}",
            )
        why = not_retryable(target, tasks)
        if why is None and below([target], tasks) & set(targets):
            why = "another of the tasks stands below it"
        if why is not None:
            raise TransitionError(
                f"run {run.id}: task {target} cannot be retried: {why}", kind=ErrorKind.TASK_NOT_RETRYABLE
            )


def _reset(
    recorder: Recorder,
    run: WorkflowRun,
    tasks: Sequence[RunTask],
    targets: Collection[str],
    now: datetime,
    session: Session,
) -> dict[str, RunTask]:
    by_node = {task.node_id: task for task in tasks}
    reset = {*targets, *below(targets, tasks)}
    changed: dict[str, RunTask] = {}
    for task in tasks:
        if task.node_id not in reset:
            continue
        changes: dict[str, Any] = {**CLEARED, "assetIds": list(run.asset_ids), "updatedAt": now}
        if task.node_id in targets:
            assets = effective_assets(task, by_node, run.asset_ids, recorder.narrowings)
            changes |= {"status": TaskStatus.QUEUED.value, "attempt": task.attempt + 1, "assetIds": assets}
        else:
            changes["status"] = TaskStatus.PENDING.value
        changed[task.id] = recorder.tasks.change(
            task.id,
            changes,
            expected={"status": task.status.value, "attempt": task.attempt},
            session=session,
        )
    return changed


def _reopened(tasks: Sequence[RunTask]) -> dict[str, Any]:
    """The fields of a run in which something is to be done again."""
    running = any(task.status == TaskStatus.RUNNING for task in tasks)
    started = [task.started_at for task in tasks if task.started_at is not None]
    return {
        "status": (RunStatus.RUNNING if running else RunStatus.QUEUED).value,
        "startedAt": min(started, default=None),
        "finishedAt": None,
        "durationMs": None,
        "summary": summarise(tasks).to_mongo(),
    }


def retry_run(recorder: Recorder, run_id: str, *, new_run_id: str | None = None) -> WorkflowRun:
    """A new run of the same frozen version over the same assets; the old one stays as it is.

    Raises:
        TransitionError: The run is not over (kind ``run-still-active``).
        NotFoundError: There is no such run.
    """
    run = recorder.runs.get(run_id)
    if run.status in RUN_ACTIVE:
        raise TransitionError(
            f"run {run_id} is {run.status}; only one that is over can be retried",
            kind=ErrorKind.RUN_STILL_ACTIVE,
            hint=f"`emboflow run cancel {run_id}` ends it",
        )
    tasks = recorder.tasks.find({"workflowRunId": run.id}, limit=0)
    again, fresh = copy_of(run, recorder.ordered(run, tasks), recorder.narrowings, new_run_id)
    recorder.request(again, fresh)
    return again


def copy_of(
    run: WorkflowRun, tasks: Sequence[RunTask], narrowings: Mapping[str, Any], run_id: str | None = None
) -> tuple[WorkflowRun, list[RunTask]]:
    """The documents of a run that repeats ``run``: same version, snapshot and assets, nothing done yet."""
    now = utc_now()
    run_id = run_id or new_id("run")
    nodes = {task.node_id for task in tasks}
    cleared = {
        "attempt": 1,
        "started_at": None,
        "finished_at": None,
        "duration_ms": None,
        "output_artifact_ids": [],
        "log_ref": None,
        "cache_key": None,
        "cache_hit": None,
        "log_lines": [],
        "stdout_lines": [],
        "stderr_lines": [],
        "error_message": None,
        "summary": None,
        "last_result_preview": None,
        "lease_owner": None,
        "heartbeat_at": None,
        "late_reports": 0,
        "updated_at": None,
    }
    fresh = []
    for task in tasks:
        root = not nodes.intersection(task.upstream_node_ids)
        fresh.append(
            task.model_copy(
                update={
                    **cleared,
                    "id": new_id("tsk"),
                    "workflow_run_id": run_id,
                    "created_at": now,
                    "status": TaskStatus.QUEUED if root else TaskStatus.PENDING,
                    "asset_ids": effective_assets(task, {}, run.asset_ids, narrowings)
                    if root
                    else list(run.asset_ids),
                }
            )
        )
    again = run.model_copy(
        update={
            "id": run_id,
            "status": RunStatus.QUEUED,
            "triggered_by": f"retry:{run.id}",
            "retry_of_run_id": run.id,
            "summary": summarise(fresh),
            "started_at": None,
            "finished_at": None,
            "duration_ms": None,
            "created_at": now,
            "updated_at": now,
            "dagster_run_ids": [],
            "recorded_up_to": {},
            "scheduled_for": None,
        }
    )
    return again, fresh


def open_nodes(tasks: Sequence[RunTask]) -> list[str]:
    """The nodes of a run that are still to be executed."""
    return [task.node_id for task in tasks if task.status not in TASK_TERMINAL]


def _audit(
    recorder: Recorder, session: Session, action: str, run: WorkflowRun, after: dict[str, Any]
) -> None:
    audit.record(
        recorder.mongo,
        recorder.scope,
        session,
        action,
        "workflow_runs",
        run.id,
        before={"status": run.status.value},
        after=after,
    )
