"""HDF5 files as killed recorders, other tools and careless scripts leave them."""

import hashlib
import subprocess
import sys

import h5py  # noqa: TID253 - this module is about files that this library writes
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats import hdf5_walk
from emboflow_dagster.formats.canonical import from_hdf5
from emboflow_dagster.formats.hdf5_layout import open_hdf5, read_layout
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.recover import recover_recording

KILLED = """
import os, sys
import h5py, numpy as np
def streams(name, swmr, **how):
    file = h5py.File(name, "w", **how)
    made = [
        file.create_dataset(path, (0, 3), "f8", maxshape=(None, 3), chunks=(10, 3))
        for path in ("action", "observations/qpos")
    ]
    file.attrs["task"] = "fold"
    file.flush()
    if swmr:
        file.swmr_mode = True
    for count in (50, 100):
        for stream, more in zip(made, (0, 30)):
            stream.resize(count + more, 0)
            stream[count - 50:] = np.arange(count - 50, count + more)[:, None] * np.ones(3)
            stream.flush()
    return file
kept = [
    streams("swmr.hdf5", True, libver="latest"),
    streams("latest.hdf5", False, libver="latest"),
    streams("old.hdf5", False, libver="earliest"),
]
nothing = h5py.File("nothing.hdf5", "w", libver="latest")
os._exit(9)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Files whose writer never closed them: SWMR, the newest format, the oldest, and one without anything."""
    folder = tmp_path_factory.mktemp("killed")
    ended = subprocess.run([sys.executable, "-c", KILLED], cwd=folder, check=False)
    assert ended.returncode == 9
    return folder


def test_what_a_killed_recorder_left_is_read_and_never_touched(killed, tmp_path):
    for name in ("swmr", "latest", "old"):
        path = killed / f"{name}.hdf5"
        before = hashlib.sha256(path.read_bytes()).digest()
        with pytest.raises(OSError, match=r"open for write|addr overflow"), h5py.File(path) as file:
            file["action"][...]

        report = probe_path(path)
        (episode,) = from_hdf5.episodes(path)
        (out := tmp_path / name).mkdir()
        made = recover_recording(path, out)

        assert report.format == "hdf5_aloha"
        assert report.codes == {"unclean_close"}
        # The state was written further than the actions were.
        assert report.structure["recoverable"] == {
            "datasets": 2,
            "datasetsCut": 0,
            "datasetsLost": 0,
            "rows": 230,
            "declaredRows": 230,
            "episodes": 1,
            "frames": 100,
        }
        assert "recover" in report.recommended_next_nodes
        assert (episode.length, episode.task, episode.flags) == (100, "fold", ("unclean_close",))
        assert episode.features["action"][-1, 0] == episode.features["observation.state"][-1, 0] == 99
        assert (made["whole"], made["rows"], made["files"]) == (False, 200, {f"{name}.hdf5": 200})
        with h5py.File(out / made["path"]) as file:
            assert file["observations/qpos"].maxshape == (None, 3)
            assert file.attrs["task"] == "fold"
        whole = probe_path(out / made["path"])
        assert (whole.format, whole.codes, whole.structure["frames"]) == ("hdf5_aloha", frozenset(), 100)
        assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_recorder_that_was_killed_before_it_wrote_left_nothing(killed, tmp_path):
    report = probe_path(killed / "nothing.hdf5")

    assert report.codes == {"truncated"}
    with pytest.raises(InvalidInputError, match="nothing in it can be read"):
        recover_recording(killed / "nothing.hdf5", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["earliest", "latest"])
def test_what_stands_before_a_cut_is_read_behind_a_user_block_too(tmp_path, library):
    path = tmp_path / "whole.hdf5"
    with h5py.File(path, "w", libver=library, userblock_size=8192) as file:
        file["observations/qpos"] = np.arange(600.0).reshape(200, 3)
        file.create_dataset(
            "observations/images/top", data=np.ones((200, 16, 16, 3), "u1"), chunks=(1, 16, 16, 3)
        )
        file["action"] = np.arange(600.0).reshape(200, 3)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        cut_at = file["action"].id.get_offset() + 100 * 24 + 5
    (cut := tmp_path / "cut.hdf5").write_bytes(whole[:cut_at])

    report = probe_path(cut)
    (episode,) = from_hdf5.episodes(cut, videos=False)

    assert probe_path(path).codes == frozenset()
    assert report.format == "hdf5_aloha"
    assert "truncated" in report.codes
    assert report.structure["recoverable"]["datasetsCut"] == 1
    assert f"{cut_at} of {len(whole)} bytes" in report.warnings[0].message
    assert (report.structure["frames"], episode.length) == (100, 100)
    np.testing.assert_array_equal(episode.features["action"], np.arange(300.0).reshape(100, 3))
    assert episode.flags == ("truncated",)


def demos(path, lengths=(4, 5, 6), **more):
    with h5py.File(path, "w") as file:
        for number, length in zip((1, 2, 10), lengths, strict=False):
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"] = length
            demo["actions"] = np.full((length, 2), number, ">f4")
            demo["obs/joint_pos"] = np.full((length, 2), number, ">f8")
            for name, values in more.items():
                demo[f"obs/{name}"] = values(length)
    return path


def test_filter_keys_become_splits_and_lies_about_demonstrations_are_named(tmp_path):
    path = demos(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        file["mask/train"] = np.array([b"demo_1", b"demo_10", b"demo_7"])
        file.create_dataset("mask/valid", data=["demo_2", "demo_10"], dtype=h5py.string_dtype())
        file["data/demo_2"].attrs["num_samples"] = 50
        file.create_group("data/demo_3")

    report = probe_path(path)
    found = list(from_hdf5.episodes(path))

    assert report.structure["filterKeys"] == {"train": 3, "valid": 2}
    assert {(w.code, w.path) for w in report.warnings} == {
        ("missing_references", "mask/train"),
        ("split_overlap", "mask"),
        ("declared_count_mismatch", "data/demo_2"),
        ("empty_episode", "data/demo_3"),
    }
    assert [episode.flags for episode in found] == [
        ("split:train",),
        ("split:valid",),
        ("split:train", "split:valid"),
    ]
    assert [float(episode.features["action"][0, 0]) for episode in found] == [1, 2, 10]


def test_no_demonstration_at_all_is_said(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = '{"env_name": "Lift"}'

    report = probe_path(tmp_path / "x.hdf5")

    assert "no_episodes" in report.codes
    assert (report.structure["episodes"], report.structure["frames"]) == (0, 0)


def test_links_within_the_file_are_followed_and_others_never(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["actions"] = np.ones((5, 2))
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        # What comes first by name is no demonstration's place: the link below `data` is.
        file["all/run/actions"] = np.zeros((5, 2))
        file["all/run/obs/q"] = np.zeros((5, 2))
        file["data/demo_1"] = file["all/run"]
        file["data/demo_2"] = h5py.SoftLink("/all/run")
        file["data/demo_3/actions"] = h5py.SoftLink("../demo_1/actions")
        file["data/demo_4/actions"] = h5py.SoftLink("/outside/actions")
        file["outside"] = h5py.ExternalLink("secret.h5", "/")
        file["data/demo_5/obs/q"] = h5py.SoftLink("/data/demo_1/obs/q")
        file["data/demo_5/actions"] = h5py.ExternalLink("secret.h5", "/actions")
        file["data/demo_6/loop"] = h5py.SoftLink("/data")

    report = probe_path(path)
    skipped = []
    found = list(from_hdf5.episodes(path, skipped=skipped))

    assert [episode.source["ref"] for episode in found] == ["data/demo_1", "data/demo_2"]
    named = {(w.code, w.path) for w in report.warnings}
    assert {path for code, path in named if code == "link_not_followed"} == {
        "outside",
        "data/demo_3/actions",
        "data/demo_4/actions",
        "data/demo_5/actions",
        "data/demo_6/loop",
    }
    assert ("linked_twice", "data/demo_1") in named
    assert [item["reason"] for item in skipped] == ["no actions"]


def test_many_links_to_one_group_stay_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_walk, "MAX_AGAIN", 500)
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("g")
        for _ in range(30):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group["x"] = np.zeros(3)

    assert not read_layout(path).complete


def test_pictures_without_a_form_as_video_are_named_and_grey_ones_are_taken(tmp_path):
    rng = np.random.default_rng(0)
    path = demos(
        tmp_path / "x.hdf5",
        front_depth=lambda n: rng.random((n, 16, 16, 1), "f4"),
        wrist_depth=lambda n: rng.integers(0, 9, (n, 16, 16), "u2"),
        grey_image=lambda n: rng.integers(0, 9, (n, 16, 16), "u1"),
        first_image=lambda n: rng.integers(0, 9, (n, 3, 16, 20), "u1"),
        note=lambda n: np.array([b"left"] * n),
    )
    skipped = []

    report = probe_path(path)
    found = list(from_hdf5.episodes(path, skipped=skipped))

    assert {(w.code, w.path) for w in report.warnings} == {
        ("depth_left_out", "data/demo_1/obs/front_depth"),
        ("depth_left_out", "data/demo_1/obs/wrist_depth"),
    }
    assert {name: camera.shape for name, camera in found[0].cameras.items()} == {
        "grey": (16, 16, 3),
        "first": (16, 20, 3),
    }
    assert {item["source"]["ref"] for item in skipped} == {"obs/front_depth", "obs/wrist_depth", "obs/note"}
    episodes = from_hdf5.episodes(path)
    picture = next(next(episodes).cameras["first"].frames())
    with open_hdf5(path) as file:
        np.testing.assert_array_equal(picture, np.moveaxis(file["data/demo_1/obs/first_image"][0], 0, -1))


def test_types_of_other_tools_are_named_or_read(tmp_path):
    path = tmp_path / "x.hdf5"
    table = np.zeros(8, [("t", "<f8"), ("qpos", ">f4", (6,)), ("label", "S4")])
    table["t"] = np.arange(8) / 10
    table["qpos"] = np.arange(8)[:, None]
    with h5py.File(path, "w") as file:
        file["log"] = table
        file["flags/grasped"] = np.ones(8, bool)
        file.create_dataset(
            "flags/mode", data=np.ones(8, "u1"), dtype=h5py.enum_dtype({"A": 0, "B": 1}, basetype="u1")
        )
        file.create_dataset("flags/ragged", (8,), h5py.vlen_dtype("f4"))
        file["flags/half"] = np.ones(8, "f2")
        file["flags/complex"] = np.ones(8, "c8")
        file.create_dataset("flags/none", data=h5py.Empty("f4"))
        kind = h5py.h5t.UNIX_D32LE
        h5py.h5d.create(file.id, b"clock", kind, h5py.h5s.create_simple((8,)))

    report = probe_path(path)
    mapping = report.structure["mapping"]

    assert report.codes == {"not_a_robot_dataset", "unsupported_type"}
    assert report.structure["datasets"]["log"]["dtype"].startswith("compound(t float64, qpos float32")
    assert mapping["log/qpos"] == "observation.state"
    assert mapping["log/t"] == "timestamp"
    assert {"flags/grasped", "flags/mode", "flags/half"} < set(mapping)
    (episode,) = from_hdf5.episodes(path, mapping=mapping)
    assert episode.features["observation.state"].shape == (8, 6)
    assert episode.source_timestamp_ns[-1] == 700_000_000


def test_a_mapping_that_works_is_proposed_for_files_of_no_known_layout(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for number in (2, 10):
            group = file.create_group(f"runs/ep_{number}")
            group["cmd"] = np.zeros((20 + number, 7))
            group["joint_positions"] = np.zeros((20 + number, 7))
            group["time"] = np.arange(20 + number) / 50
            group["cam/top"] = np.zeros((20 + number, 16, 16, 3), "u1")
            group["calibration"] = np.eye(4)
        file["meta"] = np.arange(3)

    report = probe_path(path)
    (warning,) = report.warnings
    with pytest.raises(InvalidInputError) as refused:
        list(from_hdf5.episodes(path))
    found = list(from_hdf5.episodes(path, mapping=report.structure["mapping"]))

    assert report.structure["mapping"] == {
        "cmd": "action",
        "joint_positions": "observation.state",
        "time": "timestamp",
        "cam/top": "observation.images.cam.top",
    }
    assert '"cmd": "action"' in warning.message
    assert '"cmd": "action"' in refused.value.hint
    assert [(e.source["ref"], e.length) for e in found] == [("runs/ep_2", 22), ("runs/ep_10", 30)]
    assert list(found[0].cameras) == ["cam.top"]


def test_a_filter_that_is_not_there_is_named(tmp_path):
    path = demos(tmp_path / "x.hdf5", lengths=(4,))
    with h5py.File(path, "a") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((2, 2))
        made.set_filter(32_001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 16))
        space = h5py.h5s.create_simple((4, 2))
        packed = h5py.h5d.create(file["data/demo_1/obs"].id, b"packed", h5py.h5t.IEEE_F32LE, space, made)
        packed.write_direct_chunk((0, 0), b"\0" * 16)
    skipped = []

    report = probe_path(path)
    assert list(from_hdf5.episodes(path, skipped=skipped)) == []

    assert {(w.code, w.path) for w in report.warnings} == {("filter_unavailable", "data/demo_1/obs/packed")}
    assert "blosc (32001)" in report.warnings[0].message
    assert "blosc (32001)" in skipped[-1]["reason"]


def test_one_bad_file_of_a_folder_costs_itself(tmp_path):
    demos(tmp_path / "a.hdf5")
    (tmp_path / "b.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes()[:100])
    skipped = []

    assert len(list(from_hdf5.episodes(tmp_path, skipped=skipped))) == 3
    assert [item["source"]["path"] for item in skipped] == ["b.hdf5"]
