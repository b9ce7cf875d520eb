"""The processes of a run build what its job executes; what they cannot tell is built whole."""

import multiprocessing
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.multiprocess import MultiprocessExecutorChildProcessCommand
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster_shared.serdes import serialize_value

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.component import EmboFlowWorkflows
from emboflow_dagster.orchestration.definitions import definitions_from_catalog
from emboflow_dagster.orchestration.jobs import MAX_WORKFLOW_JOBS
from emboflow_dagster.orchestration.narrow import Needed, of_this_process
from tests.unit.orchestration.catalogs import catalog, dataset, node, project, raw_asset, triage, workflow

ROOT = ["acme", "pick-place"]
TRIAGE = "acme__pick_place__triage"
RUN = "0e3aa2e0-0000-4000-8000-000000000001"


def built(everything, needed):
    """Definitions, resources as a deployment has them."""
    return definitions_from_catalog(everything, resources=EmboFlowWorkflows().resources(), needed=needed)


def node_keys(definitions):
    graph = definitions.resolve_asset_graph()
    return {key for key in graph.get_all_asset_keys() if graph.get(key).is_materializable}


@pytest.fixture
def two_publishers():
    """Two workflows publish to one dataset: the older one owns its key, also where only one is built."""
    assets = [raw_asset("left-arm"), raw_asset("right-arm"), raw_asset("other")]
    again = workflow(
        "again", [node("publish-again", "publish-dataset", dataset="grasps")], definition_id="wf_zz"
    )
    return catalog(project("pick-place", assets, [dataset("grasps")], [again, triage()]))


def as_told(job):
    """What a run sees of a job."""
    graph = job.asset_layer.asset_graph
    return {
        "name": job.name,
        "tags": job.run_tags,
        "executor": job.executor_def.name,
        "steps": sorted(op.name for op in job.nodes),
        "parents": {key: graph.get(key).parent_keys for key in job.asset_layer.executable_asset_keys},
        "code": {key: graph.get(key).code_version for key in job.asset_layer.executable_asset_keys},
        "deps": {
            name: sorted(str(one) for one in job.dependencies.get(name, {}))
            for name in map(str, job.dependencies)
        },
    }


@pytest.mark.parametrize("name", [TRIAGE, "acme__pick_place__again"])
def test_a_job_is_the_same_alone_and_among_all(two_publishers, name):
    whole = built(two_publishers, None).resolve_job_def(name)

    alone = built(two_publishers, Needed(name))

    assert as_told(alone.resolve_job_def(name)) == as_told(whole)
    assert node_keys(alone) == set(whole.asset_layer.executable_asset_keys)
    assert dg.AssetKey([*ROOT, "raw", "other"]) not in alone.resolve_asset_graph().get_all_asset_keys()
    assert (alone.sensors, alone.schedules) == (None, None)


def test_of_the_shared_job_the_workflows_of_the_selection_are_built():
    many = [workflow(f"w{i}", [node("take", "source")]) for i in range(MAX_WORKFLOW_JOBS)]
    everything = catalog(
        project("pick-place", [raw_asset("left-arm")], [dataset("grasps")], [*many, triage()])
    )
    taken = frozenset(
        [
            dg.AssetKey([*ROOT, "artifacts", "w7", "take"]),
            dg.AssetKey([*ROOT, "artifacts", "triage", "look"]),
            dg.AssetKey([*ROOT, "datasets", "grasps"]),
        ]
    )

    alone = built(everything, Needed(keys.SHARED_JOB, taken))
    whole = built(everything, None)

    assert len(node_keys(alone)) == 5 < len(node_keys(whole))
    subsets = [
        one.resolve_job_def(keys.SHARED_JOB).get_subset(
            asset_selection=taken, asset_check_selection=frozenset()
        )
        for one in (alone, whole)
    ]
    assert as_told(subsets[0]) == as_told(subsets[1])


def test_the_job_of_any_version_needs_no_workflow(two_publishers):
    alone = built(two_publishers, Needed(keys.ANY_VERSION_JOB))

    assert node_keys(alone) == set()
    assert alone.resolve_job_def(keys.ANY_VERSION_JOB).name == keys.ANY_VERSION_JOB


@pytest.mark.parametrize(
    "needed",
    [
        Needed("somebody_elses"),
        Needed("__ASSET_JOB", frozenset([dg.AssetKey([*ROOT, "artifacts", "triage", "look"])])),
        Needed(keys.SCRUB_JOB),
        Needed(keys.SHARED_JOB),
        Needed(keys.SHARED_JOB, frozenset([dg.AssetKey([*ROOT, "artifacts", "gone", "look"])])),
        Needed(keys.SHARED_JOB, frozenset([dg.AssetKey([*ROOT, "artifacts", "triage", "gone"])])),
        Needed(keys.SHARED_JOB, frozenset([dg.AssetKey(["mine"])])),
        Needed(TRIAGE, frozenset([dg.AssetKey(["mine"])])),
        Needed("acme__pick_place__gone"),
    ],
    ids=str,
)
def test_what_is_not_understood_builds_everything(two_publishers, needed):
    assert node_keys(built(two_publishers, needed)) == node_keys(built(two_publishers, None))


def recon(job):
    return ReconstructableRepository.for_module("somewhere", "defs").get_reconstructable_job(job)


def a_step(run):
    nowhere: Any = None
    return MultiprocessExecutorChildProcessCommand(
        {}, run, "step", nowhere, None, recon(run.job_name), RetryMode.DISABLED, None, None
    )


def answer(queue, *_given):
    """In a child: what its arguments say."""
    queue.put(of_this_process())


def in_a_process(*given):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=answer, args=(queue, *given))
    child.start()
    try:
        return queue.get(timeout=120)
    finally:
        child.join()


def test_the_worker_of_a_run_and_its_steps_say_what_the_run_selects(tmp_path):
    chosen = frozenset([dg.AssetKey([*ROOT, "artifacts", "triage", "look"])])
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = dg.DagsterRun(
            job_name=keys.SHARED_JOB, run_id=RUN, asset_selection=chosen, asset_check_selection=frozenset()
        )
        instance.run_storage.add_run(run)
        origin = RemoteJobOrigin(
            RemoteRepositoryOrigin(
                InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="somewhere")), "repository"
            ),
            run.job_name,
        )
        asked = serialize_value(
            ExecuteExternalJobArgs(job_origin=origin, run_id=RUN, instance_ref=instance.get_ref())
        )

        assert in_a_process(asked, recon(run.job_name)) == Needed(keys.SHARED_JOB, chosen)
    assert in_a_process(a_step(run)) == Needed(keys.SHARED_JOB, chosen)


CHECK = dg.AssetCheckKey(dg.AssetKey(["a"]), "bytes_verified")


@pytest.mark.parametrize(
    "selected",
    [
        {"asset_check_selection": frozenset([CHECK])},
        {"asset_selection": frozenset([CHECK.asset_key])},  # and with it its checks
    ],
    ids=str,
)
def test_a_step_beside_checks_does_not_say(monkeypatch, selected):
    run = dg.DagsterRun(job_name=TRIAGE, run_id=RUN, **selected)
    monkeypatch.setattr(multiprocessing.current_process(), "_args", (None, a_step(run)), raising=False)

    assert of_this_process() is None


@pytest.mark.parametrize(
    "given", [(), ("a", "b"), (recon(keys.SHARED_JOB), "not json"), (recon("a"), recon("b"))]
)
def test_other_processes_do_not_say(monkeypatch, given):
    assert of_this_process() is None
    monkeypatch.setattr(multiprocessing.current_process(), "_args", given, raising=False)

    assert of_this_process() is None
