"""The shared corpus of bad graphs, YAML and schedules: every row is refused with exactly its code."""

import datetime as dt
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from emboflow_dagster.errors import InvalidInputError, Problem
from emboflow_dagster.model.base import check_datetime
from emboflow_dagster.runtime.cron import check_cron, check_timezone
from emboflow_dagster.runtime.registry import NodeTypes
from emboflow_dagster.runtime.validate import validate, validate_graph
from emboflow_dagster.runtime.workflow_file import load

CORPUS = Path(os.environ.get("EMBOFLOW_CORPUS") or Path(__file__).parents[3].parent / "shared" / "corpus")
FILE = CORPUS / "bad_inputs.jsonl"
TARGETS = ("graph", "yaml_", "cron", "tz", "datetime_")
ROWS = (
    [row for row in map(json.loads, FILE.read_text().splitlines()) if row["target"] in TARGETS]
    if FILE.exists()
    else []
)
# Two faults in one row (an id taken and ill-formed, no list and no node): both are said, the worse first.
ALSO = {"B0577": {"node-id"}, "B0602": {"graph-empty"}}


def graph(nodes, edges, **more):
    return {"nodes": nodes, "edges": edges, **more}


def node(node_id, node_type="transform", **more):
    return {"id": node_id, "type": node_type, **more}


def edge(source, target):
    return {"from": source, "to": target}


def chain(length):
    ids = [f"n{i}" for i in range(length)]
    return graph([node("n0", "source"), *map(node, ids[1:])], [edge(a, b) for a, b in pairwise(ids)])


WORDS = {"G": graph, "N": node, "Ed": edge, "chain": chain, "dt": dt, "UTC": dt.UTC}


def value_of(row: dict[str, str]) -> object:
    """The rows are Python expressions over a few constructors."""
    return eval(row["input"], {**WORDS})  # noqa: S307 - the team's own corpus, read from a local folder


def refused(check: Callable[[object], object]) -> Callable[[object], list[Problem]]:
    def problems(value: object) -> list[Problem]:
        try:
            check(value)
        except InvalidInputError as error:
            return list(error.problems)
        return []

    return problems


def yaml_text(value: object) -> object:
    assert isinstance(value, str)
    return load(value.encode())


def code_of(problem: Problem) -> str:
    return "E_" + problem.kind.value.upper().replace("-", "_")


def test_the_corpus_is_there():
    if not ROWS:
        text = f"no corpus at {FILE}; EMBOFLOW_CORPUS names its folder"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    assert {row["target"] for row in ROWS} == set(TARGETS)


@pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")
@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_every_row_is_refused_with_its_code(row: dict[str, str], small_types: NodeTypes):
    value = value_of(row)
    judge = {
        "graph": lambda raw: validate_graph(raw, known_types=small_types),
        "yaml_": refused(yaml_text),
        "cron": refused(check_cron),
        "tz": refused(check_timezone),
        "datetime_": refused(check_datetime),
    }[row["target"]]
    problems = judge(value)
    assert problems, f"{row['input']} is accepted"
    assert code_of(problems[0]) == row["expect"]
    assert {p.kind.value for p in problems[1:]} - {problems[0].kind.value} <= ALSO.get(row["id"], set())


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row["target"] == "graph"],
    ids=[row["id"] for row in ROWS if row["target"] == "graph"],
)
def test_a_published_document_with_the_bad_graph_is_refused_alike(
    row: dict[str, str], small_types: NodeTypes
):
    raw = {"workflow": "bad", "logicGraph": value_of(row), "runtimeGraph": {"nodeConfigs": {}}}
    graphs, problems = validate(raw, registry=small_types)
    assert graphs is None
    assert code_of(problems[0]) == row["expect"]
    assert problems[0].path.startswith("logicGraph")
