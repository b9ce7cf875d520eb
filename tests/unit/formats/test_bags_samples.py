"""Real recordings of others: the format, warnings and counts that independent tools found."""

import json
import os
from typing import Any

import pytest

from emboflow_dagster.formats.messages import iter_numeric, numeric_topics
from emboflow_dagster.formats.pictures import iter_images
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.report import FORMATS, WARNING_CODES, ProbeWarning
from tests.samples_compared import SAMPLES, probed

KINDS = ("mcap", "rosbag1", "rosbag2")
NAMES = sorted(
    f"{kind}/{path.name}"
    for kind in KINDS
    if (SAMPLES / kind).is_dir()
    for path in (SAMPLES / kind).iterdir()
)
pytestmark = pytest.mark.samples

# What else is reported for these, each for a reason that was looked at: a message type that is neither in the
# file nor a ROS standard, and a recorded definition of rcl_interfaces/Log that is not the message's.
ALSO = {
    "rosbag2/talker_sqlite3": {"definition_mismatch"},
    "rosbag2/topics_and_services_db3": {"undecodable_topics"},
    "rosbag2/wrong_rmw_test_sqlite3": {"undecodable_topics"},
}


@pytest.fixture(autouse=True)
def _samples_are_there():
    if not NAMES:
        reason = f"no recordings under {SAMPLES}; set EMBOFLOW_SAMPLES"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def _expected(name: str) -> dict[str, Any]:
    return json.loads((SAMPLES / "EXPECT.json").read_text())[name]


def _truth(name: str) -> dict[str, Any]:
    truth = json.loads((SAMPLES / "TRUTH" / f"{name.replace('/', '__')}.json").read_text())["truth"]
    return truth.get("after_rosbag_reindex", truth)


def test_recordings_are_found():
    assert len(NAMES) >= 27


@pytest.mark.parametrize("name", NAMES)
def test_the_format_and_the_warnings_are_the_expected_ones(name):
    expected = _expected(name)

    report = probed(name)

    assert report.format == expected["format"]
    assert report.format in FORMATS
    assert set(expected["must_warn"]) <= report.codes
    if expected["format"] != "unknown":
        assert report.codes - set(expected["must_warn"]) == ALSO.get(name, set())
    assert report.codes <= WARNING_CODES
    assert report.recommended_next_nodes
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", NAMES)
def test_counts_types_and_times_are_those_of_independent_tools(name):
    truth = _truth(name)
    structure = probed(name).structure
    if "topics" not in truth:
        assert "error" in truth
        assert "messageCount" not in structure
        return

    assert structure["messageCount"] == truth["message_count"]
    assert structure["topics"] == {
        topic: {"type": found["type"], "count": found["count"]} for topic, found in truth["topics"].items()
    }
    if "files" in truth:
        assert structure["files"] == truth["files"]
    start, end = structure["startNs"], structure["endNs"]
    if "start_ns" in truth:
        assert start == (None if truth["start_ns"] is None else int(truth["start_ns"]))
        assert end == (None if truth["end_ns"] is None else int(truth["end_ns"]))
    elif truth["start_s"] is None:
        assert (start, end) == (None, None)
    elif truth["duration_s"] >= 0:
        assert start == pytest.approx(truth["start_s"] * 1e9, abs=1e3)
        assert end == pytest.approx(truth["end_s"] * 1e9, abs=1e3)
    else:  # the other tool trusts the order of the chunks here; the stamps are 1, 2 and 3 s
        assert (start, end) == (1_000_000_000, 3_000_000_000)
    assert structure["durationNs"] == (None if start is None else end - start)
    for topic, found in truth["topics"].items():
        if found.get("first_ns") is not None:
            assert structure["streams"][topic]["firstNs"] == int(found["first_ns"])
            assert structure["streams"][topic]["lastNs"] == int(found["last_ns"])


def test_declared_values_stand_beside_the_found_ones():
    structure = probed("rosbag2/wbag_sqlite3").structure

    assert (structure["startNs"], structure["durationNs"]) == (1_000, 1_998)
    assert (structure["declared"]["startNs"], structure["declared"]["durationNs"]) == (2_623, 411)


def test_the_start_of_an_empty_bag_is_no_date():
    structure = probed("rosbag2/empty_bag_sqlite3").structure

    assert structure["startNs"] is None
    assert structure["declared"]["startNs"] is None


@pytest.mark.parametrize("name", NAMES)
def test_numeric_rows_are_as_many_as_the_topics_have_messages(name):
    topics = numeric_topics(SAMPLES / name)
    structure = probed(name).structure
    rows: dict[str, int] = {}
    for row in iter_numeric(SAMPLES / name):
        assert len(row.names) == len(row.values) > 0
        rows[row.topic] = rows.get(row.topic, 0) + 1

    assert rows == {topic: entry["count"] for topic, entry in topics.items()}
    for topic, entry in topics.items():
        assert structure["topics"][topic] == {"type": entry["type"], "count": entry["count"]}


def test_turtle_poses_are_read_alike_from_plain_and_lz4_chunks():
    plain = list(iter_numeric(SAMPLES / "rosbag1/turtlesim_example", ["/turtle1/pose"]))
    packed = list(iter_numeric(SAMPLES / "rosbag1/turtlesim_lz4", ["/turtle1/pose"]))

    assert len(plain) == 1_344
    assert plain == packed
    assert plain[0].names == ("x", "y", "theta", "linear_velocity", "angular_velocity")


def test_undecodable_topics_are_reported_not_raised():
    problems: list[ProbeWarning] = []

    assert list(iter_numeric(SAMPLES / "rosbag2/convert_a_sqlite3", problems=problems)) == []
    assert {(p.code, p.path) for p in problems} == {
        ("undecodable_topics", "a_empty"),
        ("undecodable_topics", "b_basictypes"),
    }


def test_a_recorded_jpeg_is_given_as_it_is():
    pictures = list(iter_images(SAMPLES / "rosbag1/aruco_images", "/raspicam_node/image/compressed", 5))

    assert [stamp for stamp, _ in pictures] == [1_491_682_361_550_891_160]
    assert pictures[0][1].startswith(b"\xff\xd8\xff")


def test_probing_leaves_nothing_behind_in_the_folder():
    folder = SAMPLES / "rosbag2/empty_bag_sqlite3"
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())

    probe_path(folder)

    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before
