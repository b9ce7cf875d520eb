"""Annotation tasks: a run waits without a process, people label and decide, the run goes on or fails."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster import Deactivate, Update
from emboflow_dagster.cli.command_line import exit_status
from emboflow_dagster.errors import ErrorKind, ForbiddenError, InvalidInputError, TransitionError
from emboflow_dagster.model.run import WAITING, WorkflowRun
from emboflow_dagster.project.gate import canonical
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.gates import waits_for
from emboflow_dagster.runtime.lost import Observed, owner_of, settle_observed
from tests.integration.project.conftest import Opener
from tests.integration.project.flows import HOOK, hook

LABEL = {"labelType": "segment", "instructions": "Mark every grasp."}
SEGMENT = {"from": 0, "to": 12, "label": "grasp"}
DEAD = Observed({"d1": "its Dagster run d1 ended without it"}, complete=True)


def graph(**config: Any) -> dict[str, Any]:
    """count, then people, then a hook; another hook beside them."""
    return {
        "workflow": "labelled",
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "count", "type": "python", "after": ["src"], "codeHook": hook(HOOK)},
            {"id": "label", "type": "annotation", "after": ["count"], "config": LABEL | config},
            {"id": "tail", "type": "filter", "after": ["label"]},
            {"id": "beside", "type": "filter", "after": ["src"]},
        ],
    }


@pytest.fixture
def asset(ef: EmboFlow, asset_file: Path) -> str:
    return ef.assets.register(asset_file, type="raw_file").id


@pytest.fixture(autouse=True)
def sound(ef: EmboFlow) -> Iterator[None]:
    """After every test everything that was promised is kept."""
    yield
    assert ef.verify().problems == []


def begun(ef: EmboFlow, asset: str, **config: Any) -> WorkflowRun:
    ef.workflows.publish(graph(**config))
    return ef.runs.work(ef.runs.request("labelled", assets=[asset]).id)


def statuses(ef: EmboFlow, run: WorkflowRun) -> dict[str, str]:
    return {task.node_id: task.status.value for task in ef.tasks.list(run.id)}


def gate(ef: EmboFlow, run: WorkflowRun) -> str:
    found = waits_for(ef.tasks.get(run.id, "label"))
    assert found is not None
    return found


def answered(ef: EmboFlow, run: WorkflowRun, *payloads: dict[str, Any]) -> str:
    """Labelled and handed in."""
    task = gate(ef, run)
    for payload in payloads or (SEGMENT,):
        ef.annotations.add(task, payload)
    assert ef.annotations.submit(task).status.value == "in_review"
    return task


def test_a_run_waits_without_a_process_and_goes_on_when_it_is_approved(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    done = {"src": "success", "count": "success", "beside": "success"}
    assert statuses(ef, run) == done | {"label": "queued", "tail": "pending"}
    assert run.status.value == "running"
    assert ef.runs.work(run.id).updated_at == ef.runs.get(run.id).updated_at, "nothing is left for a worker"
    opened = ef.annotations.get(gate(ef, run))
    assert (opened.status.value, opened.label_type) == ("open", "segment")
    said = opened.target_ref.selector or {}
    assert said["instructions"] == "Mark every grasp."
    assert said["run"] == {
        "runId": run.id,
        "nodeId": "label",
        "taskId": ef.tasks.get(run.id, "label").id,
        "attempt": 1,
    }

    task = answered(ef, run, SEGMENT, {"from": 13, "to": 20, "label": "place"})
    assert ef.annotations.approve(task, "all there").status.value == "approved"
    ended = ef.runs.work(run.id)

    assert ended.status.value == "success", statuses(ef, run)
    (artifact,) = [a for a in ef.artifacts.list() if a.lineage.node_id == "label"]
    made = json.loads(ef.blobs.read_ref(artifact.storage_ref))
    assert made["schema"] == "emboflow-annotations/1"
    assert (made["annotationTaskId"], made["reviewers"], made["comment"]) == (task, ["ada"], "all there")
    assert [row["payload"]["label"] for row in made["annotations"]] == ["grasp", "place"]
    assert {row.status.value for row in ef.annotations.of(task)} == {"approved"}


def test_the_audit_log_has_who_why_and_over_which_bytes(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    task = answered(ef, run)
    ef.annotations.approve(task, "fine")

    (row,) = ef.audit.list(action="annotation.approve", resource_id=task)
    after = row.after_summary or {}
    assert (row.actor_id, after["comment"], after["status"]) == ("ada", "fine", "approved")
    assert [given["sha256"] for given in after["annotations"]] == [
        hashlib.sha256(canonical(SEGMENT)).hexdigest()
    ]
    asked = ef.annotations.get(task).target_ref.selector or {}
    assert after["inputsSha256"] == asked["inputsSha256"]
    assert after["inputs"] == asked["inputs"]
    assert after["inputs"]
    inputs = {a.id: a.storage_ref.sha256 for a in ef.artifacts.list()}
    assert all(inputs[one["artifactId"]] == one["sha256"] for one in after["inputs"])
    actions = {row.action for row in ef.audit.list(resource_id=task)}
    assert actions == {f"annotation.{verb}" for verb in ("open", "add", "submit", "approve")}


def test_a_rejection_fails_the_task_with_the_comment_and_a_retry_asks_again(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    first = answered(ef, run)
    with pytest.raises(InvalidInputError):
        ef.annotations.reject(first, " ")
    assert ef.annotations.reject(first, "the second grasp is missing").status.value == "rejected"

    failed = ef.tasks.get(run.id, "label")
    assert failed.error_message == "rejected by ada: the second grasp is missing"
    assert ef.runs.get(run.id).status.value == "failed"

    ef.runs.retry_tasks(run.id, ["label"])
    again = ef.runs.work(run.id)
    second = gate(ef, again)
    assert second != first
    assert ef.annotations.get(second).status.value == "open"
    answered(ef, again)
    ef.annotations.approve(second)
    assert ef.runs.work(run.id).status.value == "success"


def test_cancelling_the_run_closes_what_it_asked_people_for(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    task = answered(ef, run)
    with pytest.raises(TransitionError, match="a run waits for it"):
        ef.annotations.cancel(task)

    ef.runs.cancel(run.id)

    assert ef.annotations.get(task).status.value == "cancelled"
    assert ef.tasks.get(run.id, "label").lease_owner is None
    with pytest.raises(TransitionError, match="is cancelled"):
        ef.annotations.approve(task)
    ef.runs.retry_tasks(run.id, ["count"])
    again = ef.runs.work(run.id)
    assert gate(ef, again) != task, "the same task over the same bytes is asked for anew"


def test_what_stays_the_same_stays_approved(ef: EmboFlow, asset: str) -> None:
    """A step upstream that is executed again and leaves the same bytes asks nobody twice."""
    run = begun(ef, asset)
    ef.annotations.approve(answered(ef, run))
    ef.runs.work(run.id)

    ef.runs.retry_tasks(run.id, ["count"])

    assert ef.runs.work(run.id).status.value == "success"
    assert len(ef.annotations.list()) == 1


def test_the_reconciler_leaves_a_waiting_run_alone_and_not_one_that_lost_its_worker(
    ef: EmboFlow, asset: str
) -> None:
    ef.workflows.publish(graph())
    run = ef.runs.request("labelled", assets=[asset])
    ef.runs.claim(run.id, "d1")
    for node in ("src", "count", "beside"):
        ef.tasks.work(run.id, node, worker=owner_of("d1", node))
    lost = ef.runs.request("labelled", assets=[asset])
    ef.runs.claim(lost.id, "d1")
    for node in ("src", "count", "beside"):
        ef.tasks.work(lost.id, node, worker=owner_of("d1", node))
    with pytest.raises(TransitionError) as raised:
        ef.tasks.work(run.id, "label", worker=owner_of("d1", "label"))
    assert raised.value.kind is ErrorKind.WAITS_FOR_PEOPLE

    settled = {
        one.id: [t.node_id for t in settle_observed(ef.runs.recorder, ef.runs.get(one.id), DEAD)]
        for one in (run, lost)
    }

    # The control: the same task, the same dead Dagster run, but nobody was asked for anything.
    assert settled == {run.id: [], lost.id: ["label"]}
    assert ef.runs.settle_stuck() == []
    assert (statuses(ef, run)["label"], statuses(ef, lost)["label"]) == ("queued", "failed")

    ef.annotations.approve(answered(ef, run))
    assert ef.runs.get(run.id).dagster_run_ids == ["d1", WAITING], "a new Dagster run is asked for"
    assert list(ef.runs.to_execute(ef.runs.get(run.id)).node_ids or ()) == ["label", "tail"]


def test_nobody_requeues_a_run_that_only_people_can_go_on_with(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    long_ago = run.created_at.replace(year=2020)
    ef.mongo["workflow_runs"].update_one({"_id": run.id}, {"$set": {"updatedAt": long_ago}})
    assert ef.runs.settle_stuck() == []
    # The control: without its owner the task is anybody's, and the run goes back to the queue.
    its = {"workflowRunId": run.id, "nodeId": "label"}
    ef.mongo["run_tasks"].update_one(its, {"$set": {"leaseOwner": None}})
    assert f"{run.id} is in the queue again: nobody worked at it" in ef.runs.settle_stuck()


def test_an_approval_waits_for_what_else_is_at_work(ef: EmboFlow, asset: str) -> None:
    ef.workflows.publish(graph())
    run = ef.runs.request("labelled", assets=[asset])
    ef.runs.claim(run.id, "d1")
    for node in ("src", "count"):
        ef.tasks.work(run.id, node, worker=owner_of("d1", node))
    with pytest.raises(TransitionError):
        ef.tasks.work(run.id, "label", worker=owner_of("d1", "label"))

    ef.annotations.approve(answered(ef, run))
    assert ef.runs.get(run.id).dagster_run_ids == ["d1"]
    assert ef.runs.settle_stuck() == []
    ef.tasks.work(run.id, "beside", worker=owner_of("d1", "beside"))

    assert len(ef.runs.settle_stuck()) == 1
    assert ef.runs.get(run.id).dagster_run_ids == ["d1", WAITING]
    assert ef.runs.work(run.id).status.value == "success"


def test_as_many_people_as_are_asked_for(opener: Opener, ef: EmboFlow, asset: str) -> None:
    grace = opener(actor="user:grace")
    run = begun(ef, asset, assignees=2, reviewers=2)
    task = gate(ef, run)
    ef.annotations.add(task, SEGMENT)
    assert ef.annotations.submit(task).status.value == "in_progress"
    with pytest.raises(TransitionError, match="in_progress"):
        ef.annotations.approve(task)
    grace.annotations.add(task, SEGMENT)
    assert grace.annotations.submit(task).status.value == "in_review"
    with pytest.raises(TransitionError):
        ef.annotations.add(task, SEGMENT)

    for _ in range(2):
        assert ef.annotations.approve(task, "mine").status.value == "in_review"
    assert grace.annotations.approve(task).status.value == "approved"
    ended = ef.runs.work(run.id)
    assert ended.status.value == "success"
    assert (ef.tasks.get(run.id, "label").last_result_preview or {})["reviewers"] == ["ada", "grace"]


def test_only_those_it_was_given_to(opener: Opener, ef: EmboFlow, asset: str) -> None:
    grace = opener(actor="user:grace")
    task = ef.annotations.open(asset, label_type="box").id
    ef.annotations.assign(task, assignees=["user:ada"], reviewers=["grace"])
    with pytest.raises(ForbiddenError, match="grace may not"):
        grace.annotations.add(task, {"box": [0, 1, 2, 3]})
    ef.annotations.add(task, {"box": [0, 1, 2, 3]})
    with pytest.raises(TransitionError):
        grace.annotations.submit(task)
    ef.annotations.submit(task)
    for decide in (ef.annotations.approve, lambda task: ef.annotations.reject(task, "no")):
        with pytest.raises(ForbiddenError):
            decide(task)
    assert grace.annotations.approve(task).status.value == "approved"
    assert [one.id for one in grace.annotations.list(mine=True, status="approved")] == [task]
    with pytest.raises(TransitionError):
        ef.annotations.assign(task, assignees=[])


def test_a_dataset_version_is_labelled_and_a_large_payload_is_a_blob(ef: EmboFlow, asset: str) -> None:
    """AT-064, without a run."""
    task = ef.annotations.open(asset, label_type="mask").id
    large = {"mask": "x" * (1 << 20), "label": "arm"}
    small = ef.annotations.add(task, {"label": "arm"})
    made = ef.annotations.add(task, large)

    assert small.payload == {"label": "arm"}
    blob = ef.blobs.get(made.payload["ref"]["objectId"])
    assert (blob.owner_record, blob.owner_record_id) == ("annotations", made.id)
    assert ef.annotations.payload(made) == large
    assert blob.sha256 == hashlib.sha256(canonical(large)).hexdigest()
    ef.annotations.submit(task)
    ef.annotations.approve(task)
    (row,) = ef.audit.list(action="annotation.approve", resource_id=task)
    assert blob.sha256 in [one["sha256"] for one in (row.after_summary or {})["annotations"]]
    for wrong in ({"$where": 1}, {"x": float("nan")}, {"ref": {"objectId": blob.object_id, "version": 0}}):
        other = ef.annotations.open(asset, label_type="mask").id
        with pytest.raises(InvalidInputError):
            ef.annotations.add(other, wrong)
        assert ef.annotations.cancel(other).status.value == "cancelled"


def test_what_is_closed_behind_the_runs_back_fails_it(ef: EmboFlow, asset: str) -> None:
    """`ef.cud` puts an annotation task out of use; what it cannot do is decide."""
    run = begun(ef, asset)
    task = gate(ef, run)
    with pytest.raises(TransitionError):
        ef.cud([Update("annotation_tasks", task, {"status": "approved"})])
    ef.cud([Deactivate("annotation_tasks", task)])

    assert ef.runs.settle_stuck() == [f"{run.id} goes on: what it waited for is decided"]

    assert ef.tasks.get(run.id, "label").error_message == f"annotation task {task} was cancelled"
    assert ef.runs.get(run.id).status.value == "failed"


def test_what_was_changed_since_it_was_approved_is_not_delivered(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    task = answered(ef, run)
    ef.annotations.approve(task)
    (row,) = ef.annotations.of(task)
    ef.cud([Update("annotations", row.id, {"payload": SEGMENT | {"label": "drop"}})])

    assert ef.runs.work(run.id).status.value == "failed"
    assert "not those that were approved" in (ef.tasks.get(run.id, "label").error_message or "")


def test_a_worker_that_is_interrupted_leaves_nothing_open(ef: EmboFlow, asset: str) -> None:
    run = begun(ef, asset)
    task = gate(ef, run)
    ef.runs.settle_lost(run.id, "interrupted", cancelled=True)

    assert ef.runs.settle_stuck() == [f"annotation task {task} was cancelled: no run waits for it"]
    assert ef.annotations.get(task).status.value == "cancelled"


def test_the_commands_say_what_a_run_waits_for_and_how_it_goes_on(
    ef: EmboFlow,
    asset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in ef.settings.environment().items():
        monkeypatch.setenv(name, value)

    def command(*words: str, status: int = 0) -> str:
        ended = exit_status(list(words))
        captured = capsys.readouterr()
        assert ended == status, captured.err
        return captured.out + captured.err

    ef.workflows.publish(graph())
    run = ef.runs.request("labelled", assets=[asset])
    worked = command("worker", "--once")  # nothing went wrong: exit 0
    task = gate(ef, run)
    assert f"labelled: waits for people: emboflow annotation show {task}" in worked
    assert f"label waits for people\n  emboflow annotation show {task}" in command("run", "show", run.id)
    assert f"next: emboflow annotation add {task} FILE" in command("annotation", "show", task)
    file = tmp_path / "labels.json"
    file.write_text("[1]")
    assert "a JSON object, or a list of them" in command("annotation", "add", task, str(file), status=1)
    file.write_text(json.dumps([SEGMENT, SEGMENT]))
    assert "2 drafts" in command("annotation", "add", task, str(file))
    command("annotation", "assign", task, "--to", "ada", "--reviewer", "ada")
    command("annotation", "submit", task)
    rows = json.loads(command("--json", "annotation", "list", "--mine", "--run", run.id))
    assert [(row["_id"], row["status"]) for row in rows] == [(task, "in_review")]
    refused = command("annotation", "submit", task, status=1)
    assert refused.startswith("error[state]: annotation task")
    assert "approved" in command("annotation", "approve", task, "--comment", "fine")
    assert "labelled: success in" in command("worker", "--once")
    assert "no annotation task" in command("annotation", "list", "--status", "open")
