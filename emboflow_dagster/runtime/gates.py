"""Tasks that wait for people: they stay queued and hold no process.

Such a task is ``queued`` and its ``leaseOwner`` is ``annotation:<annotation task>``: nobody takes it, and
what looks for lost workers leaves it alone. When people have approved, the owner goes and the run is in the
queue again for what is left of it; a rejection fails the task. Either happens with the decision, at once.

Source: spec/state-machines.md 4.2 (queued); spec/beyond.md 14; decision 34.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from ulid import ULID

from emboflow_dagster.errors import ConflictError, NotFoundError
from emboflow_dagster.model.annotation import ANNOTATION_OPEN, AnnotationTask, AnnotationTaskStatus
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RUN_ACTIVE, WAITING, RunStatus, RunTask, TaskStatus
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.runtime.advance import HEAVY
from emboflow_dagster.runtime.record import Recorder, clip

_OWNER: Final = "annotation:"
_MAX: Final = 1_000


def gate_id(task: RunTask, inputs_sha256: str, number: int = 0) -> str:
    """The annotation task that a task waits for: one for each attempt and for what exactly it is given.

    ``number`` counts those of the same that were cancelled or rejected before.
    """
    space = uuid5(NAMESPACE_URL, f"emboflow:annotation:{task.id}:{task.attempt}:{inputs_sha256}:{number}")
    return f"{AnnotationTask.prefix}_{ULID.from_bytes(space.bytes)}"


def found(recorder: Recorder, task: RunTask, inputs_sha256: str) -> tuple[str, AnnotationTask | None]:
    """The annotation task of a task and of what it is given: its id, and its document where it is there.

    One that was cancelled or rejected is over: what comes after it has another id.
    """
    tasks: Documents[AnnotationTask] = Documents(recorder.mongo, recorder.scope, AnnotationTask)
    number = 0
    while True:
        made_id = gate_id(task, inputs_sha256, number)
        there = tasks.find_one({"_id": made_id})
        if there is None or there.status in ANNOTATION_OPEN or there.status is AnnotationTaskStatus.APPROVED:
            return made_id, there
        number += 1


def waits_for(task: RunTask) -> str | None:
    """The annotation task that a task waits for; ``None`` when it waits for none."""
    owner = task.lease_owner or ""
    waits = task.status is TaskStatus.QUEUED and owner.startswith(_OWNER)
    return owner.removeprefix(_OWNER) if waits else None


def owner_of(annotation_task_id: str) -> str:
    """How an annotation task signs the task that waits for it."""
    return _OWNER + annotation_task_id


def wait(recorder: Recorder, task: RunTask, made: AnnotationTask) -> None:
    """Open an annotation task and let a queued task wait for it; again is no error.

    Raises:
        TransitionError: The task is not queued any more; nothing was written.
    """
    annotations: Documents[AnnotationTask] = Documents(recorder.mongo, recorder.scope, AnnotationTask)

    def body(session: Session) -> None:
        owner = owner_of(made.id)
        recorder.tasks.change(
            task.id,
            {"leaseOwner": owner, "updatedAt": utc_now()},
            expected={
                "status": TaskStatus.QUEUED.value,
                "attempt": task.attempt,
                "leaseOwner": {"$in": [None, owner]},
            },
            session=session,
        )
        if annotations.find_one({"_id": made.id}, session=session) is None:
            annotations.insert(made, session=session)
            opened(recorder, made, session)

    recorder.mongo.in_transaction(body)


def opened(recorder: Recorder, made: AnnotationTask, session: Session) -> None:
    """Record that an annotation task was opened, and by which run."""
    after = {"labelType": made.label_type, "target": made.target_ref.id, **run_of(made)}
    audit.record(
        recorder.mongo, recorder.scope, session, "annotation.open", made.collection, made.id, after=after
    )


def run_of(annotation: AnnotationTask) -> dict[str, Any]:
    """The run, node and task that opened an annotation task; empty when people did."""
    return dict((annotation.target_ref.selector or {}).get("run") or {})


def approved(recorder: Recorder, annotation: AnnotationTask, session: Session) -> None:
    """Let the task that waited for an approval go on, in the transaction of the approval.

    Where something else of the run is at work, :func:`release` does it later: who works there would not look
    at this task again, and a second Dagster run would get in its way.
    """
    task = _waiting(recorder, annotation, session)
    if task is not None:
        _let_go(recorder, task, session, ask=True)


def rejected(recorder: Recorder, annotation: AnnotationTask, message: str, session: Session) -> None:
    """Fail the task that waited, in the transaction of the rejection: there is nothing to be executed."""
    task = _waiting(recorder, annotation, session)
    if task is None:
        return
    now = utc_now()
    failed = recorder.tasks.change(
        task.id,
        {
            "status": TaskStatus.FAILED.value,
            "startedAt": now,
            "finishedAt": now,
            "durationMs": 0,
            "updatedAt": now,
            "leaseOwner": None,
            "errorMessage": clip(message),
        },
        expected=_expected(task, annotation),
        session=session,
    )
    run = recorder.runs.get(task.workflow_run_id, session=session)
    recorder.settle_run(run, recorder.in_order(run, session), {failed.id: failed}, now, session)


def _waiting(recorder: Recorder, annotation: AnnotationTask, session: Session) -> RunTask | None:
    """The task that waits for this one; ``None``: people opened it, or the run has moved on."""
    said = run_of(annotation)
    if not said:
        return None
    task = recorder.tasks.find_one({"_id": said["taskId"]}, session=session)
    return task if task is not None and waits_for(task) == annotation.id else None


def _expected(task: RunTask, annotation: AnnotationTask) -> dict[str, Any]:
    return {
        "status": TaskStatus.QUEUED.value,
        "attempt": task.attempt,
        "leaseOwner": owner_of(annotation.id),
    }


def release(recorder: Recorder, run_id: str | None = None, *, ask: bool = True) -> list[str]:
    """Let tasks go on that were approved while something else of their run was at work.

    One whose annotation task somebody closed otherwise fails.

    Args:
        recorder: Of the project.
        run_id: Only of this run.
        ask: Put the run into the queue; no, where the caller goes on with it.

    Returns:
        The runs, each once.
    """
    held: dict[str, Any] = {
        "status": TaskStatus.QUEUED.value,
        "leaseOwner": {"$regex": f"^{_OWNER}"},
        **({"workflowRunId": run_id} if run_id else {}),
    }
    with translated():
        rows = list(recorder.tasks.raw.find(held, {"leaseOwner": 1}))
    by_gate = {row["leaseOwner"].removeprefix(_OWNER): row["_id"] for row in rows}
    annotations: Documents[AnnotationTask] = Documents(recorder.mongo, recorder.scope, AnnotationTask)
    over = [status.value for status in AnnotationTaskStatus if status not in ANNOTATION_OPEN]
    done = {"_id": {"$in": list(by_gate)}, "status": {"$in": over}}
    decided: dict[str, None] = {}
    for row in annotations.find(done, limit=0) if by_gate else ():
        try:
            task = recorder.tasks.get(by_gate[row.id])
            if row.status is not AnnotationTaskStatus.APPROVED:
                why = f"annotation task {row.id} was {row.status.value}"
                recorder.mongo.in_transaction(partial(rejected, recorder, row, why))
            elif not recorder.mongo.in_transaction(partial(_let_go, recorder, task, ask=ask)):
                continue
            decided[task.workflow_run_id] = None
        except (ConflictError, NotFoundError):
            continue  # it has moved on meanwhile
    return list(decided)


def _let_go(recorder: Recorder, task: RunTask, session: Session, *, ask: bool) -> bool:
    """Whether a task that is approved goes on now: nothing else of its run is at work."""
    run = recorder.runs.get(task.workflow_run_id, session=session)
    others = [one for one in recorder.in_order(run, session) if one.id != task.id]
    if run.status not in RUN_ACTIVE or any(_at_work(one) for one in others):
        return False
    recorder.tasks.change(
        task.id,
        {"leaseOwner": None, "updatedAt": utc_now()},
        expected={
            "status": TaskStatus.QUEUED.value,
            "attempt": task.attempt,
            "leaseOwner": task.lease_owner,
        },
        session=session,
    )
    fresh = run.status is RunStatus.QUEUED and not run.dagster_run_ids
    if ask and not run.waits_again and not fresh:
        # As after a retry: an empty entry says that a part of the run waits for a Dagster run.
        recorder.runs.change(
            run.id,
            {"dagsterRunIds": [*run.dagster_run_ids, WAITING], "updatedAt": utc_now()},
            expected={"status": run.status.value, "dagsterRunIds": run.dagster_run_ids},
            session=session,
        )
    return True


def withdraw(recorder: Recorder, tasks: Iterable[RunTask], session: Session) -> None:
    """Cancel the annotation tasks that ``tasks``, as they were before, waited for."""
    ids = [gate for gate in map(waits_for, tasks) if gate]
    if not ids:
        return
    annotations: Documents[AnnotationTask] = Documents(recorder.mongo, recorder.scope, AnnotationTask)
    for row in annotations.find({"_id": {"$in": ids}, **_open()}, limit=0, session=session):
        cancel(recorder, row, session)


def withdraw_left(recorder: Recorder) -> list[str]:
    """Cancel open annotation tasks of runs that do not wait for them (any more); their ids."""
    annotations: Documents[AnnotationTask] = Documents(recorder.mongo, recorder.scope, AnnotationTask)
    open_ = annotations.find({**_open(), "targetRef.selector.run": {"$exists": True}}, limit=_MAX)
    if not open_:
        return []
    ids = [run_of(row)["taskId"] for row in open_]
    with translated():
        tasks = [RunTask.from_mongo(raw) for raw in recorder.tasks.raw.find({"_id": {"$in": ids}}, HEAVY)]
    waited = {waits_for(task) for task in tasks}
    left: list[str] = []
    for row in open_:
        if row.id in waited:
            continue
        try:
            recorder.mongo.in_transaction(partial(cancel, recorder, row))
        except (ConflictError, NotFoundError):
            continue  # decided meanwhile
        left.append(row.id)
    return left


def _open() -> dict[str, Any]:
    return {"status": {"$in": sorted(status.value for status in ANNOTATION_OPEN)}}


def _at_work(task: RunTask) -> bool:
    return task.status is TaskStatus.RUNNING or (
        task.status is TaskStatus.QUEUED and task.lease_owner is None
    )


def cancel(recorder: Recorder, row: AnnotationTask, session: Session) -> AnnotationTask:
    """Close an annotation task without a decision.

    Raises:
        TransitionError: It is not in the status that ``row`` says.
    """
    annotations: Documents[AnnotationTask] = Documents(recorder.mongo, recorder.scope, AnnotationTask)
    closed = annotations.change(
        row.id,
        {"status": AnnotationTaskStatus.CANCELLED.value, "updatedAt": utc_now()},
        expected={"status": row.status.value},
        session=session,
    )
    audit.record(
        recorder.mongo,
        recorder.scope,
        session,
        "annotation.cancel",
        "annotation_tasks",
        row.id,
        before={"status": row.status.value},
        after=run_of(row),
    )
    return closed
