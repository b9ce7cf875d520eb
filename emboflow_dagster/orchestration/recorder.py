"""What a step could not write itself: runs whose Dagster run ended behind their back.

A pure, idempotent fold: it reads active documents, looks at the Dagster runs that execute them and
settles those whose Dagster run is over. Running it twice, or beside another one, changes nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import dagster as dg

from emboflow_dagster.errors import ConflictError, EmboflowError, NotFoundError
from emboflow_dagster.model.run import RUN_ACTIVE, RunStatus, WorkflowRun
from emboflow_dagster.orchestration import keys, termination
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.orphans import ended_if_orphaned
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 10
MAX_RUNS: Final = 200
# A Dagster run that succeeded leaves an active document only when its last write is on the way.
_OVER: Final = frozenset({dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED})


@dataclass(frozen=True, slots=True)
class Lost:
    """An active run that nothing executes any more, and why."""

    run_id: str
    dagster_run_id: str
    cancelled: bool
    message: str


def lost_runs(instance: dg.DagsterInstance, runs: Iterable[WorkflowRun]) -> Iterator[Lost]:
    """The active runs whose newest Dagster run has failed, was cancelled, or died unnoticed."""
    for run in runs:
        if run.status not in RUN_ACTIVE and run.finished_at is not None:
            continue
        if run.dagster_run_ids and not run.waits_again:
            dagster_run_id = run.dagster_run_ids[-1]
            found = instance.get_run_by_id(dagster_run_id)
            if found is None:
                # A history that was cleared says nothing about a run that may still work.
                continue
            found = ended_if_orphaned(instance, found)
        else:
            # Requested but never claimed: its run key is used up, so nothing would start it again.
            found = _ended_request(instance, run)
            if found is None:
                continue
            dagster_run_id = found.run_id
        if found.status in _OVER:
            cancelled = found.status is dg.DagsterRunStatus.CANCELED or run.status is RunStatus.CANCELLED
            verb = "was cancelled" if cancelled else "failed"
            yield Lost(run.id, dagster_run_id, cancelled, f"its Dagster run {dagster_run_id} {verb}")


def _ended_request(instance: dg.DagsterInstance, run: WorkflowRun) -> dg.DagsterRun | None:
    requests = instance.get_runs(dg.RunsFilter(tags={keys.TAG_RUN_ID: run.id}), limit=20)
    generation = str(len(run.dagster_run_ids))
    mine = [
        ended_if_orphaned(instance, one)
        for one in requests
        if one.parent_run_id is None and one.tags.get(keys.TAG_GENERATION, "0") == generation
    ]
    return mine[0] if mine and all(run.status in _OVER for run in mine) else None


def settle(ef: EmboFlow, instance: dg.DagsterInstance) -> list[Lost]:
    """Settle every lost run of a project; returns those that were settled.

    A cancelled run that Dagster still executes is terminated there first.
    """
    draining = ef.runs.draining(limit=MAX_RUNS)
    for run in draining:
        for dagster_run in termination.open_dagster_runs(instance, run):
            termination.end(instance, dagster_run)
    open_runs = [*ef.runs.active(limit=MAX_RUNS), *ef.runs.queued(limit=MAX_RUNS), *draining]
    settled: list[Lost] = []
    for lost in lost_runs(instance, open_runs):
        try:
            ef.runs.settle_lost(lost.run_id, lost.message, cancelled=lost.cancelled)
        except (ConflictError, NotFoundError):
            continue  # it was settled, or claimed anew, since we looked
        settled.append(lost)
    return settled


def recorder_sensor(place: Place) -> dg.SensorDefinition:
    """The fold as a sensor: no cursor, because the documents say what is still open."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                settled = settle(ef, context.instance)
                stuck = ef.runs.settle_stuck()
        except EmboflowError as error:
            return dg.SkipReason(f"error[{error.kind.value}]: {error.message}")
        done = [*(f"{lost.run_id}: {lost.message}" for lost in settled), *stuck]
        return dg.SkipReason("; ".join(done) or "every active run is being executed")

    return dg.SensorDefinition(
        name=keys.place_name(place, "recorder"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Settles runs of `{place.workspace}/{place.project}` whose Dagster run ended.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )
