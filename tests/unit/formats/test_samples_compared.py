"""The report of differences between probes and the truth of the samples is whole, current and empty."""

import copy
from pathlib import Path

import pytest

from tests import samples_compared
from tests.sample_files import needed
from tests.samples_compared import SAMPLES, compare, names, truth

pytestmark = pytest.mark.samples


@pytest.fixture(autouse=True)
def _samples_are_there():
    needed(names())


def test_every_sample_is_expected_and_has_a_truth():
    there = {
        f"{kind.name}/{path.name}" for kind in SAMPLES.iterdir() if kind.is_dir() for path in kind.iterdir()
    }
    assert len(names()) == 55
    assert set(names()) <= there
    assert {path.stem.replace("__", "/", 1) for path in (SAMPLES / "TRUTH").iterdir()} == set(names())


@pytest.mark.parametrize("name", names())
def test_a_probe_says_what_independent_tools_found(name):
    result = compare(name)

    assert result.differences == []
    assert result.fields > 1


def _changed(name, *path):
    found = copy.deepcopy(truth(name))
    place = found
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    place[path[-1]] = value + 1 if isinstance(value, (int, float)) else f"{value}1"
    return found


@pytest.mark.parametrize(
    ("name", "path", "field"),
    [
        ("rosbag2/talker_sqlite3", ("message_count",), "messageCount"),
        ("rosbag2/talker_sqlite3", ("topics", "/topic", "count"), "topics./topic.count"),
        ("rosbag2/talker_sqlite3", ("end_ns",), "end_ns"),
        ("rosbag2/talker_mcap", ("mcap", "talker.mcap", "indexed", "chunks"), "mcap.talker.mcap.chunks"),
        ("rosbag1/turtlesim_lz4", ("duration_s",), "duration_s"),
        ("hdf5/robosuite_101_lift_panda", ("total_steps",), "frames"),
        ("hdf5/aloha_sim_insertion", ("h5ls", "/action", 0), "datasets.action"),
        ("standard_dataset/ioai_lerobotv2", ("parquet", "episode_lengths", "1"), "episodeLengths.1"),
        (
            "standard_dataset/ioai_lerobotv2",
            ("declared_features", "action", "dtype"),
            "features.action.dtype",
        ),
        ("video/corrupted_mp4", ("files", "corrupted.mp4", "streams", 0, "nb_read_frames"), "frames"),
        ("archive/arx5p2_urdf_zip", ("file_members",), "members"),
        ("raw_file/gait_cycle_csv", ("rows",), "rows"),
    ],
)
def test_a_changed_truth_shows_and_is_named(name, path, field):
    result = compare(name, _changed(name, *path))

    assert len(result.differences) == 1
    assert field in result.differences[0]


def test_a_field_that_nothing_is_compared_with_is_a_difference():
    result = compare("raw_file/gait_cycle_csv", {**truth("raw_file/gait_cycle_csv"), "colour": "red"})

    assert result.differences == ["colour: a field of the truth that nothing is compared with"]


def test_the_written_report_is_the_one_that_would_be_written_now():
    path = Path(__file__).parents[3] / "docs" / "samples.md"

    assert path.read_text("utf-8") == samples_compared.report([compare(name) for name in names()])
