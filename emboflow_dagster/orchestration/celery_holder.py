"""Whether a step that no worker vouches for still holds its task: the lease in MongoDB says so."""

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.step import ExecutionStep

from emboflow_dagster.orchestration import any_version, keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.project.workers import holds_a_task
from emboflow_dagster.runtime.lost import owner_of


def task_is_held(context: PlanOrchestrationContext, step: ExecutionStep) -> bool:
    """Whether a task that this step works at is running and its lease has not run out; else it is settled.

    A step that is none of ours (an asset of the deployment's own) holds none.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    place = place_of(context.dagster_run, step)
    if place is None:
        return False
    bound = context.reconstructable_job.get_definition().resource_defs
    with (
        dg.build_resources({RESOURCE: bound[RESOURCE]}, instance=context.instance) as opened,
        kept_open(getattr(opened, RESOURCE), place) as ef,
    ):
        if holds_a_task(ef, owner_of(context.run_id, step.key)):
            return True
        # Settled by its lease before its Dagster run fails: the task then names the cause.
        ef.runs.settle_stuck()
        return False


def place_of(run: dg.DagsterRun, step: ExecutionStep) -> Place | None:
    """The project of a step: its asset's key names it, else the tag of the queue."""
    for output in step.step_outputs:
        key = output.properties.asset_key
        if key is not None and (found := keys.place_of(key)) is not None:
            return found
    workspace, _, project = run.tags.get(any_version.PLACE_TAG, "").partition("/")
    mine = step.key == any_version.OP and workspace and project
    return Place(workspace, project) if mine else None
