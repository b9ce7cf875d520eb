import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.model.workflow import ExecutorType, LogicNode, NodeConfig
from emboflow_dagster.runtime.digest import (
    canonical_json,
    content_digest,
    execution_digest,
    node_code_version,
)
from emboflow_dagster.runtime.registry import NodeTypes
from emboflow_dagster.runtime.validate import Graphs, validate

RAW = {
    "workflow": "intake",
    "nodes": [
        {"id": "good", "type": "source"},
        {"id": "bad", "type": "source", "title": "Quarantine"},
        {"id": "rest", "type": "set-difference", "after": ["good", "bad"]},
        {"id": "qc", "type": "check", "after": ["rest"], "config": {"maxGapRatio": 0.5}, "retries": 1},
        {
            "id": "own",
            "type": "python",
            "after": ["rest"],
            "codeHook": {"entrypoint": "f", "source": "def f(ctx, inputs):\n    return {}\n"},
        },
    ],
}


def graphs_of(raw: dict, types: NodeTypes) -> Graphs:
    graphs, problems = validate(raw, registry=types)
    assert graphs is not None, problems
    return graphs


def execution(raw: dict, types: NodeTypes) -> str:
    graphs = graphs_of(raw, types)
    return execution_digest(graphs.logic, graphs.runtime, types)


def content(raw: dict, types: NodeTypes) -> str:
    g = graphs_of(raw, types)
    return content_digest(
        name=g.name, description=g.description, logic=g.logic, runtime=g.runtime, visual=g.visual
    )


def code_versions(raw: dict, types: NodeTypes) -> dict[str, str]:
    g = graphs_of(raw, types)
    upstream = g.logic.upstream()
    return {
        n.id: node_code_version(n, g.runtime.node_configs[n.id], types, upstream[n.id]) for n in g.logic.nodes
    }


def changed(**of_nodes: dict) -> dict:
    raw = copy.deepcopy(RAW)
    for node in raw["nodes"]:
        node.update(of_nodes.get(node["id"], {}))
    return raw


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e9, 1e9)
    | st.text("abcé", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)
layouts = st.dictionaries(st.sampled_from(["qc", "rest", "zoom"]), json_values, max_size=3)
titles = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=20)


@given(layout=layouts, title=titles, name=st.sampled_from(["Intake", "Other"]), text=st.text("abc \n"))
def test_what_is_only_seen_never_changes_the_execution_digest(layout, title, name, text, small_types):
    seen = changed(qc={"title": title}) | {"layout": layout, "name": name, "description": text}
    assert execution(seen, small_types) == execution(RAW, small_types)
    assert code_versions(seen, small_types) == code_versions(RAW, small_types)


@given(layouts, layouts)
def test_the_content_digest_tells_layouts_apart(small_types, one, other):
    same = canonical_json(one) == canonical_json(other)
    assert (
        content(RAW | {"layout": one}, small_types) == content(RAW | {"layout": other}, small_types)
    ) is same


@given(st.permutations(RAW["nodes"]))
def test_the_order_of_the_node_list_is_no_execution(small_types, nodes):
    assert execution(RAW | {"nodes": nodes}, small_types) == execution(RAW, small_types)


SOURCE = "def f(ctx, inputs):\n    return {'n': 1}\n"


@pytest.mark.parametrize(
    ("change", "execution_changes", "nodes_that_change"),
    [
        ({"rest": {"after": ["bad", "good"]}}, True, {"rest"}),
        ({"qc": {"config": {"maxGapRatio": 0.25}}}, True, {"qc"}),
        ({"qc": {"retries": 2}}, True, set()),
        ({"qc": {"cache": "off"}}, True, set()),
        ({"own": {"codeHook": {"entrypoint": "f", "source": SOURCE}}}, True, {"own"}),
        ({"own": {"artifactType": "table"}}, True, {"own"}),
        ({"own": {"after": ["rest", "good"]}}, True, {"own"}),
        ({"own": {"title": "My code"}}, False, set()),
        ({"qc": {"type": "quality-check"}}, False, set()),  # an alias is the same type
    ],
)
def test_what_changes_which_digest(change, execution_changes, nodes_that_change, small_types):
    before, after = code_versions(RAW, small_types), code_versions(changed(**change), small_types)
    assert {n for n in before if before[n] != after[n]} == nodes_that_change
    assert (execution(changed(**change), small_types) != execution(RAW, small_types)) is execution_changes
    alias = change == {"qc": {"type": "quality-check"}}
    assert (content(changed(**change), small_types) == content(RAW, small_types)) is alias


def test_a_schedule_is_content_not_execution(small_types):
    scheduled = RAW | {"schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}}
    assert execution(scheduled, small_types) == execution(RAW, small_types)
    assert content(scheduled, small_types) != content(RAW, small_types)


def test_a_new_version_of_a_node_type_is_new_code_and_new_content(small_types, make_type):
    newer = NodeTypes([make_type("check", version="2") if t.id == "check" else t for t in small_types])
    raw = changed(qc={"config": {}})
    assert execution(raw, newer) != execution(raw, small_types)
    assert content(raw, newer) != content(raw, small_types)
    before, after = code_versions(raw, small_types), code_versions(raw, newer)
    assert after["qc"].startswith("check@2-")
    assert {n for n in before if before[n] != after[n]} == {"qc"}


def test_another_image_is_other_code(small_types):
    node = LogicNode(id="x", type="transform")
    one, two = (NodeConfig(executor=ExecutorType.DOCKER, image=f"team/check:{tag}") for tag in (1, 2))
    assert node_code_version(node, one, small_types) != node_code_version(node, two, small_types)


def test_a_type_that_is_gone_counts_as_it_was_published(small_types):
    node, config = LogicNode(id="x", type="gone"), NodeConfig(definition_id="gone@7")
    assert node_code_version(node, config, small_types).startswith("gone@7-")


def test_a_stored_version_read_again_has_the_same_digests(small_types):
    g = graphs_of(RAW | {"layout": {"qc": {"x": 1.0}}}, small_types)
    stored = {
        "workflow": g.slug,
        "logicGraph": g.logic.to_json(),
        "runtimeGraph": json.loads(json.dumps(g.runtime.to_json())),
        "visualGraph": {"qc": {"x": 1}},
    }
    assert execution(stored, small_types) == execution(RAW, small_types)
    assert content(stored, small_types) == content(RAW | {"layout": {"qc": {"x": 1.0}}}, small_types)


@given(json_values)
def test_canonical_json_is_one_text_for_equal_values(value):
    again = json.loads(json.dumps(value))
    assert canonical_json(again) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_in_detail():
    assert canonical_json({"b": 20.0, "a": [0.1, -0.0, "é"]}) == '{"a":[0.1,0,"é"],"b":20}'
    assert canonical_json(True) == "true"
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
