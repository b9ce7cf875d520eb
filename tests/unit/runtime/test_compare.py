from datetime import UTC, datetime

from emboflow_dagster.model.run import RuntimeSnapshot
from emboflow_dagster.model.workflow import WorkflowDefinitionVersion
from emboflow_dagster.runtime.compare import compare


def version(nodes: dict[str, tuple[str, list[str]]], configs: dict[str, object]) -> WorkflowDefinitionVersion:

    return WorkflowDefinitionVersion.checked(
        id="wfv_1",
        workflow_definition_id="wf_1",
        workspace_id="ws_1",
        project_id="prj_1",
        version_number=1,
        logic_graph={
            "nodes": [{"id": n, "type": kind} for n, (kind, _) in nodes.items()],
            "edges": [{"from": up, "to": n} for n, (_, after) in nodes.items() for up in after],
        },
        runtime_graph={"nodeConfigs": configs},
        created_by="ada",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def snapshot(of: WorkflowDefinitionVersion) -> RuntimeSnapshot:
    return RuntimeSnapshot(
        workflow_slug="w",
        version_number=1,
        execution_digest="x",
        node_types={node.id: node.type for node in of.logic_graph.nodes},
        edges=of.logic_graph.edges,
        runtime_graph=of.runtime_graph,
    )


OLD = version(
    {"src": ("source", []), "a": ("probe", ["src"]), "b": ("filter", ["a"])},
    {"b": {"config": {"where": 1, "keep": 2}}},
)


def test_the_same_version_differs_in_nothing() -> None:
    assert compare(snapshot(OLD), OLD) == []


def test_titles_do_not_matter() -> None:
    titled = OLD.runtime_graph.node_configs["b"].to_mongo() | {"title": "Sound ones"}

    nodes = {"src": ("source", []), "a": ("probe", ["src"]), "b": ("filter", ["a"])}
    assert compare(snapshot(OLD), version(nodes, {"b": titled})) == []


def test_each_difference_is_named_with_its_node() -> None:
    new = version(
        {"src": ("source", []), "b": ("filter", ["src"]), "c": ("preview", ["b"])},
        {"b": {"config": {"where": 3, "keep": 2}, "retries": 1}},
    )

    assert [tuple(change) for change in compare(snapshot(OLD), new)] == [
        ("b", "changed", "after: ['a'] -> ['src']; retries: 0 -> 1; where: 1 -> 3"),
        ("c", "added", "preview"),
        ("a", "removed", "probe"),
    ]
