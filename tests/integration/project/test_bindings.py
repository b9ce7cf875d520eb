"""Sources of one run that bind assets of their own, whoever names them and however often it is repeated."""

from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import InvalidInputError, NotFoundError
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.project.handle import EmboFlow

SETS: dict[str, Any] = {
    "workflow": "sets",
    "nodes": [
        {"id": "left", "type": "source"},
        {"id": "right", "type": "source"},
        *(
            {"id": kind, "type": f"set-{kind}", "after": ["left", "right"]}
            for kind in ("union", "intersection", "difference")
        ),
        {"id": "other-way", "type": "set-difference", "after": ["right", "left"]},
        {"id": "none-left", "type": "set-difference", "after": ["intersection", "left"]},
        {"id": "look", "type": "probe", "after": ["none-left"]},
    ],
}
BINDINGS = {"left": ["c", "a", "b"], "right": ["b", "d", "c"]}
EXPECTED = {
    "left": "cab",
    "right": "cbd",  # a node has its assets in the order of the run
    "union": "cabd",
    "intersection": "cb",
    "difference": "a",
    "other-way": "d",
    "none-left": "",
    "look": "",
}


@pytest.fixture
def project(ef: EmboFlow, tmp_path: Path) -> EmboFlow:
    """A project with the assets a, b, c, d and the workflow `sets`."""
    for name in "abcd":
        path = tmp_path / f"{name}.csv"
        path.write_text(f"t,{name}\n0,1\n")
        ef.assets.register(path, name=name, type="raw_file")
    ef.workflows.publish(SETS)
    return ef


def effective(ef: EmboFlow, run: WorkflowRun) -> dict[str, str]:
    """Node to the names of its effective assets, in order, after the run was executed."""
    ef.runs.work(run.id)
    ended = ef.runs.get(run.id)
    assert ended.status == "success"
    names = {asset.id: asset.display_name for asset in ef.assets.list()}
    return {t.node_id: "".join(names[a] for a in t.asset_ids) for t in ef.runs.tasks(ended)}


def test_set_operations_work_on_different_sources(project: EmboFlow):
    run = project.workflows.run("sets", assets=BINDINGS)
    names = {asset.id: asset.display_name for asset in project.assets.list()}
    assert "".join(names[a] for a in run.asset_ids) == "cabd"  # the union, sources in the order of the file
    roots = {t.node_id: t for t in project.runs.tasks(run) if t.status == "queued"}
    assert {node: (task.executor_config or {})["bound"] for node, task in roots.items()} == {
        node: task.asset_ids for node, task in roots.items()
    }
    assert effective(project, run) == EXPECTED
    empty = {t.node_id: t.summary.outcome for t in project.runs.tasks(run) if t.summary}
    assert (empty["none-left"], empty["look"]) == ("empty", "empty")
    assert project.verify().ok


def test_the_same_in_one_list_as_the_command_takes_it(project: EmboFlow):
    entries = [f"{node}={name}" for node, names in BINDINGS.items() for name in names]
    assert effective(project, project.workflows.run("sets", assets=entries)) == EXPECTED
    # What stands without a node is for the sources that are not named; a selector stays one.
    run = project.workflows.run("sets", assets=["left=a", "left=name=b", "type=raw_file"])
    found = effective(project, run)
    assert (found["left"], found["right"], found["difference"]) == ("ab", "abcd", "")


def test_a_run_that_is_repeated_binds_the_same(project: EmboFlow):
    first = project.workflows.run("sets", assets=BINDINGS)
    effective(project, first)
    assert effective(project, project.runs.retry(first.id)) == EXPECTED
    assert effective(project, project.runs.retry(first.id, latest=True)) == EXPECTED
    project.runs.retry_tasks(first.id, ["left"])
    assert effective(project, project.runs.get(first.id)) == EXPECTED


def test_the_file_says_what_is_bound_when_nobody_names_anything(project: EmboFlow):
    with pytest.raises(InvalidInputError, match="at least one asset"):
        project.workflows.run("sets")
    version = project.workflows.publish({**SETS, "assetBindings": BINDINGS}).version
    assert effective(project, project.workflows.run("sets")) == EXPECTED
    # One source may be given other assets; the file holds for the rest. Plain assets are for all.
    found = effective(project, project.workflows.run("sets", assets=["right=d"]))
    assert (found["left"], found["right"]) == ("cab", "d")
    found = effective(project, project.workflows.run("sets", assets=["a"]))
    assert (found["left"], found["right"]) == ("a", "a")
    adopted = project.runs.adopt(
        "5b1b2c1a-54a1-4b0a-9f0e-000000000001", workflow_version_id=version.id, node_ids=None
    )
    assert {t.node_id: len(t.asset_ids) for t in project.runs.tasks(adopted) if t.status == "queued"} == {
        "left": 3,
        "right": 3,
    }
    again = project.workflows.publish({**SETS, "assetBindings": BINDINGS})
    assert again.unchanged


def test_what_cannot_be_bound_is_said(project: EmboFlow):
    with pytest.raises(NotFoundError, match="no source 'lft'") as caught:
        project.workflows.run("sets", assets={"lft": ["a"], "right": ["b"]})
    assert caught.value.hint == "did you mean 'left'?"
    with pytest.raises(NotFoundError, match="no source 'lft'"):
        project.workflows.run("sets", assets=["lft=a", "right=b"])
    with pytest.raises(InvalidInputError, match="unknown key 'typ'"):
        project.workflows.run("sets", assets=["typ=rosbag"])
    with pytest.raises(InvalidInputError, match="source right is left without assets"):
        project.workflows.run("sets", assets=["left=a"])
    with pytest.raises(InvalidInputError, match="'c' is for none of them"):
        project.workflows.run("sets", assets=["left=a", "right=b", "c"])
    with pytest.raises(NotFoundError, match="nobody"):
        project.workflows.run("sets", assets=["left=nobody", "right=b"])
    # Somebody who says that a source takes nothing has said so.
    found = effective(project, project.workflows.run("sets", assets={"left": ["a"], "right": []}))
    assert (found["right"], found["difference"]) == ("", "a")


def test_a_schedule_binds_sources_too(project: EmboFlow):
    project.workflows.publish({**SETS, "assetBindings": BINDINGS})
    own = project.schedules.add("sets", cron="0 3 * * *")
    named = project.schedules.add("sets", cron="0 4 * * *", assets=["left=b", "right=name=b|c"])
    for schedule, right in ((own, "cbd"), (named, "bc")):
        tick = schedule.created_at.replace(hour=3, minute=0, second=0, microsecond=0)
        decision = project.ticking.tick(schedule, tick)
        assert decision.run_id is not None
        found = effective(project, project.runs.get(decision.run_id))
        assert found["right"] == right
    with pytest.raises(NotFoundError, match="nobody"):
        project.schedules.add("sets", cron="0 5 * * *", assets=["left=nobody", "b"])
