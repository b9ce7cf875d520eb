"""What became of a step that was sent to a Celery worker.

Celery says nothing of a worker that was killed: its result never comes. Three signs are asked for besides:
whether the worker that took the step up still answers, whether the run's log has the step's end (a worker
may die between its last event and its result), and whether a task of the step has a live lease in MongoDB
(a worker that the broker cannot reach may work all the same).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import dagster as dg
from celery import Celery
from celery.exceptions import TaskRevokedError
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._serdes import serialize_value
from dagster_shared.error import SerializableErrorInfo

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration.celery_holder import task_is_held
from emboflow_dagster.orchestration.celery_sent import ASK_S, OUTAGE, Sent
from emboflow_dagster.runtime.lease import LEASE_S

LOOK_EVERY_S: Final = 5.0
#: A worker that did not answer for so long, and whose lease ran out, is gone.
SILENT_S: Final = float(LEASE_S)
#: The end is in the log and the result is not there: so long it may be on its way.
ON_ITS_WAY_S: Final = 15.0
#: A message that nobody took up for so long is looked for.
RESEND_S: Final = 20.0
#: A step that nobody took up is worth a word.
UNTAKEN_S: Final = 60.0
#: A revoked message that lies in the queue is dropped when a worker comes to it; nobody waits for that.
REVOKED_S: Final = 10.0
_ENDS: Final = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}


class Verdict(Enum):
    """What the signs amount to."""

    WAIT = "wait"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known about a step without its result; times in seconds."""

    worker: str | None = None
    silent_s: float = 0.0
    ended_s: float | None = None
    held: bool = False

    def verdict(self) -> Verdict:
        """Lost is only what nobody vouches for: neither the worker, nor the log, nor a lease."""
        if self.ended_s is not None:
            return Verdict.ENDED if self.ended_s >= ON_ITS_WAY_S else Verdict.WAIT
        if self.worker is not None and self.silent_s >= SILENT_S and not self.held:
            return Verdict.LOST
        return Verdict.WAIT


@dataclass(slots=True)
class Answers:
    """When each worker last answered; one question for all steps of a run."""

    app: Celery
    clock: Callable[[], float] = time.monotonic
    _heard: dict[str, float] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)

    def silent_for(self, worker: str) -> float:
        """Seconds since the worker answered; 0 while the broker cannot be asked."""
        now = self.clock()
        self._heard.setdefault(worker, now)
        if now - self._asked.get(worker, -LOOK_EVERY_S) >= LOOK_EVERY_S:
            self._asked[worker] = now
            if self._answers(worker):
                self._heard[worker] = now
        return now - self._heard[worker]

    def _answers(self, worker: str) -> bool:
        try:
            return bool(self.app.control.ping(destination=[worker], timeout=ASK_S))
        except OUTAGE:
            return True


class Watched:
    """The result of one step, as the loop of ``dagster_celery`` asks for it."""

    def __init__(
        self,
        sent: Sent,
        answers: Answers,
        context: PlanOrchestrationContext,
        step: ExecutionStep,
        known_state: KnownExecutionState,
    ) -> None:
        self._sent, self._result, self._answers = sent, sent.result, answers
        self._context, self._step, self._known_state = context, step, known_state
        self._sent_at = self._looked_at = time.monotonic()
        self._ended_at: float | None = None
        self._revoked_at: float | None = None
        self._worker: str | None = None
        self._told = False
        self._verdict = Verdict.WAIT
        last = context.instance.get_records_for_run(context.run_id, limit=1, ascending=False).records
        self._after = last[0].storage_id if last else 0

    # ------------------------------------------------------------------------ what the loop asks

    def ready(self) -> bool:
        """Whether :meth:`get` has an answer now."""
        try:
            if self._result.ready():
                return True
        except OUTAGE:
            return False
        now = time.monotonic()
        if self._verdict is Verdict.WAIT and now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._verdict = self._look(now).verdict()
        dropped = (
            self._revoked_at is not None and self._worker is None and now - self._revoked_at >= REVOKED_S
        )
        return dropped or self._verdict is not Verdict.WAIT

    def get(self) -> list[str]:
        """The step's events, serialized; those of the log, or its failure, when no result will come.

        Raises:
            TaskRevokedError: It was revoked.
        """
        if self._verdict is Verdict.WAIT and not self._result.ready():
            raise TaskRevokedError("revoked before a worker took it up")
        if self._verdict is Verdict.WAIT:
            try:
                return list(self._result.get() or ())
            except TaskRevokedError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever ended the process of the step
                return self._of_log() or [self._fails(f"its process ended: {type(error).__name__}: {error}")]
        if self._verdict is Verdict.ENDED:
            return self._of_log()
        return [self._fails(f"its worker {self._worker} was not heard of for {SILENT_S:g} s")]

    def revoke(self) -> None:
        """Stop it, wherever it is: a step at work is interrupted and settles its task."""
        self._revoked_at = time.monotonic()
        self._result.revoke(terminate=True, signal="SIGTERM")

    # ------------------------------------------------------------------------------------- signs

    def _look(self, now: float) -> Signs:
        self._worker = self._worker or self._taken_by()
        if self._ended_at is None and self._ended():
            self._ended_at = now
        if self._ended_at is not None:
            return Signs(self._worker, ended_s=now - self._ended_at)
        if self._worker is None:
            self._find_untaken(now)
            return Signs()
        silent_s = self._answers.silent_for(self._worker)
        held = silent_s >= SILENT_S and self._held()
        return Signs(self._worker, silent_s, None, held)

    def _taken_by(self) -> str | None:
        try:
            info = self._result.info
        except OUTAGE:
            return None
        return info.get("hostname") if isinstance(info, dict) else None

    def _ended(self) -> bool:
        events = self._context.instance.get_records_for_run(self._context.run_id, of_type=_ENDS).records
        return any(
            one.storage_id > self._after and one.event_log_entry.step_key == self._step.key for one in events
        )

    def _held(self) -> bool:
        try:
            return task_is_held(self._context, self._step)
        except EmboflowError:
            return True  # the database does not answer: it cannot say that nobody works

    def _find_untaken(self, now: float) -> None:
        if self._revoked_at is None and now - self._sent_at >= RESEND_S and self._sent.is_nowhere():
            self._sent_at = now
            self._context.log.warning("%s: its message was lost and is sent again", self._step.key)
            self._sent.again()
        elif not self._told and now - self._sent_at >= UNTAKEN_S:
            self._told = True
            self._context.log.warning(
                "%s: no Celery worker has taken it from the queue %r for %g s: all are busy, or none listens",
                self._step.key,
                self._sent.queue,
                UNTAKEN_S,
            )

    # ------------------------------------------------------------------------------------ answers

    def _of_log(self) -> list[str]:
        found: list[DagsterEvent] = [
            event
            for one in self._context.instance.get_records_for_run(self._context.run_id).records
            if one.storage_id > self._after
            and one.event_log_entry.step_key == self._step.key
            and (event := one.event_log_entry.dagster_event) is not None
        ]
        return (
            [serialize_value(event) for event in found] if any(e.event_type in _ENDS for e in found) else []
        )

    def _fails(self, why: str) -> str:
        step = self._context.for_step(self._step)
        error = SerializableErrorInfo(f"{self._step.key}: {why}\n", [], "WorkerLostError")
        event = self._context.executor.log_failure_or_retry_event_after_error(step, error, self._known_state)
        return serialize_value(event)
