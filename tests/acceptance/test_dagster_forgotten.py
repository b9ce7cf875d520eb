"""Dagster's own storage after an episode was forgotten: its files are searched for what runs had shown."""

import os
from pathlib import Path

import dagster as dg
import h5py  # noqa: TID253 - the recording is written here
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.direct import execute_queued
from emboflow_dagster.orchestration.forgotten_runs import clean, forgotten_runs_sensor
from emboflow_dagster.orchestration.resources import EmboFlowResource

PRINTS = """
def look(ctx, inputs):
    print("the arm of", "demo_0", 7341.28125)
    return {"x": 7341.28125}
"""
SAID = (b"7341.28125", b"data:image/jpeg;base64")


@pytest.fixture
def demos(ef, tmp_path):
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for number in range(2):
            rows = np.random.default_rng(number).normal(size=(20, 3))
            file[f"data/demo_{number}/actions"] = rows
            file[f"data/demo_{number}/obs/eef_pos"] = rows
    return ef.assets.register(tmp_path / "demos.hdf5", type="hdf5_dataset", name="demos")


def flow(name, *, prints):
    nodes = [
        {"id": "src", "type": "source"},
        {"id": "episodes", "type": "normalize", "after": ["src"], "config": {"fps": 20}},
        {"id": "shown", "type": "preview", "after": ["episodes"]},
        {"id": "judged", "type": "quality-report", "after": ["episodes"]},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": name}},
    ]
    hook = {"language": "python", "entrypoint": "look", "source": PRINTS}
    if prints:
        nodes.append({"id": "prints", "type": "python", "after": ["src"], "codeHook": hook})
    return {"workflow": name, "nodes": nodes}


def holding(home: Path) -> set[str]:
    """Files of Dagster's home in which something of the episode stands."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return {path.name for path in files if any(said in path.read_bytes() for said in SAID)}


@pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="EMBOFLOW_FAULTS=all runs it")
def test_runs_that_showed_it_are_deleted_from_every_file(ef, demos, instance, place, tmp_path):
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file["data/demo_9/actions"] = np.random.default_rng(9).normal(size=(20, 3))
        file["data/demo_9/obs/eef_pos"] = np.random.default_rng(8).normal(size=(20, 3))
    kept = ef.assets.register(other, type="hdf5_dataset", name="other")
    runs = {}
    for name, asset, prints in (("lifts", demos, True), ("others", kept, False)):
        ef.workflows.publish(flow(name, prints=prints))
        run = execute_queued(ef, ef.runs.request(name, assets=[asset.id]).id)
        assert run.status == "success", [task.error_message for task in ef.runs.tasks(run)]
        runs[name] = ef.runs.get(run.id).dagster_run_ids[0]
    home = Path(instance.root_directory)
    assert holding(home) >= {"index.db", f"{runs['lifts']}.db", f"{runs['others']}.db"}  # the control

    told = ef.datasets.forget("lifts", [1], reason="no consent")
    assert told["dagsterRuns"] == [runs["lifts"]]
    assert any("forgotten_runs" in row["why"] for row in told["kept"])
    sensor = forgotten_runs_sensor(place)

    def tick(cursor):
        resources = {"emboflow": EmboFlowResource()}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            return sensor.evaluate_tick(context)

    first = tick(None)
    assert runs["lifts"] in first.skip_message
    assert first.cursor == told["id"]
    assert (tick(first.cursor).skip_message, clean(ef, instance, place)[0]) == ("nothing to do", [])
    assert instance.get_run_by_id(runs["lifts"]) is None
    assert not any(b"7341.28125" in p.read_bytes() for p in home.rglob("*") if p.is_file())
    # Pictures of the other run stay, and so does its page; the dataset shows the version without the episode.
    assert instance.get_run_by_id(runs["others"]) is not None
    assert f"{runs['others']}.db" in holding(home)
    assert f"{runs['lifts']}.db" not in holding(home)
    shown = instance.get_latest_materialization_event(keys.dataset_key(place, "lifts"))
    assert shown.asset_materialization.metadata["dataset_version"].value == "v2"
    assert instance.get_latest_materialization_event(keys.artifact_key(place, "lifts", "shown")) is None
    assert ef.verify(all=True).problems == []
