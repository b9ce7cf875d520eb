"""Episodes as plain arrays: what is written comes back, and nothing else is believed."""

import json
import pickle
import zipfile
from pathlib import Path

import h5py  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.errors import EmboflowError, InvalidInputError
from emboflow_dagster.formats.as_arrays import parts
from emboflow_dagster.formats.canonical import from_arrays
from emboflow_dagster.formats.canonical.computed import keep
from emboflow_dagster.formats.canonical.from_arrays import EpisodeFolder, legal_name, load_arrays, rows
from emboflow_dagster.formats.canonical.video_track import write_video

STATE = np.arange(12.0).reshape(4, 3)
STAMPS = np.array([10, 20, 30, 40], dtype=np.int64)


def read(folder: Path, **more):
    skipped: list[dict] = []
    found = list(from_arrays.episodes(folder, fps=20, asset_id="ast_1", skipped=skipped, **more))
    return found, [item["reason"] for item in skipped]


def test_what_is_written_comes_back(tmp_path: Path):
    folder = EpisodeFolder(tmp_path)
    video = tmp_path / "videos" / "top.mp4"
    write_video(video, [np.full((16, 16, 3), 60 * i, np.uint8) for i in range(4)], fps=20)
    folder.add(
        "demo_1",
        {"observation.state": STATE, "action": STATE[:, 0] > 2, "timestamp_ns": STAMPS},
        task="lift",
        success=True,
        fps=20.0,
        videos={"top": "videos/top.mp4"},
        names={"observation.state": ["x", "y", "z"]},
        sources={"observation.state": "/pose"},
    )
    folder.add("demo_2", {"observation.state": STATE + 1, "action": STATE[:, 0]})
    [first, second], reasons = read(tmp_path)
    assert reasons == []
    assert first.source == {"assetId": "ast_1", "path": "000000.npz", "ref": "demo_1"}
    assert (first.length, first.task, first.success, first.t0_ns) == (4, "lift", True, 10)
    np.testing.assert_array_equal(first.features["observation.state"], STATE.astype(np.float32))
    assert first.features["action"].shape == (4, 1)
    assert first.source_timestamp_ns is not None
    assert first.source_timestamp_ns.tolist() == [10, 20, 30, 40]
    spec = first.specs["observation.state"]
    assert (spec.names, spec.kind, spec.source_topic) == (("x", "y", "z"), "state", "/pose")
    assert first.specs["action"].names == ("action_0",)
    assert first.cameras["top"].shape == (16, 16, 3)
    assert len(list(first.cameras["top"].frames())) == 4
    assert (second.task, second.success, second.source_timestamp_ns) == ("", None, None)
    assert next(iter(read(tmp_path, task="sort")[0])).task == "sort"


def test_equal_episodes_are_equal_bytes(tmp_path: Path):
    for name in "ab":
        EpisodeFolder(tmp_path / name).add("r", {"action": STATE, "file": STATE})
    assert (tmp_path / "a/000000.npz").read_bytes() == (tmp_path / "b/000000.npz").read_bytes()
    assert set(load_arrays(tmp_path / "a/000000.npz")) == {"action", "file"}


def test_an_episode_that_cannot_be_one_is_left_out_with_the_reason(tmp_path: Path):
    folder = EpisodeFolder(tmp_path)
    folder.add("fast", {"action": STATE}, fps=50.0)
    folder.add("uneven", {"action": STATE, "other": STATE[:2]})
    folder.add("empty", {"action": STATE[:0]})
    folder.add("clock", {"action": STATE, "timestamp_ns": STAMPS[:2]})
    folder.add("pickled", {"action": STATE})
    folder.add("cut", {"action": STATE})
    folder.add("good", {"action": STATE})
    with zipfile.ZipFile(tmp_path / "000004.npz", "w") as archive:
        archive.writestr("action.npy", b"\x93NUMPY\x01\x00" + pickle.dumps([1]))
    whole = (tmp_path / "000005.npz").read_bytes()
    (tmp_path / "000005.npz").write_bytes(whole[: len(whole) // 2])
    found, reasons = read(tmp_path)
    assert [episode.source["ref"] for episode in found] == ["good"]
    assert "made at 50 fps" in reasons[0]
    assert [len(reasons), "found [2, 4] frames" in reasons[1], "found [0] frames" in reasons[2]] == [6, 1, 1]
    assert "one int64 a frame" in reasons[3]


def test_objects_are_never_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "trap.npz", action=np.array([Trap()], dtype=object))
    with pytest.raises(InvalidInputError, match="no arrays can be read"):
        load_arrays(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(InvalidInputError, match="numbers per frame"):
        EpisodeFolder(tmp_path).add("r", {"action": np.array([Trap()], dtype=object)})


@pytest.mark.parametrize(
    "name", ["../out.npz", "/etc/passwd", "a/../../b", "", ".", None, "gone.npz", "link"]
)
def test_no_file_outside_of_the_folder_is_named(tmp_path: Path, name):
    (tmp_path / "out.npz").write_bytes(b"x")
    folder = tmp_path / "episodes"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "out.npz")
    (folder / "episodes.jsonl").write_text(json.dumps({"ref": "r", "file": name}) + "\n")
    with pytest.raises(InvalidInputError, match="is no file of the folder"):
        list(rows(folder))


@pytest.mark.parametrize("name", ["a/b", "", "frame_index", "a\nb"])
def test_names_that_features_may_not_have(tmp_path: Path, name):
    with pytest.raises(InvalidInputError, match="cannot be the name of a feature"):
        EpisodeFolder(tmp_path).add("r", {name: STATE})


def test_names_are_made_legal():
    topics = ["/imu/data", "/action/arm"]
    assert [legal_name(n, topics) for n in ("/imu/data", "/action/arm", "a/b", "observation.state")] == [
        "observation.imu.data",
        "action.arm",
        "a.b",
        "observation.state",
    ]


def test_demonstrations_are_given_as_the_file_has_them(tmp_path: Path):
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        file.create_group("data").attrs["env"] = "Lift"
        for demo in ("demo_10", "demo_2"):
            group = file.create_group(f"data/{demo}")
            group["states"] = np.column_stack([np.arange(5) * 0.05, np.zeros((5, 2))])
            group["actions"] = np.ones((5, 7))
            group["obs_text"] = "not numbers"
            group["nothing"] = np.zeros((5, 0))
            group["elsewhere"] = h5py.ExternalLink("/etc/passwd", "x")
    reasons: list[str] = []
    found = list(parts(tmp_path / "demos.hdf5", "hdf5_robosuite_raw", "episode", reasons))
    assert [part.ref for part in found] == ["data/demo_2", "data/demo_10"]
    assert {name: values.shape for name, values in found[0].arrays.items()} == {
        "actions": (5, 7),
        "states": (5, 3),
    }
    assert found[0].stamps[""].tolist() == [0, 50_000_000, 100_000_000, 150_000_000, 200_000_000]
    assert found[0].told["task"] == "Lift"
    with pytest.raises(InvalidInputError, match="format urdf has no demonstrations"):
        parts(tmp_path / "demos.hdf5", "urdf", "episode", reasons)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "one: the hook returned 3; a mapping of feature names"),
        ({}, "one: the hook returned {}"),
        ({"a": [1, 2], "b": [1]}, "one: features need as many rows each.*a: 2, b: 1"),
        ({"a": 1.0}, "at least one; found a: 0"),
        ({"a": []}, "at least one; found a: 0"),
        ({"a": [[1], [1, 2]]}, "one: 'a': no array"),
        ({"a": ["x"]}, "a: found <U1 of shape .1,.; numbers per frame"),
        ({"a/b": [1], "a.b": [2]}, "two features would be called 'a.b'"),
        ({"index": [1]}, "'index' cannot be the name of a feature"),
        ({"t": [1.0]}, "features need as many rows each"),
        ({"a": [1], "t": ["now"]}, "one: 't': no array"),
    ],
)
def test_what_code_may_not_return(tmp_path: Path, value, said):
    row = {"ref": "one", "arrays": {"x": "a0"}, "names": {}, "told": {}}
    with pytest.raises(EmboflowError, match=said):
        keep(value, EpisodeFolder(tmp_path), row, None, 3)
    assert not list(tmp_path.glob("*.npz"))
