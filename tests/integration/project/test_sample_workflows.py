"""The six graphs of the samples, as they are: published and run, and held against what they expect.

Where an expectation is not what the samples give, :data:`CORRECTED` says what it is and why.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import validate
from emboflow_dagster.runtime.gates import waits_for
from emboflow_dagster.runtime.registry import node_types
from tests.integration.containers.conftest import docker_client, docker_host
from tests.sample_files import SAMPLES, needed

__all__ = ["docker_client", "docker_host"]
FOLDER = SAMPLES / "workflows"
FILES = sorted(path.name for path in FOLDER.glob("*.json")) if FOLDER.is_dir() else []
TYPES = {"mcap": "rosbag", "rosbag1": "rosbag", "rosbag2": "rosbag", "hdf5": "hdf5_dataset"} | {
    "standard_dataset": "standard_dataset",
    "video": "video_collection",
    "archive": "archive",
    "folder": "folder",
}
#: File to what of its ``expectedRun`` cannot hold.
CORRECTED: dict[str, str] = {
    "06-archive-container-retry.json": (
        "binds archive/urdf_parser_sdist_targz, of which the samples hold no bytes, manifest or truth: "
        "a tar.gz made of folder/so101_urdf stands in for it"
    ),
}
pytestmark = pytest.mark.samples


@pytest.fixture(autouse=True)
def _samples_are_there() -> None:
    needed(FILES)


def graph(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


def require(raw: dict[str, Any]) -> None:
    """Skip where this installation has not all node types or executors yet; anything else is a failure."""
    problems = validate.validate(raw, registry=node_types())[1]
    absent = [p for p in problems if p.kind in (ErrorKind.NODE_TYPE, ErrorKind.NODE_EXECUTOR)]
    if absent:
        pytest.skip(f"not in this installation: {absent[0].path}: {absent[0].message[:80]}")
    assert problems == []


def up_to(raw: dict[str, Any], last: set[str]) -> dict[str, Any]:
    """The graph without the nodes after ``last``, everything else as it is."""
    keep = set(last)
    edges = raw["logicGraph"]["edges"]
    for _ in edges:
        keep |= {edge["source"] for edge in edges if edge["target"] in keep}

    def nodes(graph: dict[str, Any]) -> list[dict[str, Any]]:
        return [node for node in graph["nodes"] if node["nodeId"] in keep]

    logic = {
        "nodes": nodes(raw["logicGraph"]),
        "edges": [edge for edge in edges if {edge["source"], edge["target"]} <= keep],
    }
    return {**raw, "logicGraph": logic, "runtimeGraph": {"nodes": nodes(raw["runtimeGraph"])}}


def register(ef: EmboFlow, raw: dict[str, Any], tmp_path: Path) -> None:
    """Every asset that the file binds, under the name that it has there."""
    for name in dict.fromkeys(name for names in raw["assetBindings"].values() for name in names):
        kind = name.partition("/")[0]
        place = SAMPLES / name
        if not place.exists():
            assert name == "archive/urdf_parser_sdist_targz"
            place = tmp_path / "urdf_parser.tar.gz"
            with tarfile.open(place, "w:gz") as archive:
                archive.add(SAMPLES / "folder" / "so101_urdf", "urdf_parser")
        elif kind in ("archive", "video", "rosbag1") and len(files := list(place.iterdir())) == 1:
            place = files[0]
        ef.assets.register(place, name=name, type=TYPES[kind])


def ran(ef: EmboFlow, raw: dict[str, Any], tmp_path: Path) -> tuple[WorkflowRun, dict[str, RunTask]]:
    """Registered, published and run, with no asset named: the file binds them."""
    register(ef, raw, tmp_path)
    published = ef.workflows.publish(raw)
    assert published.definition.slug == raw["slug"]
    run = ef.workflows.run(raw["slug"])
    ef.runs.work(run.id)
    ended = ef.runs.get(run.id)
    return ended, {task.node_id: task for task in ef.runs.tasks(ended)}


def compare(ef: EmboFlow, raw: dict[str, Any], run: WorkflowRun, tasks: dict[str, RunTask]) -> None:
    """Status, effective assets and counts, as ``expectedRun`` has them; ids here are names there."""
    expected = raw["expectedRun"]
    names = {asset.id: asset.display_name for asset in ef.assets.list(limit=1_000)}
    bound = {node: set(listed) for node, listed in raw["assetBindings"].items()}
    assert {names[a] for a in run.asset_ids} == set().union(*bound.values())
    for node, listed in bound.items():
        assert {names[a] for a in tasks[node].asset_ids} == listed, node
    for node, listed in expected.get("effectiveAssetIds", {}).items():
        if node in tasks:
            # Expectations are sets: two sources may say other orders, and a node has that of its run.
            assert sorted(names[a] for a in tasks[node].asset_ids) == sorted(listed), node
    failed = {node: task.error_message for node, task in tasks.items() if task.status == "failed"}
    if expected["status"] == "success":
        assert run.status == "success", failed
        # Counted are nodes that say what they leave; what others leave for the next node is an artifact too.
        said = [n["nodeId"] for n in raw["runtimeGraph"]["nodes"] if "artifactType" in n]
        left = sum(len(tasks[node].output_artifact_ids) for node in said if node in tasks)
        assert left == expected.get("artifacts", left)


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_understood(name: str):
    """Whatever this installation lacks, nothing of the file's own shape is a problem."""
    shapes = {"graph-field", "graph-shape", "node-id", "edge-shape", "edge-dangling", "node-duplicate"}
    problems = validate.validate(graph(name), registry=node_types())[1]
    assert [p for p in problems if p.kind.value in shapes] == []


def test_01_triage(ef: EmboFlow, tmp_path: Path):
    raw = graph("01-bag-intake-triage.json")
    require(raw)
    run, tasks = ran(ef, raw, tmp_path)
    compare(ef, raw, run, tasks)
    rejected = {
        row["name"]: row["reasons"][0].removeprefix("warnings: has ").split(", ")
        for row in (tasks["gate"].last_result_preview or {})["rejected"]
    }
    assert rejected == raw["expectedRun"]["rejected"]
    assert run.summary.artifact_count == raw["expectedRun"]["artifacts"]


def test_04_sets(ef: EmboFlow, tmp_path: Path):
    """Up to the last node whose effective assets are expected; what follows needs more readers."""
    raw = up_to(graph("04-set-narrowing-merge.json"), {"all"})
    run, tasks = ran(ef, raw, tmp_path)
    compare(ef, raw, run, tasks)
    assert len(raw["logicGraph"]["nodes"]) == 7


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("02-", "04-"))])
def test_the_whole_graph(ef: EmboFlow, tmp_path: Path, name: str):
    raw = graph(name)
    require(raw)
    run, tasks = ran(ef, raw, tmp_path)
    compare(ef, raw, run, tasks)
    made = tasks["normalize"].last_result_preview or {}
    expected = raw["expectedRun"].get("dataset", {})
    assert {key: made[key] for key in expected} == expected
    delivered = (tasks["delivery"].last_result_preview or {})["packages"]
    assert sum(package["frames"] for package in delivered) == made["frames"]
    if "g1EpisodesKept" in raw["expectedRun"]:
        # One package for each set of features and rate; of G1's 100 episodes two have their video.
        kept = raw["expectedRun"]["g1EpisodesKept"]
        assert [package["episodes"] for package in delivered] == [kept, 5, 2, 1]


@pytest.mark.usefixtures("docker_client")
def test_03_repair(ef: EmboFlow, tmp_path: Path):
    raw = graph("03-lerobot-repair.json")
    require(raw)
    run, tasks = ran(ef, raw, tmp_path)
    compare(ef, raw, run, tasks)
    expected = raw["expectedRun"]
    package, checks = (tasks[node].last_result_preview or {} for node in ("normalize", "qc"))
    assert {key: package[key] for key in ("episodes", "frames", "fps")} == {
        key: expected["dataset"][key] for key in ("episodes", "frames", "fps")
    }
    assert (tasks["repair"].last_result_preview or {})["videos"] == expected["dataset"]["videos"]
    assert checks["qualityWarnings"] == expected["qualityWarnings"]
    # The container read what was delivered, not what was registered.
    assert (tasks["verify"].last_result_preview or {})["value"] == {
        "datasets": [{"episodes": 5, "frames": 2096, "problems": []}]
    }


def test_05_waits_for_people_and_delivers_what_they_said(ef: EmboFlow, tmp_path: Path):
    raw = graph("05-resample-annotate.json")
    require(raw)
    run, tasks = ran(ef, raw, tmp_path)
    compare(ef, raw, run, tasks)
    first, second = raw["expectedRun"]["status"].split(", then ")
    assert (first, run.status, tasks["label"].status) == ("waiting-for-annotation", "running", "queued")
    asked = waits_for(tasks["label"])
    assert asked is not None
    segment = {"from": 0, "to": 200, "label": "turn left"}
    ef.annotations.add(asked, segment)
    ef.annotations.submit(asked)
    ef.annotations.approve(asked, "seen")

    ended = ef.runs.work(run.id)

    tasks = {task.node_id: task for task in ef.runs.tasks(ended)}
    assert ended.status == second, tasks["delivery"].error_message
    (artifact,) = ef.artifacts.of_task(tasks["delivery"])
    folder = ef.artifacts.fetch(artifact, tmp_path / "delivery")
    (row,) = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    assert (row["payload"], row["annotationTaskId"], row["labelType"]) == (segment, asked, "segment")
    (told,) = (folder / "annotation_tasks.jsonl").read_text().splitlines()
    assert json.loads(told)["comment"] == "seen"
    assert (artifact.summary or {})["frames"] == raw["expectedRun"]["frames"]


@pytest.mark.usefixtures("docker_client")
def test_06_a_failed_branch(ef: EmboFlow, tmp_path: Path):
    raw = graph("06-archive-container-retry.json")
    require(raw)
    run, tasks = ran(ef, raw, tmp_path)
    compare(ef, raw, run, tasks)
    words = {"cancelled-or-blocked": {"cancelled", "pending"}}
    for node, status in raw["expectedRun"]["tasks"].items():
        assert tasks[node].status in words.get(status, {status}), (node, tasks[node].error_message)
    assert run.status == raw["expectedRun"]["status"]
    again = raw["expectedRun"]["retryTask"]
    reopened = ef.runs.retry_tasks(run.id, [again["nodeId"]])
    attempts = {task.node_id: task.attempt for task in ef.runs.tasks(reopened)}
    assert attempts == {node: again["attempt"] if node == again["nodeId"] else 1 for node in attempts}


def test_06_archives_are_unpacked(ef: EmboFlow, tmp_path: Path):
    raw = up_to(graph("06-archive-container-retry.json"), {"extract"})
    raw["assetBindings"] = {"zips": raw["assetBindings"]["zips"]}
    _, tasks = ran(ef, raw, tmp_path)
    assert tasks["extract"].status == "success", tasks["extract"].error_message
    assert len(tasks["extract"].asset_ids) == 2
