"""A blob is transferred, an episode forgotten, while versions of a stream are on their way to history."""

from pathlib import Path

import pytest

from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.mongo import outbox
from emboflow_dagster.mongo.settling import settling_of
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_cud import annotated, ref
from tests.integration.project.test_forget import FEW, WHY, names
from tests.integration.project.test_streams import archived, held_open, lose, stream, tail
from tests.integration.project.versions_made import made

__all__ = ["held_open"]


def test_a_blob_is_transferred_and_its_tail_arrives(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = stream(ef, 4)
    with monkeypatch.context() as patch:
        lose(patch)
        ef.blobs.put(b"model 4", object_id="model")
        contents.append(b"model 4")
        asset, _, annotation = annotated(ef, ref(ef.blobs.get("model")))
        waiting = tail(ef)
        assert 3 in waiting
        moved = ef.blobs.transfer("model", to=("assets", asset.id, "storageRef"))
        assert (moved.owner_record_id, moved.version) == (asset.id, 4)
        assert tail(ef) == waiting
        assert [ef.blobs.read("model", number) for number in range(5)] == contents
        assert ef.verify(all=True).problems == []

    settling_of(ef.mongo).finish()
    assert (tail(ef), archived(ef)) == ([], [0, 1, 2, 3])
    rows = ef.mongo["object_history"].find({"object_id": "model"})
    assert {row["owner_record_id"] for row in rows} == {None}  # of its newest version alone
    assert ef.assets.get(asset.id).storage_ref.version == 4
    assert (ef.mongo["annotations"].find_one({"_id": annotation.id}) or {})["payload"] == {}
    assert [ef.blobs.read("model", number) for number in range(5)] == contents
    assert ef.verify(all=True).problems == []
    # The control: what leaves a tail and has not arrived is missed.
    lose(monkeypatch)
    stream(ef, 3, "other")
    ef.mongo["objects"].update_one(*outbox.clearing("other", [1]))
    assert "version-gap" in {problem.code for problem in ef.verify(all=True).problems}


def test_bytes_that_are_on_their_way_are_kept_and_told(
    ef: EmboFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    entries = list(ef.datasets.episodes("reach"))
    frames = [entry["files"]["frames"] for entry in entries]
    lose(monkeypatch)
    for number in (0, 1):
        key = frames[number]["sha256"]
        where = {"sha256": key, "size": frames[number]["size"]}
        with ef.store.open(f"sha256/{key[:2]}/{key[2:]}", **where) as opened:
            ef.blobs.put(opened.read(), object_id=f"model-{number}")
        ef.blobs.put(b"something else", object_id=f"model-{number}")
    assert (tail(ef, "model-0"), archived(ef, "model-0")) == ([0], [])
    # The control: of what has left the tail and is not in history nobody knows.
    ef.mongo["objects"].update_one(*outbox.clearing("model-1", [0]))

    told = ef.datasets.forget("reach", [0, 1, 2], reason=WHY)

    assert [row["sha256"] for row in told["payloads"] if row.get("keptBy")] == [frames[0]["sha256"]]
    assert [(row["objectId"], row["version"]) for row in told["copies"]] == [("model-0", 0)]
    assert len(ef.blobs.read("model-0", 0)) == frames[0]["size"]
    with pytest.raises(NotFoundError):
        ef.blobs.read("model-1", 0)
    assert names(ef).isdisjoint({frames[1]["sha256"], frames[2]["sha256"]})
    assert {problem.code for problem in ef.verify(all=True).problems} == {"version-gap"}
