"""A version leaves the house whole: folders, archives, buckets, nodes; killed, damaged, at once."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import (
    ConflictError,
    EmboflowError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.formats.canonical.checking import check_folder
from emboflow_dagster.formats.exports.lerobot_check import check_lerobot
from emboflow_dagster.formats.exports.package import check_package
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.policy_events import policy_rows
from emboflow_dagster.project import dataset_export
from emboflow_dagster.project.dataset_changes import Trim
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_datasets import flow
from tests.integration.project.versions_made import damage, episode, files_below, made
from tests.integration.project.whole_project import write_demos


@pytest.fixture
def reach(ef: EmboFlow, tmp_path: Path) -> EmboFlow:
    made(ef, tmp_path / "made", "reach", [episode(seed, 10, rich=True) for seed in range(3)])
    return ef


def test_a_version_is_a_canonical_package_by_default(reach: EmboFlow, tmp_path: Path) -> None:
    told = reach.datasets.deliver("reach", str(tmp_path / "out"))

    document = check_package(tmp_path / "out")
    version = reach.datasets.version("reach")
    assert check_folder(tmp_path / "out", expect=version.manifest_ref.checksum).ok
    assert f"sha256:{told['versionSha256']}" == version.manifest_ref.checksum
    assert document["dataset"]["treeSha256"] == reach.datasets.manifest(version)["tree"]["sha256"]
    assert (document["dataset"]["name"], document["dataset"]["versionTag"]) == ("reach", "v1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "made", "out"]


def test_lerobot_in_an_archive_is_the_same_bytes_again(reach: EmboFlow, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        reach.datasets.deliver("reach", str(tmp_path / name), format="lerobot-v3.0")

    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert check_lerobot(tmp_path / "out" / "reach-v1") == []
    assert check_package(tmp_path / "out" / "reach-v1")["dataset"]["frames"] == 30


def test_an_export_takes_the_place_of_an_older_one_and_of_nothing_else(
    reach: EmboFlow, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    reach.datasets.deliver("reach", str(out))
    first = files_below(out)
    made(reach, tmp_path / "again", "reach", [episode(7, 4)])
    reach.datasets.deliver("reach", str(out), format="lerobot-v3.0")
    assert check_package(out)["dataset"]["versionTag"] == "v2"
    assert not set(first) & {"data"}

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for output in (tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
        with pytest.raises(InvalidInputError, match="nothing was written") as caught:
            reach.datasets.deliver("reach", str(output))
        assert caught.value.kind == ErrorKind.DUPLICATE
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_nothing_is_left_of_an_export_that_failed(reach: EmboFlow, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="format: found 'zarr'"):
        reach.datasets.deliver("reach", str(tmp_path / "out"), format="zarr")
    with pytest.raises(InvalidInputError, match="there is no feature"):
        reach.datasets.deliver(
            "reach", str(tmp_path / "out"), format="lerobot-v3.0", environment_state="nothing"
        )
    first = next(iter(reach.datasets.episodes("reach")))
    damage(reach, first["files"]["frames"]["sha256"])
    for output in ("out", "out.tar"):
        with pytest.raises(IntegrityError):
            reach.datasets.deliver("reach", str(tmp_path / output), format="lerobot-v3.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "made"]


def test_of_two_exports_to_one_place_the_second_is_told(reach: EmboFlow, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with (
        dataset_export._place(reach._opened, output, remote=False),
        pytest.raises(ConflictError, match="another export"),
    ):
        reach.datasets.deliver("reach", output)
    reach.datasets.deliver("reach", output)
    check_package(tmp_path / "out")


KILLED = """
import sys
from pathlib import Path
from emboflow_dagster.project import dataset_export
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

def stop(*_, **__):
    Path(sys.argv[1]).touch()
    import time
    time.sleep(600)

setattr(dataset_export, sys.argv[2], stop)
with EmboFlow.open(Settings.from_env()) as ef:
    ef.datasets.deliver("reach", sys.argv[3], format="lerobot-v3.0")
"""
ENDED = [("run_child", "out", signal.SIGKILL), ("write_archive", "out.tar", signal.SIGINT)]
EVERYWHERE = [
    *(("write_archive", "out.zip", signal.SIGKILL), ("_name", "out", signal.SIGKILL)),
    *(("run_child", "out", signal.SIGINT), ("_name", "out", signal.SIGINT)),
]


@pytest.mark.parametrize(
    ("at", "name", "how"), ENDED + EVERYWHERE * (os.environ.get("EMBOFLOW_FAULTS") == "all")
)
def test_an_export_that_was_ended_left_nothing_under_its_name_and_is_done_again(
    reach: EmboFlow, tmp_path: Path, at: str, name: str, how: signal.Signals
) -> None:
    output, reached = tmp_path / "there" / name, tmp_path / "reached"
    environment = {**os.environ, **reach.settings.environment()}
    command = [sys.executable, "-c", KILLED, str(reached), at, str(output)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reached.exists()
        process.send_signal(how)

    assert not output.exists()
    # A ctrl-c sweeps up what a kill leaves to the next export.
    left = [f".{name}.partial"] if how == signal.SIGKILL else []
    assert [path.name for path in output.parent.iterdir()] == left

    reach.datasets.deliver("reach", str(output), format="lerobot-v3.0")

    assert [path.name for path in output.parent.iterdir()] == [name]


def test_a_full_disk_is_said_and_holds_nothing_of_the_export(reach: EmboFlow, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=64k", "small", str(disk)]
    if os.geteuid() != 0 or subprocess.run(small, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        for room in ("16k", "64k"):  # it is full while the version is read, and while a layout is written
            subprocess.run([*small[:4], f"remount,size={room}", *small[5:]], check=True)
            with pytest.raises(EmboflowError, match="No space left") as caught:
                reach.datasets.deliver("reach", str(disk / "out"), format="lerobot-v3.0")
            assert caught.value.kind == ErrorKind.DISK_FULL
            assert list(disk.iterdir()) == []
        subprocess.run([*small[:4], "remount,size=8m", *small[5:]], check=True)
        reach.datasets.deliver("reach", str(disk / "out"), format="lerobot-v3.0")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def nodes(*more: dict) -> dict:
    return {"workflow": "delivering", "nodes": [*flow("lift")["nodes"], *more]}


def test_nodes_deliver_what_an_earlier_node_made(ef: EmboFlow, tmp_path: Path) -> None:
    """As the sample graph 02: quality between the package and its delivery, a training config behind."""
    ef.assets.register(write_demos(tmp_path / "d.hdf5", [4, 6]), type="hdf5_dataset", name="demos")
    ef.assets.probe("demos")
    ef.workflows.publish(
        nodes(
            {"id": "qc", "type": "quality-check", "after": ["episodes"]},
            {
                "id": "delivery",
                "type": "export-delivery",
                "after": ["qc"],
                "config": {"format": "lerobot-v3.0", "environmentState": "observation.state"},
            },
            {
                "id": "train",
                "type": "export-training-config",
                "after": ["delivery"],
                "config": {"policy": "act", "requires": ["observation.environment_state"], "steps": 3},
            },
            {
                "id": "reports",
                "type": "export-delivery",
                "after": ["train"],
                "config": {"format": "reports-only"},
            },
            {
                "id": "again",
                "type": "export-delivery",
                "after": ["publish"],
                "config": {"format": "canonical", "dataset": "lift", "version": "v1"},
            },
        )
    )

    run = ef.runs.work(ef.runs.request("delivering", assets=["demos"]).id)

    assert run.status == "success", [t.error_message for t in ef.tasks.list(run.id)]
    by_node = {task.node_id: task for task in ef.tasks.list(run.id)}
    got = {}
    for node in ("delivery", "train", "reports", "again"):
        (artifact,) = ef.artifacts.of_task(by_node[node])
        got[node] = ef.artifacts.fetch(artifact, tmp_path / "got" / node)
        assert check_package(got[node])["schema"] == "emboflow-delivery/1"
    assert check_lerobot(got["delivery"]) == []
    version = ef.datasets.version("lift")
    told = {node: check_package(got[node])["dataset"] for node in ("delivery", "train", "again")}
    assert {row["treeSha256"] for row in told.values()} == {ef.datasets.manifest(version)["tree"]["sha256"]}
    assert f"sha256:{told['again']['versionSha256']}" == version.manifest_ref.checksum
    assert (told["again"]["name"], told["again"]["versionTag"]) == ("lift", "v1")
    config = json.loads((got["train"] / "train_config.json").read_text())
    assert config["dataset"]["revision"] == told["delivery"]["versionSha256"]
    assert (got["reports"] / "qc" / "quality_report" / "report.json").is_file()
    packages = {a.id for a in ef.artifacts.of_task(by_node["episodes"])}
    (delivery,) = ef.artifacts.of_task(by_node["delivery"])
    assert packages < set(delivery.lineage.input_artifact_ids)  # beside the report of the node before it

    # From an episode to the policy: by its data, and by its id where it was changed since.
    (trained,) = ef.artifacts.of_task(by_node["train"])
    ef.datasets.edit("lift", [Trim(1, start=1)])
    for number, by in (("0", "content"), ("1", "id")):
        (row,) = ef.datasets.policies("lift", number)
        assert (row["artifactId"], row["policy"], row["episode"], row["by"]) == (
            trained.id,
            "act",
            int(number),
            by,
        )
    with pytest.raises(NotFoundError, match="no episode 2"):
        ef.datasets.policies("lift", "2")
    # All of a version at once, and the way back.
    (row,) = ef.datasets.policies("lift")
    assert (row["artifactId"], row["same"], row["changed"], row["listed"]) == (trained.id, 1, 1, 2)
    assert [one.id for one in ef.datasets.trained()] == [trained.id]
    before = list(ef.datasets.episodes("lift", "v1"))
    assert [(one["id"], one["content"]) for one in ef.datasets.seen(trained)] == [
        (entry["id"], entry["content"]) for entry in before
    ]
    seen, of_dataset = (one.told() for one in policy_rows(ef, Place("acme", "pick-place")))
    assert seen is not None
    assert of_dataset is not None
    assert seen.asset_key.path[-3:] == ["artifacts", "delivering", "train"]
    table: Any = seen.metadata["episodes"].value
    assert [record.data["content sha256"] for record in table.records] == [
        entry["content"] for entry in before
    ]
    assert of_dataset.asset_key.path[-2:] == ["datasets", "lift"]
    saw: Any = of_dataset.metadata["policies_that_saw_it"].value
    [record] = saw.records
    assert (record.data["policy"], record.data["same data"], record.data["changed since"]) == ("act", 1, 1)


def test_a_training_config_says_what_the_data_lacks(ef: EmboFlow, tmp_path: Path) -> None:
    ef.assets.register(write_demos(tmp_path / "d.hdf5", [4]), type="hdf5_dataset", name="demos")
    ef.assets.probe("demos")
    config = {"requires": ["observation.images.top"]}
    ef.workflows.publish(
        nodes(
            {"id": "train", "type": "export-training-config", "after": ["episodes"], "config": config},
            {"id": "no", "type": "export-delivery", "after": ["src"], "config": {"format": "canonical"}},
        )
    )

    run = ef.runs.work(ef.runs.request("delivering", assets=["demos"]).id)

    told = {task.node_id: str(task.error_message) for task in ef.tasks.list(run.id)}
    assert "input-missing" in told["train"] or "is required and not in the dataset" in told["train"]
    assert "observation.images.top" in told["train"]
    assert "action" in told["train"]
    assert "no node before this one made a normalized_dataset_package" in told["no"]
