"""The spelling of EmboFlow's own exports: nodes listed by what follows what and by how each runs."""

import copy
from typing import Any

import pytest

from emboflow_dagster.runtime.digest import execution_digest
from emboflow_dagster.runtime.registry import node_types
from emboflow_dagster.runtime.validate import validate
from emboflow_dagster.runtime.workflow_file import notes

SOURCE = "def process(ctx, inputs):\n    return {}\n"
EXPORT: dict[str, Any] = {
    "slug": "triage",
    "name": "Triage",
    "description": "sets damaged bags aside",
    "assetBindings": {"src": ["mcap/nav", "type=rosbag,status=ready"]},
    "visualGraph": {"nodes": [{"id": "src", "x": 0, "y": 60}], "edges": [{"from_": "src", "to": "gate"}]},
    "logicGraph": {
        "nodes": [
            {"nodeId": "src", "nodeType": "source-asset"},
            {"nodeId": "gate", "nodeType": "filter"},
            {"nodeId": "code", "nodeType": "python-transform"},
        ],
        "edges": [{"source": "src", "target": "gate"}, {"source": "gate", "target": "code"}],
    },
    "runtimeGraph": {
        "nodes": [
            {"nodeId": "src", "nodeType": "source-asset", "nodeDefinitionId": "source-asset@1"},
            {
                "nodeId": "gate",
                "nodeType": "filter",
                "nodeDefinitionId": "filter@1",
                "executorType": "python",
                "executorConfig": {
                    "where": {
                        "summary.stateDim": 32,
                        "topics.type": {"contains": "Imu"},
                        "any": {"summary.a.b": [1, 2], "format": "mcap"},
                    }
                },
                "title": "gate",
            },
            {
                "nodeId": "code",
                "executorConfig": {"network": "none", "memoryMb": 512},
                "artifactType": "quality report",
                "codeHookSpec": {"entrypoint": "process", "source": SOURCE, "timeoutSeconds": 60},
            },
        ]
    },
    "pluginRefs": [],
    "expectedRun": {"status": "success"},
}


def changed(*path: Any, value: Any) -> dict[str, Any]:
    """The export with one place changed; ``...`` removes it."""
    raw = copy.deepcopy(EXPORT)
    place: Any = raw
    for part in path[:-1]:
        place = place[part]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return raw


def problems(raw: dict[str, Any]) -> list[tuple[str, str]]:
    return [(p.kind.value, p.path) for p in validate(raw, registry=node_types())[1]]


def test_it_is_read_whole():
    graphs, found = validate(EXPORT, registry=node_types())
    assert found == []
    assert graphs is not None
    assert (graphs.slug, graphs.name) == ("triage", "Triage")
    assert [(n.id, n.type) for n in graphs.logic.nodes] == [
        ("src", "source"),
        ("gate", "filter"),
        ("code", "python"),
    ]
    assert graphs.logic.upstream() == {"src": [], "gate": ["src"], "code": ["gate"]}
    assert graphs.visual == EXPORT["visualGraph"]
    assert graphs.runtime.defaults == {"assetBindings": EXPORT["assetBindings"]}
    gate, code = graphs.runtime.node_configs["gate"], graphs.runtime.node_configs["code"]
    assert (gate.title, gate.definition_id) == ("gate", "filter@1")
    # MongoDB holds no key with a dot.
    assert gate.config["where"] == [
        {"path": "summary.stateDim", "equals": 32},
        {"path": "topics.type", "contains": "Imu"},
        {"any": [{"path": "summary.a.b", "in": [1, 2]}, {"format": "mcap"}]},
    ]
    assert code.artifact_type == "quality_report"
    assert code.config == {"network": "none", "memoryMb": 512, "timeoutSeconds": 60}
    assert notes(EXPORT) == ["expectedRun says what somebody expects of a run; nothing is checked against it"]
    assert notes({"workflow": "x", "nodes": []}) == []


def test_what_was_published_can_be_published_again():
    graphs, _ = validate(EXPORT, registry=node_types())
    assert graphs is not None
    stored = {
        "slug": graphs.slug,
        "name": graphs.name,
        "description": graphs.description,
        "logicGraph": graphs.logic.to_json(),
        "runtimeGraph": graphs.runtime.to_json(),
        "visualGraph": graphs.visual,
    }
    again, found = validate(stored, registry=node_types())
    assert (again, found) == (graphs, [])


def test_which_assets_are_bound_does_not_change_what_is_executed():
    digests = {
        execution_digest(graphs.logic, graphs.runtime, node_types())
        for raw in (EXPORT, changed("assetBindings", value=...), changed("assetBindings", "src", value=["b"]))
        if (graphs := validate(raw, registry=node_types())[0])
    }
    assert len(digests) == 1


NODES = ("runtimeGraph", "nodes")


@pytest.mark.parametrize(
    ("raw", "code", "path"),
    [
        (
            changed(*NODES, 1, "nodeDefinitionId", value="filter@2"),
            "node-config",
            "runtimeGraph.nodes[1] (gate).nodeDefinitionId",
        ),
        (
            changed(*NODES, 1, "nodeDefinitionId", value="probe@1"),
            "node-config",
            "runtimeGraph.nodes[1] (gate).nodeDefinitionId",
        ),
        (changed(*NODES, 1, "nodeType", value="probe"), "node-type", "runtimeGraph.nodes[1] (gate).nodeType"),
        (changed(*NODES, 1, "nodeId", value="gat"), "node-id", "runtimeGraph.nodes[1].nodeId"),
        (changed(*NODES, 2, "nodeId", value="gate"), "node-duplicate", "runtimeGraph.nodes[2] (gate)"),
        (changed(*NODES, 1, "config", value={}), "graph-field", "runtimeGraph.nodes[1]"),
        (
            changed(*NODES, 1, "executorConfig", "onEmpty", value="explode"),
            "node-config",
            "runtimeGraph.nodes[1] (gate).executorConfig.onEmpty",
        ),
        (
            changed(*NODES, 2, "codeHookSpec", "timeoutSeconds", value="soon"),
            "node-code-hook",
            "runtimeGraph.nodes[2] (code).codeHookSpec.timeoutSeconds",
        ),
        (
            changed(*NODES, 2, "executorConfig", "timeoutSeconds", value=5),
            "node-code-hook",
            "runtimeGraph.nodes[2] (code).codeHookSpec.timeoutSeconds",
        ),
        (
            changed(*NODES, 2, "codeHookSpec", "entrypoint", value="proces"),
            "node-code-hook",
            "runtimeGraph.nodes[2] (code).codeHookSpec.entrypoint",
        ),
        (
            changed("logicGraph", "nodes", 1, "nodeType", value="fliter"),
            "node-type",
            "logicGraph.nodes[1] (gate).nodeType",
        ),
        (
            changed("logicGraph", "edges", 0, value={"from": "src", "to": "gate"}),
            "edge-shape",
            "logicGraph.edges[0].source",
        ),
        (changed("assetBindings", value={"gate": ["a"]}), "graph-field", "assetBindings.gate"),
        (changed("assetBindings", value={"sorce": ["a"]}), "graph-field", "assetBindings"),
        (changed("assetBindings", value=["a"]), "graph-shape", "assetBindings"),
        (changed("assetBindings", "src", value=[]), "graph-shape", "assetBindings.src"),
        (changed("assetBindings", "src", value=["a", 1]), "graph-shape", "assetBindings.src[1]"),
        (changed("assetBindings", "src", value=["typ=rosbag"]), "selector", "assetBindings.src[0]"),
        (changed("assetBinding", value={}), "graph-field", ""),
    ],
)
def test_the_place_in_the_users_own_file_is_named(raw, code, path):
    assert (code, path) in problems(raw)


def test_a_version_that_is_not_here_is_said_in_words():
    _, [problem] = validate(changed(*NODES, 1, "nodeDefinitionId", value="filter@2"), registry=node_types())
    assert problem.message == "found 'filter@2', which this release does not have; it has filter@1"


def test_an_image_stands_in_the_configuration_of_its_executor():
    raw = changed(*NODES, 1, "executorType", value="docker")
    assert ("node-executor", "runtimeGraph.nodes[1] (gate).executorConfig.image") in problems(raw)


def test_a_file_that_people_write_binds_the_same_way():
    raw = {
        "workflow": "two",
        "assetBindings": {"a": ["x"], "b": ["x", "y"]},
        "nodes": [
            {"id": "a", "type": "source"},
            {"id": "b", "type": "source"},
            {"id": "both", "type": "set-union", "after": ["a", "b"]},
        ],
    }
    graphs, found = validate(raw, registry=node_types())
    assert found == []
    assert graphs is not None
    assert graphs.runtime.defaults["assetBindings"] == raw["assetBindings"]
