"""What is seen of Dagster runs that died is written once, where it still holds, and nowhere else."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.run import WAITING, WorkflowRun
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import lost
from emboflow_dagster.runtime.lost import (
    Observed,
    StepFailure,
    ask_again,
    is_quiet,
    owner_of,
    settle_observed,
)
from emboflow_dagster.runtime.outputs import Outputs
from tests.integration.project.flows import SMALL, diamond


@pytest.fixture
def assets(ef: EmboFlow, asset_file: Path) -> list[str]:
    return [ef.assets.register(asset_file, type="raw_file").display_name]


@pytest.fixture(autouse=True)
def sound(ef: EmboFlow, request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test everything that was promised is kept, unless what was tested is broken on purpose."""
    yield
    if "broken" not in request.node.name:
        assert ef.verify().problems == []


def begun(ef: EmboFlow, assets: list[str], *, workflow: dict[str, Any] | None = None) -> WorkflowRun:
    """A run that the Dagster run `d1` has, its first node done by it."""
    workflow = workflow or diamond()
    ef.workflows.publish(workflow)
    run = ef.runs.request(workflow["workflow"], assets=assets)
    ef.runs.claim(run.id, "d1")
    ef.tasks.work(run.id, "src", worker=owner_of("d1", "src"))
    return ef.runs.get(run.id)


def take(ef: EmboFlow, run: WorkflowRun, node: str, dagster_run_id: str = "d1") -> Any:
    return ef.runs.recorder.claim(run.id, node, owner_of(dagster_run_id, node))


def statuses(ef: EmboFlow, run: WorkflowRun) -> dict[str, str]:
    return {task.node_id: task.status.value for task in ef.tasks.list(run.id)}


def settle(ef: EmboFlow, run: WorkflowRun, observed: Observed) -> list[str]:
    return [task.node_id for task in settle_observed(ef.runs.recorder, run, observed)]


DEAD = Observed({"d1": "its Dagster run d1 failed"}, complete=True)


# ---------------------------------------------------------------------------------------- what is settled


def test_a_killed_step_fails_its_task_and_the_other_branch_goes_on(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    take(ef, run, "left")
    other = take(ef, run, "right")

    seen = Observed(failed={"left": StepFailure("d1", "killed by signal 9")}, cursors={"d1": "7"})
    assert settle(ef, ef.runs.get(run.id), seen) == ["left"]

    failed = ef.tasks.get(run.id, "left")
    assert (failed.status.value, failed.error_message, failed.lease_owner) == (
        "failed",
        "killed by signal 9",
        None,
    )
    assert ef.runs.get(run.id).status.value == "running"
    ef.runs.recorder.succeed(other, {}, Outputs())
    assert ef.runs.get(run.id).status.value == "failed"
    assert statuses(ef, run) == {
        "src": "success",
        "left": "failed",
        "right": "success",
        "join": "pending",
        "tail": "pending",
    }


def test_a_step_that_failed_before_it_took_its_task_fails_it(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)

    settle(ef, run, Observed(failed={"left": StepFailure("d1", "no database")}))

    task = ef.tasks.get(run.id, "left")
    assert (task.status.value, task.error_message) == ("failed", "no database")
    assert task.started_at == task.finished_at
    assert statuses(ef, run)["right"] == "queued"


def test_a_dead_dagster_run_leaves_nothing_open(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    take(ef, run, "left")

    assert settle(ef, ef.runs.get(run.id), DEAD) == ["left", "right"]

    assert ef.runs.get(run.id).status.value == "failed"
    assert statuses(ef, run)["join"] == "pending"


def test_a_stopped_dagster_run_is_cancelled_although_its_step_failed(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    take(ef, run, "left")

    interrupted = {"left": StepFailure("d1", "DagsterExecutionInterruptedError")}
    settle(ef, ef.runs.get(run.id), Observed({"d1": "cancelled"}, interrupted, complete=True, cancelled=True))

    assert ef.runs.get(run.id).status.value == "cancelled"
    assert set(statuses(ef, run).values()) == {"success", "cancelled"}


def test_what_another_dagster_run_works_at_is_left_alone(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    take(ef, run, "left")
    ef.runs.recorder.runs.change(run.id, {"dagsterRunIds": ["d1", "d2"]})
    take(ef, run, "right", "d2")

    settled = settle(ef, ef.runs.get(run.id), Observed({"d1": "died"}))

    assert settled == ["left"]
    assert statuses(ef, run)["right"] == "running"


def test_a_worker_without_dagster_is_judged_by_its_lease_alone(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    ef.runs.recorder.claim(run.id, "left", "emboflow-worker")

    assert settle(ef, ef.runs.get(run.id), DEAD) == ["right"]

    assert statuses(ef, run)["left"] == "running"


# ------------------------------------------------------------------------------------- once, and in order


def test_the_same_observation_twice_is_written_once(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    take(ef, run, "left")
    run = ef.runs.get(run.id)
    seen = Observed(failed={"left": StepFailure("d1", "killed")}, cursors={"d1": "7"})
    settle(ef, run, seen)
    after = ef.runs.show(run.id)

    with pytest.raises(TransitionError, match="has moved on"):
        settle(ef, run, seen)
    assert settle(ef, ef.runs.get(run.id), seen) == []

    assert ef.runs.show(run.id) == after
    assert after["recordedUpTo"] == {"d1": "7"}


def test_an_observation_of_before_a_retry_says_nothing_about_it(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    take(ef, run, "left")
    before = ef.runs.get(run.id)
    settle(ef, before, DEAD)
    ef.runs.retry_tasks(run.id, ["left"])

    with pytest.raises(TransitionError):
        settle(ef, before, DEAD)

    assert ef.tasks.get(run.id, "left").status.value == "queued"


def test_a_failure_of_an_earlier_dagster_run_leaves_a_reset_task_alone(
    ef: EmboFlow, assets: list[str]
) -> None:
    run = begun(ef, assets)
    ef.runs.recorder.fail(take(ef, run, "left"), {}, "no")
    ef.runs.retry_tasks(run.id, ["left"])

    late = Observed(failed={"left": StepFailure("d1", "no")}, cursors={"d1": "9"})
    assert settle(ef, ef.runs.get(run.id), late) == []

    assert ef.tasks.get(run.id, "left").status.value == "queued"


# -------------------------------------------------------------------------------------------- the orphan


def test_an_orphan_that_comes_back_is_dropped_and_counted(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    orphan = take(ef, run, "left")
    settle(ef, ef.runs.get(run.id), DEAD)
    before = ef.runs.show(run.id)

    for report in (
        lambda: ef.runs.recorder.succeed(orphan, {}, Outputs()),
        lambda: ef.runs.recorder.fail(orphan, {}, "late"),
        lambda: ef.runs.recorder.settle_lost(run.id, "interrupted", cancelled=True, claimed=orphan),
    ):
        with pytest.raises(TransitionError) as caught:
            report()
        assert caught.value.kind is ErrorKind.FENCED

    assert ef.tasks.get(run.id, "left").late_reports == 3
    after = ef.runs.show(run.id)
    for task in after["tasks"]:
        task["lateReports"] = 0
    assert after == before


# ---------------------------------------------------------------------------------------- asked for again


def test_a_run_of_which_nothing_was_taken_is_asked_for_again_three_times(
    ef: EmboFlow, assets: list[str]
) -> None:
    ef.workflows.publish(SMALL)
    run = ef.runs.request("small", assets=assets)
    first, generations = run, []
    for _ in range(lost.MAX_ASKED_AGAIN):
        [waiting] = ef.runs.queued()
        generations.append(len(waiting.dagster_run_ids))
        assert ask_again(ef.runs.recorder, waiting) is not None

    [waiting] = ef.runs.queued()
    assert ask_again(ef.runs.recorder, waiting) is None
    assert generations == [0, 1, 2]
    assert ef.runs.claim(run.id, "d9").dagster_run_ids == [WAITING, WAITING, "d9"]
    with pytest.raises(TransitionError):
        ask_again(ef.runs.recorder, first)
    with pytest.raises(TransitionError):
        ef.runs.claim(run.id, "d8")
    assert ef.runs.work(run.id).status.value == "success"


# --------------------------------------------------------------------------------------------- quietness


def age(ef: EmboFlow, collection: str, document_id: str, field: str, seconds: int) -> None:
    """As if it had been written so long ago, on the server's clock."""
    earlier = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": seconds}}
    ef.mongo[collection].update_one({"_id": document_id}, [{"$set": {field: earlier}}])


def test_a_run_is_quiet_when_its_leases_ran_out_or_nobody_wrote(ef: EmboFlow, assets: list[str]) -> None:
    run = begun(ef, assets)
    assert not is_quiet(ef.runs.recorder, run)
    age(ef, "workflow_runs", run.id, "updatedAt", 46)
    assert is_quiet(ef.runs.recorder, run)

    task = take(ef, run, "left").task
    age(ef, "workflow_runs", run.id, "updatedAt", 46)
    assert not is_quiet(ef.runs.recorder, run)
    age(ef, "run_tasks", task.id, "heartbeatAt", 31)
    assert is_quiet(ef.runs.recorder, run)
    ef.runs.settle_stuck()
    assert ef.runs.get(run.id).status == "running"  # the other branch waits
    assert is_quiet(ef.runs.recorder, run)
    take(ef, run, "right")
    assert not is_quiet(ef.runs.recorder, run)


# ------------------------------------------------------------------------------------- broken on purpose

WHY = lost._why


def _waiting_by_any_failure(run: Any, task: Any, observed: Observed, *, stopped: bool) -> str | None:
    failure = observed.failed.get(task.node_id)
    if failure is not None and task.status == "queued":
        return failure.message
    return WHY(run, task, observed, stopped=stopped)


def _pending_too(run: Any, task: Any, observed: Observed, *, stopped: bool) -> str | None:
    if task.status == "pending" and observed.complete:
        return "gone"
    return WHY(run, task, observed, stopped=stopped)


def _running_alone(run: Any, task: Any, observed: Observed, *, stopped: bool) -> str | None:
    return WHY(run, task, observed, stopped=stopped) if task.status == "running" else None


def _whoever_runs(run: Any, task: Any, observed: Observed, *, stopped: bool) -> str | None:
    return "gone" if task.status == "running" else WHY(run, task, observed, stopped=stopped)


BROKEN = {
    "writes what was seen before": ("_has_moved_on", lambda *_: False, "of_before_a_retry"),
    "believes every failure": ("_why", _waiting_by_any_failure, "leaves_a_reset_task_alone"),
    "fails what is blocked": ("_why", _pending_too, "leaves_nothing_open"),
    "forgets what waits": ("_why", _running_alone, "leaves_nothing_open"),
    "settles another's": ("_why", _whoever_runs, "another_dagster_run_works_at"),
    "settles a worker's": ("_why", _whoever_runs, "judged_by_its_lease_alone"),
    "asks for ever": ("MAX_ASKED_AGAIN", 100, "asked_for_again"),
    "never asks again": ("ask_again", lambda *_: None, "asked_for_again"),
    "is never quiet": ("older_than", lambda *_: {"$literal": False}, "is_quiet_when"),
    "waits once more after a lease": ("EXPIRED", "no such words", "is_quiet_when"),
    "is always quiet": ("older_than", lambda *_: {"$literal": True}, "is_quiet_when"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recorder_is_caught(
    ef: EmboFlow, assets: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The positive control of the tests above."""
    place, broken, words = BROKEN[name]
    [story] = [f for key, f in globals().items() if key.startswith("test_") and words in key]
    given = {"ef": ef, "assets": assets}
    with monkeypatch.context() as patch:
        patch.setattr(lost, place, broken)
        if place in globals():
            patch.setitem(globals(), place, broken)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            story(**{key: given[key] for key in inspect.signature(story).parameters})
