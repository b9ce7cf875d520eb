"""The file's `steps`: kept with the version, part of what is executed, and refused when it is nothing."""

import pytest

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.runtime.digest import execution_digest
from emboflow_dagster.runtime.registry import node_types
from emboflow_dagster.runtime.step_processes import steps_of
from emboflow_dagster.runtime.validate import Graphs, validate

FILE = {"workflow": "tables", "nodes": [{"id": "tables", "type": "source"}]}


def graphs(**more: object) -> Graphs:
    made, problems = validate({**FILE, **more}, registry=node_types())
    assert problems == []
    assert made is not None
    return made


@pytest.mark.parametrize("said", ["in-process", "multiprocess"])
def test_what_the_file_says_is_kept(said: str):
    assert steps_of(graphs(steps=said).runtime) == {"steps": said}


def test_a_file_that_says_nothing_leaves_it_to_the_deployment():
    assert steps_of(graphs().runtime) == {}
    assert steps_of(graphs(steps=None).runtime) == {}


def test_it_is_part_of_what_is_executed():
    plain, apart = graphs(), graphs(steps="multiprocess")

    assert execution_digest(plain.logic, plain.runtime, node_types()) != execution_digest(
        apart.logic, apart.runtime, node_types()
    )


@pytest.mark.parametrize("said", ["celery", "In-Process", 1, ["in-process"], ""])
def test_anything_else_is_refused_with_what_is_allowed(said: object):
    made, problems = validate({**FILE, "steps": said}, registry=node_types())

    assert made is None
    assert [(p.kind, p.path) for p in problems] == [(ErrorKind.GRAPH_SHAPE, "steps")]
    assert "allowed are in-process and multiprocess" in problems[0].message


def test_the_stored_form_says_it_in_its_defaults():
    stored = {
        "workflow": "tables",
        "logicGraph": {"nodes": FILE["nodes"], "edges": []},
        "runtimeGraph": {"nodeConfigs": {}, "defaults": {"steps": "in-process"}},
    }
    made, problems = validate(stored, registry=node_types())

    assert problems == []
    assert made is not None
    assert steps_of(made.runtime) == {"steps": "in-process"}
