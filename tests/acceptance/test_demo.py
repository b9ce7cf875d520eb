"""`emboflow demo` from outside: a fresh home, the same home again, foreign folders, a killed database."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pymongo import MongoClient

from emboflow_dagster.mongo import embedded

EMBOFLOW = Path(sys.executable).with_name("emboflow")
SAMPLES = Path(
    os.environ.get("EMBOFLOW_SAMPLES") or Path(__file__).resolve().parents[3] / "shared" / "samples"
)


def environment(home, **more):
    return {**os.environ, "EMBOFLOW_HOME": str(home), "PYTHONWARNINGS": "error", **more}


def demo(home, *arguments, check=True):
    done = subprocess.run(
        [EMBOFLOW, "demo", "--json", *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo-home")
    yield folder
    embedded.stop(folder)


@pytest.fixture(scope="module")
def first(home):
    return demo(home)


@pytest.fixture(scope="module")
def database(home, first):
    with MongoClient(embedded.ensure(home).uri, tz_aware=True) as client:
        yield client["emboflow"]


@pytest.fixture(scope="module")
def samples():
    if not (SAMPLES / "EXPECT.json").is_file():
        if os.environ.get("CI"):
            pytest.fail(f"EMBOFLOW_SAMPLES: no EXPECT.json in {SAMPLES}")
        pytest.skip("EMBOFLOW_SAMPLES names no folder with samples")
    return SAMPLES


def test_a_fresh_home_ends_with_a_verified_dataset_version(first):
    assert first["ok"]
    assert first["verify"]["ok"]
    assert first["verify"]["problems"] == []
    assert [row["step"] for row in first["steps"]] == (
        "open make register probe compare publish request work verify".split()
    )
    assert {task["status"] for task in first["tasks"]} == {"success"}
    assert len(first["tasks"]) == 9
    assert first["run"]["dagsterRunIds"]
    assert first["dataset"]["versionTag"] == "v1"
    assert {k: first["dataset"]["stats"][k] for k in ("episodes", "frames")} == {"episodes": 6, "frames": 416}
    assert [row["name"] for row in first["leftOut"]] == ["cut-short.bag"]
    assert first["leftOut"][0]["reason"].startswith("truncated: ")


def test_plain_pymongo_finds_what_it_says(first, database):
    version = database["dataset_versions"].find_one({"_id": first["dataset"]["_id"]})
    dataset = database["datasets"].find_one({"_id": version["datasetId"]})
    run = database["workflow_runs"].find_one({"_id": first["run"]["_id"]})
    tasks = list(database["run_tasks"].find({"workflowRunId": run["_id"]}))

    assert dataset["name"] == "two-joint-arm"
    assert dataset["latestVersionId"] == version["_id"]
    assert run["status"] == "success"
    assert sorted(t["_id"] for t in tasks) == sorted(t["_id"] for t in first["tasks"])
    assert run["summary"]["artifactCount"] == sum(len(t["outputArtifactIds"]) for t in tasks)
    for artifact in first["artifacts"]:
        assert database["artifacts"].find_one({"_id": artifact["_id"]})["producerType"] == "run_task"
    assert database["assets"].count_documents({"status": "ready"}) >= 5


def test_people_see_steps_times_ids_and_the_next_commands_and_again_is_one_more_run(home, first, database):
    counted = ("assets", "workflow_versions", "dataset_versions", "workflow_runs")
    before = {name: database[name].count_documents({}) for name in counted}
    said = subprocess.run(
        [EMBOFLOW, "demo"], env=environment(home), capture_output=True, text=True, timeout=280, check=True
    ).stdout
    lines = said.splitlines()

    assert {name: database[name].count_documents({}) for name in counted} == {
        **before,
        "workflow_runs": before["workflow_runs"] + 1,
    }
    assert [line.split()[1] for line in lines if line[:2].strip().isdigit()] == (
        "open make register probe compare publish request work verify".split()
    )
    assert "dataset two-joint-arm v1 (unchanged): 6 episodes, 416 frames" in said
    assert first["dataset"]["_id"] in said
    assert len(lines[lines.index("Next:") + 1 :]) == 3
    assert f"run show {said.split('run       ')[1].split()[0]}" in lines[-2]


def test_fresh_is_a_new_project_beside_what_is_there(home, first):
    again = demo(home, "--fresh")

    assert not any(row["unchanged"] for row in again["recordings"])
    assert again["dataset"]["projectId"] != first["dataset"]["projectId"]
    assert again["dataset"]["versionTag"] == "v1"


@pytest.mark.samples
@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "episodes", "frames"), [("hdf5", 4, 1796), ("rosbag1", 2, None), ("rosbag2", 1, None)]
)
def test_a_folder_of_samples_gives_what_their_truth_says(home, samples, folder, episodes, frames):
    expected = {
        name.removeprefix(f"{folder}/"): row
        for name, row in json.loads((samples / "EXPECT.json").read_text()).items()
        if name.startswith(f"{folder}/")
    }
    result = demo(home, "--input", str(samples / folder), "--project", f"samples-{folder}")
    found = {row["name"].partition("/")[0]: row for row in result["recordings"]}

    assert {name: row["format"] for name, row in found.items()} == {
        name: row["format"] for name, row in expected.items()
    }
    for name, row in expected.items():
        assert set(row["must_warn"]) <= set(found[name]["warnings"])
    assert result["dataset"]["stats"]["episodes"] == episodes
    if frames is not None:
        assert result["dataset"]["stats"]["frames"] == frames
    members = result["dataset"]["summary"]["sourceAssetCount"]
    assert len(result["leftOut"]) == len(expected) - members
    assert all(row["reason"] for row in result["leftOut"])
    assert result["verify"]["ok"]


def test_a_folder_without_episodes_gives_a_run_without_a_dataset(home, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "joints.csv").write_text("t,q\n0,1\n1,2\n")
    (folder / "empty.bag").write_bytes(b"")
    result = demo(home, "--input", str(folder), "--project", "tables")

    assert result["dataset"] is None
    assert {task["nodeId"] for task in result["tasks"]} == {
        *("recordings", "look", "sound", "set-aside", "reasons", "pictures")
    }
    assert result["run"]["status"] == "success"
    assert sorted(row["name"] for row in result["leftOut"]) == ["empty.bag", "joints.csv"]


def test_no_such_folder_is_one_line(home):
    done = demo(home, "--input", str(home / "absent"), check=False)

    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error[invalid-input]: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_database_killed_in_the_middle_loses_nothing(tmp_path):
    """Killed while a step is going on, and once more; the demo goes on by itself, so does the next one."""
    seen = tmp_path / "out.txt"
    try:
        with seen.open("w") as out:
            process = subprocess.Popen([EMBOFLOW, "demo"], env=environment(tmp_path), stdout=out, stderr=out)
            try:
                # What is said before the step: probing, then the run.
                for waited_for in (" 3  register", " 7  request"):
                    kill_the_database(tmp_path, seen, waited_for)
                assert process.wait(200) == 0, seen.read_text()
            finally:
                process.kill()
        with MongoClient(embedded.ensure(tmp_path).uri) as client:
            database = client["emboflow"]
            before = {row["_id"] for row in database["assets"].find()}
            dataset = database["dataset_versions"].find_one()
            runs = {row["_id"] for row in database["workflow_runs"].find()}
        again = demo(tmp_path)

        assert len(before) == 5
        assert {row["assetId"] for row in again["recordings"]} == before
        assert all(row["unchanged"] for row in again["recordings"])
        assert again["workflow"]["unchanged"]
        assert again["workflow"]["versionNumber"] == 1
        assert again["run"]["_id"] not in runs
        assert again["dataset"]["unchanged"]
        assert again["dataset"]["_id"] == dataset["_id"]
        assert again["verify"]["ok"]
        assert again["dataset"]["stats"]["episodes"] == 6
    finally:
        embedded.stop(tmp_path)


def kill_the_database(home, seen, waited_for):
    deadline = time.monotonic() + 120
    while waited_for not in seen.read_text():
        assert time.monotonic() < deadline, seen.read_text()
        time.sleep(0.02)
    time.sleep(0.5)
    server = embedded.find(home)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
