"""Cancel and retry with real processes: document and Dagster say the same, whoever asked."""

import json

import pytest

from tests.acceptance import served as serving

pytestmark = pytest.mark.slow

REEXECUTE = """
mutation Again($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
FLAKY = """
from pathlib import Path
def run(ctx, inputs):
    if not Path(ctx.config["mark"]).exists():
        raise ValueError("no gripper yet")
    return {"assets": len(ctx.assets)}
"""
REEXECUTE_SELECTED = """
mutation Selected($params: ExecutionParams!) {
  launchRunReexecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
SLOW = "import time\ndef run(ctx, inputs):\n    time.sleep(300)\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One deployment with one asset and workflows: one never ends, two fail at first, one is fine."""
    deployment = serving.Deployment.in_folder(tmp_path_factory.mktemp("controlled"))
    table = deployment.folder / "rows.csv"
    table.write_text("t,x\n0,1\n")
    deployment.emboflow("asset", "register", str(table), "--type", "raw_file", "--name", "rows")
    for slug, source in (("slow", SLOW), ("flaky", FLAKY), ("flaky-too", FLAKY)):
        hook = {"language": "python", "entrypoint": "run", "source": source}
        work = {"id": "work", "type": "python", "after": ["take"], "codeHook": hook}
        if source is FLAKY:
            work["config"] = {"mark": str(deployment.folder / slug)}
        nodes = [{"id": "take", "type": "source"}, work, {**work, "id": "after", "after": ["work"]}]
        file = deployment.folder / f"{slug}.json"
        file.write_text(json.dumps({"workflow": slug, "nodes": nodes}))
        deployment.emboflow("workflow", "publish", str(file))
    quick = [{"id": "take", "type": "source"}, {"id": "work", "type": "filter", "after": ["take"]}]
    quick.append({"id": "after", "type": "filter", "after": ["work"]})
    file = deployment.folder / "plain.json"
    file.write_text(json.dumps({"workflow": "plain", "nodes": quick}))
    deployment.emboflow("workflow", "publish", str(file))
    asked = [
        {"id": "take", "type": "source"},
        {"id": "label", "type": "annotation", "after": ["take"], "config": {"labelType": "segment"}},
        {"id": "after", "type": "filter", "after": ["label"]},
    ]
    file = deployment.folder / "labelled.json"
    file.write_text(json.dumps({"workflow": "labelled", "nodes": asked}))
    deployment.emboflow("workflow", "publish", str(file))
    with serving.serve(deployment) as running:
        yield running


def shown(served, run):
    return served.deployment.emboflow("run", "show", run["_id"])


def tasks(run):
    return {task["nodeId"]: (task["status"], task["attempt"]) for task in run["tasks"]}


def seen(served, run, is_right):
    """The run as it is once it is right."""
    return serving.until(lambda: next(filter(is_right, [shown(served, run)]), None), 240)


def over(served, run, *statuses):
    """The run once it has one of these statuses."""
    return seen(served, run, lambda found: found["status"] in statuses)


def failed(served, slug):
    run = served.deployment.emboflow("workflow", "run", slug, "--asset", "rows")
    found = over(served, run, "failed")
    assert tasks(found) == {"take": ("success", 1), "work": ("failed", 1), "after": ("pending", 1)}
    # The document is settled by the step; Dagster re-executes only what it has ended itself.
    assert served.ended(found["dagsterRunIds"][0]) == "FAILURE"
    (served.deployment.folder / slug).touch()
    return found


def test_cancel_ends_the_dagster_run_too(served):
    run = served.deployment.emboflow("workflow", "run", "slow", "--asset", "rows")
    started = seen(served, run, lambda found: tasks(found)["work"][0] == "running")
    [dagster_run_id] = started["dagsterRunIds"]

    cancelled = served.deployment.emboflow("run", "cancel", run["_id"])

    assert cancelled["status"] == "cancelled"
    assert served.ended(dagster_run_id) == "CANCELED"
    ended = seen(served, run, lambda found: found["finishedAt"] is not None)
    assert tasks(ended) == {"take": ("success", 1), "work": ("cancelled", 1), "after": ("cancelled", 1)}
    assert served.deployment.emboflow("run", "cancel", run["_id"])["finishedAt"] == ended["finishedAt"]
    assert served.deployment.emboflow("verify")["ok"]


def test_a_retried_task_is_executed_by_a_second_dagster_run(served):
    run = failed(served, "flaky")

    waiting = served.deployment.emboflow("task", "retry", f"{run['_id']}:work")

    assert waiting["status"] == "queued"
    ended = over(served, run, "success", "failed")
    assert tasks(ended) == {"take": ("success", 1), "work": ("success", 2), "after": ("success", 1)}
    first, second = ended["dagsterRunIds"]
    assert first == run["dagsterRunIds"][0]
    assert served.ended(second) == "SUCCESS"
    assert served.deployment.emboflow("verify")["ok"]


def test_reexecution_from_failure_goes_on_in_the_same_document(served):
    run = failed(served, "flaky-too")
    [parent] = run["dagsterRunIds"]
    params = {"parentRunId": parent, "strategy": "FROM_FAILURE"}

    answer = served.server.ask(REEXECUTE, {"params": params})["launchRunReexecution"]

    assert answer["__typename"] == "LaunchRunSuccess", answer
    child = answer["run"]["runId"]
    assert served.ended(child) == "SUCCESS"
    ended = shown(served, run)
    assert (ended["status"], ended["dagsterRunIds"]) == ("success", [parent, child])
    assert tasks(ended) == {"take": ("success", 1), "work": ("success", 2), "after": ("success", 1)}
    assert len(served.deployment.emboflow("run", "list", "--workflow", "flaky-too")) == 1


def selected(served, parent, *nodes):
    """What "re-execute selected steps" on a run's page does; the new Dagster run's id."""
    selector = {
        "repositoryLocationName": "emboflow",
        "repositoryName": "__repository__",
        "jobName": "acme__pick_place__plain",
        "assetSelection": [{"path": ["acme", "pick-place", "artifacts", "plain", node]} for node in nodes],
    }
    tags = [{"key": "dagster/is_resume_retry", "value": "true"}]
    params = {
        "mode": "default",
        "selector": selector,
        "stepKeys": [f"acme__pick_place__plain__{node}" for node in nodes],
        "executionMetadata": {"parentRunId": parent, "rootRunId": parent, "tags": tags},
    }
    answer = served.server.ask(REEXECUTE_SELECTED, {"params": params})["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def test_selected_steps_that_end_the_graph_go_on_in_the_document_others_are_a_run_of_their_own(served):
    run = served.deployment.emboflow("workflow", "run", "plain", "--asset", "rows")
    ended = over(served, run, "success", "failed")
    [first] = ended["dagsterRunIds"]
    assert served.ended(first) == "SUCCESS"

    second = selected(served, first, "after")

    assert served.ended(second) == "SUCCESS"
    again = over(served, run, "success", "failed")
    assert again["dagsterRunIds"] == [first, second]
    assert tasks(again) == {"take": ("success", 1), "work": ("success", 1), "after": ("success", 2)}
    assert again["tasks"][:2] == ended["tasks"][:2]

    third = selected(served, first, "work")

    assert served.ended(third) == "SUCCESS"
    assert shown(served, run) == again
    newest, _ = served.deployment.emboflow("run", "list", "--workflow", "plain")
    assert (newest["dagsterRunIds"], newest["selectedNodeIds"]) == ([third], ["work"])
    assert served.deployment.emboflow("verify")["ok"]


def test_a_run_waits_for_people_with_no_dagster_run_alive(served):
    emboflow = served.deployment.emboflow
    run = emboflow("workflow", "run", "labelled", "--asset", "rows")

    (asked,) = serving.until(lambda: emboflow("annotation", "list", "--run", run["_id"]) or None, 240)
    waiting = shown(served, run)
    assert tasks(waiting) == {"take": ("success", 1), "label": ("queued", 1), "after": ("pending", 1)}
    [first] = waiting["dagsterRunIds"]
    # The step has ended without an output, and what is below it was skipped: there is nothing to wait with.
    assert served.ended(first) == "SUCCESS"
    assert shown(served, run)["status"] == "running"

    labels = served.deployment.folder / "labels.json"
    labels.write_text(json.dumps({"from": 0, "to": 1, "label": "grasp"}))
    emboflow("annotation", "add", asked["_id"], str(labels))
    emboflow("annotation", "submit", asked["_id"])
    emboflow("annotation", "approve", asked["_id"], "--comment", "fine")

    ended = over(served, run, "success", "failed")
    assert tasks(ended) == {"take": ("success", 1), "label": ("success", 1), "after": ("success", 1)}
    assert ended["dagsterRunIds"][0] == first
    assert served.ended(ended["dagsterRunIds"][1]) == "SUCCESS"
    assert emboflow("verify")["ok"]
