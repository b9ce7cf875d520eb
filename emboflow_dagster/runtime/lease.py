"""Who still works: a task is held by a lease that its worker renews, on the server's clock.

A worker that was killed, lost its machine or its network renews nothing; its task is settled for it. One that
comes back finds another (status, attempt, owner) in its task and changes nothing (spec/reliability.md
finding 9: with client clocks an hour apart, leases on the client's clock broke).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, NotFoundError, TransitionError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RUN_ACTIVE, WAITING, RunStatus, RunTask, TaskStatus, WorkflowRun
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.runtime.gates import waits_for
from emboflow_dagster.runtime.record import Claimed, Recorder, clip, ending, fence

RENEW_EVERY_S: Final = 5.0
LEASE_S: Final = 30
#: A run in which something could be done and nobody does it for so long goes back to the queue.
IDLE_S: Final = 45
#: In the error of every task whose lease ran out.
EXPIRED: Final = "was not heard of for"


@contextmanager
def held(recorder: Recorder, claimed: Claimed, *, every_s: float = RENEW_EVERY_S) -> Iterator[None]:
    """Renew the lease of a claimed task for as long as the block works.

    An outage of the database is outwaited: whether the task is still ours is decided when it is settled.
    """
    done = threading.Event()

    def renew() -> None:
        while not done.wait(every_s):
            try:
                with translated():
                    recorder.tasks.raw.update_one(
                        {"_id": claimed.task.id, **fence(claimed)}, {"$currentDate": {"heartbeatAt": True}}
                    )
            except EmboflowError:
                continue

    thread = threading.Thread(target=renew, name=f"lease {claimed.task.node_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def settle_expired(recorder: Recorder, *, lease_s: int = LEASE_S) -> list[RunTask]:
    """Settle every running task of the project whose lease ran out: failed, or cancelled with its run.

    Idempotent, and harmless beside another one that does the same.
    """
    settled = []
    for raw in _expired(recorder, lease_s):
        try:
            settled.append(recorder.mongo.in_transaction(_ends(recorder, RunTask.from_mongo(raw), lease_s)))
        except (TransitionError, NotFoundError):
            continue  # renewed, settled by its worker, or of another project
    return settled


def requeue_idle(recorder: Recorder, *, idle_s: int = IDLE_S) -> list[WorkflowRun]:
    """Give runs back to the queue that a worker without Dagster left in the middle.

    They are active, have a queued task and none that runs, and nobody has written to them for ``idle_s``
    seconds. (Runs of a Dagster run are judged by that.)
    """
    stale = {"$expr": older_than("$updatedAt", idle_s)}
    filter_: dict[str, Any] = {"status": RunStatus.RUNNING.value, "dagsterRunIds": [], **stale}
    requeued = []
    for run in recorder.runs.find(filter_):
        # What waits for people is nobody's to do.
        statuses = {task.status for task in recorder.in_order(run) if not waits_for(task)}
        if TaskStatus.QUEUED not in statuses or TaskStatus.RUNNING in statuses:
            continue
        try:
            changes = {"dagsterRunIds": [WAITING], "updatedAt": utc_now()}
            expected = {"dagsterRunIds": [], "updatedAt": run.updated_at}
            requeued.append(recorder.runs.change(run.id, changes, expected=expected))
        except TransitionError:
            continue
    return requeued


def _expired(recorder: Recorder, lease_s: int) -> list[dict[str, Any]]:
    dead = {"$expr": older_than({"$ifNull": ["$heartbeatAt", "$startedAt"]}, lease_s)}
    with translated():
        rows = recorder.tasks.raw.find({"status": TaskStatus.RUNNING.value, **dead}).limit(1_000)
        return list(rows)


def older_than(time: object, seconds: int) -> dict[str, Any]:
    """An expression: whether ``time`` is more than ``seconds`` ago on the server's clock."""
    return {"$lt": [time, {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": seconds}}]}


def _ends(recorder: Recorder, task: RunTask, lease_s: int) -> Callable[[Session], RunTask]:
    def body(session: Session) -> RunTask:
        now = utc_now()
        run = recorder.runs.get(task.workflow_run_id, session=session)
        cancelled = run.status == RunStatus.CANCELLED
        status = TaskStatus.CANCELLED if cancelled else TaskStatus.FAILED
        text = f"its worker {task.lease_owner or '?'} {EXPIRED} {lease_s} s"
        ended = recorder.tasks.change(
            task.id,
            {**ending(task, status, now), "errorMessage": clip(text)},
            expected={
                "status": TaskStatus.RUNNING.value,
                "attempt": task.attempt,
                "leaseOwner": task.lease_owner,
                "heartbeatAt": task.heartbeat_at,
            },
            session=session,
        )
        if run.status in RUN_ACTIVE or cancelled:
            recorder.settle_run(run, recorder.in_order(run, session), {ended.id: ended}, now, session)
        return ended

    return body
