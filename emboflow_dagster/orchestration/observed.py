"""What Dagster's event log and run status say of the runs that a document names.

A fold without side effects: events come in the order of the log, and how far they were read is kept in the
document, written together with what follows from them (:mod:`emboflow_dagster.runtime.lost`). However long
nobody looked, the log is read on from there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import dagster as dg

from emboflow_dagster.model.run import WAITING, RunStatus, WorkflowRun
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.orphans import ended_if_orphaned
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import lost

PAGE: Final = 500
_Type: Final = dg.DagsterEventType
#: What the fold reads. The rest of a log is what steps did, which they have written themselves.
READ: Final = frozenset(
    {_Type.STEP_FAILURE, _Type.STEP_UP_FOR_RETRY, _Type.STEP_RESTARTED, _Type.STEP_SUCCESS}
    | {_Type.RUN_FAILURE, _Type.RUN_CANCELED}
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a stretch of a Dagster run's events says."""

    failed: Mapping[str, str] = field(default_factory=dict)
    """Step key to the error it ended with; one that is tried again is not among them."""
    ended: str | None = None
    """Why the run failed, in Dagster's words."""


def fold(told: Told, events: Iterable[dg.DagsterEvent]) -> Told:
    """``told``, and what further events of the same Dagster run say."""
    for event in events:
        step = event.step_key
        if event.event_type is _Type.STEP_FAILURE and step:
            told = replace(told, failed={**told.failed, step: _error(event)})
        elif event.event_type in (_Type.STEP_UP_FOR_RETRY, _Type.STEP_RESTARTED, _Type.STEP_SUCCESS):
            told = replace(told, failed={k: v for k, v in told.failed.items() if k != step})
        elif event.event_type is _Type.RUN_FAILURE:
            told = replace(told, ended=_error(event) or told.ended)
    return told


def _error(event: dg.DagsterEvent) -> str:
    data = event.event_specific_data
    given = getattr(data, "user_failure_data", None)
    if given is not None and given.description:
        return str(given.description)
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    if error is not None:
        return str(error.message).strip()
    return (event.message or "").strip()


def read(instance: dg.DagsterInstance, dagster_run_id: str, cursor: str | None) -> tuple[Told, str | None]:
    """The fold over what a Dagster run has logged since ``cursor``, and the cursor after it."""
    told = Told()
    while True:
        page = instance.get_records_for_run(dagster_run_id, cursor=cursor, of_type=set(READ), limit=PAGE)
        told = fold(
            told, (r.event_log_entry.dagster_event for r in page.records if r.event_log_entry.dagster_event)
        )
        if page.records:
            cursor = page.cursor
        if not page.has_more or not page.records:
            return told, cursor


def observe(instance: dg.DagsterInstance, ef: EmboFlow, run: WorkflowRun) -> lost.Observed:
    """What there is to settle in a document whose tasks are executed, or asked for, in Dagster."""
    nodes = _steps(ef, run)
    over: dict[str, str] = {}
    failed: dict[str, lost.StepFailure] = {}
    cursors: dict[str, str] = {}
    stopped = False
    named = [known for known in run.dagster_run_ids if known]
    for dagster_run_id in named:
        found = instance.get_run_by_id(dagster_run_id)
        if found is None:
            # Deleted, or its DAGSTER_HOME was; or it is another one's, where it may still work.
            if lost.is_quiet(ef.runs.recorder, run):
                over[dagster_run_id] = f"its Dagster run {dagster_run_id} is gone, and nobody works at it"
            continue
        found = ended_if_orphaned(instance, found, is_quiet=lambda: lost.is_quiet(ef.runs.recorder, run))
        told, cursor = read(instance, dagster_run_id, run.recorded_up_to.get(dagster_run_id))
        if cursor is not None:
            cursors[dagster_run_id] = cursor
        for step, message in told.failed.items():
            if step in nodes:
                failed[nodes[step]] = lost.StepFailure(dagster_run_id, message)
        stopped = found.status is dg.DagsterRunStatus.CANCELED
        if found.status is dg.DagsterRunStatus.SUCCESS and not lost.is_quiet(ef.runs.recorder, run):
            continue  # its last write is on the way
        if found.is_finished:
            over[dagster_run_id] = ending(found, told.ended)
    complete = bool(named) and len(over) == len(set(named)) and run.dagster_run_ids[-1] != WAITING
    return lost.Observed(over, failed, cursors, complete, stopped)


def ending(found: dg.DagsterRun, why: str | None = None) -> str:
    """How a Dagster run ended, as the error of a task that it left open."""
    match found.status:
        case dg.DagsterRunStatus.CANCELED:
            return f"its Dagster run {found.run_id} was cancelled"
        case dg.DagsterRunStatus.SUCCESS:
            return f"its Dagster run {found.run_id} ended without it"
        case _:
            return f"its Dagster run {found.run_id} failed" + (f": {why}" if why else "")


def ended_requests(instance: dg.DagsterInstance, run: WorkflowRun) -> list[dg.DagsterRun]:
    """The Dagster runs that the queue has asked for and that are over without having taken the run.

    Empty while one of them may still do so.
    """
    if run.status is RunStatus.CANCELLED:
        return []
    requests = instance.get_runs(dg.RunsFilter(tags={keys.TAG_RUN_ID: run.id}), limit=20)
    generation = str(len(run.dagster_run_ids))
    mine = [
        # Nobody has it yet, so there is nobody to hear of but the server that was to start it.
        ended_if_orphaned(instance, one, is_quiet=lambda: True)
        for one in requests
        if one.parent_run_id is None and one.tags.get(keys.TAG_GENERATION, "0") == generation
    ]
    return mine if all(one.is_finished for one in mine) else []


def _steps(ef: EmboFlow, run: WorkflowRun) -> dict[str, str]:
    """The step keys of a document's nodes."""
    place = Place(ef.scope.workspace_slug, ef.scope.project_slug)
    slug = run.runtime_snapshot.workflow_slug
    return {keys.op_name(place, slug, node): node for node in run.runtime_snapshot.node_types}
