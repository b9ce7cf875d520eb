"""What the workers of a run could not write themselves, written from what was observed of them.

The observer says what it saw, and of which state of the document; where that has moved on meanwhile nothing
is written. So the same observation may be made twice, by two observers, or a day late.

Source: spec/state-machines.md 4.2 and 4.3; requirements R-368..R-371.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import TransitionError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RUN_ACTIVE, WAITING, RunStatus, RunTask, TaskStatus, WorkflowRun
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.runtime.gates import waits_for
from emboflow_dagster.runtime.lease import EXPIRED, IDLE_S, LEASE_S, older_than
from emboflow_dagster.runtime.record import Recorder, clip, millis

#: So often the queue is asked again for a run of which nobody has taken anything.
MAX_ASKED_AGAIN: Final = 3
_DAGSTER: Final = "dagster:"


class StepFailure(NamedTuple):
    """A step that ended with an error, in the words of Dagster."""

    dagster_run_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of the Dagster runs of one document."""

    over: Mapping[str, str] = field(default_factory=dict)
    """Dagster runs that execute nothing any more, and why."""
    failed: Mapping[str, StepFailure] = field(default_factory=dict)
    """Node to the failure of its step."""
    cursors: Mapping[str, str] = field(default_factory=dict)
    """Dagster run to how far its events were read for this."""
    complete: bool = False
    """Nothing in Dagster works at the document any more, or will."""
    cancelled: bool = False
    """... because somebody stopped it."""


def owner_of(dagster_run_id: str, step: str = "") -> str:
    """How a step signs the tasks that it takes; without a step, what all of a Dagster run begin with."""
    return f"{_DAGSTER}{dagster_run_id}:{step}"


def settle_observed(recorder: Recorder, seen: WorkflowRun, observed: Observed) -> list[RunTask]:
    """Settle the tasks that nobody works at any more: failed, or cancelled where the run was.

    A task that runs is settled when the Dagster run that took it is over, or its step failed; one that waits,
    when its step failed before it could take it, or nothing is left that would. Pending tasks stay pending
    (they are blocked), but in a cancelled run. How far the events were read is written with it, at once.

    Args:
        recorder: Of the run's scope.
        seen: The document as it was when Dagster was looked at.
        observed: What was seen.

    Returns:
        The tasks that were settled.

    Raises:
        TransitionError: The document has moved on; nothing was written.
        NotFoundError: It is gone.
    """
    cursors = {**seen.recorded_up_to, **observed.cursors}

    def body(session: Session) -> list[RunTask]:
        now = utc_now()
        run = recorder.runs.get(seen.id, session=session)
        if _has_moved_on(run, seen):
            raise TransitionError(f"run {run.id} has moved on since it was looked at; nothing was changed")
        draining = run.status == RunStatus.CANCELLED
        stopped = draining or (observed.complete and observed.cancelled)
        changed: dict[str, RunTask] = {}
        tasks = recorder.in_order(run, session)
        if run.status in RUN_ACTIVE or draining:
            for task in tasks:
                why = _why(run, task, observed, stopped=stopped)
                if why is not None:
                    changed[task.id] = _end(recorder, task, why, now, session, cancelled=stopped)
        changes: dict[str, Any] = {"recordedUpTo": cursors} if cursors != run.recorded_up_to else {}
        if run.status in RUN_ACTIVE and observed.complete and observed.cancelled:
            changes["status"] = RunStatus.CANCELLED.value
        if changes:
            run = recorder.runs.change(
                run.id,
                changes,
                expected={"status": run.status.value, "dagsterRunIds": seen.dagster_run_ids},
                session=session,
            )
        if changed or "status" in changes:
            recorder.settle_run(run, tasks, changed, now, session)
        return list(changed.values())

    return recorder.mongo.in_transaction(body)


def _has_moved_on(run: WorkflowRun, seen: WorkflowRun) -> bool:
    return (run.dagster_run_ids, run.recorded_up_to) != (seen.dagster_run_ids, seen.recorded_up_to)


def _why(run: WorkflowRun, task: RunTask, observed: Observed, *, stopped: bool) -> str | None:
    """Why a task is settled, or ``None``: it is none of ours."""
    failure = observed.failed.get(task.node_id)
    if task.status == TaskStatus.RUNNING:
        owner = task.lease_owner or ""
        if failure is not None and owner.startswith(owner_of(failure.dagster_run_id)):
            return failure.message
        its = [why for d, why in observed.over.items() if owner.startswith(owner_of(d))]
        # Whoever took it without Dagster is judged by the lease alone.
        return next(iter(its), _last(observed) if observed.complete and owner.startswith(_DAGSTER) else None)
    if task.status == TaskStatus.QUEUED:
        if waits_for(task) and not stopped:
            return None  # for people: nobody needs to work at it
        # A step of an earlier Dagster run says nothing about a task that was reset since.
        if failure is not None and run.dagster_run_ids[-1:] == [failure.dagster_run_id]:
            return failure.message
        return _last(observed) if observed.complete else None
    if task.status == TaskStatus.PENDING and stopped and observed.complete:
        return _last(observed)
    return None


def _last(observed: Observed) -> str:
    return [*observed.over.values(), "nothing executes it any more"][-2 if observed.over else -1]


def _end(
    recorder: Recorder, task: RunTask, why: str, now: datetime, session: Session, *, cancelled: bool
) -> RunTask:
    status = TaskStatus.CANCELLED if cancelled else TaskStatus.FAILED
    ends: dict[str, Any] = {"status": status.value, "finishedAt": now, "updatedAt": now, "leaseOwner": None}
    if not cancelled or task.status == TaskStatus.RUNNING:
        # A failed task has both times, also when nothing ever took it (invariant I14).
        started = task.started_at or now
        ends |= {"startedAt": started, "durationMs": millis(started, now), "errorMessage": clip(why)}
    expected = {"status": task.status.value, "attempt": task.attempt, "leaseOwner": task.lease_owner}
    return recorder.tasks.change(task.id, ends, expected=expected, session=session)


def ask_again(recorder: Recorder, seen: WorkflowRun) -> WorkflowRun | None:
    """Put a run back into the queue whose Dagster run died before it took anything.

    Nothing of it was executed, so it is still to be started once. The new empty entry of ``dagsterRunIds``
    makes a new ``run_key``. The one that died is not noted: should it live after all, whoever claims first
    has it.

    Returns:
        The run, or ``None`` when it was asked for often enough.

    Raises:
        TransitionError: It has moved on meanwhile.
        NotFoundError: It is gone.
    """
    ids = seen.dagster_run_ids
    if ids[-MAX_ASKED_AGAIN:] == [WAITING] * MAX_ASKED_AGAIN:
        return None
    return recorder.runs.change(
        seen.id,
        {"dagsterRunIds": [*ids, WAITING], "updatedAt": utc_now()},
        expected={"status": seen.status.value, "dagsterRunIds": ids},
    )


def is_quiet(recorder: Recorder, run: WorkflowRun) -> bool:
    """Whether nobody seems to work at a run, on the server's clock.

    Every task that runs has lost its lease; or none runs, and for a while nobody wrote to the run, or what
    was written last is that a lease ran out.
    """
    running = {"workflowRunId": run.id, "status": TaskStatus.RUNNING.value}
    beat = {"$ifNull": ["$heartbeatAt", "$startedAt"]}
    with translated():
        held = recorder.tasks.raw.count_documents(running)
        if held:
            dead = {"$expr": older_than(beat, LEASE_S)}
            return recorder.tasks.raw.count_documents({**running, **dead}) == held
        written = {"$ifNull": ["$updatedAt", "$createdAt"]}
        idle = {"$expr": older_than(written, IDLE_S)}
        if recorder.runs.raw.count_documents({"_id": run.id, **idle}):
            return True
        last = recorder.runs.raw.find_one({"_id": run.id}, {"updatedAt": 1}) or {}
        expired = {"updatedAt": last.get("updatedAt"), "errorMessage": {"$regex": EXPIRED}}
        return recorder.tasks.raw.count_documents({"workflowRunId": run.id, **expired}, limit=1) == 1
