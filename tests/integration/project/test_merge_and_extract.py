"""The nodes `merge` and `extract-archive`, in runs."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # noqa: TID253 - the recordings are written here
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import derived

Register = Callable[..., None]


@pytest.fixture
def register(ef: EmboFlow, tmp_path: Path) -> Register:
    """Registers demonstrations with so many numbers of state, and pictures."""

    def make(name: str, *, width: int = 3, episodes: int = 2, offset: float = 0.0) -> None:
        path = tmp_path / f"{name}.hdf5"
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps({"env_name": name, "env_kwargs": {"control_freq": 20}})
            for number in range(episodes):
                demo = data.create_group(f"demo_{number}")
                rows = 6 + number
                demo["obs/state"] = np.arange(rows * width, dtype=float).reshape(rows, width) + offset
                demo["obs/top_image"] = np.full((rows, 16, 16, 3), 40 * number, np.uint8)
                demo["actions"] = np.linspace(0, 1, rows * 2).reshape(rows, 2)
        ef.assets.register(path, name=name, type="hdf5_dataset")

    return make


def executed(ef: EmboFlow, workflow: dict[str, Any], assets: Any) -> dict[str, RunTask]:
    ef.workflows.publish(workflow)
    run = ef.workflows.run(workflow["workflow"], assets=assets)
    ef.runs.work(run.id)
    return {task.node_id: task for task in ef.runs.tasks(ef.runs.get(run.id))}


def packages(ef: EmboFlow, task: RunTask, folder: Path) -> list[Any]:
    """Every package that a task left, opened: each file is checked against its hash."""
    assert task.status == "success", task.error_message
    found = []
    for artifact_id in task.output_artifact_ids:
        artifact: Artifact = ef.artifacts.get(artifact_id)
        ef.artifacts.fetch(artifact, folder / artifact_id)
        found.append(open_canonical(folder / artifact_id))
    return found


def merging() -> dict[str, Any]:
    """Three sources, each normalised by itself, and every policy of `merge` over them."""
    nodes: list[dict[str, Any]] = []
    for name in "abc":
        nodes += [
            {"id": name, "type": "source"},
            {"id": f"look-{name}", "type": "probe", "after": [name]},
            {"id": f"norm-{name}", "type": "normalize", "after": [f"look-{name}"]},
        ]
    norms = [f"norm-{name}" for name in "abc"]
    nodes += [
        {"id": policy, "type": "merge", "after": norms, "config": {"mismatch": policy}}
        for policy in ("separate-versions", "fail", "drop")
    ]
    nodes += [
        {"id": "at-once", "type": "normalize", "after": ["look-a", "look-b"]},
        {"id": "out", "type": "publish-dataset", "after": ["drop"], "config": {"dataset": "d"}},
    ]
    return {"workflow": "merging", "nodes": nodes}


def test_packages_of_one_schema_become_one(ef: EmboFlow, register: Register, tmp_path: Path):
    register("a")
    register("b", offset=100.0, episodes=1)
    register("c", width=5)
    tasks = executed(ef, merging(), {name: [name] for name in "abc"})
    merged, other = packages(ef, tasks["separate-versions"], tmp_path / "merged")
    [at_once] = packages(ef, tasks["at-once"], tmp_path / "at-once")
    # The same as both at once would have given: frames, episodes, statistics and pictures.
    assert merged.frames().equals(at_once.frames())
    assert list(merged.episodes()) == list(at_once.episodes())
    ours, theirs = merged.manifest.document, at_once.manifest.document
    for key in ("episodes", "frames", "fps", "features", "sourceAssets", "tasks", "robotType", "skipped"):
        assert ours[key] == theirs[key], key
    for name, stats in theirs["stats"].items():
        for kind, values in stats.items():
            np.testing.assert_allclose(ours["stats"][name][kind], values, err_msg=f"{name} {kind}")
    videos = {file["path"]: file["sha256"] for file in ours["files"] if file["path"].startswith("videos/")}
    assert len(videos) == 3
    assert videos == {f["path"]: f["sha256"] for f in theirs["files"] if f["path"].startswith("videos/")}
    assert {file["path"] for file in ours["files"]} == {file["path"] for file in theirs["files"]}
    # What has other features stays apart, and costs no byte: its payloads are those of its own node.
    assert (other.manifest.episodes, other.features) == (2, ["observation.state", "action"])
    [alone] = packages(ef, tasks["norm-c"], tmp_path / "alone")
    assert other.manifest.document == alone.manifest.document
    summaries = [ef.artifacts.get(a).summary for a in tasks["separate-versions"].output_artifact_ids]
    assert [(s or {})["episodes"] for s in summaries] == [3, 2]
    assert len(tasks["separate-versions"].asset_ids) == 3
    # Or it fails, or is left out; what is left is published as any package.
    assert tasks["fail"].status == "failed"
    said = "2 feature schemas among 3 packages: observation.state [3] and [5]"
    assert said in (tasks["fail"].error_message or "")
    [kept] = packages(ef, tasks["drop"], tmp_path / "kept")
    assert kept.manifest.document == merged.manifest.document
    assert tasks["drop"].asset_ids == tasks["at-once"].asset_ids
    assert tasks["out"].status == "success", tasks["out"].error_message
    assert ef.datasets.version("d").stats["episodes"] == 3
    assert ef.verify().ok


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


UNPACKING: dict[str, Any] = {
    "workflow": "unpacking",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "unpack", "type": "extract-archive", "after": ["src"]},
    ],
}


def test_archives_become_recordings(ef: EmboFlow, tmp_path: Path):
    urdf = b"<robot name='arm'><link name='base'/></robot>"
    ef.assets.register(
        zipped(tmp_path / "arm.zip", {"arm/arm.urdf": urdf, "arm/meshes/base.stl": b"solid x"}),
        name="arm",
        type="archive",
    )
    rows = b"t,x\n0,1\n"
    with tarfile.open(tmp_path / "log.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("night/log.csv")
        info.size = len(rows)
        archive.addfile(info, io.BytesIO(rows))
    ef.assets.register(tmp_path / "log.tar.gz", name="log", type="archive")
    evil = {"ok.txt": b"fine", "../../evil": b"x"}
    ef.assets.register(zipped(tmp_path / "evil.zip", evil), name="evil", type="archive")
    tasks = executed(ef, UNPACKING, ["arm", "evil", "log"])
    task = tasks["unpack"]
    assert task.status == "success", task.error_message
    by_id = {asset.id: asset.display_name for asset in ef.assets.list()}
    assert [by_id[asset_id] for asset_id in task.asset_ids] == ["arm", "log"]
    [artifact_id] = task.output_artifact_ids
    ef.artifacts.fetch(ef.artifacts.get(artifact_id), tmp_path / "made")
    arm, log = derived.read(tmp_path / "made")
    assert (arm.name, arm.format, Path(arm.path).name) == ("arm", "urdf", "arm")
    assert (Path(arm.path) / "arm.urdf").read_bytes() == urdf
    # What stands alone in the archive is the recording.
    assert (log.format, Path(log.path).name, Path(log.path).read_bytes()) == ("csv", "log.csv", rows)
    assert arm.sha256 == ef.assets.get("arm").storage_ref.sha256
    assert [row["name"] for row in (task.last_result_preview or {})["rows"] if "refused" in row] == ["evil"]
    assert "archive_path_traversal" in " ".join(task.log_lines)
    assert not list(tmp_path.rglob("ok.txt"))


def test_no_archive_left_fails(ef: EmboFlow, tmp_path: Path):
    ef.assets.register(zipped(tmp_path / "evil.zip", {"../evil": b"x"}), name="evil", type="archive")
    task = executed(ef, UNPACKING, ["evil"])["unpack"]
    assert task.status == "failed"
    assert "1 archives were refused: evil: evil.zip: ../evil" in (task.error_message or "")
