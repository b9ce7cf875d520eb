import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError, Problem
from emboflow_dagster.runtime.plain_data import read_json, read_yaml
from emboflow_dagster.runtime.workflow_file import load, parse

YAML = """\
workflow: intake
name: Intake
nodes:
  - id: src
    type: source
  - {id: gate, type: filter, after: [src], config: {where: {format: [mcap]}}}
"""
DATA = {
    "workflow": "intake",
    "name": "Intake",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "gate", "type": "filter", "after": ["src"], "config": {"where": {"format": ["mcap"]}}},
    ],
}


def kind_of(read, value) -> ErrorKind:
    with pytest.raises(InvalidInputError) as caught:
        read(value)
    return caught.value.kind


def test_the_same_workflow_in_every_way_of_giving_it(tmp_path: Path):
    yaml_file, json_file, bare = tmp_path / "a.yaml", tmp_path / "a.json", tmp_path / "noext"
    yaml_file.write_text(YAML)
    json_file.write_text(json.dumps(DATA), encoding="utf-8-sig")
    bare.write_text(json.dumps(DATA))
    ways = [yaml_file, json_file, bare, str(yaml_file), YAML, YAML.encode(), json.dumps(DATA), DATA]
    assert [load(way) for way in ways] == [DATA] * len(ways)
    assert load("{workflow: x, nodes: []}") == {"workflow": "x", "nodes": []}  # YAML in braces
    assert load("workflow: x") == {"workflow": "x"}


def test_a_path_that_is_no_file(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"no workflow file .*flow\.yaml"):
        load(tmp_path / "flow.yaml")
    with pytest.raises(NotFoundError):
        load("flow.yaml")
    assert kind_of(load, tmp_path) is ErrorKind.FILE_UNREADABLE
    assert kind_of(load, "a\0b.yaml") is ErrorKind.FILE_UNREADABLE


def test_the_file_is_named_in_what_is_wrong_with_it(tmp_path: Path):
    file = tmp_path / "flow.json"
    file.write_text('{"a": 1, "a": 2}')
    with pytest.raises(InvalidInputError, match=r"^flow\.json: found the key 'a' twice"):
        load(file)


def test_size_and_encoding_are_bounded(tmp_path: Path):
    big = tmp_path / "big.yaml"
    big.write_bytes(b"a: " + b"x" * (1 << 20))
    assert kind_of(load, big) is ErrorKind.DOC_TOO_LARGE
    assert kind_of(load, b"a: \xff") is ErrorKind.YAML_CORRUPT
    assert kind_of(load, "a: \ud800") is ErrorKind.YAML_CORRUPT


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", ErrorKind.NOT_A_DICT),
        ("# nothing\n", ErrorKind.NOT_A_DICT),
        ("- a: 1\n", ErrorKind.NOT_A_DICT),
        ("[1]", ErrorKind.NOT_A_DICT),
        ("a: !!str 1", ErrorKind.YAML_TAG),
        ("a: ! 1", ErrorKind.YAML_TAG),
        ("a: &x 1", ErrorKind.YAML_ALIAS),
        ("a: &x {b: *x}", ErrorKind.YAML_ALIAS),
        ("1: a", ErrorKind.KEY_TYPE),
        ("true: a", ErrorKind.KEY_TYPE),
        ("~: a", ErrorKind.KEY_TYPE),
        ("? {a: 1}\n: b", ErrorKind.KEY_TYPE),
        ("? [a]\n: b", ErrorKind.KEY_TYPE),
        ("a: {b: 1, b: 2}", ErrorKind.YAML_DUPLICATE_KEY),
        ("a: 1\n'a': 2", ErrorKind.YAML_DUPLICATE_KEY),
        ('{"a": {"b": 1, "b": 2}}', ErrorKind.YAML_DUPLICATE_KEY),
        ("a: [1", ErrorKind.YAML_CORRUPT),
        ("\ta: 1\n", ErrorKind.YAML_CORRUPT),
        ("a: 1\n...\nb: 2\n", ErrorKind.YAML_CORRUPT),
        ("a: " + "[" * 500 + "]" * 500, ErrorKind.DEPTH),
        ("a: " + "9" * 5000, ErrorKind.INT_RANGE),
        ('{"a": ' + "9" * 5000 + "}", ErrorKind.INT_RANGE),
    ],
)
def test_what_a_file_may_not_hold(text, kind):
    assert kind_of(load, text.encode()) is kind


@pytest.mark.parametrize(
    "text", ["[" * 500_000, '{"a":' * 100_000, "- " * 400_000, "{? " * 300_000, "a: &" * 200_000]
)
def test_hostile_nesting_ends_quickly_and_politely(text):
    started = time.perf_counter()
    with pytest.raises(InvalidInputError):
        load(text.encode())
    assert time.perf_counter() - started < 5


def test_yaml_reads_texts_as_json_would():
    text = "a: on\nb: no\nc: 1:30\nd: 2026-01-31\ne: 0x1f\nf: 1e3\ng: ~\nh: '12'\n"
    text += "i: 1_000\nj: -7\nk: .5\nl: ''\nm:\n"
    assert read_yaml(text) == {
        "a": "on",
        "b": "no",
        "c": "1:30",
        "d": "2026-01-31",
        "e": 31,
        "f": 1000.0,
        "g": None,
        "h": "12",
        "i": "1_000",
        "j": -7,
        "k": 0.5,
        "l": "",
        "m": None,
    }


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_json_and_the_yaml_of_the_same_data_read_the_same(data):
    text = json.dumps(data)  # ASCII JSON is YAML too, but for surrogate escapes
    assert read_json(text) == data
    if "\\ud" not in text and "\\u00" not in text and "\\u2" not in text:
        assert read_yaml(text) == data


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_mapping_or_one_of_our_errors(data):
    problems: tuple[Problem, ...] = ()
    raw: object = None
    try:
        raw = load(data)
    except InvalidInputError as error:
        problems = error.problems
    assert isinstance(raw, dict) is not bool(problems)


def test_parse_keeps_places_and_the_order_of_after():
    file, problems = parse(
        {
            "workflow": "w",
            "nodes": [
                {"id": "a", "type": "source"},
                {"id": "b", "type": "x", "after": ["c", "a"], "title": "B"},
            ],
        }
    )
    assert problems == []
    assert file is not None
    assert [(n.path, n.id, n.type) for n in file.nodes] == [
        ("nodes[0] (a)", "a", "source"),
        ("nodes[1] (b)", "b", "x"),
    ]
    assert [(e.path, e.source, e.target) for e in file.edges] == [
        ("nodes[1] (b).after[0]", "c", "b"),
        ("nodes[1] (b).after[1]", "a", "b"),
    ]
    assert file.nodes[1].settings == {"title": "B"}


def test_parse_names_every_unknown_field_with_the_nearest():
    _, problems = parse(
        {
            "workflow": "w",
            "nodez": [],
            "nodes": [{"id": "a", "type": "t", "afters": [], "code_hook": {}}],
            "sched": None,
        }
    )
    assert [(p.kind.value, p.path, p.message) for p in problems] == [
        ("graph-field", "", "unknown field 'nodez'; did you mean 'nodes'?"),
        (
            "graph-field",
            "",
            "unknown field 'sched'; did you mean 'schedule'?",
        ),
        ("graph-field", "nodes[0] (a)", "unknown field 'afters'; did you mean 'after'?"),
        ("graph-field", "nodes[0] (a)", "unknown field 'code_hook'; did you mean 'codeHook'?"),
    ]


def test_after_that_is_no_list_shows_how_to_write_it():
    _, problems = parse({"workflow": "w", "nodes": [{"id": "b", "type": "t", "after": "a"}]})
    assert [(p.kind, p.path) for p in problems] == [(ErrorKind.EDGE_SHAPE, "nodes[0] (b).after")]
    assert problems[0].message.endswith(": [a]")
