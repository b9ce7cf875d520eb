"""Graphs as large as they get, through Dagster to their end: `make test-graphs`.

500 nodes are what a workflow may have (decision 22); a Dagster run of 1,000 has two such workflows, each with
its document. Nothing of it is timed; what it took is printed. `EMBOFLOW_GRAPHS_NODES` and
`EMBOFLOW_GRAPHS_FAN` make them smaller.
"""

import os
import time

import dagster as dg
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.model.run import RUN_TERMINAL
from emboflow_dagster.model.workflow import MAX_NODES
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.direct import execute_queued
from tests.acceptance import killing
from tests.acceptance.served import Deployment, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="half an hour: make test-graphs"),
]
WIDTH = 10
NODES = int(os.environ.get("EMBOFLOW_GRAPHS_NODES", MAX_NODES))
FAN = int(os.environ.get("EMBOFLOW_GRAPHS_FAN", "300"))


def deep(slug="deep", steps="in-process"):
    """As many nodes as are allowed: ten wide, every node below two of the layer above."""
    nodes: list[dict[str, object]] = [{"id": "n0", "type": "source"}]
    for number in range(1, NODES):
        place, above = (number - 1) % WIDTH, number - 1 - (number - 1) % WIDTH - WIDTH + 1
        parents = [above + place, above + (place + 1) % WIDTH] if above > 0 else [0]
        nodes.append({"id": f"n{number}", "type": "set-union", "after": [f"n{n}" for n in parents]})
    return {"workflow": slug, "steps": steps, "nodes": nodes}


def fan(slug="fan", steps="in-process"):
    """One node, 300 below it, and one below all of those."""
    middle = [f"n{number}" for number in range(FAN)]
    first, last = {"id": "take", "type": "source"}, {"id": "all", "type": "set-union", "after": middle}
    nodes = [first, *({"id": name, "type": "set-union", "after": ["take"]} for name in middle), last]
    return {"workflow": slug, "steps": steps, "nodes": nodes}


def right(ef, instance, run, count):
    """Every task succeeded, once, after all that it stands below; run and Dagster say so too."""
    tasks = {task.node_id: task for task in ef.runs.tasks(run)}
    assert run.status.value == "success"
    assert len(tasks) == count
    assert {(task.status.value, task.attempt, tuple(task.asset_ids)) for task in tasks.values()} == {
        ("success", 1, tuple(run.asset_ids))
    }
    for task in tasks.values():
        for above in task.upstream_node_ids:
            assert tasks[above].finished_at <= task.started_at, (above, task.node_id)
    assert run.summary.completed_task_count == run.summary.task_counts["success"] == count
    [dagster_run_id] = run.dagster_run_ids
    done = []
    cursor = None
    while True:
        page = instance.get_records_for_run(
            dagster_run_id, of_type=dg.DagsterEventType.STEP_SUCCESS, cursor=cursor, limit=500
        )
        done += [record.event_log_entry.step_key for record in page.records]
        if not page.has_more:
            break
        cursor = page.cursor
    place = Place(ef.scope.workspace_slug, ef.scope.project_slug)
    mine = [keys.op_name(place, run.runtime_snapshot.workflow_slug, node) for node in tasks]
    assert sorted(step for step in done if step in set(mine)) == sorted(mine)


@pytest.fixture
def told(capsys):
    """Prints how long something took."""
    began = time.monotonic()

    def tell(what):
        with capsys.disabled():
            killing.say(f"{what}: {time.monotonic() - began:.0f} s")

    return tell


@pytest.mark.parametrize(("graph", "count"), [(deep, NODES), (fan, FAN + 2)])
def test_a_large_graph_runs_in_one_process(ef, instance, asset, told, graph, count):
    ef.workflows.publish(graph())
    run = ef.runs.request(graph.__name__, assets=[asset.id])
    told(f"{graph.__name__}, {count} nodes, is published and requested")

    run = execute_queued(ef, run.id)

    told(f"{graph.__name__}, {count} nodes in one process, is over")
    right(ef, instance, run, count)
    assert ef.verify().problems == []


def test_side_by_side_with_a_process_each(ef, instance, asset, told, tmp_path, settings):
    """The daemon's way: a run worker, and for each node a process out of its fork server."""
    ef.workflows.publish(fan(steps="multiprocess"))
    run = ef.runs.request("fan", assets=[asset.id])
    deployment = Deployment(tmp_path, {**os.environ, **settings.environment()})
    with killing.supervised(deployment) as processes:

        def over():
            processes.look()
            return ef.runs.get(run.id).status in RUN_TERMINAL or None

        until(over, 3600)

    told(f"{FAN + 2} nodes with a process each are over")
    right(ef, instance, ef.runs.get(run.id), FAN + 2)
    assert ef.verify().problems == []


def test_a_thousand_steps_are_one_dagster_run(ef, instance, asset, told):
    for slug in ("one", "two"):
        ef.workflows.publish(deep(slug))
    definitions = dg.Definitions.merge(
        build_definitions(catalog_of(ef)), dg.Definitions(executor=dg.in_process_executor)
    )
    job = definitions.resolve_implicit_global_asset_job_def()

    result = job.execute_in_process(instance=instance, raise_on_error=False)

    told(f"{2 * NODES} steps of one Dagster run are over")
    assert result.success
    runs = ef.runs.list()
    assert sorted(run.runtime_snapshot.workflow_slug for run in runs) == ["one", "two"]
    for run in runs:
        right(ef, instance, run, NODES)
    assert ef.verify().problems == []
