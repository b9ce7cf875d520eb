"""Runs: requested, waited for, worked on here, ended when nobody else can."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from ulid import ULID

from emboflow_dagster.errors import (
    AlreadyExistsError,
    EmboflowError,
    ErrorKind,
    ExecutionError,
    TransitionError,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RUN_ACTIVE, RUN_TERMINAL, RunConfig, RunTask, WorkflowRun
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion, WorkflowStatus
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.project import bindings, stuck
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.found_runs import FoundRuns
from emboflow_dagster.project.nodes import Nodes
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.selection import Selection
from emboflow_dagster.project.task_logs import TaskLogs
from emboflow_dagster.project.workflows import Workflows
from emboflow_dagster.runtime import control, gates
from emboflow_dagster.runtime.compare import Change, compare
from emboflow_dagster.runtime.plan import plan_run
from emboflow_dagster.runtime.registry import node_types

WorkTask = Callable[[str, str, str], object]
"""Carries one task to its end: run id, node id, worker."""

POLL_S = 0.2


class Runs(FoundRuns):
    """The runs of one project."""

    def __init__(self, opened: Opened, assets: Assets, workflows: Workflows, work_task: WorkTask) -> None:
        super().__init__(opened, assets, workflows)
        self._work_task = work_task
        self._selection = Selection(opened)

    def request(
        self,
        workflow: str,
        *,
        assets: bindings.Named | None = None,
        version: int | None = None,
        triggered_by: str | None = None,
        run_id: str | None = None,
        scheduled_for: Any = None,
        retry_of: str | None = None,
        config: RunConfig | None = None,
        also: Callable[[Session], None] | None = None,
    ) -> WorkflowRun:
        """Write a queued run with all of its tasks; a daemon (or :meth:`work`) executes it.

        Args:
            workflow: Slug or id.
            assets: Names, ids or selectors (``type=rosbag,status=ready``), in the order to bind them; one
                that is meant twice is bound once, at the first of its places. ``NODE=ASSET``, or a mapping
                of nodes to such lists, binds them to one source. None: the workflow's ``assetBindings``.
            version: A version number; the published one when omitted.
            triggered_by: Who or what asked; the actor when omitted.
            run_id: An id of the caller's, so that asking twice makes one run.
            scheduled_for: The schedule's tick this run is for.
            retry_of: The run this one repeats.
            config: Cache policy and label; see :func:`~emboflow_dagster.project.run_config.run_config`.
            also: Writes in the run's transaction; not called when the run is there already.

        Raises:
            NotFoundError: No such workflow, version or asset in this project.
            InvalidInputError: No asset.
            TransitionError: The workflow is archived or was never published, or a custom node is disabled.
            ConfigurationError: An image is not on this machine, or no Docker daemon answers.
        """
        head = self._workflows.get(workflow)
        if head.status != WorkflowStatus.PUBLISHED:
            raise TransitionError(f"workflow {head.slug} is {head.status}; only a published one runs")
        chosen = self._workflows.version(head.id, version)
        bound = bindings.resolve(self._selection, chosen, assets, at=utc_now())
        run, tasks = plan_run(
            self._opened.scope,
            head,
            chosen,
            bound.asset_ids,
            bindings=bound.by_source,
            triggered_by=triggered_by or self._opened.scope.triggered_by,
            run_id=run_id,
            scheduled_for=scheduled_for,
            retry_of=retry_of,
            run_config=config,
            frozen=Nodes(self._opened).frozen(chosen),
        )
        return self._write(run, tasks, also)

    def adopt(
        self,
        dagster_run_id: str,
        *,
        workflow_version_id: str,
        node_ids: Sequence[str] | None = None,
        asset_ids: Sequence[str] | None = None,
        triggered_by: str = "dagster-ui",
        retry_of: str | None = None,
        cause: str | None = None,
        scheduled_for: datetime | None = None,
        config: RunConfig | None = None,
    ) -> WorkflowRun:
        """The run document of a Dagster run that nobody requested here; made by whichever step comes first.

        Its id follows from the Dagster run and the workflow, so steps that start at once make one document.

        Args:
            dagster_run_id: The Dagster run (a UUID).
            workflow_version_id: What it executes.
            node_ids: The selected nodes; all when ``None``.
            asset_ids: The assets to bind, as :meth:`request` takes them; by default all that the workflow's
                sources take.
            triggered_by: How it was started.
            retry_of: The run it repeats.
            cause: What has one run of the workflow however many Dagster runs it has led to, such as the tick
                of a schedule; the Dagster run itself when omitted.
            scheduled_for: The tick.
            config: What was asked of it.

        Raises:
            InvalidInputError: There is no asset to bind.
            TransitionError: A node below the selection has never succeeded (kind
                ``upstream-not-succeeded``), or another Dagster run has the run of this cause.
        """
        version = self._workflows.version_by_id(workflow_version_id)
        head = self._workflows.get(version.workflow_definition_id)
        # One Dagster run may materialize nodes of several workflows: each has a document of its own.
        space = UUID(dagster_run_id) if cause is None else uuid5(NAMESPACE_URL, cause)
        run_id = f"run_{ULID.from_bytes(uuid5(space, head.id).bytes)}"
        found = self.documents.find_one({"_id": run_id})
        if found is not None:
            return self._adopted(found, dagster_run_id)
        outside = self._outside(head, version, node_ids)
        if asset_ids is None:
            bound = bindings.Bound(list(dict.fromkeys(a for ids in outside.values() for a in ids)), {})
            if not outside or self._has_source(version, node_ids):
                own = bindings.default(self._selection, self._assets, version)
                bound = bindings.Bound(list(dict.fromkeys([*own.asset_ids, *bound.asset_ids])), own.by_source)
        else:
            bound = bindings.resolve(self._selection, version, asset_ids, at=utc_now())
        run, tasks = plan_run(
            self._opened.scope,
            head,
            version,
            bound.asset_ids,
            bindings=bound.by_source,
            triggered_by=triggered_by,
            run_id=run_id,
            selected=node_ids,
            outside=outside,
            narrowings=self.narrowings,
            dagster_run_id=dagster_run_id,
            retry_of=retry_of,
            scheduled_for=scheduled_for,
            run_config=config,
            frozen=Nodes(self._opened).frozen(version, node_ids),
        )
        return self._adopted(self._write(run, tasks), dagster_run_id)

    @staticmethod
    def _adopted(run: WorkflowRun, dagster_run_id: str) -> WorkflowRun:
        if dagster_run_id in run.dagster_run_ids:
            return run
        raise TransitionError(
            f"{run.id} is the run of {run.triggered_by} already, "
            f"and Dagster run {run.dagster_run_ids[0]} executes it"
        )

    def _write(
        self, run: WorkflowRun, tasks: Sequence[RunTask], also: Callable[[Session], None] | None = None
    ) -> WorkflowRun:
        try:
            self.recorder.request(run, tasks, also)
        except AlreadyExistsError:
            found = self.documents.find_one({"_id": run.id})
            if found is None:  # something that `also` writes is there already
                raise
            return found
        return run

    def version_of(self, workflow: str, version: int | None = None) -> WorkflowDefinitionVersion:
        """A version of a workflow, by default the published one."""
        return self._workflows.version(workflow, version)

    def bound_by_sources(self, version: WorkflowDefinitionVersion) -> bindings.Bound:
        """What the file binds to the sources of a version, else all that they take."""
        return bindings.of_sources(self._selection, self._assets, version)

    def claim(self, run: str | WorkflowRun, dagster_run_id: str) -> WorkflowRun:
        """Give a queued run, its id or as it was just read, to one Dagster run: :meth:`Recorder.bind`."""
        if isinstance(run, WorkflowRun):
            return self.recorder.bind(run.id, dagster_run_id, known=run)
        return self.recorder.bind(run, dagster_run_id)

    def cancel(self, run: str) -> WorkflowRun:
        """Cancel what of a run has not begun; see :func:`~emboflow_dagster.runtime.control.cancel`.

        What runs in a Dagster run goes on until that is terminated: the command and the recorder do it.
        """
        return control.cancel(self.recorder, run)

    def retry(self, run: str, *, latest: bool = False) -> WorkflowRun:
        """A new run that repeats one that is over; the old one stays as it is.

        Args:
            run: Its id.
            latest: The workflow's newest version instead of the one it was frozen with.

        Raises:
            TransitionError: It is not over (kind ``run-still-active``), or its workflow is archived.
        """
        if not latest:
            return control.retry_run(self.recorder, run)
        old = self.get(run)
        if old.status in RUN_ACTIVE:
            return control.retry_run(self.recorder, run)  # which says so
        newest = self.version_of(old.workflow_definition_id)
        return self.request(
            old.workflow_definition_id,
            assets=bindings.again(self.recorder.in_order(old), old.asset_ids, newest),
            triggered_by=f"retry:{old.id}",
            retry_of=old.id,
            config=old.config,
        )

    def compare(self, run: WorkflowRun) -> list[Change]:
        """What a retry with the workflow's newest version would execute differently."""
        return compare(run.runtime_snapshot, self._workflows.version(run.workflow_definition_id))

    def retry_tasks(
        self, run: str, nodes: Sequence[str], *, dagster_run_id: str | None = None
    ) -> WorkflowRun:
        """Execute nodes of a run, and all below them, again: :func:`.control.retry_tasks`."""
        TaskLogs(self._opened, self.recorder).keep(run, nodes)
        return control.retry_tasks(self.recorder, run, nodes, dagster_run_id=dagster_run_id)

    def wait(
        self, run: str, *, timeout_s: float | None = None, tick: Callable[[WorkflowRun], None] | None = None
    ) -> WorkflowRun:
        """Wait until a run is over.

        Raises:
            ExecutionError: It is not over after ``timeout_s`` seconds (kind ``timeout``).
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = self.get(run)
            if tick:
                tick(found)
            if found.status in RUN_TERMINAL:
                return found
            if deadline is not None and time.monotonic() > deadline:
                raise ExecutionError(
                    f"run {run} is {found.status} after {timeout_s:g} s",
                    kind=ErrorKind.TIMEOUT,
                    hint=f"`emboflow task list {run}` shows what it is at; `emboflow dev` starts a daemon",
                )
            time.sleep(POLL_S)

    def work(self, run: str, *, worker: str = "emboflow-worker") -> WorkflowRun:
        """Execute a run's queued tasks in this process, without Dagster, until none is left but for people.

        Everything needed is in the tasks themselves (R-357, R-358).
        """
        while True:
            found = self.get(run)
            ready = self.recorder.queued_nodes(found)
            if found.status not in RUN_ACTIVE:
                return found
            if not ready and not gates.release(self.recorder, run, ask=False):
                return found
            for node_id in ready:
                try:
                    self._work_task(run, node_id, worker)
                except TransitionError:  # another worker has it
                    continue
                except EmboflowError as error:
                    if error.kind == ErrorKind.UNAVAILABLE:
                        raise

    def settle_stuck(self) -> list[str]:
        """Settle tasks whose worker is gone, and give runs that nobody works at back to the queue.

        Returns:
            What was done, one line each.
        """
        return stuck.settle(self._opened, self.recorder)

    def settle_lost(self, run_id: str, message: str, *, cancelled: bool = False) -> WorkflowRun:
        """End a run whose Dagster run ended without saying so; see :meth:`Recorder.settle_lost`."""
        return self.recorder.settle_lost(run_id, message, cancelled=cancelled)

    def _outside(
        self, head: WorkflowDefinition, version: WorkflowDefinitionVersion, selected: Sequence[str] | None
    ) -> dict[str, list[str]]:
        if selected is None:
            return {}
        upstream = version.logic_graph.upstream()
        needed = {up for node in selected for up in upstream.get(node, ()) if up not in set(selected)}
        outside: dict[str, list[str]] = {}
        for node in sorted(needed):
            task = self.last_success(head.id, node)
            if task is None:
                raise TransitionError(
                    f"workflow {head.slug}: node {node} has never succeeded, and a selected node needs it",
                    kind=ErrorKind.UPSTREAM_NOT_SUCCEEDED,
                    hint=f"select {node} too",
                )
            outside[node] = task.asset_ids
        return outside

    def _has_source(self, version: WorkflowDefinitionVersion, selected: Sequence[str] | None) -> bool:
        sources = {t.id for t in node_types() if t.source}
        nodes = {n.id for n in version.logic_graph.nodes if n.type in sources}
        return bool(nodes if selected is None else nodes.intersection(selected))
