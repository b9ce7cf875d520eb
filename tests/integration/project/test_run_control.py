"""Cancel, retry of a run, retry of a task: as the tables of the state machine say, nothing else touched."""

import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind, NotFoundError, TransitionError
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import control, lease
from emboflow_dagster.runtime.record import CLEARED
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


@pytest.fixture(autouse=True)
def sound(ef: EmboFlow, request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test everything that was promised is kept, unless what was tested is broken on purpose."""
    yield
    if "broken" not in request.node.name:
        assert ef.verify().problems == []


def request(ef: EmboFlow, workflow: dict[str, Any], assets: list[str]) -> WorkflowRun:
    ef.workflows.publish(workflow)
    return ef.runs.request(workflow["workflow"], assets=assets)


def raw_tasks(ef: EmboFlow, run_id: str) -> dict[str, dict[str, Any]]:
    return {row["nodeId"]: row for row in ef.mongo["run_tasks"].find({"workflowRunId": run_id})}


def statuses(ef: EmboFlow, run_id: str) -> dict[str, str]:
    return {node: row["status"] for node, row in raw_tasks(ef, run_id).items()}


# ------------------------------------------------------------------------------------------------ cancel


def test_cancel_ends_what_has_not_begun_and_lets_the_rest_finish(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(), assets)
    ef.tasks.work(run.id, "src")
    claimed = ef.runs.recorder.claim(run.id, "left", "w")
    before = raw_tasks(ef, run.id)["left"]

    cancelled = ef.runs.cancel(run.id)

    rows = raw_tasks(ef, run.id)
    assert cancelled.status.value == "cancelled"
    assert cancelled.finished_at is None  # a task still runs
    assert rows["left"] == before
    assert {n: r["status"] for n, r in rows.items()} == {
        "src": "success",
        "left": "running",
        "right": "cancelled",
        "join": "cancelled",
        "tail": "cancelled",
    }
    for node in ("right", "join", "tail"):
        assert (rows[node]["startedAt"], rows[node]["durationMs"]) == (None, None)
        assert rows[node]["finishedAt"] is not None

    ef.runs.recorder.fail(claimed, {}, "killed")

    ended = ef.runs.get(run.id)
    task = ef.tasks.get(run.id, "left")
    assert task.status.value == "cancelled"
    assert "interrupted by cancel" in (task.error_message or "")
    assert ended.status.value == "cancelled"
    assert ended.finished_at == task.finished_at


def test_what_still_runs_may_succeed_and_promotes_nothing(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    claimed = ef.runs.recorder.claim(run.id, "src", "w")
    ef.runs.cancel(run.id)

    from emboflow_dagster.runtime.outputs import Outputs

    ef.runs.recorder.succeed(claimed, {}, Outputs())

    assert statuses(ef, run.id) == {"src": "success", "count": "cancelled"}
    assert ef.runs.get(run.id).status.value == "cancelled"


def test_cancel_again_is_no_error_and_writes_no_second_row(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    first = ef.runs.cancel(run.id)

    assert ef.runs.cancel(run.id) == first
    assert [row.action for row in ef.audit.list(resource_id=run.id)] == ["run.cancel", "run.create"]
    with pytest.raises(TransitionError):
        ef.tasks.work(run.id, "src")


def test_a_run_that_is_over_is_not_cancelled(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    done = ef.runs.work(run.id)

    with pytest.raises(TransitionError, match="success") as caught:
        ef.runs.cancel(run.id)

    assert caught.value.kind is ErrorKind.RUN_FINISHED
    assert ef.runs.get(run.id) == done


# --------------------------------------------------------------------------------------------- retry run


def test_a_retried_run_is_a_new_one_and_the_old_stays(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(FAILS), assets)
    ef.runs.work(run.id)
    ef.workflows.publish(diamond())  # repaired, but not what was frozen
    before = (ef.mongo["workflow_runs"].find_one({"_id": run.id}), raw_tasks(ef, run.id))

    again = ef.runs.retry(run.id)

    assert (ef.mongo["workflow_runs"].find_one({"_id": run.id}), raw_tasks(ef, run.id)) == before
    old = ef.runs.get(run.id)
    assert again.id != run.id
    assert (again.status.value, again.triggered_by, again.retry_of_run_id) == (
        "queued",
        f"retry:{run.id}",
        run.id,
    )
    assert again.runtime_snapshot == old.runtime_snapshot
    assert (again.workflow_version_id, again.asset_ids) == (old.workflow_version_id, old.asset_ids)
    fresh = raw_tasks(ef, again.id)
    for node, task in before[1].items():
        kept = {"nodeId", "nodeType", "executorConfig", "codeHookSpec", "upstreamNodeIds", "executorType"}
        assert {k: fresh[node][k] for k in kept} == {k: task[k] for k in kept}
        assert fresh[node]["_id"] != task["_id"]
        assert (fresh[node]["attempt"], fresh[node]["outputArtifactIds"]) == (1, [])
        assert fresh[node]["assetIds"] == old.asset_ids
    assert ef.runs.work(again.id).status.value == "failed"


def test_a_run_is_retried_with_the_latest_version_on_request(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(FAILS), assets)
    ef.runs.work(run.id)
    ef.workflows.publish(diamond())

    changes = ef.runs.compare(ef.runs.get(run.id))
    again = ef.runs.retry(run.id, latest=True)

    assert [(c.node_id, c.change, c.detail) for c in changes] == [("left", "changed", "codeHook changed")]
    assert again.runtime_snapshot.version_number == 2
    assert again.retry_of_run_id == run.id
    assert ef.runs.work(again.id).status.value == "success"


def test_an_active_run_is_not_retried(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)

    for latest in (False, True):
        with pytest.raises(TransitionError) as caught:
            ef.runs.retry(run.id, latest=latest)
        assert caught.value.kind is ErrorKind.RUN_STILL_ACTIVE
    assert ef.mongo["workflow_runs"].count_documents({}) == 1


# -------------------------------------------------------------------------------------------- retry task


def test_a_retried_task_and_all_below_it_are_reset_and_nothing_else(
    ef: EmboFlow, assets: list[str], tmp_path: Path
) -> None:
    mark = tmp_path / "repaired"
    source = (
        "from pathlib import Path\n"
        "def count(ctx, inputs):\n"
        f"    if not Path({str(mark)!r}).exists():\n"
        "        raise ValueError('no such joint')\n"
        "    return {'assets': len(ctx.assets)}\n"
    )
    run = request(ef, diamond(source), assets)
    ef.runs.work(run.id)
    mark.touch()
    before = raw_tasks(ef, run.id)

    waiting = ef.runs.retry_tasks(run.id, ["left"])

    rows = raw_tasks(ef, run.id)
    assert (waiting.status.value, waiting.finished_at, waiting.duration_ms) == ("queued", None, None)
    assert waiting.waits_again
    assert [r.id for r in ef.runs.queued()] == [run.id]
    assert ef.runs.to_execute(waiting).node_ids == ["left", "join", "tail"]
    assert {n: (r["status"], r["attempt"]) for n, r in rows.items()} == {
        "src": ("success", 1),
        "left": ("queued", 2),
        "right": ("success", 1),
        "join": ("pending", 1),
        "tail": ("pending", 1),
    }
    assert (rows["src"], rows["right"]) == (before["src"], before["right"])
    left = rows["left"]
    for field in ("startedAt", "finishedAt", "durationMs", "logRef", "errorMessage", "summary", "cacheKey"):
        assert left[field] is None, field
    for field in ("logLines", "stdoutLines", "stderrLines", "outputArtifactIds"):
        assert left[field] == [], field
    assert left["_id"] == before["left"]["_id"]
    assert left["createdAt"] == before["left"]["createdAt"]
    assert ef.verify().problems == []

    done = ef.runs.work(run.id)

    assert done.status.value == "success"
    assert set(statuses(ef, run.id).values()) == {"success"}
    assert ef.runs.queued() == []


def test_again_from_here_keeps_the_old_artifacts(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(), assets)
    ef.runs.work(run.id)
    old = ef.tasks.get(run.id, "left").output_artifact_ids
    below = ef.tasks.get(run.id, "tail").output_artifact_ids
    ef.runs.retry_tasks(run.id, ["left"])
    ef.runs.work(run.id)

    new = ef.tasks.get(run.id, "left").output_artifact_ids
    tail = ef.tasks.get(run.id, "tail")
    assert new != old
    assert ef.artifacts.get(old[0]).id == old[0]
    assert ef.tasks.get(run.id, "left").attempt == 2
    # What it left is the same as before, so what is below is not executed again.
    assert (tail.attempt, tail.cache_hit, tail.output_artifact_ids) == (1, True, below)


def test_narrowing_is_worked_out_anew(ef: EmboFlow, assets: list[str]) -> None:
    nodes = [
        {"id": "all", "type": "source"},
        {"id": "one", "type": "source", "config": {"names": [assets[0]]}},
        {"id": "rest", "type": "set-difference", "after": ["all", "one"]},
        {"id": "count", "type": "python", "after": ["rest"], "codeHook": hook(HOOK)},
    ]
    run = request(ef, {"workflow": "narrow", "nodes": nodes}, assets)
    ef.runs.work(run.id)
    before = {n: r["assetIds"] for n, r in raw_tasks(ef, run.id).items()}
    ef.runs.retry_tasks(run.id, ["rest"])

    reset = {n: r["assetIds"] for n, r in raw_tasks(ef, run.id).items()}
    assert reset["rest"] == before["rest"]
    assert reset["count"] == run.asset_ids  # bound, until it is promoted
    ef.runs.work(run.id)
    assert {n: r["assetIds"] for n, r in raw_tasks(ef, run.id).items()} == before


def test_what_cannot_be_retried_says_why(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(FAILS), assets)

    def refused(node: str, words: str) -> None:
        before = raw_tasks(ef, run.id)
        with pytest.raises(TransitionError, match=words) as caught:
            ef.runs.retry_tasks(run.id, [node])
        assert caught.value.kind is ErrorKind.TASK_NOT_RETRYABLE
        assert raw_tasks(ef, run.id) == before

    refused("src", "it is queued")
    refused("left", "it is pending")
    claimed = ef.runs.recorder.claim(run.id, "src", "w")
    refused("src", "it is running")
    ef.runs.recorder.fail(claimed, {}, "x")
    ef.runs.retry_tasks(run.id, ["src"])
    ef.tasks.work(run.id, "src")
    refused("src", "left, which comes after it, is queued")
    ef.runs.work(run.id)
    refused("join", "it is pending")
    with pytest.raises(NotFoundError, match="nobody"):
        ef.runs.retry_tasks(run.id, ["nobody"])
    with pytest.raises(NotFoundError):
        ef.runs.retry_tasks("run_none", ["src"])


def test_a_cancelled_run_goes_on_where_it_was_stopped(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    ef.tasks.work(run.id, "src")
    ef.runs.cancel(run.id)
    ef.runs.retry_tasks(run.id, ["count"])

    assert ef.runs.work(run.id).status.value == "success"


def test_a_dagster_run_claims_a_retried_part_once(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    ef.runs.claim(run.id, "dagster-1")
    ef.runs.work(run.id)
    ef.runs.retry_tasks(run.id, ["count"])

    assert ef.runs.claim(run.id, "dagster-2").dagster_run_ids == ["dagster-1", "dagster-2"]
    assert ef.runs.claim(run.id, "dagster-2").dagster_run_ids == ["dagster-1", "dagster-2"]
    with pytest.raises(TransitionError):
        ef.runs.claim(run.id, "dagster-3")
    assert ef.runs.queued() == []
    ef.runs.work(run.id)


# ------------------------------------------------------------------------------------------------ leases


def age(ef: EmboFlow, collection: str, id_: str, field: str, seconds: int) -> None:
    """Let so much time pass, on the server's clock."""
    earlier = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": seconds}}
    ef.mongo[collection].update_one({"_id": id_}, [{"$set": {field: earlier}}])


def test_a_task_whose_worker_was_not_heard_of_is_settled(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, diamond(), assets)
    claimed = ef.runs.recorder.claim(run.id, "src", "gone")
    assert ef.runs.settle_stuck() == []
    age(ef, "run_tasks", claimed.task.id, "heartbeatAt", lease.LEASE_S + 5)

    [said] = ef.runs.settle_stuck()

    assert "gone" in said
    assert ef.runs.get(run.id).status.value == "failed"
    assert statuses(ef, run.id)["src"] == "failed"
    with pytest.raises(TransitionError) as caught:
        ef.runs.recorder.fail(claimed, {}, "late")
    assert caught.value.kind is ErrorKind.FENCED
    assert ef.runs.settle_stuck() == []


def test_in_a_cancelled_run_it_is_cancelled(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    claimed = ef.runs.recorder.claim(run.id, "src", "gone")
    ef.runs.cancel(run.id)
    age(ef, "run_tasks", claimed.task.id, "heartbeatAt", lease.LEASE_S + 5)
    ef.runs.settle_stuck()

    ended = ef.runs.get(run.id)
    assert (ended.status.value, ended.finished_at is not None) == ("cancelled", True)
    assert set(statuses(ef, run.id).values()) == {"cancelled"}


def test_a_held_task_is_renewed_on_the_servers_clock(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    claimed = ef.runs.recorder.claim(run.id, "src", "w")
    age(ef, "run_tasks", claimed.task.id, "heartbeatAt", 3600)

    with lease.held(ef.runs.recorder, claimed, every_s=0.05):
        deadline = time.monotonic() + 60
        while _behind_s(ef, run.id) > lease.LEASE_S and time.monotonic() < deadline:
            time.sleep(0.05)
    assert ef.runs.settle_stuck() == []
    assert ef.tasks.get(run.id, "src").status.value == "running"
    ef.runs.recorder.fail(claimed, {}, "over")


def _behind_s(ef: EmboFlow, run_id: str) -> float:
    beat = ef.tasks.get(run_id, "src").heartbeat_at
    assert beat is not None
    return float((ef.mongo.server_time() - beat).total_seconds())


def test_a_run_that_nobody_works_at_is_in_the_queue_again(ef: EmboFlow, assets: list[str]) -> None:
    run = request(ef, SMALL, assets)
    ef.tasks.work(run.id, "src")  # and then the worker was killed
    assert ef.runs.settle_stuck() == []
    assert ef.runs.queued() == []
    age(ef, "workflow_runs", run.id, "updatedAt", lease.IDLE_S + 5)

    assert len(ef.runs.settle_stuck()) == 1

    [waiting] = ef.runs.queued()
    assert ef.runs.to_execute(waiting).node_ids == ["count"]
    assert ef.runs.work(run.id).status.value == "success"


# ------------------------------------------------------------------------------------- broken on purpose

NOT_RETRYABLE, REOPENED = control.not_retryable, control._reopened


def _but(words: str) -> Any:
    def allowed(target: str, tasks: Any) -> str | None:
        why = NOT_RETRYABLE(target, tasks)
        return None if why and words in why else why

    return allowed


BROKEN = {
    "retries beside what runs below": ("not_retryable", _but("comes after"), "what_cannot_be_retried"),
    "retries what waits": ("not_retryable", _but("it is pending"), "what_cannot_be_retried"),
    "resets the target alone": ("below", lambda *_: set(), "again_from_here"),
    "keeps the old error": (
        "CLEARED",
        {name: value for name, value in CLEARED.items() if name != "errorMessage"},
        "a_retried_task_and_all_below",
    ),
    "binds everything again": (
        "effective_assets",
        lambda _task, _by_node, bound, _narrowings: list(bound),
        "narrowing_is_worked_out",
    ),
    "stays over": (
        "_reopened",
        lambda tasks: {k: v for k, v in REOPENED(tasks).items() if k != "finishedAt"},
        "a_retried_task_and_all_below",
    ),
    "says nothing in the audit": ("_audit", lambda *_: None, "cancel_again"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_control_is_caught(
    ef: EmboFlow, assets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The positive control of the tests above."""
    place, broken, words = BROKEN[name]
    [story] = [f for key, f in globals().items() if key.startswith("test_") and words in key]
    given = {"ef": ef, "assets": assets, "tmp_path": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(control, place, broken)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            story(**{key: given[key] for key in inspect.signature(story).parameters})
