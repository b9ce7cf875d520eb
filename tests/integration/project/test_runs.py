"""Runs and tasks: written whole, taken once, settled at once, and always equal to their sum."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import (
    EmboflowError,
    ErrorKind,
    ExecutionError,
    TransitionError,
    UnavailableError,
)
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.project.execution import Execution
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.machine import summarise
from tests.integration.project.flows import HOOK, SMALL, diamond, hook

FAILS = "def count(ctx, inputs):\n    raise ValueError('no such joint')\n"


@pytest.fixture
def assets(ef: EmboFlow, tmp_path: Path) -> list[str]:
    """Three registered files, by name."""
    names = []
    for number in range(3):
        path = tmp_path / f"rows-{number}.csv"
        path.write_text(f"t,x\n0,{number}\n")
        names.append(ef.assets.register(path, type="raw_file").display_name)
    return names


def request(ef: EmboFlow, workflow: dict[str, Any], assets: list[str]) -> WorkflowRun:
    ef.workflows.publish(workflow)
    return ef.runs.request(workflow["workflow"], assets=assets)


def by_node(ef: EmboFlow, run_id: str) -> dict[str, RunTask]:
    return {task.node_id: task for task in ef.tasks.list(run_id)}


def test_a_requested_run_has_all_its_tasks_roots_queued(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(), assets)
    tasks = by_node(ef, run.id)

    assert {n: t.status.value for n, t in tasks.items()} == {
        "src": "queued",
        "left": "pending",
        "right": "pending",
        "join": "pending",
        "tail": "pending",
    }
    assert all(t.asset_ids == run.asset_ids and t.attempt == 1 for t in tasks.values())
    assert tasks["join"].upstream_node_ids == ["left", "right"]
    frozen = run.runtime_snapshot.runtime_graph.node_configs["left"]
    assert tasks["left"].code_hook_spec == frozen.code_hook
    assert run.summary == summarise(list(tasks.values()))
    assert [a.action for a in ef.audit.list(resource_id=run.id)] == ["run.create"]


def test_a_run_carried_to_its_end_records_everything(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    done = ef.runs.work(run.id)
    task = by_node(ef, run.id)["count"]

    assert done.status.value == "success"
    assert task.stdout_lines == ["one", "two", "three"]
    assert task.stderr_lines == ["bad", "worse"]
    assert "counted" in task.log_lines
    assert task.last_result_preview == {"assets": 3}
    assert task.summary is not None
    assert (task.summary.stdout_line_count, task.summary.stderr_line_count) == (3, 2)
    artifact = ef.artifacts.list(producer_type="run_task", producer_id=task.id)[0]
    assert task.output_artifact_ids == [artifact.id]
    assert artifact.lineage.workflow_run_id == run.id
    blob = ef.mongo["objects"].find_one({"_id": artifact.storage_ref.object_id})
    assert blob is not None
    assert (blob["owner_record"], blob["owner_record_id"]) == ("artifacts", artifact.id)
    assert (blob["workflow_id"], blob["task_id"]) == (run.id, task.id)
    assert ef.verify().problems == []


def test_what_was_requested_is_what_runs_whatever_is_published_later(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    changed = HOOK.replace('"assets": len(ctx.assets)', '"changed": 1')
    ef.workflows.publish(
        {**SMALL, "nodes": [SMALL["nodes"][0], {**SMALL["nodes"][1], "codeHook": hook(changed)}]}
    )
    before = ef.mongo["workflow_runs"].find_one({"_id": run.id}, {"runtimeSnapshot": 1, "assetIds": 1})
    # A worker needs the tasks alone: the versions may be out of reach.
    ef.mongo["workflow_definition_versions"].rename("elsewhere")
    try:
        done = ef.runs.work(run.id)
    finally:
        ef.mongo["elsewhere"].rename("workflow_definition_versions")

    assert done.status.value == "success"
    assert by_node(ef, run.id)["count"].last_result_preview == {"assets": 3}
    assert (
        ef.mongo["workflow_runs"].find_one({"_id": run.id}, {"runtimeSnapshot": 1, "assetIds": 1}) == before
    )


def test_40_tasks_and_8_workers_each_task_is_taken_once(ef: EmboFlow, assets: list[str]) -> None:
    fan = {"workflow": "fan", "nodes": [{"id": f"src-{n}", "type": "source"} for n in range(40)]}
    run = request(ef, fan, assets)

    def take(worker: int) -> list[str]:
        won = []
        for n in range(40):
            try:
                ef.runs.recorder.claim(run.id, f"src-{n}", f"worker-{worker}")
                won.append(f"src-{n}")
            except TransitionError:
                continue
        return won

    with ThreadPoolExecutor(8) as pool:
        taken = [node for won in pool.map(take, range(8)) for node in won]

    assert sorted(taken) == sorted(f"src-{n}" for n in range(40))
    assert ef.runs.get(run.id).summary.task_counts["running"] == 40


def test_a_task_is_not_taken_before_its_upstream_succeeded(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)

    with pytest.raises(TransitionError) as caught:
        ef.tasks.work(run.id, "count")

    assert caught.value.kind == ErrorKind.UPSTREAM_NOT_SUCCEEDED
    assert by_node(ef, run.id)["count"].status.value == "pending"


def test_a_failed_branch_fails_the_run_after_the_others_end(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(FAILS), assets)
    done = ef.runs.work(run.id)
    tasks = by_node(ef, run.id)

    assert done.status.value == "failed"
    assert {n: t.status.value for n, t in tasks.items()} == {
        "src": "success",
        "left": "failed",
        "right": "success",
        "join": "pending",
        "tail": "pending",
    }
    assert done.summary.failed_task_ids == [tasks["left"].id]
    assert "no such joint" in (tasks["left"].error_message or "")
    assert tasks["left"].output_artifact_ids == []
    assert any("ValueError" in line for line in tasks["left"].stderr_lines)
    assert ef.verify().problems == []


def test_a_node_with_retries_tries_again_and_counts(ef: EmboFlow, assets: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "tried"
    source = (
        "from pathlib import Path\n"
        "def count(ctx, inputs):\n"
        f"    mark = Path({str(mark)!r})\n"
        "    if not mark.exists():\n"
        "        mark.touch()\n"
        "        raise ValueError('first time')\n"
        "    return {}\n"
    )
    run = request(ef, diamond(source, retries=1), assets)
    done = ef.runs.work(run.id)
    left = by_node(ef, run.id)["left"]

    assert (done.status.value, left.attempt, left.error_message) == ("success", 2, None)
    assert ef.verify().problems == []


def test_a_late_finish_changes_nothing(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    claimed = ef.runs.recorder.claim(run.id, "src", "slow")
    ef.runs.settle_lost(run.id, "the worker was killed")
    before = ef.runs.show(run.id)

    with pytest.raises(TransitionError) as caught:
        ef.runs.recorder.fail(claimed, {}, "late")

    assert caught.value.kind == ErrorKind.FENCED
    after = ef.runs.show(run.id)
    assert [task.pop("lateReports") for task in after["tasks"]] == [1, 0]  # but that it is counted
    assert [task.pop("lateReports") for task in before["tasks"]] == [0, 0]
    assert after == before
    assert before["status"] == "failed"
    assert ef.verify().problems == []


def test_a_cancelled_dagster_run_cancels_what_is_open(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(), assets)
    ef.runs.recorder.claim(run.id, "src", "w")
    done = ef.runs.settle_lost(run.id, "terminated", cancelled=True)

    assert done.status.value == "cancelled"
    assert {t.status.value for t in ef.tasks.list(run.id)} == {"cancelled"}
    assert ef.verify().problems == []


def test_a_lost_run_that_never_started_is_failed_whole(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(), assets)
    done = ef.runs.settle_lost(run.id, "the code location could not be loaded")

    assert done.status.value == "failed"
    assert done.summary.task_counts["queued"] == 0
    assert ef.verify().problems == []


def test_a_dagster_run_binds_a_run_once(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    assert [r.id for r in ef.runs.queued()] == [run.id]

    ef.runs.claim(run.id, "dagster-1")
    ef.runs.claim(run.id, "dagster-1")
    with pytest.raises(TransitionError):
        ef.runs.claim(run.id, "dagster-2")

    assert ef.runs.get(run.id).dagster_run_ids == ["dagster-1"]
    assert ef.runs.queued() == []


def test_a_run_nobody_requested_is_made_once_by_steps_that_start_together(
    ef: EmboFlow, assets: list[str]
) -> None:
    version = ef.workflows.publish(diamond()).version
    dagster_run = "0f8fad5b-d9cb-469f-a165-70867728950e"

    def adopt(_: int) -> str:
        return ef.runs.adopt(dagster_run, workflow_version_id=version.id).id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(adopt, range(8)))

    run = ef.runs.get(ids.pop())
    assert not ids
    assert (run.triggered_by, run.dagster_run_ids) == ("dagster-ui", [dagster_run])
    assert [ef.assets.get(a).display_name for a in run.asset_ids] == assets
    assert len(ef.tasks.list(run.id)) == 5
    assert ef.runs.queued() == []


def test_a_selection_takes_what_its_upstream_made_last(ef: EmboFlow, assets: list[str]) -> None:
    source = 'def count(ctx, inputs):\n    return {"seen": sorted(inputs), "n": len(ctx.assets)}\n'
    workflow = diamond(source)
    version = ef.workflows.publish(workflow).version
    selected = {"workflow_version_id": version.id, "node_ids": ["left"]}

    with pytest.raises(TransitionError) as caught:
        ef.runs.adopt("0f8fad5b-d9cb-469f-a165-70867728950e", **selected)
    assert caught.value.kind == ErrorKind.UPSTREAM_NOT_SUCCEEDED
    first = ef.runs.work(ef.runs.request("diamond", assets=assets[:2]).id)
    run = ef.runs.adopt("1f8fad5b-d9cb-469f-a165-70867728950e", **selected)
    done = ef.runs.work(run.id)

    assert (first.status.value, done.status.value) == ("success", "success")
    assert done.selected_node_ids == ["left"]
    assert [t.node_id for t in ef.tasks.list(run.id)] == ["left"]
    assert ef.tasks.get(run.id, "left").last_result_preview == {"seen": ["src"], "n": 2}
    assert ef.verify().problems == []


def test_set_operations_narrow_what_comes_after(ef: EmboFlow, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        path = tmp_path / f"n{number}.csv"
        path.write_text(f"{number}\n")
        ef.assets.register(path, type="raw_file", name=f"n{number}")
    nodes: list[dict[str, Any]] = [
        {"id": "a", "type": "source", "config": {"names": ["n1", "n2", "n3"]}},
        {"id": "b", "type": "source", "config": {"names": ["n2", "n3", "n4"]}},
        {"id": "any", "type": "set-union", "after": ["b", "a"]},
        {"id": "both", "type": "set-intersection", "after": ["a", "b"]},
        {"id": "less", "type": "set-difference", "after": ["a", "b"]},
        {"id": "more", "type": "set-difference", "after": ["b", "a"]},
        {"id": "none", "type": "set-difference", "after": ["a", "any"]},
        {"id": "after-none", "type": "python", "after": ["none"], "codeHook": hook(FAILS)},
    ]
    run = request(ef, {"workflow": "sets", "nodes": nodes}, ["n4", "n3", "n2", "n1"])
    done = ef.runs.work(run.id)
    names = {a.id: a.display_name for a in ef.assets.list()}
    got = {t.node_id: [names[a] for a in t.asset_ids] for t in ef.tasks.list(run.id)}

    assert done.status.value == "success"
    assert got == {
        "a": ["n3", "n2", "n1"],
        "b": ["n4", "n3", "n2"],
        "any": ["n4", "n3", "n2", "n1"],
        "both": ["n3", "n2"],
        "less": ["n1"],
        "more": ["n4"],
        "none": [],
        "after-none": [],
    }
    after = ef.tasks.get(run.id, "after-none")
    assert after.summary is not None
    assert after.summary.outcome == "empty"
    assert ef.verify().problems == []


def test_an_asset_named_twice_is_bound_once_where_it_came_first(ef: EmboFlow, assets: list[str]) -> None:
    ef.workflows.publish(SMALL)
    first, second, third = (ef.assets.get(name).id for name in assets[:3])

    run = ef.runs.request("small", assets=[second, first, assets[1], third, first])

    assert run.asset_ids == [second, first, third]
    assert [task.asset_ids for task in ef.runs.tasks(run)] == [run.asset_ids] * run.summary.total_task_count


def test_a_run_needs_assets_that_exist(ef: EmboFlow, assets: list[str]) -> None:
    ef.workflows.publish(SMALL)

    for chosen, kind in (
        ([], ErrorKind.INPUT_MISSING),
        (["x"], ErrorKind.NOT_FOUND),
    ):
        with pytest.raises(EmboflowError) as caught:
            ef.runs.request("small", assets=chosen)
        assert caught.value.kind == kind
    assert ef.mongo["workflow_runs"].count_documents({}) == 0


def test_the_error_of_a_failed_node_is_one_of_ours(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(FAILS), assets)
    ef.tasks.work(run.id, "src")

    with pytest.raises(ExecutionError, match=r"left: .*ValueError: no such joint"):
        ef.tasks.work(run.id, "left")


def test_an_interrupt_cancels_the_run(
    ef: EmboFlow, assets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    run = request(ef, diamond(), assets)
    monkeypatch.setattr(Execution, "run", interrupted)

    with pytest.raises(KeyboardInterrupt):
        ef.tasks.work(run.id, "src")

    assert ef.runs.get(run.id).status.value == "cancelled"
    assert {t.status.value for t in ef.tasks.list(run.id)} == {"cancelled"}
    assert "interrupted" in (ef.tasks.get(run.id, "src").error_message or "")
    assert ef.verify().problems == []


def test_a_dagster_run_over_two_workflows_has_a_document_for_each(ef: EmboFlow, assets: list[str]) -> None:
    versions = [ef.workflows.publish(workflow).version for workflow in (SMALL, diamond())]
    dagster_run = "0f8fad5b-d9cb-469f-a165-70867728950e"

    runs = [ef.runs.adopt(dagster_run, workflow_version_id=version.id) for version in versions]
    again = [ef.runs.adopt(dagster_run, workflow_version_id=version.id) for version in versions]

    assert [run.workflow_version_id for run in runs] == [version.id for version in versions]
    assert [run.id for run in again] == [run.id for run in runs]
    assert ef.mongo["workflow_runs"].count_documents({"dagsterRunIds": dagster_run}) == 2


def test_a_settle_whose_answer_was_lost_is_a_success_all_the_same(
    ef: EmboFlow, assets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = request(ef, SMALL, assets)
    ef.tasks.work(run.id, "src")
    real = ef.runs.recorder.succeed

    def answer_lost(*given: Any) -> RunTask:
        real(*given)
        raise UnavailableError("the connection broke")

    monkeypatch.setattr(ef.runs.recorder, "succeed", answer_lost)
    worked = ef.tasks.work(run.id, "count")

    assert worked.task.status.value == "success"
    assert ef.runs.get(run.id).status.value == "success"
    assert ef.verify().problems == []


def test_a_settle_that_did_not_happen_fails_the_task(
    ef: EmboFlow, assets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_reached(*_: Any) -> RunTask:
        raise UnavailableError("the connection broke")

    run = request(ef, SMALL, assets)
    monkeypatch.setattr(ef.runs.recorder, "succeed", not_reached)

    with pytest.raises(ExecutionError, match="the connection broke"):
        ef.tasks.work(run.id, "src")

    assert ef.tasks.get(run.id, "src").status.value == "failed"
    assert ef.verify().problems == []
