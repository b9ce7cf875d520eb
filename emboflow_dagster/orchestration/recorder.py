"""What a step could not write itself: documents are brought in line with what Dagster says.

Pure and idempotent: it reads active documents, looks at the Dagster runs that execute them
(:mod:`emboflow_dagster.orchestration.observed`) and settles what those left open. Running it twice, beside
another one, or after a day without one changes nothing more than running it once in time.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import dagster as dg

from emboflow_dagster.errors import ConflictError, EmboflowError, NotFoundError
from emboflow_dagster.model.run import RUN_TERMINAL, WorkflowRun
from emboflow_dagster.orchestration import discovered, keys, observed, termination
from emboflow_dagster.orchestration.any_version import PLACE_TAG, place_tag
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.orphans import ended_if_orphaned
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import lost
from emboflow_dagster.runtime.lease import IDLE_S

INTERVAL_SECONDS: Final = 10
MAX_RUNS: Final = 200


@dataclass(frozen=True, slots=True)
class Lost:
    """A run of which something was settled, or that was asked for again, and why."""

    run_id: str
    message: str


def record(ef: EmboFlow, instance: dg.DagsterInstance) -> list[str]:
    """One look at everything; what was written, one line each."""
    found = discovered.record_unseen(ef, instance)
    settled = [f"{one.run_id}: {one.message}" for one in settle(ef, instance)]
    stuck = ef.runs.settle_stuck()
    ended = end_left_over(ef, instance)
    return [*found, *settled, *stuck, *ended]


def settle(ef: EmboFlow, instance: dg.DagsterInstance) -> list[Lost]:
    """Settle what the Dagster runs of a project's documents left open; returns what was written.

    A cancelled run that Dagster still executes is terminated there first.
    """
    draining = ef.runs.draining(limit=MAX_RUNS)
    for run in draining:
        for dagster_run in termination.open_dagster_runs(instance, run):
            termination.end(instance, dagster_run)
    done: list[Lost] = []
    # Only the oldest of the queue have been asked for.
    for run in [*ef.runs.active(limit=0), *ef.runs.queued(limit=MAX_RUNS), *draining]:
        try:
            message = _settle(ef, instance, run)
        except (ConflictError, NotFoundError):
            continue  # it was settled, or claimed anew, since we looked
        if message:
            done.append(Lost(run.id, message))
    return done


def _settle(ef: EmboFlow, instance: dg.DagsterInstance, run: WorkflowRun) -> str | None:
    recorder = ef.runs.recorder
    seen = observed.observe(instance, ef, run)
    if not run.dagster_run_ids or run.waits_again:
        # Requested but never claimed: its run key is used up, so nothing would start it again.
        requests = observed.ended_requests(instance, run)
        if requests:
            newest = requests[0]
            cancelled = newest.status is dg.DagsterRunStatus.CANCELED
            if not cancelled and lost.ask_again(recorder, run) is not None:
                return f"its Dagster run {newest.run_id} died before it took anything; it is asked for again"
            over = {**seen.over, newest.run_id: observed.ending(newest)}
            named = {known for known in run.dagster_run_ids if known}
            seen = replace(seen, over=over, complete=named <= seen.over.keys(), cancelled=cancelled)
    settled = lost.settle_observed(recorder, run, seen)
    if not settled:
        return None
    ended = ef.runs.get(run.id)
    nodes = ", ".join(f"{task.node_id} {task.status.value}" for task in settled)
    return f"{nodes} ({settled[0].error_message or 'cancelled'}); the run is {ended.status.value}"


def end_left_over(ef: EmboFlow, instance: dg.DagsterInstance) -> list[str]:
    """End Dagster runs of the queue whose document is over: they keep a place that others wait for.

    A worker of another machine that was lost is never missed by Dagster, nor a run that was cancelled
    before Dagster began with it.
    """
    mine = place_tag(Place(ef.scope.workspace_slug, ef.scope.project_slug))
    found = instance.get_runs(dg.RunsFilter(statuses=list(_AT_WORK)))
    judged = [ended_if_orphaned(instance, one) for one in found if one.tags.get(PLACE_TAG) == mine]
    at_work = [one for one in judged if one.status in _TO_END]
    if not at_work:
        return []
    late = ef.mongo.server_time() - timedelta(seconds=IDLE_S)
    ids = [one.tags.get(keys.TAG_RUN_ID) for one in at_work]
    over = {
        run.id
        for run in ef.runs.documents.find({"_id": {"$in": ids}}, limit=0)
        if run.status in RUN_TERMINAL and run.finished_at is not None and run.finished_at < late
    }
    return [
        f"Dagster run {one.run_id} was told to end: {one.tags[keys.TAG_RUN_ID]} is over"
        for one in at_work
        if one.tags.get(keys.TAG_RUN_ID) in over and termination.end(instance, one)
    ]


_TO_END: Final = frozenset(
    {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}
)
_AT_WORK: Final = _TO_END | {dg.DagsterRunStatus.CANCELING}


def recorder_sensor(place: Place) -> dg.SensorDefinition:
    """The fold as a sensor: no cursor of its own, because the documents say what is still open."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                done = record(ef, context.instance)
        except EmboflowError as error:
            return dg.SkipReason(f"error[{error.kind.value}]: {error.message}")
        return dg.SkipReason("; ".join(done) or "every active run is being executed")

    return dg.SensorDefinition(
        name=keys.place_name(place, "recorder"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Settles runs of `{place.workspace}/{place.project}` whose Dagster run ended.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )
