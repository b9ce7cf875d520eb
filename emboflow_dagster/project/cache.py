"""The cache as a task meets it: take what is there, wait for who is at it, or have the turn.

Single flight: of tasks with the same key that are at work at the same time, in whatever runs and processes,
one computes and the others wait for what it leaves. A waiter that sees the other one fail, be cancelled or
lose its lease takes its turn. Only a task that computes holds a turn, and it waits for nobody: no circle of
waiting can come about. A waiter keeps its place in Dagster's pool and renews its own lease; it waits as long
as the other one is alive and at most ``EMBOFLOW_CACHE_WAIT_S`` seconds, then computes beside it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.base import new_id
from emboflow_dagster.model.run import MAX_REASON, RUN_ACTIVE, CachePolicy, RunTask, TaskCache
from emboflow_dagster.mongo.client import Raw, Session
from emboflow_dagster.project.cached import Cached, Hit, NotWholeError
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.cache import Entries, Result, Turn
from emboflow_dagster.runtime.cache_policy import Policy
from emboflow_dagster.runtime.node import NodeResult, NodeType
from emboflow_dagster.runtime.outputs import Outputs
from emboflow_dagster.runtime.probe_report import newest_report_ids
from emboflow_dagster.runtime.record import Claimed, Recorder, fence

#: Between two looks at who computes the same, in seconds; it grows from the first to the second.
POLL_S: Final = (0.1, 2.0)

Log = Callable[[str], None]


class Asked(NamedTuple):
    """What a task asks the cache for."""

    claimed: Claimed
    node_type: NodeType
    key: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Answer:
    """What it is told: ``hit``, or to compute; ``turn`` where the result is to be left for others."""

    told: TaskCache
    hit: Hit | None = None
    turn: Turn | None = None


class Cache:
    """The cache of one project."""

    def __init__(self, opened: Opened, recorder: Recorder) -> None:
        self._opened = opened
        self._recorder = recorder
        self._entries = Entries(recorder)
        self._cached = Cached(opened)

    def ask(self, asked: Asked, log: Log, why: str | None = None) -> Answer:
        """Look for a result, wait for who computes it, or take the turn.

        Args:
            asked: The task, what it executes, its key and its policy.
            log: Takes a line for every turn of events.
            why: Why a hit of a moment ago was none after all.

        Raises:
            TransitionError: While it waited its run was cancelled, or the task taken away (kind ``fenced``).
            UnavailableError: The database or the store cannot be reached.
        """
        policy, reason = asked.policy
        if policy is CachePolicy.OFF:
            self._say_key(asked)
            return Answer(_told(asked, reason))
        if policy is CachePolicy.REFRESH:
            self._say_key(asked)
            return Answer(_told(asked, reason), turn=Turn(asked.key, None))
        waiting = _Waiting(asked, self._recorder, log)
        wanting: set[str] = set()
        said = False
        why = why or "no task with this key has left anything"
        while True:
            entry = self._entries.read(asked.key)
            result = Result.of(entry)
            if result is not None and result.id not in wanting:
                try:
                    return self._hit(asked, result, waiting, log)
                except NotWholeError as error:
                    why = f"what {result.told} left is not used: {error.message}"
                    log(f"cache: {why}")
                    wanting.add(result.id)
            if not said:
                self._say_key(asked)
                said = True
            flight = self._entries.at_work(entry, asked.claimed.task)
            if flight is None:
                turn = self._entries.begin(asked.key, asked.claimed, entry)
                if turn is not None:
                    why = waiting.ended(why)
                    return Answer(_told(asked, why, waited_ms=waiting.ms), turn=turn)
            elif waiting.seconds > self._opened.settings.cache_wait_s:
                text = f"computed beside {_whose(flight)}, which took longer than {waiting.seconds:.0f} s"
                return Answer(_told(asked, text, waited_ms=waiting.ms))
            else:
                waiting.wait(flight)

    def _hit(self, asked: Asked, result: Result, waiting: "_Waiting", log: Log) -> Answer:
        hit = self._cached.look(asked.key, result, list(asked.claimed.task.asset_ids))
        reason = f"hit of {result.told}"
        if waiting.flight is not None:
            reason += f"; waited {waiting.seconds:.1f} s for it"
        log(f"cache: {reason}; {len(hit.blobs)} payloads read and whole, the node is not executed")
        told = _told(
            asked,
            reason,
            workflow_run_id=result.workflow_run_id,
            node_id=result.node_id,
            task_id=result.task_id,
            waited_ms=waiting.ms,
        )
        return Answer(told, hit=hit)

    def _say_key(self, asked: Asked) -> None:
        """Before anything takes long: what is computed stands in the task, also if it fails."""
        self._recorder.tasks.change(
            asked.claimed.task.id,
            {"cacheKey": asked.key, "cacheHit": False},
            expected=fence(asked.claimed),
        )

    def confirm(self, hit: Hit) -> Callable[[Session, RunTask], None]:
        """For the transaction that settles a hit; see :meth:`Cached.confirm`."""
        return lambda session, _task: self._cached.confirm(hit, session)

    def keep(
        self, asked: Asked, turn: Turn, result: NodeResult, outputs: Outputs, preview: dict[str, Any] | None
    ) -> Callable[[Session, RunTask], None]:
        """For the transaction that settles a task: leave its result for others, if the turn is still ours."""

        def body(session: Session, task: RunTask) -> None:
            reports = None
            if asked.node_type.reports:
                reports = newest_report_ids(self._opened.mongo, task.asset_ids, session)
            kept = Result(
                id=new_id("res"),
                workflow_run_id=task.workflow_run_id,
                node_id=task.node_id,
                task_id=task.id,
                artifact_ids=[artifact.id for artifact in outputs.artifacts],
                asset_ids=list(task.asset_ids),
                preview=preview,
                page=result.page,
                outcome=result.outcome,
                dataset_version_id=outputs.version.id if outputs.version else None,
                reports=reports,
            )
            self._entries.keep(turn, kept, session)

        return body


class _Waiting:
    """One task's waiting for another."""

    def __init__(self, asked: Asked, recorder: Recorder, log: Log) -> None:
        self._asked = asked
        self._recorder = recorder
        self._log = log
        self._began: float | None = None
        self._pause = POLL_S[0]
        self.flight: Mapping[str, Any] | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def ms(self) -> int:
        return round(self.seconds * 1000)

    def wait(self, flight: Raw) -> None:
        """Wait a moment; say so the first time, and for each other task anew."""
        if self._began is None:
            self._began = time.monotonic()
        if self.flight is None or self.flight["token"] != flight["token"]:
            self._log(f"cache: waits for {_whose(flight)}, which computes the same")
            self.flight, self._pause = flight, POLL_S[0]
        time.sleep(self._pause)
        self._pause = min(self._pause * 1.5, POLL_S[1])
        self._still_ours()

    def ended(self, why: str) -> str:
        """Why it is our turn now."""
        return why if self.flight is None else f"{_whose(self.flight)} ended without a result; {why}"

    def _still_ours(self) -> None:
        run, task = self._asked.claimed
        if self._recorder.tasks.find_one({"_id": task.id, **fence(self._asked.claimed)}) is None:
            raise TransitionError(
                f"task {task.node_id} of {run.id} is not ours any more", kind=ErrorKind.FENCED
            )
        if self._recorder.runs.get(run.id).status not in RUN_ACTIVE:
            raise TransitionError(f"run {run.id} was ended while {task.node_id} waited for another task")


def _told(asked: Asked, reason: str, **more: Any) -> TaskCache:
    return TaskCache(policy=asked.policy.policy, reason=reason[:MAX_REASON], **more)


def _whose(flight: Mapping[str, Any]) -> str:
    return f"run {flight['workflowRunId']}, task {flight['nodeId']}"
