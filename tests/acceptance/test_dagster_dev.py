"""The whole of it with real processes: database, webserver, code server, daemon, run workers."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from emboflow_dagster.formats.demo_recordings.make import make_recordings
from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration.webserver import Webserver
from tests.acceptance import served as serving

pytestmark = pytest.mark.slow

ROOT = ["acme", "pick-place"]
WORKFLOW = {
    "workflow": "arm",
    "nodes": [
        {"id": "take", "type": "source"},
        {"id": "look", "type": "probe", "after": ["take"]},
        {"id": "episodes", "type": "normalize", "after": ["look"], "config": {"fps": 20}},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "moves"}},
    ],
}
ASSETS = """
{
  assetNodes {
    assetKey { path }
    groupName
    isMaterializable
    kinds
    dependencyKeys { path }
    assetMaterializations(limit: 1) { runId tags { key value } }
  }
}
"""
STEPS = """
query Steps($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { tags { key value } stepStats { stepKey status startTime endTime } }
  }
}
"""
TERMINATE = "mutation Stop($id: String!) { terminateRun(runId: $id) { __typename } }"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One deployment for all tests here: a recording, a published workflow, and Dagster beside it."""
    deployment = serving.Deployment.in_folder(tmp_path_factory.mktemp("served"))
    recordings = make_recordings(deployment.folder / "recordings")
    hdf5 = next(recording for recording in recordings if recording.path.suffix == ".hdf5")
    deployment.emboflow(
        "asset", "register", str(hdf5.path), "--type", hdf5.asset_type, "--name", "teleoperated.hdf5"
    )
    file = deployment.folder / "arm.json"
    file.write_text(json.dumps(WORKFLOW))
    deployment.emboflow("workflow", "publish", str(file))
    file.write_text(json.dumps({"workflow": "quick", "nodes": [{"id": "take", "type": "source"}]}))
    deployment.emboflow("workflow", "publish", str(file))
    with serving.serve(deployment) as running:
        yield running


@pytest.fixture(scope="module")
def queued_run(served):
    """A run that the daemon has taken from the queue and carried to its end."""
    run = served.deployment.emboflow("workflow", "run", "arm", "--asset", "teleoperated.hdf5")
    assert run["status"] == "queued"
    served.deployment.emboflow("run", "wait", run["_id"], "--timeout", "240")
    return served.deployment.emboflow("run", "show", run["_id"])


def test_a_second_one_on_the_same_home_is_refused_and_leaves_the_first_alone(served):
    dagster_home = served.deployment.home / "dagster"

    second = subprocess.run(
        [serving.EMBOFLOW, "dev", "--port", str(serving.free_port())],
        env=served.deployment.environment,
        cwd=served.deployment.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert second.returncode == 1
    assert f"runs already for {dagster_home}: {served.server.url}\n" in second.stderr
    assert Webserver.known(dagster_home) == served.server
    assert served.server.is_up()


def path_of(node):
    return "/".join(node["assetKey"]["path"])


def test_a_queued_run_is_started_by_the_daemon_once(served, queued_run):
    assert queued_run["status"] == "success"
    assert {task["nodeId"]: task["status"] for task in queued_run["tasks"]} == dict.fromkeys(
        ("take", "look", "episodes", "publish"), "success"
    )
    assert len(queued_run["dagsterRunIds"]) == 1


def test_the_run_page_agrees_with_the_recorded_tasks(served, queued_run):
    [dagster_run_id] = queued_run["dagsterRunIds"]
    page = served.server.ask(STEPS, {"id": dagster_run_id})["runOrError"]
    steps = {step["stepKey"]: step for step in page["stepStats"]}

    assert {tag["key"]: tag["value"] for tag in page["tags"]}["emboflow/run_id"] == queued_run["_id"]
    for task in queued_run["tasks"]:
        step = steps[f"acme__pick_place__arm__{task['nodeId']}"]
        started = datetime.fromisoformat(task["startedAt"]).timestamp()
        finished = datetime.fromisoformat(task["finishedAt"]).timestamp()
        assert step["status"] == "SUCCESS"
        assert step["startTime"] - 0.1 <= started <= finished <= step["endTime"] + 0.1


def test_lineage_leads_from_the_recording_to_the_dataset(served, queued_run):
    nodes = {path_of(node): node for node in served.server.ask(ASSETS)["assetNodes"]}
    base = "/".join(ROOT)

    def parents(path):
        return ["/".join(key["path"]) for key in nodes[path]["dependencyKeys"]]

    assert parents(f"{base}/datasets/moves") == [f"{base}/artifacts/arm/episodes"]
    assert parents(f"{base}/artifacts/arm/episodes") == [f"{base}/artifacts/arm/look"]
    assert parents(f"{base}/artifacts/arm/look") == [f"{base}/artifacts/arm/take"]
    assert parents(f"{base}/artifacts/arm/take") == [f"{base}/raw/teleoperated-hdf5"]
    assert not nodes[f"{base}/raw/teleoperated-hdf5"]["isMaterializable"]
    assert nodes[f"{base}/datasets/moves"]["isMaterializable"]
    assert "dataset" in nodes[f"{base}/datasets/moves"]["kinds"]


def test_the_data_version_of_the_dataset_is_its_manifests_sha256(served, queued_run):
    [version] = served.deployment.emboflow("dataset", "versions", "moves")
    nodes = {path_of(node): node for node in served.server.ask(ASSETS)["assetNodes"]}

    [event] = nodes["/".join([*ROOT, "datasets", "moves"])]["assetMaterializations"]

    tags = {tag["key"]: tag["value"] for tag in event["tags"]}
    assert f"sha256:{tags['dagster/data_version']}" == version["manifestRef"]["checksum"]
    assert event["runId"] == queued_run["dagsterRunIds"][0]


def test_a_registered_recording_has_an_event_that_no_run_made(served):
    key = "/".join([*ROOT, "raw", "teleoperated-hdf5"])
    [asset] = served.deployment.emboflow("asset", "list")

    def told():
        nodes = {path_of(node): node for node in served.server.ask(ASSETS)["assetNodes"]}
        return nodes[key]["assetMaterializations"] or None

    [event] = serving.until(told, 60)

    assert event["runId"] == ""
    assert {"key": "dagster/data_version", "value": asset["storageRef"]["checksum"][7:]} in event["tags"]


def test_materialize_without_a_document_makes_one_with_its_tasks(served, queued_run):
    dagster_run_id = served.materialize(
        [*ROOT, "artifacts", "arm", "take"], [*ROOT, "artifacts", "arm", "look"]
    )

    assert served.ended(dagster_run_id) == "SUCCESS"
    mine = [
        run for run in served.deployment.emboflow("run", "list") if run["dagsterRunIds"] == [dagster_run_id]
    ]
    assert [(run["status"], run["triggeredBy"]) for run in mine] == [("success", "dagster-ui")]
    shown = served.deployment.emboflow("run", "show", mine[0]["_id"])
    assert [(task["nodeId"], task["status"]) for task in shown["tasks"]] == [
        ("take", "success"),
        ("look", "success"),
    ]


def test_a_workflow_is_launchable_as_soon_as_it_is_published(served):
    file = served.deployment.folder / "fresh.json"
    file.write_text(json.dumps({"workflow": "fresh", "nodes": [{"id": "take", "type": "source"}]}))

    served.deployment.emboflow("workflow", "publish", str(file))

    dagster_run_id = served.materialize([*ROOT, "artifacts", "fresh", "take"])
    assert served.ended(dagster_run_id) == "SUCCESS"


def test_a_terminated_run_leaves_nothing_running(served):
    hook = "import time\ndef run(ctx, inputs):\n    time.sleep(300)\n"
    slow = {"language": "python", "entrypoint": "run", "source": hook}
    nodes = [
        {"id": "take", "type": "source"},
        {"id": "wait", "type": "python", "after": ["take"], "codeHook": slow},
    ]
    file = served.deployment.folder / "slow.json"
    file.write_text(json.dumps({"workflow": "slow", "nodes": nodes}))
    served.deployment.emboflow("workflow", "publish", str(file))
    run = served.deployment.emboflow("workflow", "run", "slow", "--asset", "teleoperated.hdf5")

    def waiting(status):
        shown = served.deployment.emboflow("run", "show", run["_id"])
        return shown if shown["tasks"][1]["status"] in status else None

    shown = serving.until(lambda: waiting({"running"}), 120)
    [dagster_run_id] = shown["dagsterRunIds"]
    served.server.ask(TERMINATE, {"id": dagster_run_id})

    ended = serving.until(lambda: waiting({"failed", "cancelled"}), 60)
    assert served.ended(dagster_run_id) == "CANCELED"
    assert ended["status"] in {"failed", "cancelled"}
    assert ended["tasks"][1]["finishedAt"] is not None


def test_a_code_server_that_was_killed_comes_back_by_itself(served):
    def holding():
        below = serving.descendants(served.process.pid)
        return [pid for pid in below if b"api\0grpc\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    # The outer one of the two Dagster starts again itself; those of earlier loads end when their runs have.
    before = holding()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    run = served.deployment.emboflow("workflow", "run", "quick", "--asset", "teleoperated.hdf5")

    served.deployment.emboflow("run", "wait", run["_id"], "--timeout", "120")

    assert served.deployment.emboflow("run", "show", run["_id"])["status"] == "success"
    assert not set(before) & set(holding())


def test_a_taken_port_is_an_error_that_says_so(served):
    port = served.server.url.rpartition(":")[2]

    result = subprocess.run(
        [str(serving.EMBOFLOW), "dev", "--port", port],
        cwd=served.deployment.folder,
        env=served.deployment.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken" in result.stderr
    assert "Traceback" not in result.stderr


LOAD = """
import json, dagster as dg
with dg.DagsterInstance.get():
    from emboflow_dagster.orchestration.code_location import defs
    loaded = defs()
    print(json.dumps(sorted(k.to_user_string() for k in loaded.resolve_all_asset_keys())))
"""


def test_the_location_loads_its_last_known_state_when_mongodb_is_down(served, queued_run):
    environment = {
        **served.deployment.environment,
        "EMBOFLOW_MONGO_URI": "mongodb://127.0.0.1:1/?replicaSet=none",
        "DAGSTER_HOME": str(served.deployment.home / "dagster"),
    }

    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        env=environment,
        cwd=served.deployment.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert "/".join([*ROOT, "datasets", "moves"]) in json.loads(result.stdout)
    [line] = result.stderr.strip().splitlines()
    assert "MongoDB is not reachable, using the last known state" in line
    assert "127.0.0.1:1" in line


def test_it_ends_with_everything_that_it_started(tmp_path):
    deployment = serving.Deployment.in_folder(tmp_path)

    with serving.serve(deployment) as running:
        assert Webserver.known(deployment.home / "dagster") == running.server
        started = serving.descendants(running.process.pid)

        left = serving.stop(running.process)

        assert len(started) >= 3  # webserver, daemon, code server
        assert left == []
        assert running.process.returncode == 0
        assert Webserver.known(deployment.home / "dagster") is None
        assert not running.server.is_up()
        assert embedded.find(deployment.home) is None
