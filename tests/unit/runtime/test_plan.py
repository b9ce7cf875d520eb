"""A plan: one frozen task a node, roots queued, everything a worker needs in the task itself."""

from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion
from emboflow_dagster.runtime.machine import summarise
from emboflow_dagster.runtime.node import Narrowing
from emboflow_dagster.runtime.plan import plan_run

NOW = utc_now()
SCOPE = Scope("ws_1", "acme", "prj_1", "pick-place", "ada")
OWN = {"workspace_id": "ws_1", "project_id": "prj_1", "created_by": "ada", "created_at": NOW}
HEAD = WorkflowDefinition.checked(
    id="wf_1", name="W", slug="w", status="published", latest_version_number=3, published_version_number=3,
    updated_at=NOW, **OWN,
)  # fmt: skip
ASSETS = ["a3", "a1", "a2"]


def version(nodes: dict[str, list[str]], **configs: dict[str, Any]) -> WorkflowDefinitionVersion:
    """Node id to the ids it runs after; the type of ``x-1`` is ``x``."""
    return WorkflowDefinitionVersion.checked(
        id="wfv_3",
        workflow_definition_id="wf_1",
        version_number=3,
        logic_graph={
            "nodes": [{"id": n, "type": n.split("-")[0]} for n in nodes],
            "edges": [{"from": up, "to": n} for n, ups in nodes.items() for up in ups],
        },
        runtime_graph={"nodeConfigs": {n: configs.get(n.replace("-", "_"), {}) for n in nodes}},
        summary={"executionDigest": "d" * 64},
        **OWN,
    )


DIAMOND = {"src": [], "b": ["src"], "a": ["src"], "join": ["b", "a"], "tail": ["join"]}


def plan(graph: WorkflowDefinitionVersion, **how: Any) -> tuple[WorkflowRun, dict[str, RunTask]]:
    run, tasks = plan_run(SCOPE, HEAD, graph, how.pop("assets", ASSETS), triggered_by="user:ada", **how)
    return run, {t.node_id: t for t in tasks}


def test_roots_are_queued_the_others_wait_and_all_have_the_bound_assets() -> None:
    run, tasks = plan(version(DIAMOND))

    assert {n: t.status.value for n, t in tasks.items()} == {
        "src": "queued", "b": "pending", "a": "pending", "join": "pending", "tail": "pending",
    }  # fmt: skip
    assert all(t.asset_ids == ASSETS == run.asset_ids for t in tasks.values())
    assert all(
        (t.workflow_run_id, t.workflow_version_id, t.attempt) == (run.id, "wfv_3", 1) for t in tasks.values()
    )
    assert tasks["join"].upstream_node_ids == ["b", "a"]
    assert run.status == "queued"
    assert run.summary == summarise(list(tasks.values()))
    assert (run.workspace_id, run.project_id, run.triggered_by) == ("ws_1", "prj_1", "user:ada")
    assert run.selected_node_ids is None


def test_the_snapshot_and_the_tasks_hold_what_the_version_said() -> None:
    hook = {"language": "python", "entrypoint": "f", "source": "def f(ctx, inputs): ..."}
    config = {
        "title": "Check", "definitionId": "b@2", "executor": "docker", "image": "img@sha256:1",
        "config": {"k": [1]}, "codeHook": hook, "artifactType": "quality_report", "cache": "off",
        "retries": 2,
    }  # fmt: skip
    graph = version(DIAMOND, b=config)
    run, tasks = plan(graph)
    b = tasks["b"]

    assert run.runtime_snapshot.runtime_graph == graph.runtime_graph
    assert run.runtime_snapshot.edges == graph.logic_graph.edges
    assert (run.runtime_snapshot.version_number, run.runtime_snapshot.execution_digest) == (3, "d" * 64)
    assert list(run.runtime_snapshot.node_types) == list(tasks)
    assert b.executor_config == {"config": {"k": [1]}, "image": "img@sha256:1", "cache": "off", "retries": 2}
    assert b.code_hook_spec is not None
    assert b.code_hook_spec.to_mongo() == hook
    assert (b.node_type, b.node_definition_id, b.executor_type.value) == ("b", "b@2", "docker")
    assert (b.artifact_type, b.artifact_title) == ("quality_report", "Check")


def test_tasks_come_in_an_order_in_which_they_can_run() -> None:
    _, tasks = plan(version({"tail": ["join"], "join": ["b", "a"], "a": ["src"], "b": ["src"], "src": []}))
    place = {node: i for i, node in enumerate(tasks)}

    assert all(place[up] < place[n] for n, t in tasks.items() for up in t.upstream_node_ids)


def test_two_plans_share_no_ids() -> None:
    graph = version(DIAMOND)
    (one, ones), (two, twos) = plan(graph), plan(graph)
    assert one.id != two.id
    assert not {t.id for t in ones.values()} & {t.id for t in twos.values()}


def test_a_selection_has_only_its_tasks_and_its_roots_take_what_came_before() -> None:
    run, tasks = plan(
        version({"src": [], "x": ["src"], "y": ["src"], "less": ["x", "y"], "tail": ["less"]}),
        selected=["less", "tail"],
        outside={"x": ["a1", "a2"], "y": ["a2"]},
        narrowings={"less": Narrowing.DIFFERENCE},
    )

    assert {n: (t.status.value, t.asset_ids) for n, t in tasks.items()} == {
        "less": ("queued", ["a1"]),
        "tail": ("pending", ASSETS),
    }
    assert run.selected_node_ids == ["less", "tail"]
    assert set(run.runtime_snapshot.node_types) == {"src", "x", "y", "less", "tail"}
    assert run.summary.total_task_count == 2


def test_a_node_below_selected_and_unselected_nodes_remembers_what_the_unselected_ones_passed_on() -> None:
    _, tasks = plan(
        version({"src": [], "x": ["src"], "y": ["src"], "less": ["x", "y"]}),
        selected=["y", "less"],
        outside={"src": ["a1", "a2"], "x": ["a1", "gone"]},
    )

    assert tasks["less"].status == "pending"
    assert (tasks["less"].executor_config or {})["outside"] == {"x": ["a1"]}
    assert tasks["y"].asset_ids == ["a1", "a2"]
    assert (tasks["y"].executor_config or {})["outside"] == {"src": ["a1", "a2"]}


def test_what_a_caller_knows_is_kept() -> None:
    run, _ = plan(
        version(DIAMOND), run_id="run_mine", dagster_run_id="d-1", retry_of="run_0", scheduled_for=NOW
    )
    assert (run.id, run.dagster_run_ids, run.retry_of_run_id) == ("run_mine", ["d-1"], "run_0")
    assert run.scheduled_for == NOW


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"assets": []}, ErrorKind.INPUT_MISSING),
        ({"assets": ["a1", "a2", "a1"]}, ErrorKind.DUPLICATE),
        ({"selected": ["nope"]}, ErrorKind.NOT_FOUND),
    ],
)
def test_what_cannot_be_planned_is_refused(how: dict[str, Any], kind: ErrorKind) -> None:
    with pytest.raises(InvalidInputError) as caught:
        plan(version(DIAMOND), **how)
    assert caught.value.kind == kind
