"""Numpy arrays as scripts leave them: structures, pickles, other orders, cut off, of different lengths."""

import zipfile

import numpy as np  # noqa: TID253 - this module is about files that this library writes
import pytest

from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.formats.as_arrays import parts
from emboflow_dagster.formats.canonical import from_npy
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.runtime.normalize_readers import rate_of, read


class Trap:
    """What nobody may unpickle."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_a_single_array_of_any_kind_is_known_by_its_header(tmp_path):
    table = np.zeros(5, [("t", "<f8"), ("q", ">f4", (6,))])
    said = {
        "structured": (table, set(), {"shape": [5], "dtype": "structured(t <f8, q >f4)"}),
        "fortran": (
            np.asfortranarray(np.ones((5, 3))),
            set(),
            {"shape": [5, 3], "dtype": "<f8", "fortranOrder": True},
        ),
        "big": (np.ones(4, ">f8"), set(), {"shape": [4], "dtype": ">f8"}),
        "one": (np.float64(3), set(), {"shape": [], "dtype": "<f8"}),
        "text": (np.array(["ab", "c"]), set(), {"shape": [2], "dtype": "<U2"}),
        "trap": (np.array([Trap()]), {"pickled_array"}, {"shape": [1], "dtype": "|O"}),
    }
    for name, (values, codes, shown) in said.items():
        np.save(tmp_path / f"{name}.npy", values, allow_pickle=True)
        report = probe_path(tmp_path / f"{name}.npy")
        assert (report.format, report.codes) == ("npy", codes), name
        assert report.structure["arrays"] == {f"{name}.npy": shown}
    cut = tmp_path / "cut.npy"
    cut.write_bytes((tmp_path / "structured.npy").read_bytes()[:-33])
    report = probe_path(cut)
    assert report.codes == {"truncated"}
    assert "3 of (5,) rows" in report.warnings[0].message
    with pytest.raises(NotFoundError, match="never opened"):
        list(from_npy.episodes(tmp_path / "trap.npy"))


def test_archives_of_arrays_show_their_arrays(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz", action=np.ones((9, 2)), qpos=np.ones((9, 3)), bad=np.array([Trap()])
    )
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("x.npy", whole[:50])

    alone = probe_path(tmp_path / "a.npz")
    folder = probe_path(tmp_path)

    assert (alone.format, alone.codes) == ("npz", {"pickled_array"})
    assert alone.structure["arrays"]["action"] == {"shape": [9, 2], "dtype": "<f8"}
    assert folder.format == "npy_folder"
    assert folder.structure["arrayCount"] == 3
    assert {(w.code, w.path) for w in folder.warnings} == {
        ("pickled_array", "a.npz:bad"),
        ("truncated", "cut.npz"),
        ("corrupt", "lies.npz:x"),
    }


def test_arrays_that_stand_together_are_one_episode_and_lengths_are_compared(tmp_path):
    for number, rows in ((2, 6), (10, 8)):
        folder = tmp_path / f"ep_{number}"
        folder.mkdir()
        np.save(folder / "actions.npy", np.full((rows, 2), number, ">f4"))
        np.save(folder / "qpos.npy", np.asfortranarray(np.arange(rows * 3.0).reshape(rows, 3)))
        np.save(folder / "timestamps.npy", np.arange(rows) * 0.1 + 1.7e9)
        np.save(folder / "top.npy", np.full((rows, 16, 20, 3), 7, "u1"))
        np.save(folder / "depth.npy", np.ones((rows, 16, 20), "f4"))
    np.save(tmp_path / "ep_10/rewards.npy", np.ones(7))
    asset = {"id": "a", "path": str(tmp_path), "format": "npy_folder"}
    skipped = []

    report = probe_path(tmp_path)
    found = list(read(asset, {"task": "", "mapping": {}, "fps": None}, rate_of(asset)[0], skipped))

    assert [(w.code, w.path) for w in report.warnings] == [("dimension_mismatch", "ep_10")]
    assert rate_of(asset) == (10.0, False)
    assert [(e.source["ref"], e.length) for e in found] == [("ep_2", 6), ("ep_10", 8)]
    assert found[1].features["action"].tolist() == [[10, 10]] * 8
    assert found[1].features["observation.state"][1].tolist() == [3, 4, 5]
    assert found[0].source_timestamp_ns[1] - found[0].source_timestamp_ns[0] == pytest.approx(10**8, abs=300)
    (picture, *_) = found[0].cameras["top"].frames()
    assert picture.shape == (16, 20, 3)
    assert {item["reason"] for item in skipped} == {
        "depth: shape [6, 16, 20] of float32 is no vector per frame",
        "depth: shape [8, 16, 20] of float32 is no vector per frame",
        "rewards: shape [7] for 8 frames",
    }


def test_files_named_alike_are_an_episode_each_and_structures_their_columns(tmp_path):
    table = np.zeros(4, [("action", "f4", (2,)), ("qpos", "f4", (3,)), ("label", "S3")])
    for number in (1, 2):
        np.save(tmp_path / f"episode_{number}.npy", table[: number + 2])
    whole = (tmp_path / "episode_2.npy").read_bytes()
    (tmp_path / "episode_2.npy").write_bytes(whole[:-5])
    skipped = []

    assert probe_path(tmp_path).codes == {"truncated"}
    found = list(from_npy.episodes(tmp_path, skipped=skipped))
    (first, *_) = parts(tmp_path, "npy_folder", "episode", [])
    mapped = list(from_npy.episodes(tmp_path, mapping={"qpos+action": "observation.state"}))

    assert [(e.length, sorted(e.features), e.flags) for e in found] == [
        (3, ["action", "observation.state"], ()),
        (3, ["action", "observation.state"], ("truncated",)),
    ]
    assert first.ref == "episode_1.npy"
    assert mapped[0].features["observation.state"].shape == (3, 5)
    assert {item["reason"] for item in skipped} == {"label: bytes24 is no number"}
