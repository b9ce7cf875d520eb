"""Demonstration files written here: layouts, links that lead outside, counts that lie, files cut off."""

import json

import h5py  # noqa: TID253 - this module is about files that this library writes
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.formats.hdf5_layout import natural_key, read_layout
from emboflow_dagster.formats.probe import probe_path


def robomimic(path, lengths=(30, 20, 40), total=None):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths) if total is None else total
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Can", "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}
        )
        for number, length in zip((1, 2, 10), lengths, strict=False):
            demo = data.create_group(f"demo_{number}")
            rng = np.random.default_rng(number)
            demo["actions"] = rng.normal(size=(length, 7))
            demo["states"] = rng.normal(size=(length, 11))
            demo["obs/robot0_eef_pos"] = rng.normal(size=(length, 3))
            demo["obs/agentview_image"] = rng.integers(0, 255, (length, 8, 10, 3)).astype(np.uint8)
    return path


def test_a_robomimic_file_is_one_dataset(tmp_path):
    report = probe_path(robomimic(tmp_path / "low_dim.hdf5"))

    assert report.format == "hdf5_robomimic"
    assert report.codes == frozenset()
    assert (report.structure["episodes"], report.structure["frames"]) == (3, 90)
    assert list(report.structure["episodeLengths"]) == ["demo_1", "demo_2", "demo_10"]
    assert report.structure["cameras"] == ["agentview"]
    assert report.structure["stateDim"] == 11
    assert report.structure["actionDim"] == 7
    assert report.structure["fps"] == 20.0
    assert (report.structure["env"], report.structure["robotType"]) == ("Can", "Panda")
    assert "normalize" in report.recommended_next_nodes


def test_a_total_that_lies_is_named_and_not_reported(tmp_path):
    report = probe_path(robomimic(tmp_path / "x.hdf5", total=91))

    assert report.structure["frames"] == 90
    assert report.codes == {"declared_count_mismatch"}


def test_links_and_outside_data_are_named_and_never_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["password"] = np.arange(5)
    (tmp_path / "raw.bin").write_bytes(bytes(800))
    path = tmp_path / "in" / "x.hdf5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["data/demo_1/states"] = np.zeros((5, 2))
        file["data/demo_1/actions"] = h5py.ExternalLink("../secret.h5", "/password")
        file["data/demo_1/soft"] = h5py.SoftLink("/data/demo_1/states")
        file.create_dataset("data/demo_1/ext", (10, 10), "f8", external=[("../raw.bin", 0, 800)])
        layout = h5py.VirtualLayout((5,), "i8")
        layout[:] = h5py.VirtualSource("../secret.h5", "password", (5,))
        file.create_virtual_dataset("data/demo_1/virtual", layout)

    report = probe_path(path)

    found = {(w.code, w.path) for w in report.warnings}
    assert ("link_not_followed", "data/demo_1/actions") in found
    assert ("external_data", "data/demo_1/ext") in found
    assert ("external_data", "data/demo_1/virtual") in found
    assert report.structure["hasActions"] is False
    assert set(report.structure["datasets"]) == {
        "data/demo_1/states",
        "data/demo_1/soft",
        "data/demo_1/ext",
        "data/demo_1/virtual",
    }


def test_a_group_that_contains_itself_is_walked_once(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["a/values"] = np.arange(3)
        file["a/again"] = file["a"]
        file["a/root"] = file["/"]

    layout = read_layout(path)

    assert "a/values" in [item.path for item in layout.fields]
    assert len(layout.fields) <= 2


def test_five_hundred_datasets_are_shown_and_all_are_counted(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for index in range(620):
            file[f"values/{index}"] = np.arange(2)

    report = probe_path(path)

    assert report.structure["datasetCount"] == 620
    assert len(report.structure["datasets"]) == 500
    assert (report.structure["episodes"], report.structure["frames"]) == (None, None)
    assert report.codes == {"not_a_robot_dataset"}


def test_several_episode_files_are_one_asset(tmp_path):
    for number, length in ((0, 5), (2, 6), (10, 7)):
        with h5py.File(tmp_path / f"episode_{number}.hdf5", "w") as file:
            file["action"] = np.zeros((length, 14), np.float32)
            file["observations/qpos"] = np.zeros((length, 14), np.float32)

    report = probe_path(tmp_path)

    assert report.format == "hdf5_aloha"
    assert (report.structure["episodes"], report.structure["frames"]) == (3, 18)
    assert list(report.structure["datasets"])[-1].startswith("episode_10.hdf5:")


def test_one_broken_file_does_not_hide_the_others(tmp_path):
    robomimic(tmp_path / "a.hdf5")
    whole = (tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "b.hdf5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.hdf5").write_bytes(whole[:8] + b"\xff" * 500)

    report = probe_path(tmp_path)

    assert report.format == "hdf5_robomimic"
    assert {("truncated", "b.hdf5"), ("corrupt", "c.hdf5")} <= {(w.code, w.path) for w in report.warnings}
    assert report.structure["episodes"] == 5  # two of the three that are whole are left of the second file


@pytest.mark.parametrize("cut", [50, 200, 3_000])
def test_a_file_that_was_cut_off_is_reported(tmp_path, cut):
    data = robomimic(tmp_path / "whole").read_bytes()
    path = tmp_path / "x.hdf5"
    path.write_bytes(data[:cut])

    report = probe_path(path)

    assert report.format == "hdf5"
    assert "truncated" in report.codes


def test_episodes_of_different_widths_have_no_common_one(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for number, width in ((1, 3), (2, 4)):
            file[f"data/demo_{number}/actions"] = np.zeros((6, width))
            file[f"data/demo_{number}/states"] = np.zeros((6, 9))

    report = probe_path(path)

    assert report.structure["actionDim"] is None
    assert report.structure["stateDim"] == 9
    assert "dimension_mismatch" in report.codes


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["demo_10", "demo_9", "demo_1"], key=natural_key) == ["demo_1", "demo_9", "demo_10"]
