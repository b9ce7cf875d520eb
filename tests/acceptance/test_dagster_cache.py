"""Earlier results in Dagster: a hit is a materialization with the same data version, and says whose it is."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from emboflow_dagster import build_definitions
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.direct import execute_queued
from tests.acceptance.chains import HOOK, chain

NODES = ("take", "look", "count", "again")


@pytest.fixture
def place(settings):
    return Place(settings.workspace, settings.project)


def executed(ef, asset, source=HOOK):
    ef.workflows.publish(chain(source=source, nodes=("count", "again")))
    return execute_queued(ef, ef.runs.request("triage", assets=[asset.id]).id)


def pages(instance, place):
    """Of every node: its newest data version, metadata and materialization."""
    found = {}
    for node in NODES:
        event = instance.get_latest_materialization_event(keys.artifact_key(place, "triage", node))
        made = event.asset_materialization
        shown = {name: value.value for name, value in made.metadata.items()}
        found[node] = (made.tags["dagster/data_version"], shown, event.run_id)
    return found


def stale(ef, instance, place, node):
    graph = build_definitions(catalog_of(ef)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return resolver.get_status(keys.artifact_key(place, "triage", node))


def test_a_hit_is_a_materialization_with_the_same_data_version(ef, table, instance, place):
    asset = ef.assets.register(table, type="raw_file")
    first = executed(ef, asset)
    before = pages(instance, place)
    second = executed(ef, asset)
    after = pages(instance, place)

    for node in NODES:
        version, shown, dagster_run = after[node]
        task = ef.tasks.get(second.id, node)
        assert version == before[node][0]
        assert dagster_run == second.dagster_run_ids[0]
        assert (shown["cacheHit"], shown["cacheKey"]) == (True, task.cache_key)
        assert shown["cache"] == f"hit of run {first.id}, task {node}"
        assert shown["task_id"] == task.id
        assert shown.get("artifact_id") == before[node][1].get("artifact_id")
        # Numbers that the node shows are shown again: they are plotted over all materializations.
        assert shown.get("assets") == before[node][1].get("assets")
        assert stale(ef, instance, place, node) == StaleStatus.FRESH
    assert before["count"][1]["cacheHit"] is False
    log = instance.all_logs(second.dagster_run_ids[0])
    assert any(f"cache: hit of run {first.id}, task count" in row.message for row in log)


def test_what_comes_after_an_equal_output_is_not_executed_in_the_same_run(ef, table, instance, place):
    asset = ef.assets.register(table, type="raw_file")
    first = executed(ef, asset)
    second = executed(ef, asset, source=HOOK.replace("len(ctx.assets)", "0 + len(ctx.assets)"))
    [dagster_run_id] = second.dagster_run_ids
    hits = {task.node_id: task.cache_hit for task in ef.runs.tasks(second)}

    # Both hooks have the new code. A third node, with its old code, has equal input.
    assert hits == {"take": True, "look": True, "count": False, "again": False}
    mixed = chain(nodes=("count", "again"))
    mixed["nodes"][2]["codeHook"] = {**mixed["nodes"][2]["codeHook"], "source": HOOK + "\n# again\n"}
    ef.workflows.publish(mixed)
    third = execute_queued(ef, ef.runs.request("triage", assets=[asset.id]).id)
    hits = {task.node_id: task.cache_hit for task in ef.runs.tasks(third)}
    assert hits == {"take": True, "look": True, "count": False, "again": True}
    assert pages(instance, place)["again"][1]["cache"] == f"hit of run {first.id}, task again"
    assert instance.get_run_by_id(dagster_run_id).status is dg.DagsterRunStatus.SUCCESS
    assert stale(ef, instance, place, "again") == StaleStatus.FRESH
