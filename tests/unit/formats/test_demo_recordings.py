"""The demo's own recordings: what a probe counts is what was written, and every time the same bytes."""

import json
import os
from pathlib import Path

import numpy as np  # noqa: TID253 - this module is about numbers
import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical import from_bags, from_hdf5
from emboflow_dagster.formats.demo_recordings import arm
from emboflow_dagster.formats.demo_recordings.find import Found, find_recordings, type_of_folder
from emboflow_dagster.formats.demo_recordings.make import FPS, make_recordings
from emboflow_dagster.formats.demo_recordings.together import largest_group, look_at
from emboflow_dagster.formats.probe import probe_path

SAMPLES = Path(
    os.environ.get("EMBOFLOW_SAMPLES") or Path(__file__).resolve().parents[4] / "shared" / "samples"
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def samples():
    if not (SAMPLES / "EXPECT.json").is_file():
        if os.environ.get("CI"):
            pytest.fail(f"EMBOFLOW_SAMPLES: no EXPECT.json in {SAMPLES}")
        pytest.skip("EMBOFLOW_SAMPLES names no folder with samples")
    return SAMPLES


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_same_bytes_every_time_so_that_nothing_is_registered_twice(recordings, tmp_path):
    make_recordings(tmp_path / "again")

    assert contents(tmp_path / "again") == contents(recordings[0].path.parent)


def test_what_is_there_stays_and_what_is_missing_is_made(tmp_path):
    first = make_recordings(tmp_path)
    first[0].path.write_bytes(b"changed by hand")
    first[1].path.unlink()
    again = make_recordings(tmp_path)

    assert first[0].path.read_bytes() == b"changed by hand"
    assert again[1].path.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.path.name for one in again)


@pytest.mark.parametrize("index", range(5))
def test_a_probe_counts_what_was_written(recordings, index):
    recording = recordings[index]
    probe = probe_path(recording.path, asset_type=recording.asset_type)
    found = {topic: facts["count"] for topic, facts in probe.structure.get("topics", {}).items()}

    assert probe.format == recording.truth.format
    assert probe.codes == set(recording.truth.warnings)
    if not recording.truth.warnings:
        assert found == recording.truth.messages
    if not recording.truth.messages:
        assert probe.structure["episodes"] == recording.truth.episodes
        assert probe.structure["frames"] == recording.truth.frames


def test_the_broken_bag_gives_what_stands_before_the_cut(recordings):
    broken = recordings[-1]
    found = probe_path(broken.path).structure["topics"]

    assert {
        topic: 0 < found[topic]["count"] < count for topic, count in broken.truth.messages.items()
    } == dict.fromkeys(broken.truth.messages, True)


def test_the_whole_recordings_have_the_episodes_and_frames_of_their_truth_and_one_schema(recordings):
    schemas = set()
    for recording in recordings[:-1]:
        if recording.asset_type == "hdf5_dataset":
            assert from_hdf5.suggested_fps(recording.path) == FPS
            episodes = list(from_hdf5.episodes(recording.path))
        else:
            episodes = list(from_bags.episodes(recording.path, fps=FPS))
        schemas |= {
            json.dumps({name: spec.dim for name, spec in e.specs.items()}, sort_keys=True) for e in episodes
        }

        assert len(episodes) == recording.truth.episodes
        assert sum(episode.length for episode in episodes) == recording.truth.frames

    assert [json.loads(schema) for schema in schemas] == [
        {"action": 2, "observation.effort": 2, "observation.state": 2, "observation.velocity": 2}
    ]


def test_the_arm_keeps_its_limits_and_moves_as_it_says():
    trajectory = arm.Trajectory([(1.2, -0.9), (2.3, -0.5), (0.4, -0.2)])
    seconds = np.linspace(0, trajectory.duration, 4_001)
    motion = trajectory.at(seconds)
    steps = np.diff(seconds)[:, None]

    assert np.abs(motion.velocity).max() <= arm.MAX_VELOCITY + 1e-9
    assert np.abs(motion.acceleration).max() <= arm.MAX_ACCELERATION + 1e-9
    assert np.allclose(np.diff(motion.position, axis=0) / steps, motion.velocity[:-1], atol=5e-3)
    assert np.allclose(np.diff(motion.velocity, axis=0) / steps, motion.acceleration[:-1], atol=0.1)
    assert np.allclose(motion.position[-1], (0.4, -0.2))
    assert np.allclose(motion.velocity[[0, -1]], 0)


def test_the_torques_do_the_work_that_the_energy_needs():
    trajectory = arm.Trajectory([(1.2, -0.9), (2.3, -0.5)])
    seconds = np.linspace(0, trajectory.duration, 20_001)
    motion = trajectory.at(seconds)
    power = (arm.torques(motion) * motion.velocity).sum(axis=1)
    work = float(((power[1:] + power[:-1]) / 2 * np.diff(seconds)).sum())

    def height(q):
        (l1, l2), (m1, m2) = arm.LINKS, arm.MASSES
        upper = l1 * np.sin(q[0])
        return arm.GRAVITY * (m1 * upper / 2 + m2 * (upper + l2 / 2 * np.sin(q[0] + q[1])))

    # At rest at both ends: all of the work is potential energy.
    assert work == pytest.approx(height(motion.position[-1]) - height(motion.position[0]), abs=1e-4)


def test_every_sample_is_found_once_and_with_its_type(samples):
    expected = json.loads((samples / "EXPECT.json").read_text())
    found = find_recordings(samples)
    owners = {
        one.name: [name for name in expected if one.name == name or one.name.startswith(f"{name}/")]
        for one in found
    }

    assert {name for names in owners.values() for name in names} == set(expected)
    assert [one.name for one in found if len(owners[one.name]) != 1] == []
    assert {one.name: one.asset_type for one in found} == {
        name: expected[names[0]]["asset_type"] for name, names in owners.items()
    }


def test_the_demo_finds_its_own_recordings(recordings):
    folder = recordings[0].path.parent

    assert find_recordings(folder) == sorted(
        (Found(one.path, one.asset_type, one.name) for one in recordings), key=lambda one: one.name
    )


def test_a_single_file_a_recording_folder_and_a_folder_without_any(recordings, tmp_path):
    bag, folder = recordings[0].path, recordings[2].path
    (tmp_path / "notes.txt").write_text("nothing to see")

    assert find_recordings(bag) == [Found(bag, "rosbag", bag.name)]
    assert find_recordings(folder) == [Found(folder, "rosbag", folder.name)]
    with pytest.raises(InvalidInputError, match="no recording in it"):
        find_recordings(tmp_path)
    with pytest.raises(InvalidInputError, match="no such file or folder"):
        find_recordings(tmp_path / "absent")


def test_links_and_hidden_files_are_left_alone(recordings, tmp_path):
    (tmp_path / "link.mcap").symlink_to(recordings[0].path)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.mcap").write_bytes(recordings[0].path.read_bytes())
    (tmp_path / "a.mcap").write_bytes(recordings[0].path.read_bytes())

    assert [one.name for one in find_recordings(tmp_path)] == ["a.mcap"]


def test_the_whole_recordings_go_together_and_the_reasons_for_the_rest_are_named(recordings):
    asked = [{"key": one.name, "path": str(one.path), "format": one.truth.format} for one in recordings] + [
        {"key": "text", "path": __file__, "format": "hdf5"}
    ]
    looked = look_at(asked, float(FPS))
    group = largest_group([row for row in looked if row["key"] != "cut-short.bag"])

    assert group is not None
    assert group.members == tuple(one.name for one in recordings[:-1])
    assert group.episodes == sum(one.truth.episodes for one in recordings)
    assert group.frames == sum(one.truth.frames for one in recordings)
    assert group.fps == FPS
    assert looked[-1]["schemas"] == []
    assert "no HDF5 file" in looked[-1]["reasons"][0]


def test_a_recording_at_another_rate_is_not_in_the_group_and_no_episode_is_no_group():
    def row(key, rate, width=2):
        return {
            "key": key,
            "rate": rate,
            "schemas": [{"features": {"action": width}, "episodes": 1, "frames": 9}],
        }

    rows = [row("a", 20.0), row("b", 20.4), row("c", 50.0), row("bag", None), row("wide", 20.0, 7)]
    group = largest_group(rows)

    assert group is not None
    assert group.members == ("a", "b", "bag")
    assert group.fps == 20.0
    assert largest_group([{"key": "x", "rate": None, "schemas": []}]) is None


@pytest.mark.samples
@pytest.mark.parametrize(
    ("name", "asset_type"),
    [
        ("hdf5/robosuite_101_lift_panda", "hdf5_dataset"),
        ("rosbag2/multiple_files_no_metadata_sqlite3", "rosbag"),
        ("rosbag2/talker_mcap", "rosbag"),
        ("standard_dataset/rlds_bridge_debug", "standard_dataset"),
        ("standard_dataset/omx_not_lerobot", "standard_dataset"),
        ("video/rotation_set", "video_collection"),
        ("folder/so101_urdf", "folder"),
        ("folder/lfs_pointers_lerobot", None),
        ("archive/dlt_csv_gz", None),
    ],
)
def test_a_folder_says_which_type_of_asset_it_is_as_a_whole(samples, name, asset_type):
    assert type_of_folder(samples / name) == asset_type


def test_a_folder_of_several_kinds_is_of_no_type(recordings):
    assert {one.asset_type for one in recordings} == {"rosbag", "hdf5_dataset"}
    assert type_of_folder(recordings[0].path.parent) is None
