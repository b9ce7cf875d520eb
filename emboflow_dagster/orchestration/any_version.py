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
from emboflow_dagster.orchestration import keys, steps
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.runtime.lost import owner_of

PLACE_TAG: Final = "emboflow/place"
_OP: Final = "work_run"


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
        name=_OP,
        outs={"done": dg.Out(dg.Nothing)},
        required_resource_keys={RESOURCE},
        description="Executes the tasks of the queued run that its tag names, in graph order.",
    )
    return dg.GraphDefinition(name=keys.ANY_VERSION_JOB, node_defs=[op]).to_job(
        description=(
            "Executes queued runs whose workflow version this code location does not hold: a version "
            "published since it was loaded, an older one, or one of an archived workflow."
        ),
        executor_def=dg.in_process_executor,
        resource_defs={RESOURCE: resource, "io_manager": dg.mem_io_manager},
    )


def _work_run(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[Any]:
    launch = steps.Launch.of(context.run)
    run_id, place = launch.tags.get(keys.TAG_RUN_ID), launch.tags.get(PLACE_TAG, "")
    workspace, _, project = place.partition("/")
    if not (run_id and workspace and project):
        raise dg.Failure(
            f"the queue starts this job: {keys.TAG_RUN_ID} and {PLACE_TAG} say what to execute",
            metadata={"hint": "emboflow workflow run SLUG --asset A"},
            allow_retries=False,
        )
    try:
        with context.resources.emboflow.open(workspace, project) as ef:
            run = ef.runs.claim(run_id, launch.dagster_run_id)
            worker = owner_of(launch.dagster_run_id, _OP)
            failed = yield from work_all(context, ef, run, Place(workspace, project), worker)
    except EmboflowError as error:
        raise steps.failure(error, run_id=run_id) from error
    if failed:
        raise steps.failure(
            ExecutionError(f"{len(failed)} of the run's tasks failed: {', '.join(failed)}"), run_id=run_id
        )
    yield dg.Output(None, "done")


def work_all(
    context: dg.OpExecutionContext, ef: Any, run: WorkflowRun, place: Place, worker: str
) -> Iterator[Any]:
    """Work the tasks in graph order, each as its own materialisation; returns the nodes that failed.

    A task below a failed one is left `pending`; other branches run to their end.
    """
    failed: list[str] = []
    for task in ef.runs.tasks(run):
        if task.status.value == TaskStatus.SUCCESS.value:
            continue
        if ef.tasks.get(run.id, task.node_id).status is not TaskStatus.QUEUED:
            context.log.info("%s is not executed: what comes before it did not succeed", task.node_id)
            continue
        try:
            worked = steps.work(ef, run, task.node_id, worker=worker, log=context.log.info)
        except dg.Failure as error:
            context.log.warning("%s: %s", task.node_id, error.description)
            failed.append(task.node_id)
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
