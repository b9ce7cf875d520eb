"""Runs found: one by its id, what waits, what is at work, and the history page by page."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.run import RUN_ACTIVE, WAITING, RunStatus, RunTask, TaskStatus, WorkflowRun
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.documents import OLDEST
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.history import History, RunCount, RunFilter, status_of
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.workflows import Workflows
from emboflow_dagster.runtime import advance, control
from emboflow_dagster.runtime.record import Recorder
from emboflow_dagster.runtime.registry import node_types

_LOOK_BACK = 50
#: What is not over; said in every poll, because an index holds these runs alone.
_OPEN: Final = {"finishedAt": None}


class ToExecute(NamedTuple):
    """A run that waits for a Dagster run."""

    run: WorkflowRun
    node_ids: Sequence[str] | None
    """The nodes to execute; all of the workflow when ``None``."""
    earlier: Sequence[str]
    """The Dagster runs that executed it, or the run it repeats, before; oldest first."""


class FoundRuns:
    """The runs of one project, read; nothing here writes."""

    def __init__(self, opened: Opened, assets: Assets, workflows: Workflows) -> None:
        self._opened = opened
        self._assets = assets
        self._workflows = workflows
        self.narrowings = {t.id: t.narrowing for t in node_types()}
        self.recorder = Recorder(opened.mongo, opened.scope, self.narrowings)
        self.documents = self.recorder.runs
        self.history = History(self.documents)

    def get(self, run: str) -> WorkflowRun:
        """A run by its id.

        Raises:
            NotFoundError: There is none in this project.
        """
        return self.documents.get(run)

    def refreshed(self, run: WorkflowRun) -> WorkflowRun:
        """A run as it is now; only what changes of one is read.

        Raises:
            NotFoundError: It is gone.
        """
        with translated():
            return advance.read_again(self.recorder, run)

    def tasks(self, run: WorkflowRun) -> list[RunTask]:
        """A run's tasks in graph order."""
        place = {node: i for i, node in enumerate(run.runtime_snapshot.node_types)}
        rows = self.recorder.tasks.find({"workflowRunId": run.id}, limit=0)
        return sorted(rows, key=lambda task: place.get(task.node_id, len(place)))

    def show(self, run: str) -> dict[str, Any]:
        """The run document as JSON, with its tasks in graph order under ``tasks``."""
        found = self.get(run)
        return {**found.to_json(), "tasks": [task.to_json() for task in self.tasks(found)]}

    def of_dagster(self, dagster_run_id: str, definition_id: str) -> WorkflowRun | None:
        """The run of a workflow that a Dagster run executed, or ``None``."""
        return self.documents.find_one(
            {"dagsterRunIds": dagster_run_id, "workflowDefinitionId": definition_id}
        )

    def last_success(self, definition_id: str, node_id: str) -> RunTask | None:
        """The newest successful task of a node, over the workflow's recent runs."""
        runs = self.documents.find({"workflowDefinitionId": definition_id}, limit=_LOOK_BACK)
        rows = self.recorder.tasks.find(
            {
                "workflowRunId": {"$in": [run.id for run in runs]},
                "nodeId": node_id,
                "status": TaskStatus.SUCCESS.value,
            },
            sort=[("finishedAt", -1)],
            limit=1,
        )
        return rows[0] if rows else None

    def queued(self, *, limit: int = 50) -> list[WorkflowRun]:
        """Runs that wait for a Dagster run, oldest first: the queue itself, no cursor needed.

        Those that were requested, and those of which a part was retried (it may be at work on another part).
        """
        fresh = {"status": RunStatus.QUEUED.value, "dagsterRunIds": []}
        last = {"$expr": {"$eq": [{"$last": "$dagsterRunIds"}, WAITING]}}
        again = {"status": {"$in": [s.value for s in RUN_ACTIVE]}, "dagsterRunIds": WAITING, **last}
        return self.documents.find({"$or": [fresh, again], **_OPEN}, sort=OLDEST, limit=limit)

    def active(self, *, limit: int = 200) -> list[WorkflowRun]:
        """Runs that a Dagster run has and that are not over; all of them with a ``limit`` of 0."""
        filter_ = {
            "status": {"$in": [s.value for s in RUN_ACTIVE]},
            "dagsterRunIds.0": {"$exists": True},
            "$expr": {"$ne": [{"$last": "$dagsterRunIds"}, WAITING]},
            **_OPEN,
        }
        return self.documents.find(filter_, sort=OLDEST, limit=limit)

    def draining(self, *, limit: int = 200) -> list[WorkflowRun]:
        """Cancelled runs of which a task still runs."""
        return self.documents.find({"status": RunStatus.CANCELLED.value, **_OPEN}, sort=OLDEST, limit=limit)

    def to_execute(self, run: WorkflowRun) -> "ToExecute":
        """What a Dagster run of a waiting run has to do."""
        nodes = control.open_nodes(self.recorder.in_order(run)) if run.waits_again else run.selected_node_ids
        earlier = [known for known in run.dagster_run_ids if known]
        if not earlier and run.retry_of_run_id is not None:
            repeated = self.documents.find_one({"_id": run.retry_of_run_id})
            earlier = [known for known in (repeated.dagster_run_ids if repeated else []) if known]
        return ToExecute(run, nodes, earlier)

    def list(self, *, after: str | None = None, limit: int = 50, **which: Any) -> list[WorkflowRun]:
        """Runs, newest first, below ``after`` (a run's id); which of them as :meth:`filter` takes it."""
        return self.history.page(self.filter(**which), after=after, limit=limit)

    def count(self, **which: Any) -> RunCount:
        """How many there are, counted up to 10,000; which of them as :meth:`filter` takes it."""
        return self.history.count(self.filter(**which))

    def filter(
        self,
        *,
        workflow: str | None = None,
        version: int | None = None,
        status: str | None = None,
        asset: str | None = None,
        triggered_by: str | None = None,
        label: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> RunFilter:
        """The names that people use, as :class:`RunFilter` has them.

        Args:
            workflow: Slug or id.
            version: A version number of it.
            status: A word of :class:`RunStatus`.
            asset: Name or id of an asset that the run binds.
            triggered_by: As stored, a family (``schedule``, ``user``), or ``schedule:NAME``.
            label: What was written beside it when it was requested, exactly.
            since: Requested at this moment or later.
            until: Requested before this moment.

        Raises:
            NotFoundError: No such workflow, version or asset in this project.
            InvalidInputError: No such status; a version without its workflow.
        """
        if version is not None and workflow is None:
            raise InvalidInputError(f"version {version} of which workflow?")
        head = self._workflows.get(workflow) if workflow is not None else None
        chosen = self._workflows.version(head.id, version) if head and version is not None else None
        return RunFilter(
            status=status_of(status) if status is not None else None,
            definition_id=head.id if head and not chosen else None,
            version_id=chosen.id if chosen else None,
            asset_id=self._assets.get(asset).id if asset is not None else None,
            triggered_by=triggered_by,
            label=label,
            since=since,
            until=until,
        )
