"""Work: a task is claimed, executed, its bytes put, and everything it leaves settled at once."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
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
from emboflow_dagster.model.artifact import Artifact, Lineage
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.run import MAX_PREVIEW_BYTES, RunTask, TaskStatus, TaskSummary
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.artifacts import Artifacts
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.execution import Execution, Log
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.runs import Runs
from emboflow_dagster.runtime import lease
from emboflow_dagster.runtime.logs import TaskLog
from emboflow_dagster.runtime.node import NodeResult
from emboflow_dagster.runtime.outputs import Outputs, dataset_moved, main_digest, store_outputs
from emboflow_dagster.runtime.record import Claimed

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


def _told(node_id: str, error: EmboflowError, *, last: bool) -> ExecutionError:
    again = not last and isinstance(error, ExecutionError)
    kind = _RetryableError if again else NodeFailedError
    return kind(f"{node_id}: {error.message}", kind=error.kind, hint=error.hint, problems=error.problems)


class Tasks:
    """The tasks of one project."""

    def __init__(self, opened: Opened, assets: Assets, artifacts: Artifacts, runs: Runs) -> None:
        self._opened = opened
        self._runs = runs
        self._execution = Execution(assets, artifacts, runs)
        self.documents: Documents[RunTask] = Documents(opened.mongo, opened.scope, RunTask)

    def get(self, run_id: str, node_id: str) -> RunTask:
        """One task.

        Raises:
            NotFoundError: No such run or node in this project.
        """
        found = self.documents.find_one({"workflowRunId": run_id, "nodeId": node_id})
        if found is None:
            raise NotFoundError(f"run {run_id}: there is no task for node {node_id!r}")
        return found

    def logs(self, run_id: str, node_id: str) -> Iterator[str]:
        """All lines of a task's output, each with its stream's name and a tab before it."""
        task = self.get(run_id, node_id)
        if task.log_ref is not None:
            with self._opened.blobs.open_ref(task.log_ref) as stream:
                for line in stream:
                    yield line.decode("utf-8", "replace").rstrip("\n")
            return
        for name, lines in (
            ("log", task.log_lines),
            ("stdout", task.stdout_lines),
            ("stderr", task.stderr_lines),
        ):
            yield from (f"{name}\t{line}" for line in lines)

    def work(self, run_id: str, node_id: str, *, worker: str | None = None, log: Log | None = None) -> Worked:
        """Claim one task and carry it to its end.

        Args:
            run_id: The run.
            node_id: The node.
            worker: Who does it; names the lease.
            log: Takes each log line as it comes, beside the task's own log.

        Raises:
            TransitionError: The task may not be taken: not queued, run over, or taken by another.
            ExecutionError: The node failed; the task says so already.
        """
        owner = worker or f"{socket.gethostname()}"
        claimed = self._runs.recorder.claim(run_id, node_id, owner)
        while True:
            try:
                return self._attempt(claimed, log or _quiet)
            except _RetryableError:
                # The failed attempt's log stays in Dagster's; the document starts over.
                claimed = self._runs.recorder.again(claimed, owner)

    def _attempt(self, claimed: Claimed, log: Log) -> Worked:
        opened, task = self._opened, claimed.task
        scratch = opened.settings.home / "work"
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{task.node_id}-", dir=scratch))
        lines = TaskLog(folder / "task.log")
        tee = partial(_tee, lines, log)
        last = task.attempt > int((task.executor_config or {}).get("retries") or 0)
        try:
            with working_for(task.workflow_run_id, task.id), lease.held(self._runs.recorder, claimed):
                result, lineage = self._execution.run(claimed, folder, lines, tee)
                return self._record(claimed, result, lineage, lines)
        except EmboflowError as error:
            if error.kind == ErrorKind.FENCED:
                raise
            tee(f"error[{error.kind.value}]: {error.message}")
            if last or not isinstance(error, ExecutionError):
                self._failed(claimed, lines, error.message)
            raise _told(task.node_id, error, last=last) from error
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            tee(f"error: {text}")
            self._failed(claimed, lines, text)
            raise NodeFailedError(f"{task.node_id}: {text}", kind=ErrorKind.INTERNAL) from error
        except BaseException as error:
            # Ctrl-C, SIGTERM, Dagster's interrupt: somebody stopped the run, the node did not fail.
            text = f"interrupted ({type(error).__name__})"
            with suppress(TransitionError):  # the task was settled, or taken up by another, before
                self._runs.recorder.settle_lost(task.workflow_run_id, text, cancelled=True, claimed=claimed)
            raise
        finally:
            lines.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _record(self, claimed: Claimed, result: NodeResult, lineage: Lineage, lines: TaskLog) -> Worked:
        """Put, then settle; again on top of the newer version when somebody else published meanwhile."""
        opened = self._opened
        for left in reversed(range(PUBLISH_TRIES)):
            outputs = store_outputs(
                opened.mongo, opened.blobs, opened.scope, claimed.run, claimed.task, result, lineage
            )
            try:
                return self._settle(claimed, result, outputs, lineage, lines)
            except AlreadyExistsError:
                if not left or not dataset_moved(opened.mongo, opened.scope, outputs):
                    raise
        raise AssertionError("unreachable")

    def _settle(
        self, claimed: Claimed, result: NodeResult, outputs: Outputs, lineage: Lineage, lines: TaskLog
    ) -> Worked:
        task = claimed.task
        asset_ids = list(task.asset_ids if result.asset_ids is None else result.asset_ids)
        fields = {
            **self._log_fields(lines),
            "assetIds": asset_ids,
            "outputArtifactIds": [a.id for a in outputs.artifacts],
            "lastResultPreview": _fitting(result.preview, lines),
            "cacheKey": lineage.cache_key,
            "cacheHit": False,
            "summary": _summary(task, result.outcome, asset_ids, outputs, lines),
        }
        try:
            done = self._runs.recorder.succeed(claimed, fields, outputs)
        except UnavailableError:
            # The answer was lost; the commit may have happened. Only we can settle this attempt.
            done = self.get(task.workflow_run_id, task.node_id)
            if (done.status, done.attempt) != (TaskStatus.SUCCESS, task.attempt):
                raise
        return Worked(
            task=done,
            artifacts=outputs.artifacts,
            dataset_version=outputs.version,
            dataset_name=outputs.dataset.name if outputs.dataset else None,
            unchanged_dataset=outputs.unchanged,
            page=result.page,
            digest=main_digest(outputs, asset_ids),
        )

    def _failed(self, claimed: Claimed, lines: TaskLog, message: str) -> None:
        fields = {
            **self._log_fields(lines),
            "summary": _summary(claimed.task, "failed", claimed.task.asset_ids, Outputs(), lines),
        }
        self._runs.recorder.fail(claimed, fields, message)

    def _log_fields(self, lines: TaskLog) -> dict[str, Any]:
        whole = lines.close()
        ref = None
        if whole is not None:
            blob = self._opened.blobs.put(
                whole, type="task_log", content_type="text/plain", owner=("run_tasks", "logRef")
            )
            ref = self._opened.blobs.ref(blob).to_mongo()
        return {
            "logRef": ref,
            "logLines": lines.tails["log"].lines,
            "stdoutLines": lines.tails["stdout"].lines,
            "stderrLines": lines.tails["stderr"].lines,
        }

    def list(self, run_id: str) -> list[RunTask]:
        """A run's tasks in graph order."""
        return self._runs.tasks(self._runs.get(run_id))


def _summary(
    task: RunTask, outcome: str, asset_ids: list[str], outputs: Outputs, lines: TaskLog
) -> dict[str, Any]:
    return TaskSummary(
        executor=task.executor_type.value,
        outcome=outcome,
        asset_count=len(asset_ids),
        artifact_ids=[a.id for a in outputs.artifacts],
        stdout_line_count=lines.tails["stdout"].count,
        stderr_line_count=lines.tails["stderr"].count,
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
    lines.add("log", line)
    log(line)


def _quiet(_line: str) -> None:
    """A log that nobody reads."""
