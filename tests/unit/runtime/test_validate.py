import copy
import json
import os
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.errors import ConfigurationError, ErrorKind, NotFoundError
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.runtime.registry import NodeTypes, nearest, node_types
from emboflow_dagster.runtime.validate import validate, validate_graph
from emboflow_dagster.runtime.workflow_file import load
from tests.sample_files import SAMPLES

HOOK = {"language": "python", "entrypoint": "process", "source": "def process(ctx, inputs):\n    return {}\n"}
GOOD: dict[str, Any] = {
    "workflow": "intake",
    "name": "Bag intake",
    "description": "every bag",
    "nodes": [
        {"id": "src", "type": "source-asset"},
        {"id": "own", "type": "python", "after": ["src"], "codeHook": HOOK, "artifactType": None},
        {"id": "norm", "type": "normalize", "after": ["own"], "config": {"fps": 20}, "cache": "off"},
        {
            "id": "qc",
            "type": "quality-check",
            "after": ["norm"],
            "config": {"checks": ["gaps"]},
            "retries": 2,
        },
        {"id": "out", "type": "publish", "after": ["norm", "qc"], "title": "Publish", "executor": "python"},
    ],
    "schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "assets": ["bag-1"]},
    "layout": {"src": {"x": 0, "y": 60}},
}


def node(node_id: str, node_type: str, *after: str, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "type": node_type, "after": list(after), **more}


def found(types: NodeTypes, *nodes: Any, **more: Any) -> list[tuple[str, str]]:
    """Codes and places of the problems of a workflow with these nodes after a source ``s``."""
    raw = {"workflow": "w", "nodes": [{"id": "s", "type": "source"}, *nodes], **more}
    graphs, problems = validate(raw, registry=types)
    assert (graphs is None) is bool(problems)
    return [(p.kind.value, p.path) for p in problems]


def message(types: NodeTypes, *nodes: Any, **more: Any) -> str:
    raw = {"workflow": "w", "nodes": [{"id": "s", "type": "source"}, *nodes], **more}
    _, problems = validate(raw, registry=types)
    assert len(problems) == 1, problems
    return str(problems[0])


def test_a_good_workflow_becomes_three_graphs(small_types):
    graphs, problems = validate(GOOD, registry=small_types)
    assert problems == []
    assert graphs is not None
    assert (graphs.slug, graphs.name, graphs.description) == ("intake", "Bag intake", "every bag")
    assert [(n.id, n.type) for n in graphs.logic.nodes] == [
        ("src", "source"),
        ("own", "python"),
        ("norm", "normalize"),
        ("qc", "check"),
        ("out", "publish"),
    ]
    assert graphs.logic.upstream()["out"] == ["norm", "qc"]
    configs = graphs.runtime.node_configs
    assert configs["qc"].definition_id == "check@1"
    assert configs["qc"].retries == 2
    assert configs["norm"].config == {"fps": 20}
    assert configs["norm"].cache == "off"
    assert configs["own"].code_hook is not None
    assert configs["own"].code_hook.entrypoint == "process"
    assert configs["out"].title == "Publish"
    assert graphs.runtime.schedule is not None
    assert graphs.runtime.schedule.timezone == "Europe/Berlin"
    assert graphs.visual == {"src": {"x": 0, "y": 60}}


def test_what_is_left_out_has_its_default(small_types):
    graphs, _ = validate({"workflow": "w", "nodes": [{"id": "s", "type": "source"}]}, registry=small_types)
    assert graphs is not None
    assert (graphs.name, graphs.description, graphs.visual, graphs.runtime.schedule) == ("w", "", {}, None)
    config = graphs.runtime.node_configs["s"]
    assert (config.executor, config.cache, config.retries) == (ExecutorType.PYTHON, "use", 0)


def test_the_stored_form_is_the_same_workflow(small_types):
    graphs, _ = validate(GOOD, registry=small_types)
    assert graphs is not None
    stored = {
        "_id": "wfv_1",
        "versionNumber": 3,
        "slug": graphs.slug,
        "name": graphs.name,
        "description": graphs.description,
        "logicGraph": graphs.logic.to_json(),
        "runtimeGraph": graphs.runtime.to_json(),
        "visualGraph": graphs.visual,
        "pluginRefs": [],
        "summary": None,
    }
    again, problems = validate(json.loads(json.dumps(stored)), registry=small_types)
    assert problems == []
    assert again == graphs


def test_the_stored_form_names_its_own_places(small_types):
    raw = {
        "workflow": "w",
        "logicGraph": {
            "nodes": [{"id": "s", "type": "source"}, {"id": "q", "type": "check"}],
            "edges": [{"from": "s", "to": "z"}, {"from": "s", "to": "q"}],
        },
        "runtimeGraph": {"nodeConfigs": {"q": {"retries": 99}, "qq": {}}, "schedule": {"cron": "x"}},
        "visualGraph": [],
    }
    _, problems = validate(raw, registry=small_types)
    assert [(p.kind.value, p.path) for p in problems] == [
        ("graph-field", "runtimeGraph.nodeConfigs"),
        ("edge-dangling", "logicGraph.edges[0] (s -> z)"),
        ("node-config", "runtimeGraph.nodeConfigs.q.retries"),
        ("cron-fields", "runtimeGraph.schedule.cron"),
        ("not-a-dict", "visualGraph"),
    ]


def test_all_problems_at_once_in_the_order_of_the_file(small_types):
    problems = found(
        small_types,
        node("a", "chekc", "s"),
        node("A B", "transform", "s"),
        node("b", "transform", "c"),
        node("c", "transform", "b"),
        node("d", "check", "s", "nowhere", config={"maxGapRatio": 7, "maxgap": 1}),
        node("e", "export", "d"),
        node("f", "transform", "e", "e"),
        node("g", "python", "s"),
        node("h", "transform"),
        nods=[],
        workflow="Not A Slug",
        schedule={"cron": "0 0 30 2 *", "timezone": "Mars/Base", "asset": []},
    )
    assert problems == [
        ("graph-field", ""),
        ("slug", "workflow"),
        ("node-type", "nodes[1] (a).type"),
        ("node-id", "nodes[2] (A B).id"),
        ("edge-dangling", "nodes[5] (d).after[1]"),
        ("edge-duplicate", "nodes[7] (f).after[1]"),
        ("graph-cycle", "nodes[3] (b)"),
        ("edge-from-sink", "nodes[7] (f).after[0]"),
        ("edge-from-sink", "nodes[7] (f).after[1]"),
        ("node-unreachable", "nodes[9] (h)"),
        ("node-config", "nodes[5] (d).config.maxGapRatio"),
        ("node-config", "nodes[5] (d).config.maxgap"),
        ("node-code-hook", "nodes[8] (g)"),
        ("graph-field", "schedule"),
        ("cron-never", "schedule.cron"),
        ("tz", "schedule.timezone"),
    ]


def test_messages_say_what_was_found_and_what_is_allowed(small_types):
    say = lambda *nodes: message(small_types, *nodes)  # noqa: E731
    assert say(node("a", "chekc", "s")) == "nodes[1] (a).type: found 'chekc'; did you mean 'check'?"
    assert say(node("a", "Quality_Check", "s")).endswith("did you mean 'check'?")
    assert say(node("a", "zzz", "s")).endswith("publish, python, set-difference, source, transform")
    assert say(node("a", "transform", "ss")).endswith("no node has the id 'ss'; did you mean 's'?")
    assert say(node("gate", "check", "s", config={"maxGapRatio": 7})) == (
        "nodes[1] (gate).config.maxGapRatio: found 7; it should be less than or equal to 1"
    )
    assert say(node("gate", "check", "s", config={"checks": ["gaps", "x"]})) == (
        "nodes[1] (gate).config.checks[1]: found 'x'; allowed are 'gaps' or 'jitter'"
    )
    assert say(node("gate", "check", "s", config={"maxGapratio": 0})).endswith("did you mean 'maxGapRatio'?")
    assert say(node("n", "normalize", "s")) == "nodes[1] (n).config.fps: is needed and absent"
    assert say(node("n", "transform", "s", config={"a.b": 1})).endswith(
        "nest mappings instead: a.b is {a: {b: ...}}"
    )
    assert say(node("n", "publish", "s")) == (
        "nodes[1] (n): publish needs normalized_dataset_package from a node it directly runs after; "
        "found 's' producing no artifact; node types that produce it: normalize"
    )
    assert say(node("q", "check", "s"), node("n", "normalize", "q", config={"fps": 1})) == (
        "nodes[2] (n).after[0]: 'q' (check) produces quality_report; "
        "'n' (normalize) takes intermediate_task_output"
    )
    assert say(node("d", "transform", "s", executor="docker", image="x:1")) == (
        "nodes[1] (d).executor: found 'docker'; transform is executed by 'python'; "
        "a node of type 'container' runs an image"
    )
    assert say(node("s2", "source", "s")) == (
        "nodes[1] (s2).after[0]: 's2' (source) is a beginning: it runs after nothing"
    )
    cycle = say(node("a", "transform", "s", "c"), node("b", "transform", "a"), node("c", "transform", "b"))
    assert cycle == "nodes[1] (a): waits for itself: a -> b -> c -> a"


def test_the_artifact_type_of_a_code_hook_counts_along_its_edges(small_types):
    def own(**more: Any) -> dict[str, Any]:
        return node("own", "python", "s", codeHook=HOOK, **more)

    normalize = node("n", "normalize", "own", config={"fps": 1})
    assert found(small_types, own(), normalize) == []
    assert found(small_types, own(artifactType="quality_report"), normalize) == [
        ("edge-type-mismatch", "nodes[2] (n).after[0]")
    ]
    assert (
        found(small_types, own(artifactType="normalized_dataset_package"), node("p", "publish", "own")) == []
    )
    assert found(small_types, own(), node("p", "publish", "own")) == [("edge-type-mismatch", "nodes[2] (p)")]


def test_what_a_type_always_produces_cannot_be_renamed(small_types):
    assert found(small_types, node("q", "check", "s", artifactType="quality_report")) == []
    assert found(small_types, node("q", "check", "s", artifactType="table")) == [
        ("node-config", "nodes[1] (q).artifactType")
    ]
    assert found(small_types, node("q", "transform", "s", artifactType="quality report")) == [
        ("node-config", "nodes[1] (q).artifactType")
    ]


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"title": 5}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"cache": "sometimes"}, "cache"),
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": "2"}, "retries"),
        ({"artifactType": "no spaces"}, "artifactType"),
    ],
)
def test_settings_of_a_node_are_typed(settings, place, small_types):
    assert found(small_types, node("t", "transform", "s", **settings)) == [
        ("node-config", f"nodes[1] (t).{place}")
    ]


@pytest.mark.parametrize(
    ("config", "code", "place"),
    [
        ([], "not-a-dict", "config"),
        ("x", "not-a-dict", "config"),
        ({"$where": 1}, "key-operator", "config"),
        ({"a": float("nan")}, "float-nonfinite", "config.a"),
        ({"a": {"b.c": 1}}, "key-dotted", "config.a"),
        ({"a": {1, 2}}, "value-type", "config.a"),
        ({"a": "x" * 70_000}, "doc-too-large", "config"),
    ],
)
def test_config_is_what_the_database_can_hold(config, code, place, small_types):
    assert found(small_types, node("t", "transform", "s", config=config)) == [(code, f"nodes[1] (t).{place}")]


@pytest.mark.parametrize(
    ("hook", "place", "words"),
    [
        ("code", "codeHook", "a mapping of language, entrypoint and source"),
        (HOOK | {"language": "lua"}, "codeHook.language", "'python' is allowed"),
        (HOOK | {"timeout": 3}, "codeHook", "unknown field 'timeout'"),
        (HOOK | {"entrypoint": "a.b"}, "codeHook.entrypoint", "the name of a function"),
        (HOOK | {"entrypoint": "proces"}, "codeHook.entrypoint", "the source defines 'process'"),
        (HOOK | {"source": ""}, "codeHook.source", "Python source is needed"),
        (HOOK | {"source": "def process(:\n"}, "codeHook.source", "at line 1"),
        (HOOK | {"source": "x = 1\nreturn x\n"}, "codeHook.source", "'return' outside function at line 2"),
        (HOOK | {"source": "a\0b"}, "codeHook.source", "null bytes"),
        (HOOK | {"source": "x = '\ud800'"}, "codeHook.source", "does not compile"),
        (HOOK | {"source": "x = " + "(" * 5000 + ")" * 5000}, "codeHook.source", "does not compile"),
        (HOOK | {"source": "x = " + "-" * 60_000 + "1"}, "codeHook.source", "does not compile"),
        (HOOK | {"source": "#" * (65 << 10)}, "codeHook.source", "more than 64 KiB"),
        (HOOK | {"source": "async def process(a, b): ..."}, "codeHook.entrypoint", "is async"),
        (HOOK | {"source": "def process(a): ..."}, "codeHook.entrypoint", "two arguments"),
        (HOOK | {"source": "def process(a, b, c): ..."}, "codeHook.entrypoint", "two arguments"),
        (HOOK | {"source": "def process(a, b, *, c): ..."}, "codeHook.entrypoint", "two arguments"),
        (HOOK | {"source": "class A:\n    def process(self, b): ..."}, "codeHook.entrypoint", "no function"),
    ],
)
def test_code_hooks_that_could_not_run(hook, place, words, small_types):
    own = node("own", "python", "s", codeHook=hook)
    assert found(small_types, own) == [("node-code-hook", f"nodes[1] (own).{place}")]
    assert words in message(small_types, own)


@pytest.mark.parametrize(
    "source",
    [
        "def process(ctx, inputs, more=1, *rest, **others): ...",
        "def process(*args): ...",
        "try:\n    import json\nexcept ImportError:\n    json = None\ndef process(a, b):\n    return '\\d'\n",
        "if True:\n    def process(a, b): ...\n",
        "import functools\ndef one(a, b): ...\nprocess = functools.partial(one)\n",
        "from json import dumps as process\n",
    ],
)
def test_code_hooks_that_can(source, small_types):
    assert found(small_types, node("own", "python", "s", codeHook=HOOK | {"source": source})) == []


def test_only_nodes_that_run_code_have_a_hook(small_types):
    assert found(small_types, node("t", "transform", "s", codeHook=HOOK)) == [
        ("node-code-hook", "nodes[1] (t).codeHook")
    ]


BOX: dict[str, Any] = {"id": "box", "aliases": (), "executor": ExecutorType.DOCKER}


def test_executors(small_types):
    docker = node("d", "transform", "s", executor="docker")
    assert found(small_types, docker) == [
        ("node-executor", "nodes[1] (d).executor"),
        ("node-executor", "nodes[1] (d).image"),
    ]
    boxed = node("b", "box", "s")
    docker_types = NodeTypes([*small_types, replace(small_types.require("transform"), **BOX)])
    assert found(docker_types, boxed | {"image": "team/check:1"}) == []
    assert found(docker_types, boxed) == [("node-executor", "nodes[1] (b).image")]
    assert found(docker_types, boxed | {"image": "a", "executor": "python"}) == [
        ("node-executor", "nodes[1] (b).executor"),
        ("node-executor", "nodes[1] (b).image"),
    ]
    python_alone = NodeTypes(small_types, executors=frozenset({ExecutorType.PYTHON}))
    assert "only python can be had" in message(python_alone, docker | {"image": "team/check:1"})
    assert found(small_types, node("d", "transform", "s", image="x")) == [
        ("node-executor", "nodes[1] (d).image")
    ]
    assert "did you mean 'python'" in message(small_types, node("d", "transform", "s", executor="pyhton"))
    assert found(small_types, node("d", "transform", "s", executor=["python"])) == [
        ("node-executor", "nodes[1] (d).executor")
    ]


def test_sizes(small_types):
    many = [node(f"n{i}", "transform", "s") for i in range(500)]
    assert found(small_types, *many[:499]) == []
    assert found(small_types, *many) == [("graph-too-large", "nodes")]
    dense = [node(f"n{i}", "transform", *(["s"] + [f"n{j}" for j in range(i)])) for i in range(101)]
    assert found(small_types, *dense) == [("graph-too-large", "nodes")]
    assert found(small_types, *dense[:99]) == []
    assert found(small_types, layout={"a": "x" * (256 << 10)}) == [("doc-too-large", "layout")]
    assert found(small_types, layout={"a": ["x"] * 10_000}) == []


def test_names(small_types):
    good = {"workflow": "w", "nodes": [{"id": "s", "type": "source"}]}

    def codes(**more: Any) -> list[str]:
        raw = {key: value for key, value in (good | more).items() if value is not ...}
        return [p.kind.value for p in validate(raw, registry=small_types)[1]]

    assert codes(workflow=...) == ["graph-shape"]
    assert codes(workflow=5) == ["slug-type"]
    assert codes(workflow="new") == ["slug-reserved"]
    assert codes(name=" x") == ["name-whitespace"]
    assert codes(name=5) == ["name-type"]
    assert codes(description=5) == ["graph-shape"]
    assert codes(description="a\0b") == ["text-nul"]
    assert codes(description="x" * 4001) == ["graph-shape"]
    assert codes(nodes=...) == ["graph-shape"]
    assert codes(nodes=[]) == ["graph-empty"]
    assert codes(schedule="daily") == ["graph-shape"]
    assert codes(schedule={}) == ["cron-type"]
    assert codes(schedule={"cron": "0 0 * * *", "assets": "a"}) == ["graph-shape"]
    assert codes(schedule={"cron": "0 0 * * *", "assets": ["a", 5]}) == ["graph-shape"]


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["s", "source", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "id type after config executor image codeHook artifactType cache retries title x".split()
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(st.data())
def test_one_wrong_value_anywhere_is_problems_never_a_crash(small_types, data):
    raw = copy.deepcopy(GOOD)
    where: Any = raw
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        inner = where[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            where = inner
            continue
        where[key] = data.draw(json_like)
        break
    graphs, problems = validate(raw, registry=small_types)
    assert (graphs is None) is bool(problems)
    assert validate(raw, registry=small_types)[1].__repr__() == repr(problems)


@given(json_like)
def test_anything_at_all_is_problems_never_a_crash(small_types, raw):
    assert validate(raw, registry=small_types)[1]
    assert validate({"workflow": "w", "nodes": [raw]}, registry=small_types)[1] or isinstance(raw, dict)
    validate_graph(raw, known_types=small_types)
    validate_graph({"nodes": [raw], "edges": [raw]}, known_types=small_types)


def test_the_largest_graph_is_judged_quickly(small_types):
    ids = [f"n{i}" for i in range(499)]
    nodes = [node(n, "transform", *([ids[i - 1]] if i else ["s"])) for i, n in enumerate(ids)]
    started = time.perf_counter()
    assert found(small_types, *nodes) == []
    assert time.perf_counter() - started < 2


def test_two_types_may_not_share_a_name(make_type):
    with pytest.raises(ConfigurationError, match="'a' and 'b' share the name 'x'"):
        NodeTypes([make_type("a", aliases=("x",)), make_type("b", aliases=("x",))])


def test_a_type_that_is_not_there_is_answered_with_the_nearest(small_types):
    assert small_types.require("quality-check").id == "check"
    assert small_types.get(["check"]) is None
    with pytest.raises(NotFoundError, match="did you mean 'transform'") as caught:
        small_types.require("tranform")
    assert caught.value.kind is ErrorKind.NODE_TYPE
    assert nearest("after", ["before", "title"]) is None


def test_the_node_types_of_the_installation_are_found():
    types = node_types()
    assert types is node_types()
    assert {"source", "probe", "filter", "set-union", "set-intersection", "set-difference", "python"} <= set(
        types.ids()
    )
    assert all(types.require(alias) is each for each in types for alias in (each.id, *each.aliases))


def as_stored(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample's spelling (EmboFlow's own export) in the spelling of this product."""
    configs = {}
    for each in sample["runtimeGraph"]["nodes"]:
        hook = each.get("codeHookSpec")
        configs[each["nodeId"]] = {
            "title": each["title"],
            "executor": each["executorType"],
            "config": {k: v for k, v in each["executorConfig"].items() if k != "image"},
            "image": each["executorConfig"].get("image"),
            "artifactType": each["artifactType"].replace(" ", "_") if "artifactType" in each else None,
            "codeHook": hook and {k: hook[k] for k in ("entrypoint", "source")},
        }
    logic = sample["logicGraph"]
    return {
        "workflow": sample["slug"],
        "name": sample["name"],
        "description": sample["description"],
        "logicGraph": {
            "nodes": [{"id": n["nodeId"], "type": n["nodeType"]} for n in logic["nodes"]],
            "edges": [{"from": e["source"], "to": e["target"]} for e in logic["edges"]],
        },
        "runtimeGraph": {"nodeConfigs": configs},
        "visualGraph": sample["visualGraph"],
    }


@pytest.mark.samples
@pytest.mark.parametrize("number", range(1, 7))
def test_real_graphs_fail_only_over_what_this_release_has_not(number):
    files = sorted((SAMPLES / "workflows").glob(f"0{number}-*.json"))
    if not files:
        text = f"no sample workflows under {SAMPLES}; EMBOFLOW_SAMPLES names the folder"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    raw = as_stored(load(files[0]))
    types = node_types()
    _, problems = validate(raw, registry=types)
    kinds = {p.kind for p in problems}
    unknown = [n["type"] for n in raw["logicGraph"]["nodes"] if types.get(n["type"]) is None]
    named = [p.message for p in problems if p.kind is ErrorKind.NODE_TYPE]
    assert len(named) == len(unknown)
    assert all(repr(name) in text for name, text in zip(unknown, named, strict=True))
    # Nothing is wrong with their shape: only types, options and executors that are not there yet.
    assert kinds <= {
        ErrorKind.NODE_TYPE,
        ErrorKind.NODE_CONFIG,
        ErrorKind.NODE_EXECUTOR,
        ErrorKind.KEY_DOTTED,
        ErrorKind.EDGE_TYPE_MISMATCH,
    }
