"""Every way in with real processes: what happened while no daemon was there, and what people do in the UI."""

import json
from datetime import timedelta

import pytest

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.collections import META
from tests.acceptance import served as serving

pytestmark = pytest.mark.slow

ARTIFACTS = ["acme", "pick-place", "artifacts", "triage"]
HOOK = "def run(ctx, inputs):\n    return {'assets': len(ctx.assets)}\n"
NODES = [
    {"id": "take", "type": "source"},
    {
        "id": "count",
        "type": "python",
        "after": ["take"],
        "codeHook": {"language": "python", "entrypoint": "run", "source": HOOK},
    },
    {
        "id": "last",
        "type": "python",
        "after": ["count"],
        "codeHook": {"language": "python", "entrypoint": "run", "source": HOOK},
    },
]
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
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
def served(tmp_path_factory):
    """A deployment whose daemon was down over two ticks of two schedules, and while an asset came."""
    deployment = serving.Deployment.in_folder(tmp_path_factory.mktemp("ways-in"))
    register(deployment, "old")
    file = deployment.folder / "triage.json"
    file.write_text(json.dumps({"workflow": "triage", "nodes": NODES}))
    deployment.emboflow("workflow", "publish", str(file))
    with opened(deployment) as ef:
        hour = (ef.mongo.server_time() + timedelta(hours=12)).hour
    for policy in ("skip", "latest", "all"):
        deployment.emboflow(
            *("schedule", "add", "triage", "--name", f"nightly-{policy}", "--catch-up", policy),
            *("--cron", f"0 {hour} * * *", "--asset", "old", "--label", policy),
        )
    deployment.emboflow(
        "schedule", "add", "triage", "--name", "intake", "--on-asset", "type=raw_file,status=ready"
    )
    with opened(deployment) as ef:
        down_since = ef.mongo.server_time() - timedelta(days=2)
        ef.mongo[META].update_many({"kind": "schedule"}, {"$set": {"tickedAt": down_since}})
        ef.assets.probe(register(deployment, "new")["_id"])
    with serving.serve(deployment) as running:
        yield running


def opened(deployment):
    return EmboFlow.from_env(workspace="acme", project="pick-place", actor="user:ada", home=deployment.home)


def register(deployment, name):
    path = deployment.folder / f"{name}.csv"
    path.write_text(f"t,x\n0,{name}\n")
    return deployment.emboflow("asset", "register", str(path), "--type", "raw_file", "--name", name)


def runs(served, cause):
    """The runs that came about in a way, when they are over."""
    return [
        run
        for run in served.deployment.emboflow("run", "list")
        if run["triggeredBy"].startswith(cause) and run["finishedAt"] is not None
    ]


def of_dagster(served, dagster_run_id):
    """The documents of a Dagster run, with their tasks."""
    found = [
        run for run in served.deployment.emboflow("run", "list") if dagster_run_id in run["dagsterRunIds"]
    ]
    return [served.deployment.emboflow("run", "show", run["_id"]) for run in found]


def tasks(run):
    return {task["nodeId"]: task["status"] for task in run["tasks"]}


def test_ticks_that_passed_while_the_daemon_was_down_are_caught_up_as_the_policy_says(served):
    serving.until(lambda: runs(served, "schedule:nightly-latest@") or None, 240)
    serving.until(lambda: runs(served, "schedule:nightly-all@")[1:] or None, 240)
    # Dagster's own scheduler, and ten more looks of the sensor at the least, make nothing more of it.
    every = {run["_id"]: run for run in served.deployment.emboflow("run", "list")}

    ticks = {}
    for run in every.values():
        if run["scheduledFor"]:
            ticks.setdefault(run["config"]["label"], []).append(run["scheduledFor"])
            assert run["triggeredBy"].endswith(f"@{run['scheduledFor'][:19]}Z")
    assert {policy: len(found) for policy, found in ticks.items()} == {"latest": 1, "all": 2}
    assert len(set(ticks["all"])) == 2
    assert ticks["latest"] == [max(ticks["all"])]
    missed = {s["name"]: s["missedCount"] for s in served.deployment.emboflow("schedule", "list")}
    assert missed == {"nightly-skip": 2, "nightly-latest": 1, "nightly-all": 0, "intake": 0}


def test_an_asset_that_came_while_the_daemon_was_down_starts_one_run(served):
    [run] = serving.until(lambda: runs(served, "sensor:intake") or None, 240)
    new = served.deployment.emboflow("asset", "show", "new")

    assert (run["status"], run["assetIds"]) == ("success", [new["_id"]])


def test_the_launchpad_makes_one_document_with_what_was_asked(served):
    params = {
        "selector": {
            "repositoryLocationName": "emboflow",
            "repositoryName": "__repository__",
            "jobName": "acme__pick_place__triage",
        },
        "runConfigData": json.dumps(
            {
                "resources": {
                    "emboflow_run": {
                        "config": {"assets": ["new"], "version": 1, "cachePolicy": "off", "label": "by hand"}
                    }
                }
            }
        ),
        "mode": "default",
    }
    answer = served.server.ask(LAUNCH, {"params": params})["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    assert served.ended(answer["run"]["runId"]) == "SUCCESS"

    [run] = of_dagster(served, answer["run"]["runId"])
    new = served.deployment.emboflow("asset", "show", "new")
    assert (run["triggeredBy"], run["assetIds"]) == ("dagster-ui", [new["_id"]])
    assert run["config"] == {"cachePolicy": "off", "label": "by hand"}
    assert tasks(run) == {"take": "success", "count": "success", "last": "success"}


def test_one_downstream_asset_is_one_document_with_one_task(served):
    dagster_run_id = served.materialize([*ARTIFACTS, "last"])

    assert served.ended(dagster_run_id) == "SUCCESS"
    [run] = of_dagster(served, dagster_run_id)
    assert (run["triggeredBy"], run["selectedNodeIds"]) == ("dagster-ui", ["last"])
    assert tasks(run) == {"last": "success"}


def test_a_backfill_makes_one_document_for_each_of_its_runs(served):
    params = {
        "assetSelection": [{"path": [*ARTIFACTS, node]} for node in ("take", "count", "last")],
        "allPartitions": True,
    }
    answer = served.server.ask(BACKFILL, {"params": params})["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer

    def over():
        found = served.server.ask(BACKFILL_RUNS, {"id": answer["backfillId"]})["partitionBackfillOrError"]
        return found["runs"] if found["status"].startswith("COMPLETED") else None

    [dagster_run] = serving.until(over, 240)

    assert dagster_run["status"] == "SUCCESS"
    [run] = of_dagster(served, dagster_run["runId"])
    assert run["triggeredBy"] == "dagster-ui"
    assert tasks(run) == {"take": "success", "count": "success", "last": "success"}


def test_a_schedule_is_seen_in_dagster_as_soon_as_it_is_added(served):
    served.deployment.emboflow(
        "schedule", "add", "triage", "--name", "weekly", "--cron", "0 4 * * 1", "--timezone", "Asia/Tokyo"
    )

    shown = {row["name"]: row for row in served.server.ask(SCHEDULES)["schedulesOrError"]["results"]}
    served.deployment.emboflow("schedule", "remove", "weekly")
    after = {row["name"] for row in served.server.ask(SCHEDULES)["schedulesOrError"]["results"]}

    name = "acme__pick_place__weekly__added_schedule"
    assert (shown[name]["cronSchedule"], shown[name]["executionTimezone"]) == ("0 4 * * 1", "Asia/Tokyo")
    assert shown[name]["scheduleState"]["status"] == "RUNNING"
    assert name not in after
    assert served.deployment.emboflow("verify")["ok"]
