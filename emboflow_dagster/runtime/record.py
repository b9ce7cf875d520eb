"""What is written when a run is requested and a task is claimed, settled, failed or cancelled.

Each function is one short transaction: the task, what it produced, its children and the run's
summary move together, fenced on (task, status, attempt, lease owner).

Source: spec/state-machines.md 4.2; spec/reliability.md I9-I13.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from emboflow_dagster.errors import EmboflowError, ErrorKind, TransitionError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RUN_ACTIVE, RunStatus, RunTask, TaskStatus, WorkflowRun
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Mongo, Session, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.runtime.advance import (
    HEAVY,
    Moved,
    pending_below,
    promote,
    read_again,
    read_beside,
    settle_step,
)
from emboflow_dagster.runtime.machine import run_changes
from emboflow_dagster.runtime.node import Narrowing
from emboflow_dagster.runtime.outputs import Outputs, write_outputs

T = TypeVar("T")
Narrowings = Mapping[str, Narrowing | None]
_KNOWN_RUNS: Final = 16
CLEARED: dict[str, Any] = {
    "startedAt": None,
    "finishedAt": None,
    "durationMs": None,
    "outputArtifactIds": [],
    "logRef": None,
    "cacheKey": None,
    "cacheHit": None,
    "logLines": [],
    "stdoutLines": [],
    "stderrLines": [],
    "errorMessage": None,
    "summary": None,
    "lastResultPreview": None,
    "leaseOwner": None,
    "heartbeatAt": None,
}


class Claimed(NamedTuple):
    """A task that is ours to execute, and its run."""

    run: WorkflowRun
    task: RunTask


class Recorder:
    """Writes the state of runs and tasks of one scope."""

    def __init__(self, mongo: Mongo, scope: Scope, narrowings: Narrowings) -> None:
        self.mongo = mongo
        self.scope = scope
        self.narrowings = narrowings
        self.runs: Documents[WorkflowRun] = Documents(mongo, scope, WorkflowRun)
        self.tasks: Documents[RunTask] = Documents(mongo, scope, RunTask)
        self._frozen: dict[str, WorkflowRun] = {}

    def request(
        self, run: WorkflowRun, tasks: Sequence[RunTask], also: Callable[[Session], None] | None = None
    ) -> None:
        """Write a run with all of its tasks and the audit row; in the same transaction what ``also`` writes.

        Raises:
            AlreadyExistsError: The run was written before; nothing was changed.
        """

        def body(session: Session) -> None:
            if also is not None:
                also(session)
            self.runs.insert(run, session=session)
            self.tasks.insert(*tasks, session=session)
            audit.record(
                self.mongo,
                self.scope,
                session,
                "run.create",
                "workflow_runs",
                run.id,
                after={
                    "workflow": run.runtime_snapshot.workflow_slug,
                    "version": run.runtime_snapshot.version_number,
                    "assets": len(run.asset_ids),
                    "triggeredBy": run.triggered_by,
                },
            )

        self.mongo.in_transaction(body)

    def bind(self, run_id: str, dagster_run_id: str, *, known: WorkflowRun | None = None) -> WorkflowRun:
        """Give a queued run to the one Dagster run that executes it; repeating it is harmless.

        ``known`` is the run as the caller has just read it; the write compares it with what is there.

        Raises:
            TransitionError: The run is over, or another Dagster run has it.
        """
        # Every step of a run asks, and what is frozen grows with the graph.
        if known is None:
            run = self.known(run_id)
        else:
            self._remember(run := known)
        if dagster_run_id in run.dagster_run_ids and run.status in RUN_ACTIVE:
            return run
        bound = [*(run.dagster_run_ids[:-1] if run.waits_again else []), dagster_run_id]
        # Steps of one Dagster run may come at once: the later one finds what it wants to write.
        waiting = [run.dagster_run_ids if run.waits_again else [], bound]
        return self.runs.change(
            run_id,
            {"dagsterRunIds": bound, "updatedAt": utc_now()},
            expected={
                "status": {"$in": [s.value for s in RUN_ACTIVE]},
                "dagsterRunIds": {"$in": waiting},
            },
        )

    def claim(
        self, run_id: str, node_id: str, worker: str, *, gated: Collection[str] = frozenset()
    ) -> Claimed:
        """Take one queued task: exactly one worker gets it; of the node types ``gated`` nobody does.

        Raises:
            TransitionError: It is not queued, or its run is over; kind ``waits-for-people``: it is not to be
                taken before people have decided.
            NotFoundError: No such run or node.
        """

        def body(session: Session) -> Claimed:
            run, found = self._known(run_id, node_id, session)
            if not found:
                raise TransitionError(f"run {run_id} has no task for node {node_id!r}; it was not selected")
            before = found[0]
            if run.status not in RUN_ACTIVE:
                raise TransitionError(f"run {run_id} is {run.status}; task {node_id} cannot start")
            if before.status == TaskStatus.PENDING:
                raise TransitionError(
                    f"run {run_id}: task {node_id} is pending: an upstream task has not succeeded",
                    kind=ErrorKind.UPSTREAM_NOT_SUCCEEDED,
                )
            held = before.status is TaskStatus.QUEUED and before.lease_owner is not None
            if held or before.node_type in gated:
                raise TransitionError(
                    f"run {run_id}: task {node_id} waits for people", kind=ErrorKind.WAITS_FOR_PEOPLE
                )
            now = utc_now()
            task = self.tasks.change(
                before.id,
                {
                    "status": TaskStatus.RUNNING.value,
                    "startedAt": now,
                    "updatedAt": now,
                    "leaseOwner": worker,
                },
                expected={
                    "status": TaskStatus.QUEUED.value,
                    "attempt": before.attempt,
                    "leaseOwner": before.lease_owner,
                },
                server_time=("heartbeatAt",),
                session=session,
            )
            return Claimed(settle_step(self, run, [Moved(before, task)], now, session), task)

        return self.mongo.in_transaction(body)

    def succeed(self, claimed: Claimed, fields: Mapping[str, Any], outputs: Outputs) -> RunTask:
        """Settle a task as done: its artifacts, dataset version, probe reports, children and run, at once.

        Args:
            claimed: What :meth:`claim` gave.
            fields: Stored task fields (effective assets, logs, preview, summary).
            outputs: Documents made by the task; their payloads are stored already.

        Raises:
            TransitionError: The task is not ours any more (kind ``fenced``); nothing was written.
        """

        def body(session: Session) -> RunTask:
            now = utc_now()
            below = pending_below(claimed.run, claimed.task.node_id)
            run, children = read_beside(self, claimed.run, below, session)
            task = self._end(claimed, TaskStatus.SUCCESS, fields, now, session)
            write_outputs(self.mongo, self.scope, outputs, task, session)
            moved = [Moved(claimed.task, task)]
            if run.status in RUN_ACTIVE:
                moved += promote(self, run, task, children, now, session)
            settle_step(self, run, moved, now, session)
            return task

        return self._unless_late(claimed, body)

    def fail(
        self, claimed: Claimed, fields: Mapping[str, Any], message: str, outputs: Outputs | None = None
    ) -> RunTask:
        """Settle a task as failed (as cancelled when its run was cancelled meanwhile).

        ``outputs`` are what it made before it refused its input: inserted, and not linked by the task.

        Raises:
            TransitionError: The task is not ours any more (kind ``fenced``); nothing was written.
        """

        def body(session: Session) -> RunTask:
            now = utc_now()
            run = read_again(self, claimed.run, session)
            cancelled = run.status == RunStatus.CANCELLED
            status = TaskStatus.CANCELLED if cancelled else TaskStatus.FAILED
            text = f"interrupted by cancel: {message}" if cancelled else message
            task = self._end(claimed, status, {**fields, "errorMessage": clip(text)}, now, session)
            if outputs is not None:
                write_outputs(self.mongo, self.scope, outputs, task, session)
            settle_step(self, run, [Moved(claimed.task, task)], now, session)
            return task

        return self._unless_late(claimed, body)

    def again(self, claimed: Claimed, worker: str) -> Claimed:
        """The node's own retry policy: the same task, attempt + 1, execution fields cleared.

        Raises:
            TransitionError: The task is not ours any more, or its run is over.
        """

        def body(session: Session) -> Claimed:
            now = utc_now()
            run = self.runs.get(claimed.run.id, session=session)
            if run.status not in RUN_ACTIVE:
                raise TransitionError(
                    f"run {run.id} is {run.status}; task {claimed.task.node_id} is not retried"
                )
            task = self.tasks.change(
                claimed.task.id,
                {
                    **CLEARED,
                    "attempt": claimed.task.attempt + 1,
                    "startedAt": now,
                    "updatedAt": now,
                    "leaseOwner": worker,
                },
                expected=fence(claimed),
                server_time=("heartbeatAt",),
                session=session,
            )
            run = self.settle_run(run, self.in_order(run, session), {task.id: task}, now, session)
            return Claimed(run, task)

        return self.mongo.in_transaction(body)

    def settle_lost(
        self, run_id: str, message: str, *, cancelled: bool = False, claimed: Claimed | None = None
    ) -> WorkflowRun:
        """End a run whose Dagster run ended without saying so.

        Its running and queued tasks fail with ``message`` (pending ones stay pending: they are blocked);
        in a cancelled run all three are cancelled.

        Args:
            run_id: The run.
            message: Why.
            cancelled: Somebody stopped it.
            claimed: The task of the worker that asks for it.

        Raises:
            TransitionError: ``claimed`` is not the worker's any more (kind ``fenced``); nothing was written.
        """

        def body(session: Session) -> WorkflowRun:
            now = utc_now()
            run = self.runs.get(run_id, session=session)
            tasks = self.in_order(run, session)
            if claimed is not None and not any(_is_held(task, claimed) for task in tasks):
                raise TransitionError(f"task {claimed.task.id} was taken from us", kind=ErrorKind.FENCED)
            if run.status not in RUN_ACTIVE and not (cancelled and run.status == RunStatus.CANCELLED):
                return run
            lost = TaskStatus.CANCELLED if cancelled else TaskStatus.FAILED
            open_ = {TaskStatus.RUNNING, TaskStatus.QUEUED} | ({TaskStatus.PENDING} if cancelled else set())
            changed = {}
            for task in tasks:
                if task.status not in open_:
                    continue
                ends: dict[str, Any] = {
                    "status": lost.value,
                    "finishedAt": now,
                    "updatedAt": now,
                    "leaseOwner": None,
                }
                if not cancelled or task.status == TaskStatus.RUNNING:
                    # A failed task has both times, also when nothing ever took it (invariant I14).
                    started = task.started_at or now
                    ends |= {"startedAt": started, "durationMs": millis(started, now)}
                    ends["errorMessage"] = clip(message)
                expected = {"status": task.status.value, "attempt": task.attempt}
                changed[task.id] = self.tasks.change(task.id, ends, expected=expected, session=session)
            if cancelled:
                run = run.model_copy(update={"status": RunStatus.CANCELLED})
                self.runs.change(run.id, {"status": RunStatus.CANCELLED.value}, session=session)
            return self.settle_run(run, tasks, changed, now, session)

        return self._unless_late(claimed, body) if claimed else self.mongo.in_transaction(body)

    def _unless_late(self, claimed: Claimed, body: Callable[[Session], T]) -> T:
        """Write what a worker reports; one that had lost its task is counted, and changes nothing else."""
        try:
            return self.mongo.in_transaction(body)
        except TransitionError as error:
            if error.kind == ErrorKind.FENCED:
                mine = {"_id": claimed.task.id, "workflowRunId": claimed.run.id}
                with suppress(EmboflowError), translated():
                    self.tasks.raw.update_one(mine, {"$inc": {"lateReports": 1}})
            raise

    def known(self, run_id: str) -> WorkflowRun:
        """A run as it is now; what was frozen is read once, however many of its steps are executed here.

        Raises:
            NotFoundError: There is none in this project.
        """
        frozen = self._frozen.get(run_id)
        with translated():
            run = read_again(self, frozen) if frozen else self.runs.get(run_id)
        self._remember(run)
        return run

    def _known(self, run_id: str, node_id: str, session: Session) -> tuple[WorkflowRun, list[RunTask]]:
        """A run as it is now, and the task of a node, if there is one.

        What was frozen is read once, however many of the run's steps are executed here.
        """
        known = self._frozen.get(run_id) or self.runs.get(run_id, session=session)
        run, tasks = read_beside(self, known, {"nodeId": node_id}, session)
        self._remember(run)
        return run, tasks

    def _remember(self, run: WorkflowRun) -> None:
        if len(self._frozen) >= _KNOWN_RUNS:
            self._frozen.clear()
        self._frozen[run.id] = run

    def _end(
        self, claimed: Claimed, status: TaskStatus, fields: Mapping[str, Any], now: datetime, session: Session
    ) -> RunTask:
        changes = {**fields, **ending(claimed.task, status, now)}
        try:
            return self.tasks.change(claimed.task.id, changes, expected=fence(claimed), session=session)
        except TransitionError as error:
            raise TransitionError(error.message, kind=ErrorKind.FENCED) from None

    def settle_run(
        self,
        run: WorkflowRun,
        tasks: Sequence[RunTask],
        changed: Mapping[str, RunTask],
        now: datetime,
        session: Session,
    ) -> WorkflowRun:
        """Bring a run's summary, status and times to what its tasks, with ``changed``, make them."""
        current = [changed.get(task.id, task) for task in tasks]
        return self.runs.change(run.id, run_changes(run, current, now), session=session)

    def of_nodes(self, run: WorkflowRun, node_ids: Collection[str]) -> dict[str, RunTask]:
        """Tasks of a run, which is of this scope, by their nodes; a node that was not selected has none."""
        if not node_ids:
            return {}
        with translated():
            rows = self.tasks.raw.find({"workflowRunId": run.id, "nodeId": {"$in": list(node_ids)}})
            return {row["nodeId"]: RunTask.from_mongo(row) for row in rows}

    def in_order(self, run: WorkflowRun, session: Session | None = None) -> list[RunTask]:
        """A run's tasks in graph order, without their logs and previews."""
        rows = self.tasks.raw.find({"workflowRunId": run.id}, HEAVY, session=session)
        return self.ordered(run, [RunTask.from_mongo(row) for row in rows])

    def queued_nodes(self, run: WorkflowRun) -> list[str]:
        """The nodes of a run that a worker may take now, in graph order."""
        # One that waits for people is held by what it waits for.
        queued = {"workflowRunId": run.id, "status": TaskStatus.QUEUED.value, "leaseOwner": None}
        with translated():
            nodes = {row["nodeId"] for row in self.tasks.raw.find(queued, {"_id": 0, "nodeId": 1})}
        return [node for node in run.runtime_snapshot.node_types if node in nodes]

    @staticmethod
    def ordered(run: WorkflowRun, tasks: Sequence[RunTask]) -> list[RunTask]:
        """Tasks of a run in graph order."""
        place = {node: i for i, node in enumerate(run.runtime_snapshot.node_types)}
        return sorted(tasks, key=lambda task: place.get(task.node_id, len(place)))


def ending(task: RunTask, status: TaskStatus, now: datetime) -> dict[str, Any]:
    """The fields of a running task that ends now."""
    return {
        "status": status.value,
        "finishedAt": now,
        "durationMs": millis(task.started_at or now, now),
        "updatedAt": now,
        "leaseOwner": None,
    }


def fence(claimed: Claimed) -> dict[str, Any]:
    """What a task must still be for its worker to write to it."""
    return {
        "status": TaskStatus.RUNNING.value,
        "attempt": claimed.task.attempt,
        "leaseOwner": claimed.task.lease_owner,
    }


def _is_held(task: RunTask, claimed: Claimed) -> bool:
    held = {"status": task.status.value, "attempt": task.attempt, "leaseOwner": task.lease_owner}
    return task.id == claimed.task.id and held == fence(claimed)


def millis(start: datetime, end: datetime) -> int:
    """A duration in milliseconds; never negative."""
    return max(0, round((end - start).total_seconds() * 1000))


def clip(message: str, limit: int = 8_000) -> str:
    """An error message short enough for a task document."""
    clean = message.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
    return clean.replace("\0", "�")
