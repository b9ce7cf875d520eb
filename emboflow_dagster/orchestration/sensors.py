"""The queue: ``workflow_runs`` that wait become Dagster runs.

MongoDB is the cursor. A run stays queued until the *started* Dagster run claims it; until then every
tick asks for it again under the same ``run_key``, and Dagster drops what it has seen. Nothing is lost
when the daemon dies between asking and starting, and nothing starts twice: the claim decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.any_version import PLACE_TAG, place_tag
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.jobs import Launchable
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.raw_events import tell_before
from emboflow_dagster.orchestration.steps import PARENT_TAG, ROOT_TAG, run_tags
from emboflow_dagster.project.found_runs import ToExecute

INTERVAL_SECONDS: Final = 5
MAX_REQUESTS: Final = 50


def queue_sensor(
    place: Place, workflows: Mapping[str, Launchable], jobs: Sequence[Any]
) -> dg.SensorDefinition:
    """The sensor of one project.

    Args:
        place: The project.
        workflows: What this code location holds, by workflow definition id.
        jobs: The jobs those are launched with, and the one for any version. A request for a job that
            is not among them would fail the whole tick.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                queued = [ef.runs.to_execute(run) for run in ef.runs.queued(limit=MAX_REQUESTS)]
                tell_before(context.instance, ef, place, (a for one in queued for a in one.run.asset_ids))
        except EmboflowError as error:
            return dg.SensorResult(skip_reason=f"error[{error.kind.value}]: {error.message}")
        if not queued:
            return dg.SensorResult(skip_reason="nothing is queued")
        return dg.SensorResult(run_requests=[request_of(one, workflows, place) for one in queued])

    return dg.SensorDefinition(
        name=keys.place_name(place, "queue"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Starts the queued workflow runs of `{place.workspace}/{place.project}`.",
        jobs=list(jobs),
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )


def request_of(waiting: ToExecute, workflows: Mapping[str, Launchable], place: Place) -> dg.RunRequest:
    """How to start one queued run: its workflow's own job, or the one for any version."""
    run = waiting.run
    known = workflows.get(run.workflow_definition_id)
    # A run that is retried in part is executed by several Dagster runs, one after the other.
    generation = str(len(run.dagster_run_ids))
    tags = {
        **run_tags(run),
        PLACE_TAG: place_tag(place),
        keys.TAG_WORKSPACE: place.workspace,
        keys.TAG_GENERATION: generation,
    }
    if waiting.earlier:  # the UI shows them as one group
        tags |= {PARENT_TAG: waiting.earlier[-1], ROOT_TAG: waiting.earlier[0]}
    run_key = f"{run.id}:{generation}"
    if known and known.execution_digest == run.runtime_snapshot.execution_digest:
        selection = known.selection(waiting.node_ids)
        return dg.RunRequest(
            run_key=run_key,
            job_name=known.job,
            asset_selection=selection,
            # Unsaid, it is all checks of what is selected: what was just hashed would be read again.
            asset_check_keys=None if selection is None else [],
            tags=tags,
        )
    return dg.RunRequest(run_key=run_key, job_name=keys.ANY_VERSION_JOB, tags=tags)
