"""A run over a recording of which an episode was forgotten: it is not made again, nor recorded again."""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py  # noqa: TID253 - the recordings are written here
import numpy as np  # noqa: TID253
import pytest
from rosbags.rosbag1 import Writer  # noqa: TID253
from rosbags.typesys import Stores, get_typestore  # noqa: TID253

from emboflow_dagster.errors import ConflictError, EmboflowError, ErrorKind, NotFoundError
from emboflow_dagster.project.dataset_changes import Merge, Relabel, Split
from emboflow_dagster.project.forget.tombstone import digest_of
from emboflow_dagster.project.handle import EmboFlow

WHY = "no consent"
FLOW: dict[str, Any] = {
    "workflow": "again",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "look", "type": "probe", "after": ["src"]},
        {"id": "episodes", "type": "normalize", "after": ["look"], "config": {"fps": 20}},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lifts"}},
    ],
}


def recorded(ef: EmboFlow, folder: Path) -> str:
    folder.mkdir()
    with h5py.File(folder / "a.hdf5", "w") as file:
        for number in range(2):
            rows = np.random.default_rng(number).normal(size=(20, 7))
            file.create_dataset(f"data/demo_{number}/actions", data=rows)
            file.create_dataset(f"data/demo_{number}/obs/eef_pos", data=rows[:, :3])
    return ef.assets.register(folder / "a.hdf5", name="demos", type="hdf5_dataset").id


def ran(ef: EmboFlow, asset: str) -> dict[str, Any]:
    run = ef.workflows.run("again", assets=[asset])
    ef.runs.work(run.id)
    return {task.node_id: task for task in ef.runs.tasks(ef.runs.get(run.id))}


def refs(ef: EmboFlow) -> list[str]:
    return [entry["source"]["ref"] for entry in ef.datasets.episodes("lifts")]


def test_it_is_left_out_of_what_is_made_until_it_is_reinstated(ef: EmboFlow, tmp_path: Path):
    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    assert ran(ef, asset)["publish"].status == "success"
    assert refs(ef) == ["data/demo_0", "data/demo_1"]
    told = ef.datasets.forget("lifts", [1], reason=WHY)

    # The same asset, and the same bytes under another name and id.
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "demos" / "a.hdf5", tmp_path / "copy" / "renamed.hdf5")
    copy = ef.assets.register(tmp_path / "copy" / "renamed.hdf5", name="copy", type="hdf5_dataset").id
    for one in (asset, copy):
        tasks = ran(ef, one)
        assert {name: task.error_message for name, task in tasks.items()} == dict.fromkeys(tasks)
        assert refs(ef) == ["data/demo_0"]
        assert "episode-forgotten" in tasks["episodes"].last_result_preview["sources"][0]["left out"]

    done = ef.datasets.reinstate(told["id"], reason="consent was given")
    assert (done["reinstated"]["by"], done["reinstated"]["reason"]) == (ef.scope.actor, "consent was given")
    assert digest_of(done) == told["digest"]
    assert ef.datasets.forgotten() == [done]
    assert ef.datasets.reinstate(told["id"], reason="said twice") == done
    assert [row.after_summary for row in ef.audit.list(action="dataset.reinstate")] == [
        {"forgotten": told["id"], "reason": "consent was given"}
    ]
    assert ran(ef, asset)["publish"].status == "success"  # nothing that was kept of before is used
    assert refs(ef) == ["data/demo_0", "data/demo_1"]
    assert ef.verify(all=True).problems == []


PROCESS = """
def process(episode, context):
    print("called for", context.ref)
    return {"observation.state": episode["obs/eef_pos"], "action": episode["actions"]}
"""
LOOK = """
import h5py
def look(ctx, inputs):
    given = {}
    for asset in ctx.assets:
        with h5py.File(asset.path) as file:
            given[asset.name] = list(file["data"])
    return {"given": given, "upstream": sorted(inputs)}
"""


def coded(source: str, entrypoint: str) -> dict[str, str]:
    return {"language": "python", "entrypoint": entrypoint, "source": source}


def test_no_node_hands_it_on(ef: EmboFlow, tmp_path: Path):
    """Hooks, previews and reports: what a run makes after it was forgotten has none of its numbers."""
    asset = recorded(ef, tmp_path / "demos")
    nodes: list[dict[str, Any]] = [
        *FLOW["nodes"][:2],
        {"id": "code", "type": "python", "after": ["look"], "codeHook": coded(PROCESS, "process")},
        {"id": "any", "type": "python", "after": ["look"], "codeHook": coded(LOOK, "look")},
        {"id": "shown", "type": "preview", "after": ["look"]},
        {"id": "judged", "type": "quality-report", "after": ["look"]},
        {**FLOW["nodes"][2], "after": ["code"]},
        {"id": "seen", "type": "preview", "after": ["episodes"]},
        FLOW["nodes"][3],
    ]
    ef.workflows.publish({"workflow": "again", "nodes": nodes})
    before = ran(ef, asset)
    assert {task.status for task in before.values()} == {"success"}
    assert before["any"].last_result_preview["given"] == {"demos": ["demo_0", "demo_1"]}
    assert before["shown"].last_result_preview["subjects"] == 1
    assert b"called for data/demo_0" in b"".join(ef.tasks.output(before["code"].workflow_run_id, "code"))
    ef.datasets.forget("lifts", [0], reason=WHY)

    tasks = ran(ef, asset)

    assert {name: task.error_message for name, task in tasks.items()} == dict.fromkeys(tasks)
    assert refs(ef) == ["data/demo_1"]
    hooked = tasks["code"].last_result_preview
    assert (hooked["episodes"], "episode-forgotten" in hooked["recordings"][0]["left out"]) == (1, True)
    printed = b"".join(ef.tasks.output(tasks["code"].workflow_run_id, "code")).splitlines()
    assert printed == [b"called for data/demo_1"]
    # What takes a recording whole is given a copy without it.
    assert tasks["any"].last_result_preview["given"] == {"demos": ["demo_1"]}
    assert (tasks["shown"].summary.outcome, tasks["judged"].summary.outcome) == ("done", "done")
    for name in ("shown", "judged", "any"):
        [made] = [a for a in ef.artifacts.list() if a.id in tasks[name].output_artifact_ids]
        files = ef.artifacts.fetch(made, tmp_path / "made" / name)
        inside = [f.read_bytes() for f in (files.rglob("*") if files.is_dir() else [files]) if f.is_file()]
        assert not any(b"demo_0" in data for data in inside), name
    log = [line.text for line in ef.tasks.logs(tasks["any"].workflow_run_id, "any")]
    assert any("episode-forgotten" in line and "demos" in line for line in log)
    assert tasks["seen"].summary.outcome == "done"
    assert not any(task.cache_hit for name, task in tasks.items() if name not in ("src", "look"))
    again = ran(ef, asset)  # what was made since is used again
    assert again["code"].cache_hit
    assert ef.verify(all=True).problems == []


WAITS = """
import pathlib, time
def wait(ctx, inputs):
    pathlib.Path(ctx.config["here"]).touch()
    while not pathlib.Path(ctx.config["go"]).exists():
        time.sleep(0.05)
    return {"bytes": ctx.assets[0].path.read_bytes().hex()}
"""


def test_a_task_that_read_it_before_records_nothing_after(ef: EmboFlow, tmp_path: Path):
    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    here, go = tmp_path / "here", tmp_path / "go"
    slow = {"id": "slow", "type": "python", "after": ["src"], "codeHook": coded(WAITS, "wait")}
    slow["config"] = {"here": str(here), "go": str(go)}
    ef.workflows.publish({"workflow": "slow", "nodes": [FLOW["nodes"][0], slow]})
    run = ef.workflows.run("slow", assets=[asset])
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(ef.runs.work, run.id)
        while not here.exists():
            assert not going.done()
            time.sleep(0.02)
        ef.datasets.forget("lifts", [0], reason=WHY)
        go.touch()
        assert going.result().status == "failed"
    task = ef.tasks.get(run.id, "slow")
    assert WHY in str(task.error_message)
    assert "while this was on its way; nothing was recorded" in str(task.error_message)
    assert [one for one in ef.artifacts.list() if one.producer_id == task.id] == []
    assert ef.verify(all=True).problems == []


def write_bag(path: Path) -> Path:
    """Two topics of numbers, three seconds."""
    store = get_typestore(Stores.ROS1_NOETIC)
    number = store.types["std_msgs/msg/Float64"]
    with Writer(path) as writer:
        for topic in ("/joint", "/tool"):
            connection = writer.add_connection(topic, number.__msgtype__, typestore=store)
            for index in range(60):
                data = store.serialize_ros1(number(data=index / 10), connection.msgtype)
                writer.write(connection, 1_700_000_000_000_000_000 + index * 50_000_000, data)
    return path


def test_other_topics_of_a_bag_are_the_same_time(ef: EmboFlow, tmp_path: Path):
    """Messages have no episodes: an episode of them is the time that it takes, whatever it is made of."""
    asset = ef.assets.register(write_bag(tmp_path / "drive.bag"), name="drive", type="rosbag").id

    def flow(name: str, topics: list[str], fps: int) -> None:
        config = {"fps": fps, "topics": topics}
        nodes = [
            FLOW["nodes"][0],
            {"id": "episodes", "type": "normalize", "after": ["src"], "config": config},
        ]
        publish = {**FLOW["nodes"][3], "config": {"dataset": name}}
        ef.workflows.publish({"workflow": "again", "nodes": [*nodes, publish]})
        ran(ef, asset)

    flow("lifts", ["/joint"], 20)
    flow("others", ["/joint", "/tool"], 10)
    told = ef.datasets.forget("lifts", [0], reason=WHY)
    assert {row["datasetId"] for row in told["versions"]} == {
        ef.datasets.get(name).id for name in ("lifts", "others")
    }
    flow("third", ["/tool"], 20)
    assert [one.name for one in ef.datasets.list() if one.name == "third"] == []


def test_no_edit_brings_it_back(ef: EmboFlow, tmp_path: Path):
    """Merge, restore, undo, and an edit of what was looked at before."""
    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    ef.datasets.edit("lifts", [Relabel([1], task="place")])
    kept = ef.datasets.export("lifts", tmp_path / "exported")
    told = ef.datasets.forget("lifts", [0], reason=WHY)
    # Another dataset's version with the same episode, from before that rule: as an older release left it.
    old = ef.datasets.version("lifts", "v1")
    refused: list[Callable[[], object]] = [
        lambda: ef.datasets.undo("lifts"),
        lambda: ef.datasets.restore("lifts", "v2"),
        lambda: ef.datasets.edit("lifts", [Merge("lifts", "v1")]),
    ]
    for way in refused:
        with pytest.raises(EmboflowError, match=r"withdrawn|forgotten"):
            way()
    ef.mongo["dataset_versions"].update_one({"_id": old.id}, {"$set": {"status": "available"}})
    for way in refused[1:]:
        ef.mongo["dataset_versions"].update_one({"versionTag": "v2"}, {"$set": {"status": "available"}})
        with pytest.raises(EmboflowError, match=told["id"]) as said:
            way()
        assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
    assert refs(ef) == ["data/demo_1"]
    assert (kept / "manifest.json").exists()
    ef.datasets.edit("lifts", [Relabel([0], task="lift")])  # what has none of it is edited as ever


def test_a_version_that_has_one_is_refused_with_its_code(ef: EmboFlow, tmp_path: Path):
    from emboflow_dagster.runtime.forgotten import Forgotten

    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    entries = list(ef.datasets.episodes("lifts"))
    told = ef.datasets.forget("lifts", [0], reason=WHY)
    rules = Forgotten(ef.mongo, ef.scope)
    sha256 = ef.assets.get(asset).storage_ref.sha256

    rules.refuse(entries[1:], {asset: sha256}, 20.0)
    # Made again with other numbers, of other bytes' asset: the place in the same recording is enough.
    other = {**entries[0], "content": "0" * 64, "id": "ep_other", "stats": {}}
    other["source"] = {**other["source"], "assetId": "ast_other", "path": "renamed.hdf5"}
    rules.refuse([other], {"ast_other": "1" * 64})
    # An export that came back: other data, id and place, and features that have other names.
    numbers = {f"other.{name}": said for name, said in entries[0]["stats"].items()}
    for entry, sources in (
        (entries[0], {}),
        (other, {"ast_other": sha256}),
        ({**other, "stats": numbers}, {"ast_other": "1" * 64}),
    ):
        with pytest.raises(EmboflowError, match=WHY) as said:
            rules.refuse([entry], sources)
        assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
        assert "reinstate" in str(said.value.hint)

    notes = ef.mongo["_emboflow_meta"]
    notes.update_one({"name": {"$regex": told["id"]}}, {"$set": {"state": "let-go"}})
    with pytest.raises(ConflictError, match="not finished"):
        ef.datasets.reinstate(told["id"], reason=WHY)
    with pytest.raises(NotFoundError):
        ef.datasets.reinstate("fgt_none", reason=WHY)


COUNTS = """
from rosbags.rosbag1 import Reader
def look(ctx, inputs):
    found = [str(asset.path) for asset in ctx.assets]
    found += [str(p) for one in inputs.values() for a in one.artifacts for p in a.path.rglob("*.bag")]
    counts = []
    for path in found:
        with Reader(path) as bag:
            counts.append(sum(1 for _ in bag.messages()))
    return {"counts": counts}
"""


@pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="EMBOFLOW_FAULTS=all runs it")
def test_a_bag_is_handed_on_without_that_time(ef: EmboFlow, tmp_path: Path):
    """`recover` and a hook over whole inputs; where nothing else is in it, they are given nothing."""
    asset = ef.assets.register(write_bag(tmp_path / "drive.bag"), name="drive", type="rosbag").id
    config = {"fps": 20, "topics": ["/joint"]}
    nodes: list[dict[str, Any]] = [
        FLOW["nodes"][0],
        {"id": "episodes", "type": "normalize", "after": ["src"], "config": config},
        {**FLOW["nodes"][3]},
        {"id": "rescued", "type": "recover", "after": ["src"]},
        {"id": "counts", "type": "python", "after": ["src", "rescued"], "codeHook": coded(COUNTS, "look")},
    ]
    ef.workflows.publish({"workflow": "again", "nodes": nodes})
    assert ran(ef, asset)["counts"].last_result_preview["counts"] == [120, 120]
    ef.datasets.edit("lifts", [Split(0, [20, 40])])

    ef.datasets.forget("lifts", [1], reason=WHY)  # one second of three

    tasks = ran(ef, asset)
    assert tasks["counts"].last_result_preview["counts"] == [80, 80]
    assert tasks["rescued"].last_result_preview["messages"] == 80
    ef.datasets.forget("lifts", [0, 1], reason=WHY)
    tasks = ran(ef, asset)
    assert tasks["rescued"].summary.outcome == "empty"
    log = [line.text for line in ef.tasks.logs(tasks["rescued"].workflow_run_id, "rescued")]
    assert any("nothing else is in it" in line for line in log), log
