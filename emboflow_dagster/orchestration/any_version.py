"""The job that executes any published version of any workflow.

A queued run is bound to one immutable version. The code location may hold a newer one, or, when the
workflow was published a moment ago, none: then the run is executed here, node by node in the order of
its own frozen graph, with the same tasks, materialisations and data versions. Nothing waits for a
reload, and nothing executes a graph that it was not requested with.
"""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError, ExecutionError
from emboflow_dagster.model.run import RunTask, TaskStatus, WorkflowRun
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.orchestration import keys, steps
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.executors import any_version_executor
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.pools import pool_name
from emboflow_dagster.orchestration.run_options import OPTIONS, RUN_OPTIONS, launch_fields
from emboflow_dagster.runtime.lost import owner_of

PLACE_TAG: Final = "emboflow/place"
OP: Final = "work_run"


def place_tag(place: Place) -> str:
    """Where the run is, for a job that belongs to no place."""
    return f"{place.workspace}/{place.project}"


def any_version_job(resource: object) -> dg.JobDefinition:
    """One op that works every task of the run that its tag names.

    Args:
        resource: What opens the handle. Bound here: Dagster copies a job that waits for a resource, and
            every sensor that starts it, and warns about its own copying.
    """
    op = dg.OpDefinition(
        compute_fn=_work_run,
        name=OP,
        outs={"done": dg.Out(dg.Nothing)},
        required_resource_keys={RESOURCE, RUN_OPTIONS},
        config_schema=launch_fields(),
        # Which nodes it will work is not known before it runs.
        pool=pool_name(ExecutorType.PYTHON.value),
        description=(
            "Executes the tasks of the queued run that its tag names, in graph order; launched by hand, of a "
            "new run of the workflow and version that its configuration names."
        ),
    )
    return dg.GraphDefinition(name=keys.ANY_VERSION_JOB, node_defs=[op]).to_job(
        description=(
            "Executes queued runs whose workflow version this code location does not hold: a version "
            "published since it was loaded, an older one, or one of an archived workflow."
        ),
        executor_def=any_version_executor(),
        # The output is nothing, and nothing is stored: but a step elsewhere may not be promised memory.
        resource_defs={RESOURCE: resource, RUN_OPTIONS: OPTIONS, "io_manager": dg.FilesystemIOManager()},
    )


def _work_run(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[Any]:
    launch = steps.Launch.of(context.run, getattr(context.resources, RUN_OPTIONS))
    asked = context.op_config
    run_id, place = launch.tags.get(keys.TAG_RUN_ID), launch.tags.get(PLACE_TAG) or asked["place"] or ""
    workspace, _, project = place.partition("/")
    if not ((run_id or asked["workflow"]) and workspace and project):
        raise dg.Failure(
            f"the queue starts this job: {keys.TAG_RUN_ID} and {PLACE_TAG} say what to execute. By hand, its "
            f"configuration does: ops.{OP}.config.place and .workflow",
            metadata={"hint": "emboflow workflow run SLUG --asset A --version N"},
            allow_retries=False,
        )
    try:
        with context.resources.emboflow.open(workspace, project) as ef:
            run = _claimed(ef, launch, run_id, asked)
            if tags := steps.tags_to_add(ef, launch, run):
                context.instance.add_run_tags(launch.dagster_run_id, {**tags, PLACE_TAG: place})
            worker = owner_of(launch.dagster_run_id, OP)
            failed = yield from work_all(context, ef, run, Place(workspace, project), worker)
    except EmboflowError as error:
        raise steps.failure(error, run_id=run_id) from error
    run_id = run.id
    if failed:
        raise steps.failure(
            ExecutionError(f"{len(failed)} of the run's tasks failed: {', '.join(failed)}"), run_id=run_id
        )
    yield dg.Output(None, "done")


def _claimed(ef: Any, launch: steps.Launch, run_id: str | None, asked: dict[str, Any]) -> WorkflowRun:
    """The queued run, or one of what the launchpad asked for; repeating it is harmless."""
    # "Re-execute" copies the tags of a run that is over, and the configuration that it was launched with.
    if run_id and not (asked["workflow"] and launch.parent_run_id):
        claimed: WorkflowRun = ef.runs.claim(run_id, launch.dagster_run_id)
        return claimed
    version = ef.workflows.version(asked["workflow"], asked["version"] or launch.options.version)
    adopted: WorkflowRun = ef.runs.adopt(
        launch.dagster_run_id,
        workflow_version_id=version.id,
        asset_ids=launch.options.assets or None,
        triggered_by=launch.triggered_by,
        config=launch.options.config(),
    )
    return adopted


def work_all(
    context: dg.OpExecutionContext, ef: Any, run: WorkflowRun, place: Place, worker: str
) -> Iterator[Any]:
    """Work the tasks in graph order, each as its own materialisation; returns the nodes that failed.

    A task below a failed one, or below one that waits for people, is left `pending`; other branches run to
    their end.
    """
    failed: list[str] = []
    for task in ef.runs.tasks(run):
        if task.status.value == TaskStatus.SUCCESS.value:
            continue
        if ef.tasks.get(run.id, task.node_id).status is not TaskStatus.QUEUED:
            context.log.info("%s is not executed: what comes before it did not succeed", task.node_id)
            continue
        try:
            worked = steps.work(ef, run, task.node_id, worker=worker, context=context)
        except dg.Failure as error:
            context.log.warning("%s: %s", task.node_id, error.description)
            failed.append(task.node_id)
            continue
        if worked is None:
            continue
        yield dg.AssetMaterialization(
            asset_key_of(run, task, worked.dataset_name, place),
            description=task.artifact_title,
            metadata=steps.metadata_of(worked),
            tags={keys.TAG_DATA_VERSION: worked.digest},
        )
    return failed


def asset_key_of(run: WorkflowRun, task: RunTask, dataset: str | None, place: Place) -> dg.AssetKey:
    """The key of what a node left: the dataset it published, else its own artifact."""
    if dataset is not None:
        return keys.dataset_key(place, dataset)
    return keys.artifact_key(place, run.runtime_snapshot.workflow_slug, task.node_id)
