"""Every way in with real processes: what happened while no daemon was there, and what people do in the UI."""

import json
from datetime import timedelta

import pytest

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.collections import META
from tests.acceptance import served as serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]  # patience costs nothing when it is quiet

ARTIFACTS = ["acme", "pick-place", "artifacts", "triage"]
# Nodes that are executed in the process of their run: the ways in are the subject.
NODES = [
    {"id": "take", "type": "source"},
    {"id": "join", "type": "set-union", "after": ["take"]},
    {"id": "last", "type": "set-union", "after": ["join"]},
]
DONE = {"take": "success", "join": "success", "last": "success"}
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_RUNS = """
query Runs($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status runs { runId status } }
  }
}
"""
SCHEDULES = """
{
  schedulesOrError(repositorySelector: {
    repositoryName: "__repository__", repositoryLocationName: "emboflow"
  }) {
    ... on Schedules { results { name cronSchedule executionTimezone scheduleState { status } } }
  }
}
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """A project whose daemon was down over two ticks of three schedules, and while an asset came."""
    return serving.Deployment.in_folder(tmp_path_factory.mktemp("ways-in"))


@pytest.fixture(scope="module")
def ef(deployment):
    """An open handle on it."""
    with EmboFlow.from_env(
        workspace="acme", project="pick-place", actor="user:ada", home=deployment.home
    ) as handle:
        handle.workflows.publish({"workflow": "triage", "nodes": NODES})
        register(handle, deployment, "old")
        noon = (handle.mongo.server_time() + timedelta(hours=12)).hour
        for policy in ("skip", "latest", "all"):
            handle.schedules.add(
                "triage",
                name=f"nightly-{policy}",
                cron=f"0 {noon} * * *",
                assets=["old"],
                catch_up=policy,
                label=policy,
            )
        handle.schedules.add("triage", name="intake", on_asset="type=raw_file,status=ready")
        down_since = handle.mongo.server_time() - timedelta(days=2)
        handle.mongo[META].update_many({"kind": "schedule"}, {"$set": {"tickedAt": down_since}})
        handle.assets.probe(register(handle, deployment, "new"))
        yield handle


@pytest.fixture(scope="module")
def served(deployment, ef):
    """The daemon comes up."""
    with serving.serve(deployment) as running:
        yield running


def register(ef, deployment, name):
    path = deployment.folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"t,x\n0,{name}\n")
    return ef.assets.register(path, type="raw_file", name=name).id


def over(ef, cause):
    """The runs that came about in a way, when they are over."""
    return [run for run in ef.runs.list() if run.triggered_by.startswith(cause) and run.finished_at]


def of_dagster(ef, dagster_run_id):
    """The one document of a Dagster run."""
    [run] = [run for run in ef.runs.list() if dagster_run_id in run.dagster_run_ids]
    return run


def tasks(ef, run):
    return {task.node_id: task.status.value for task in ef.runs.tasks(run)}


def test_ticks_that_passed_while_the_daemon_was_down_are_caught_up_as_the_policy_says(served, ef):
    serving.until(lambda: over(ef, "schedule:nightly-latest@") or None, 600)
    serving.until(lambda: over(ef, "schedule:nightly-all@")[1:] or None, 600)

    ticks = {}
    for run in ef.runs.list():
        if run.scheduled_for is not None:
            ticks.setdefault(run.config.label, []).append(run.scheduled_for)
            assert run.triggered_by.endswith(f"@{run.scheduled_for:%Y-%m-%dT%H:%M:%SZ}")
            assert (run.status.value, len(run.dagster_run_ids)) == ("success", 1)
    assert {policy: len(found) for policy, found in ticks.items()} == {"latest": 1, "all": 2}
    assert len(set(ticks["all"])) == 2
    assert ticks["latest"] == [max(ticks["all"])]
    assert {one.name: one.missed_count for one in ef.schedules.list()} == {
        "nightly-skip": 2,
        "nightly-latest": 1,
        "nightly-all": 0,
        "intake": 0,
    }


def test_an_asset_that_came_while_the_daemon_was_down_starts_one_run(served, ef):
    [run] = serving.until(lambda: over(ef, "sensor:intake") or None, 600)

    assert (run.status.value, run.asset_ids) == ("success", [ef.assets.get("new").id])
    assert tasks(ef, run) == DONE


def test_the_launchpad_makes_one_document_with_what_was_asked(served, ef):
    asked = {"assets": ["new"], "version": 1, "cachePolicy": "off", "label": "by hand"}
    params = {
        "selector": {
            "repositoryLocationName": "emboflow",
            "repositoryName": "__repository__",
            "jobName": "acme__pick_place__triage",
        },
        "runConfigData": json.dumps({"resources": {"emboflow_run": {"config": asked}}}),
        "mode": "default",
    }
    answer = served.server.ask(serving.LAUNCH, {"params": params})["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    assert served.ended(answer["run"]["runId"], 600) == "SUCCESS"

    run = of_dagster(ef, answer["run"]["runId"])
    assert (run.triggered_by, run.asset_ids) == ("dagster-ui", [ef.assets.get("new").id])
    assert run.config.to_mongo() == {"cachePolicy": "off", "label": "by hand"}
    assert tasks(ef, run) == DONE


def test_one_downstream_asset_is_one_document_with_one_task(served, ef):
    serving.until(lambda: over(ef, "schedule:nightly-all@") or None, 600)

    dagster_run_id = served.materialize([*ARTIFACTS, "last"])

    assert served.ended(dagster_run_id, 600) == "SUCCESS"
    run = of_dagster(ef, dagster_run_id)
    assert (run.triggered_by, run.selected_node_ids) == ("dagster-ui", ["last"])
    assert tasks(ef, run) == {"last": "success"}


def test_a_backfill_is_one_document(served, ef):
    params = {"assetSelection": [{"path": [*ARTIFACTS, node]} for node in DONE], "allPartitions": True}
    answer = served.server.ask(BACKFILL, {"params": params})["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer

    def ended():
        found = served.server.ask(BACKFILL_RUNS, {"id": answer["backfillId"]})["partitionBackfillOrError"]
        return found["runs"] if found["status"].startswith("COMPLETED") else None

    [dagster_run] = serving.until(ended, 600)

    assert dagster_run["status"] == "SUCCESS"
    run = of_dagster(ef, dagster_run["runId"])
    assert run.triggered_by == "dagster-ui"
    assert tasks(ef, run) == DONE


def test_a_schedule_is_seen_in_dagster_as_soon_as_it_is_added(served, ef):
    add = ("schedule", "add", "triage", "--name", "weekly", "--cron", "0 4 * * 1")
    served.deployment.emboflow(*add, "--timezone", "Asia/Tokyo")

    shown = {row["name"]: row for row in served.server.ask(SCHEDULES)["schedulesOrError"]["results"]}

    found = shown["acme__pick_place__weekly__added_schedule"]
    assert (found["cronSchedule"], found["executionTimezone"]) == ("0 4 * * 1", "Asia/Tokyo")
    assert found["scheduleState"]["status"] == "RUNNING"
    assert ef.verify().problems == []
