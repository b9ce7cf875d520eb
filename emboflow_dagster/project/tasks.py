"""Work: a task is claimed, executed, its bytes put, and everything it leaves settled at once."""

import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from emboflow_dagster.blobs.context import working_for
from emboflow_dagster.errors import (
    AlreadyExistsError,
    EmboflowError,
    ErrorKind,
    ExecutionError,
    InvalidInputError,
    NotFoundError,
    TransitionError,
    UnavailableError,
)
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.run import (
    MAX_PREVIEW_BYTES,
    CachePolicy,
    RunTask,
    TaskCache,
    TaskStatus,
    TaskSummary,
)
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.log_chunks import LogOf
from emboflow_dagster.project import lost_logs
from emboflow_dagster.project.artifacts import Artifacts
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.cache import Answer, Asked, Cache
from emboflow_dagster.project.cached import Hit, NotWholeError
from emboflow_dagster.project.dataset_fetch import fetch_version
from emboflow_dagster.project.execution import Execution, Log, Prepared
from emboflow_dagster.project.gate import Gate
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.runs import Runs
from emboflow_dagster.project.task_logs import TaskLogs, log_fields
from emboflow_dagster.runtime import lease
from emboflow_dagster.runtime.cache_policy import policy_of
from emboflow_dagster.runtime.live_log import LiveLog
from emboflow_dagster.runtime.log_records import STREAMS, LogLine
from emboflow_dagster.runtime.logs import TaskLog, Watch
from emboflow_dagster.runtime.node import NodeResult, RefusedError, refusal
from emboflow_dagster.runtime.outputs import Outputs, dataset_moved, main_digest, store_outputs
from emboflow_dagster.runtime.record import Claimed
from emboflow_dagster.runtime.registry import nearest, node_types

PUBLISH_TRIES = 20


class Worked(NamedTuple):
    """A task that succeeded, and what it left."""

    task: RunTask
    artifacts: list[Artifact]
    dataset_version: DatasetVersion | None
    dataset_name: str | None
    unchanged_dataset: bool
    page: dict[str, Any]
    digest: str
    """The data version: sha256 of the manifest, the first artifact, or the effective assets."""


class NodeFailedError(ExecutionError):
    """A node failed and its task is settled so."""


class _RetryableError(ExecutionError):
    """An attempt failed and the node's retry policy has another."""


def _gated() -> frozenset[str]:
    return frozenset(node_type.id for node_type in node_types() if node_type.waits)


def _told(node_id: str, error: EmboflowError, *, last: bool) -> ExecutionError:
    again = not last and isinstance(error, ExecutionError)
    kind = _RetryableError if again else NodeFailedError
    return kind(f"{node_id}: {error.message}", kind=error.kind, hint=error.hint, problems=error.problems)


class Tasks:
    """The tasks of one project."""

    def __init__(self, opened: Opened, assets: Assets, artifacts: Artifacts, runs: Runs) -> None:
        self._opened = opened
        self._runs = runs
        gate = Gate(opened, runs.recorder)
        self._execution = Execution(assets, artifacts, runs, gate, partial(fetch_version, opened))
        self._cache = Cache(opened, runs.recorder)
        self._logs = TaskLogs(opened, runs.recorder)
        self.documents: Documents[RunTask] = Documents(opened.mongo, opened.scope, RunTask)

    def get(self, run_id: str, node_id: str) -> RunTask:
        """One task.

        Raises:
            NotFoundError: No such run or node in this project.
        """
        found = self.documents.find_one({"workflowRunId": run_id, "nodeId": node_id})
        if found is None:
            raise NotFoundError(
                f"run {run_id}: there is no task for node {node_id!r}", hint=self._nodes_of(run_id, node_id)
            )
        return found

    def _nodes_of(self, run_id: str, node_id: str) -> str | None:
        known = [task.node_id for task in self.documents.find({"workflowRunId": run_id}, limit=1_000)]
        near = nearest(node_id, known)
        if near:
            return f"did you mean {near!r}?"
        return f"its nodes are {', '.join(sorted(known)[:20])}" if known else None

    def logs(
        self,
        run_id: str,
        node_id: str,
        *,
        follow: bool = False,
        streams: Collection[str] = STREAMS,
        attempt: int | None = None,
        lines: int | None = None,
        unfinished: bool = False,
    ) -> Iterator[LogLine]:
        """The lines of a task's output, oldest first, in the order in which they came.

        Args:
            run_id: The run.
            node_id: The node.
            follow: Go on with what comes, until the task is over; works while it runs in another process.
            streams: Which of ``log``, ``stdout`` and ``stderr``.
            attempt: Which attempt; by default the last, and with ``follow`` those after it.
            lines: Only so many at the end of what is there at first.
            unfinished: With ``follow``: the beginning of a line that has no end yet, too (``ends`` is false).

        Raises:
            NotFoundError: No such run, node or attempt.
            InvalidInputError: No such stream.
        """
        task = self.get(run_id, node_id)
        if not follow:
            return self._logs.read(task, streams=streams, attempt=attempt, lines=lines)
        return self._logs.follow(task, streams=streams, attempt=attempt, lines=lines, unfinished=unfinished)

    def output(
        self, run_id: str, node_id: str, stream: str = "stdout", *, attempt: int | None = None
    ) -> Iterator[bytes]:
        """One stream of a task's output as it was printed, in chunks of bytes; secrets are filtered.

        Raises:
            NotFoundError: No such run, node or attempt.
            InvalidInputError: No such stream.
        """
        return self._logs.raw(self.get(run_id, node_id), stream, attempt=attempt)

    def work(
        self,
        run_id: str,
        node_id: str,
        *,
        worker: str | None = None,
        log: Log | None = None,
        watch: Watch | None = None,
    ) -> Worked:
        """Claim one task and carry it to its end.

        Args:
            run_id: The run.
            node_id: The node.
            worker: Who does it; names the lease.
            log: Takes each log line as it comes, beside the task's own log.
            watch: Takes stream and records of all that comes (:mod:`~emboflow_dagster.runtime.log_records`).

        Raises:
            TransitionError: The task may not be taken: not queued, run over, or taken by another; kind
                ``waits-for-people``: it waits for them now, and no worker is needed until they have decided.
            ExecutionError: The node failed; the task says so already.
        """
        owner = worker or f"{socket.gethostname()}"
        claimed = self._claim(run_id, node_id, owner)
        while True:
            try:
                return self._attempt(claimed, log or _quiet, watch)
            except _RetryableError:
                # The failed attempt's log is stored; the document starts over.
                claimed = self._runs.recorder.again(claimed, owner)

    def _claim(self, run_id: str, node_id: str, owner: str) -> Claimed:
        recorder = self._runs.recorder
        try:
            return recorder.claim(run_id, node_id, owner, gated=_gated())
        except TransitionError as error:
            if error.kind != ErrorKind.WAITS_FOR_PEOPLE:
                raise
            try:
                self._execution.hold(self._runs.get(run_id), self.get(run_id, node_id))
            except EmboflowError as held:
                if held.kind in (ErrorKind.WAITS_FOR_PEOPLE, ErrorKind.STATE, ErrorKind.UNAVAILABLE):
                    raise
                # Nothing that people could decide: it fails where it is executed, and its task says so.
        return recorder.claim(run_id, node_id, owner)

    def _attempt(self, claimed: Claimed, log: Log, watch: Watch | None) -> Worked:
        opened, task = self._opened, claimed.task
        scratch = opened.settings.home / "work"
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{task.node_id}-", dir=scratch))
        lines = TaskLog(folder / "task.log", watch=watch)
        live = LiveLog(lines, self._logs.chunks, LogOf.task(task))
        tee = partial(_tee, lines, log)
        last = task.attempt > int((task.executor_config or {}).get("retries") or 0)
        try:
            with working_for(task.workflow_run_id, task.id), lease.held(self._runs.recorder, claimed):
                worked = self._carry_out(claimed, folder, lines, tee, live)
            live.discard()
        except EmboflowError as error:
            if error.kind == ErrorKind.FENCED:
                raise
            live.stop()
            tee(f"error[{error.kind.value}]: {error.message}")
            if last or not isinstance(error, ExecutionError):
                self._failed(claimed, lines, error.message, refusal(error))
            elif (whole := lines.whole()) is not None:
                self._logs.put(task, whole, lines.counts)
            live.discard()
            raise _told(task.node_id, error, last=last) from error
        except Exception as error:
            live.stop()
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            tee(f"error: {text}")
            self._failed(claimed, lines, text)
            live.discard()
            raise NodeFailedError(f"{task.node_id}: {text}", kind=ErrorKind.INTERNAL) from error
        except BaseException as error:
            # Ctrl-C, SIGTERM, Dagster's interrupt: somebody stopped the run, the node did not fail.
            text = f"interrupted ({type(error).__name__})"
            with suppress(TransitionError):  # the task was settled, or taken up by another, before
                self._runs.recorder.settle_lost(task.workflow_run_id, text, cancelled=True, claimed=claimed)
            live.stop()
            with suppress(EmboflowError):  # what was sent is collected by the recorder
                lost_logs.attach(self._logs, LogOf.task(task), self._log_fields(task, lines), lines.counts)
                live.discard()
            raise
        finally:
            live.stop()
            lines.close()
            shutil.rmtree(folder, ignore_errors=True)
        return worked

    def _carry_out(self, claimed: Claimed, folder: Path, lines: TaskLog, tee: Log, live: LiveLog) -> Worked:
        """Take what an equal task left, or execute the node and record what it left."""
        prepared = self._execution.prepare(claimed, folder)
        deployment = self._opened.settings.cache
        policy = policy_of(claimed.run, claimed.task, prepared.node_type, prepared.options, deployment)
        asked = Asked(claimed, prepared.node_type, prepared.key, policy)
        answer = self._cache.ask(asked, tee)
        while answer.hit is not None:
            live.stop()  # what is settled names the whole log
            try:
                return self._reuse(asked, answer, answer.hit, prepared, lines)
            except NotWholeError as error:  # let go while the transaction was on the way
                answer = self._cache.ask(asked, tee, f"it was a hit until {error.message}")
        try:
            result = self._execution.run(claimed, prepared, folder, lines, tee)
        except RefusedError as error:
            error.lineage = self._execution.lineage(claimed, prepared, cached=False)
            error.tombstones = prepared.tombstones
            raise
        live.stop()
        return self._record(asked, answer, result, prepared, lines)

    def _reuse(self, asked: Asked, answer: Answer, hit: Hit, prepared: Prepared, lines: TaskLog) -> Worked:
        """Settle a task with what an earlier one left: nothing is stored anew.

        Raises:
            NotWholeError: Some of it was let go meanwhile; nothing was written.
        """
        kept = NodeResult(
            asset_ids=tuple(hit.result.asset_ids),
            preview=hit.result.preview,
            page=hit.result.page,
            outcome=hit.result.outcome,
        )
        left = Outputs(artifacts=hit.artifacts, dataset=hit.dataset, version=hit.version, unchanged=True)
        written = Outputs(beside=self._cache.confirm(hit), tombstones=prepared.tombstones)
        return self._settle(asked, answer, kept, left, written, lines)

    def _record(
        self, asked: Asked, answer: Answer, result: NodeResult, prepared: Prepared, lines: TaskLog
    ) -> Worked:
        """Put, then settle; again on top of the newer version when somebody else published meanwhile."""
        opened, claimed = self._opened, asked.claimed
        cached = asked.policy.policy is not CachePolicy.OFF
        lineage = self._execution.lineage(claimed, prepared, cached=cached)
        for left in reversed(range(PUBLISH_TRIES)):
            outputs = store_outputs(
                opened.mongo,
                opened.blobs,
                opened.scope,
                claimed.run,
                claimed.task,
                result,
                lineage,
                prepared.tombstones,
            )
            try:
                return self._settle(asked, answer, result, outputs, outputs, lines)
            except AlreadyExistsError:
                if not left or not dataset_moved(opened.mongo, opened.scope, outputs):
                    raise
        raise AssertionError("unreachable")

    def _settle(
        self,
        asked: Asked,
        answer: Answer,
        result: NodeResult,
        left: Outputs,
        written: Outputs,
        lines: TaskLog,
    ) -> Worked:
        """Write that a task succeeded: ``left`` is what it stands for, ``written`` what is new of that."""
        claimed, task = asked.claimed, asked.claimed.task
        asset_ids = list(task.asset_ids if result.asset_ids is None else result.asset_ids)
        preview = _fitting(result.preview, lines)
        if answer.turn is not None:
            written.beside = self._cache.keep(asked, answer.turn, result, left, preview)
        fields = {
            **self._log_fields(task, lines),
            "assetIds": asset_ids,
            "outputArtifactIds": [a.id for a in left.artifacts],
            "lastResultPreview": preview,
            "cacheKey": asked.key,
            "cacheHit": answer.hit is not None,
            "summary": _summary(task, result.outcome, asset_ids, left, lines, answer.told),
        }
        try:
            done = self._runs.recorder.succeed(claimed, fields, written)
        except UnavailableError:
            # The answer was lost; the commit may have happened. Only we can settle this attempt.
            done = self.get(task.workflow_run_id, task.node_id)
            if (done.status, done.attempt) != (TaskStatus.SUCCESS, task.attempt):
                raise
        return Worked(
            task=done,
            artifacts=left.artifacts,
            dataset_version=left.version,
            dataset_name=left.dataset.name if left.dataset else None,
            unchanged_dataset=left.unchanged,
            page=result.page,
            digest=main_digest(left, asset_ids),
        )

    def _failed(
        self, claimed: Claimed, lines: TaskLog, message: str, refused: RefusedError | None = None
    ) -> None:
        result = refused.result if refused else None
        fields: dict[str, Any] = {}
        outputs: Outputs | None = None
        if refused is not None and result is not None:
            # Named by what they were made of and by the attempt; the task itself links what succeeded only.
            outputs = self._put_aside(claimed, result, refused)
            refused.artifacts = tuple(outputs.artifacts)
            fields = {"lastResultPreview": _fitting(result.preview, lines)}
        fields |= {
            **self._log_fields(claimed.task, lines),
            "summary": _summary(claimed.task, "failed", claimed.task.asset_ids, Outputs(), lines),
        }
        self._runs.recorder.fail(claimed, fields, lines.secrets.text(message), outputs)

    def _put_aside(self, claimed: Claimed, result: NodeResult, refused: RefusedError) -> Outputs:
        """Store the artifacts of a task that refused its input."""
        opened, task = self._opened, claimed.task
        only = NodeResult(outputs=result.outputs)
        told = refused.lineage, refused.tombstones
        return store_outputs(opened.mongo, opened.blobs, opened.scope, claimed.run, task, only, *told)

    def _log_fields(self, task: RunTask, lines: TaskLog) -> dict[str, Any]:
        whole = lines.close()
        ref = None if whole is None else self._logs.put(task, whole, lines.counts)
        return log_fields(lines.tails, ref)

    def list(self, run_id: str) -> list[RunTask]:
        """A run's tasks in graph order."""
        return self._runs.tasks(self._runs.get(run_id))


def _summary(
    task: RunTask,
    outcome: str,
    asset_ids: list[str],
    outputs: Outputs,
    lines: TaskLog,
    cache: TaskCache | None = None,
) -> dict[str, Any]:
    return TaskSummary(
        executor=task.executor_type.value,
        outcome=outcome,
        asset_count=len(asset_ids),
        artifact_ids=[a.id for a in outputs.artifacts],
        stdout_line_count=lines.tails["stdout"].count,
        stderr_line_count=lines.tails["stderr"].count,
        cache=cache,
    ).to_mongo()


def _fitting(preview: dict[str, Any] | None, lines: TaskLog) -> dict[str, Any] | None:
    if preview is None:
        return None
    try:
        return check_freeform(preview, max_bytes=MAX_PREVIEW_BYTES, max_items=20_000, map_keys=True)
    except InvalidInputError as error:
        lines.add("log", f"the preview is not kept: {error.message}")
        return None


def _tee(lines: TaskLog, log: Log, line: str) -> None:
    line = lines.secrets.text(line)
    lines.add("log", line)
    log(line)


def _quiet(_line: str) -> None:
    """A log that nobody reads."""
