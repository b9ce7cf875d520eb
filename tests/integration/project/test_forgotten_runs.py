"""A run over a recording of which an episode was forgotten: it is not made again, nor recorded again."""

import shutil
from pathlib import Path
from typing import Any

import h5py  # noqa: TID253 - the recordings are written here
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.errors import ConflictError, EmboflowError, ErrorKind, NotFoundError
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


def test_what_comes_another_way_is_refused(ef: EmboFlow, tmp_path: Path):
    """A hook hands on the episode: `normalize` does not know the place, the version does."""
    hook = """
def process(episode, context):
    return {"observation.state": episode["obs/eef_pos"], "action": episode["actions"]}
"""
    code = {"language": "python", "entrypoint": "process", "source": hook}
    asset = recorded(ef, tmp_path / "demos")
    nodes = [*FLOW["nodes"][:2], {"id": "code", "type": "python", "after": ["look"], "codeHook": code}]
    nodes += [{**FLOW["nodes"][2], "after": ["code"]}, FLOW["nodes"][3]]
    ef.workflows.publish({"workflow": "again", "nodes": nodes})
    assert ran(ef, asset)["publish"].status == "success"
    told = ef.datasets.forget("lifts", [0], reason=WHY)

    tasks = ran(ef, asset)

    assert refs(ef) == ["data/demo_1"]
    left_out = tasks["episodes"].last_result_preview["sources"][0]["left out"]
    if tasks["publish"].status == "failed":
        assert told["id"] in tasks["publish"].error_message
        assert WHY in tasks["publish"].error_message
    else:
        assert "episode-forgotten" in left_out
    assert ef.verify(all=True).problems == []


def test_a_version_that_has_one_is_refused_with_its_code(ef: EmboFlow, tmp_path: Path):
    from emboflow_dagster.runtime.forgotten import Forgotten

    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    entries = list(ef.datasets.episodes("lifts"))
    told = ef.datasets.forget("lifts", [0], reason=WHY)
    rules = Forgotten(ef.mongo, ef.scope)
    sha256 = ef.assets.get(asset).storage_ref.sha256

    rules.refuse(entries[1:], {asset: sha256})
    # Made again with other numbers, of other bytes' asset: the place in the same recording is enough.
    other = {**entries[0], "content": "0" * 64, "id": "ep_other"}
    other["source"] = {**other["source"], "assetId": "ast_other", "path": "renamed.hdf5"}
    rules.refuse([other], {"ast_other": "1" * 64})
    for entry, sources in ((entries[0], {}), (other, {"ast_other": sha256})):
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
