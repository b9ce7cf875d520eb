"""A workflow's own schedule: every tick requests one run, exactly once."""

import hashlib
from datetime import UTC

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import CatalogSchedule, Place, Workflow
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE


def workflow_schedule(
    place: Place, workflow: Workflow, schedule: CatalogSchedule, job: str
) -> dg.ScheduleDefinition:
    """The schedule of a workflow.

    A tick writes the ``workflow_runs`` document and leaves starting it to the queue: one way in, and
    a daemon that dies after the tick loses nothing. Name and tick make the request's id, so a tick that
    Dagster evaluates twice is one run.
    """
    name = f"{keys.job_name(place, workflow['slug'])}__schedule"

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(UTC)
        stamp = f"{tick:%Y-%m-%dT%H:%M:%SZ}"
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                run = ef.runs.request(
                    workflow["slug"],
                    assets=schedule["assets"],
                    triggered_by=f"schedule:{name}@{stamp}",
                    run_id=tick_run_id(workflow["definitionId"], stamp),
                    scheduled_for=tick,
                )
        except EmboflowError as error:
            raise dg.Failure(f"error[{error.kind.value}]: {error.message}") from error
        return dg.SkipReason(f"queued {run.id}; the queue starts it")

    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=schedule["cron"],
        execution_timezone=schedule["timezone"],
        execution_fn=evaluate,
        job_name=job,
        description=f"Workflow `{workflow['slug']}` of `{place.workspace}/{place.project}` by itself.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )


def tick_run_id(definition_id: str, stamp: str) -> str:
    """The id of the run that one tick of one workflow requests."""
    return f"run_{hashlib.sha256(f'{definition_id}@{stamp}'.encode()).hexdigest()[:26].upper()}"
