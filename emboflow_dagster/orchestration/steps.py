"""What a step does: find its run, take its task, execute it, say what came out.

Everything that is executed comes from the ``run_tasks`` document, frozen when the run was requested;
the definition this code location happens to hold only says which task it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError, ErrorKind, NotFoundError, TransitionError
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.orchestration import keys, page, step_log
from emboflow_dagster.orchestration.run_options import RunOptions, require_same_graph
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.tasks import Worked
from emboflow_dagster.project.ticking import stamp
from emboflow_dagster.runtime.machine import below
from emboflow_dagster.runtime.node import refusal

PARENT_TAG: Final = "dagster/parent_run_id"
ROOT_TAG: Final = "dagster/root_run_id"
SCHEDULE_TAG: Final = "dagster/schedule_name"
# What steps of this process found before: Dagster run and workflow version to run document.
_found: Final[dict[tuple[str, str], str]] = {}
_FOUND_RUNS: Final = 64
# Dagster's own, hidden in the UI: the tick that its scheduler launched a run for.
TICK_TAG: Final = ".dagster/scheduled_execution_time"


@dataclass(frozen=True, slots=True)
class Launch:
    """The Dagster run as a step sees it: its id and what it was launched with."""

    dagster_run_id: str
    tags: Mapping[str, str]
    parent_run_id: str | None = None
    options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def of(cls, run: dg.DagsterRun, options: RunOptions | None = None) -> "Launch":
        """What a step's context says of its run, and what was asked for in the launchpad."""
        # The queue names the Dagster run before in a tag, too; only people re-execute.
        tagged = None if keys.TAG_GENERATION in run.tags else run.tags.get(PARENT_TAG)
        return cls(run.run_id, run.tags, run.parent_run_id or tagged, options or RunOptions())

    @property
    def triggered_by(self) -> str:
        """How a run that nobody queued came about, as ``workflow_runs.triggeredBy`` spells it."""
        if self.tick is not None:
            return f"schedule:{self.tags[SCHEDULE_TAG]}@{stamp(self.tick)}"
        if sensor := self.tags.get("dagster/sensor_name"):
            return f"sensor:{sensor}"
        return "dagster-ui"

    @property
    def tick(self) -> datetime | None:
        """The tick of a team's own schedule that this run was launched for; not of one it repeats."""
        said = self.tags.get(TICK_TAG)
        if said is None or SCHEDULE_TAG not in self.tags or self.parent_run_id is not None:
            return None
        try:
            return datetime.fromisoformat(said).astimezone(UTC)
        except ValueError:
            return None

    @property
    def cause(self) -> str | None:
        """What has one run however many Dagster runs it led to: the tick, and the request of that tick."""
        if self.tick is None:
            return None
        return f"{self.triggered_by}#{self.tags.get('dagster/run_key', '')}"


@dataclass(frozen=True, slots=True)
class Target:
    """The workflow version a step's definition was made of, and its nodes in this Dagster run."""

    definition_id: str
    version_id: str
    node_ids: Sequence[str] | None


def run_of(ef: EmboFlow, launch: Launch, target: Target) -> WorkflowRun:
    """The one ``workflow_runs`` document that this Dagster run executes, claimed for it.

    A queued run names itself in a tag and is claimed, once, by the first step that comes. A tag may
    also be inherited: "re-execute" in the UI copies the tags of the old run and executes the newest
    version. Then, and when nobody queued anything (Materialize, launchpad, backfill), a document is
    written for this Dagster run; its id follows from the Dagster run's, so that steps starting at
    once agree.

    Raises:
        TransitionError: The run was cancelled, or another Dagster run executes it.
        NotFoundError: The run is gone.
    """
    queued = launch.tags.get(keys.TAG_RUN_ID)
    if queued:
        try:
            # A Dagster run over several workflows has one document each; the tag names one of them.
            known = ef.runs.recorder.known(queued)
            if known.workflow_definition_id == target.definition_id:
                return ef.runs.claim(known, launch.dagster_run_id)
        except (TransitionError, NotFoundError):
            if launch.parent_run_id is None:
                raise
    asked = (launch.dagster_run_id, target.version_id)
    if asked in _found:
        # A step of a large graph must not read all of it once more: workflow version, run and tasks.
        known = ef.runs.recorder.known(_found[asked])
        if launch.dagster_run_id in known.dagster_run_ids:
            return known
    run = _run_of(ef, launch, target)
    if len(_found) >= _FOUND_RUNS:
        _found.clear()
    _found[asked] = run.id
    return run


def _run_of(ef: EmboFlow, launch: Launch, target: Target) -> WorkflowRun:
    """The document of a Dagster run that nobody queued, or that repeats a part of another."""
    if launch.parent_run_id is not None and (again := _executed_again(ef, launch, target)) is not None:
        return again
    version_id = _version_id(ef, launch.options, target)
    run = ef.runs.adopt(
        launch.dagster_run_id,
        workflow_version_id=version_id,
        node_ids=list(target.node_ids) if target.node_ids is not None else None,
        asset_ids=launch.options.assets or None,
        triggered_by=launch.triggered_by,
        cause=launch.cause,
        scheduled_for=launch.tick,
        config=launch.options.config(),
    )
    if run.workflow_version_id != version_id:
        raise TransitionError(
            f"Dagster run {launch.dagster_run_id} is recorded as {run.id} of another workflow version",
            hint="materialize the assets of one workflow at a time",
        )
    return run


def _version_id(ef: EmboFlow, options: RunOptions, target: Target) -> str:
    """The version that was asked for, if these steps can execute it; by default their own."""
    if options.version is None:
        return target.version_id
    wanted = ef.workflows.version(target.definition_id, options.version)
    if wanted.id != target.version_id:
        slug = ef.workflows.get(target.definition_id).slug
        require_same_graph(ef.workflows.version_by_id(target.version_id), wanted, slug)
    return wanted.id


def _executed_again(ef: EmboFlow, launch: Launch, target: Target) -> WorkflowRun | None:
    """The document of the Dagster run that this one re-executes a part of, with that part reset.

    "Re-execute from failure" and a selection that ends with the graph go on in the same document. A whole
    run, or a selection in the middle (what is below it would never be executed), is a run of its own.
    """
    run = ef.runs.of_dagster(str(launch.parent_run_id), target.definition_id)
    chosen = set(target.node_ids or ())
    if run is None or run.workflow_version_id != target.version_id:
        return None
    tasks = ef.runs.tasks(run)
    if not chosen or chosen >= {task.node_id for task in tasks}:
        return None
    roots = [t.node_id for t in tasks if t.node_id in chosen and not chosen.intersection(t.upstream_node_ids)]
    if {*roots, *below(roots, tasks)} != chosen:
        return None
    try:
        return ef.runs.retry_tasks(run.id, roots, dagster_run_id=launch.dagster_run_id)
    except (TransitionError, NotFoundError):
        return None


def tags_to_add(ef: EmboFlow, launch: Launch, run: WorkflowRun) -> dict[str, str]:
    """The tags that name ``run`` in a Dagster run that was launched without them.

    A run that nobody queued has none, and a re-execution has those of the run it repeats: both are
    given their own, so that run filters and the run's page lead to the right document.
    """
    named = launch.tags.get(keys.TAG_RUN_ID)
    if named == run.id:
        return {}
    if named:
        try:
            # One Dagster run over several workflows: the tags name one of its documents.
            if launch.dagster_run_id in ef.runs.get(named).dagster_run_ids:
                return {}
        except NotFoundError:
            pass
    return run_tags(run)


def run_tags(run: WorkflowRun) -> dict[str, str]:
    """What a Dagster run says of the document that it executes."""
    return {
        keys.TAG_RUN_ID: run.id,
        keys.TAG_WORKFLOW_VERSION: run.workflow_version_id,
        keys.TAG_TRIGGERED_BY: run.triggered_by,
    }


def work(
    ef: EmboFlow, run: WorkflowRun, node_id: str, *, worker: str, context: dg.OpExecutionContext
) -> Worked | None:
    """Take the task and execute it; every failure as Dagster's, with the code and the hint.

    ``None`` where it waits for people now: the step ends, and a later Dagster run takes the task.

    A step that is stopped meanwhile (cancel, SIGTERM) has settled its task when the interrupt passes here.

    Raises:
        Failure: The task failed or could not be taken. Dagster does not repeat it: a retry is a
            decision recorded in MongoDB first.
    """
    log = step_log.StepLog(context, run, node_id)
    try:
        return ef.tasks.work(run.id, node_id, worker=worker, log=log.line, watch=log.printed)
    except EmboflowError as error:
        if error.kind is ErrorKind.WAITS_FOR_PEOPLE:
            context.log.info("%s: %s", error.message, error.hint or "somebody else opened it")
            return None
        where = step_log.link_of(ef, run.id, node_id)
        more = {**where, **_left(error)}
        raise failure(error, run_id=run.id, node_id=node_id, more=more) from error


def _left(error: EmboflowError) -> dict[str, Any]:
    """What a node that refused its input made of it, for the failure's page."""
    refused = refusal(error)
    if refused is None or refused.result is None:
        return {}
    return page.page_metadata(refused.result.page) | page.artifact_metadata(refused.artifacts)


def refused_preview(failed: dg.Failure) -> Mapping[str, Any] | None:
    """The preview of a node that refused its input and so failed its step."""
    refused = refusal(failed)
    return refused.result.preview if refused is not None and refused.result is not None else None


def failure(
    error: EmboflowError,
    *,
    run_id: str | None = None,
    node_id: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> dg.Failure:
    """An error of our tree as Dagster shows it: code, message and hint, never repeated by Dagster."""
    metadata: dict[str, Any] = {"code": error.kind.value}
    if error.hint:
        metadata["hint"] = error.hint
    if run_id:
        metadata["workflow_run"] = run_id
    if node_id:
        metadata["node"] = node_id
    metadata |= more or {}
    if error.problems:
        metadata["problems"] = page.table(
            [{"code": p.kind.value, "where": p.path, "problem": p.message} for p in error.problems]
        )
    hint = f"\n{error.hint}" if error.hint else ""
    return dg.Failure(
        description=f"error[{error.kind.value}]: {error.message}{hint}",
        metadata=metadata,
        allow_retries=False,
    )


def metadata_of(worked: Worked) -> dict[str, Any]:
    """All that the pages show of a task: what it made, its bytes, and where it is recorded."""
    task, version = worked.task, worked.dataset_version
    result: dict[str, Any] = {}
    if version is not None:
        result = {
            "dataset_version": version.version_tag,
            **dict(version.stats),
            "dataset_version_id": version.id,
            "unchanged": worked.unchanged_dataset,
        }
    result |= page.page_metadata(worked.page)
    result |= page.artifact_metadata(worked.artifacts)
    if version is not None:
        result |= page.storage_metadata(version.manifest_ref)
    result |= {
        "assets": len(task.asset_ids),
        "duration_ms": task.duration_ms,
        "workflow_run_id": task.workflow_run_id,
        "task_id": task.id,
        "attempt": task.attempt,
        **step_log.link(task),
        "cacheKey": task.cache_key,
        "cacheHit": task.cache_hit,
        "cache": task.summary.cache.reason if task.summary and task.summary.cache else None,
    }
    return {name: value for name, value in result.items() if value is not None}
