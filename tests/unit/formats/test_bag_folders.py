"""Several recordings in a folder: which files are one, what a probe says, which episodes they become."""

import json
from pathlib import Path

import pytest
from rosbags.rosbag1 import Writer as Ros1Writer  # noqa: TID253 - this module is about files of these libraries
from rosbags.typesys import Stores, get_typestore  # noqa: TID253

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.bag_recordings import recordings_in
from emboflow_dagster.formats.canonical import from_bags
from emboflow_dagster.formats.canonical.splitting import Split
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality.report import quality_report
from tests.unit.formats.json_recordings import MS, START, recording
from tests.unit.formats.test_bags_written import _joint_state, write_rosbag2

S = 1_000


def arm(first: int, last: int, step: int = 10) -> dict[str, list[tuple[float, dict[str, object]]]]:
    rows: list[tuple[float, dict[str, object]]] = [
        (ms, {"name": ["a"], "position": [ms / 1000]}) for ms in range(first, last + 1, step)
    ]
    return {"/joint_states": rows}


def ros1(path: Path, first: int, last: int) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(path) as writer:
        topic = writer.add_connection("/joint_states", "sensor_msgs/msg/JointState", typestore=store)
        for ms in range(first, last + 1, 10):
            data = store.serialize_ros1(_joint_state(store, ms), topic.msgtype)
            writer.write(topic, START + ms * MS, data)
    return path


def seconds(found: list) -> list[tuple[float, float]]:
    return [
        ((e.source_timestamp_ns[0] - START) / 1e9, round((e.source_timestamp_ns[-1] - START) / 1e9, 2))
        for e in found
    ]


def mcaps(folder: Path, spans: dict[str, tuple[int, int]]) -> Path:
    for name, (first, last) in spans.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        recording(folder / name, arm(first, last))
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # Other names: recordings of their own, however close in time.
        ({"a.mcap": (0, 990), "b.mcap": (1_000, 2_000)}, [["a.mcap"], ["b.mcap"]]),
        # A recorder that splits: the names count up, the time goes on.
        (
            {f"x_{n}.mcap": (n * S, n * S + 990) for n in (9, 10, 11)},
            [["x_9.mcap", "x_10.mcap", "x_11.mcap"]],
        ),
        # ... with a date that changes, and two recordings of it.
        (
            {
                "x_2024-05-01-10-00-00_0.mcap": (0, 990),
                "x_2024-05-01-10-00-01_1.mcap": (1_000, 1_990),
                "x_2024-05-01-11-00-00_0.mcap": (9_000, 9_990),
            },
            [
                ["x_2024-05-01-10-00-00_0.mcap", "x_2024-05-01-10-00-01_1.mcap"],
                ["x_2024-05-01-11-00-00_0.mcap"],
            ],
        ),
        # A pause, an overlap, a clock that begins anew: the names alone make no recording.
        ({"x_0.mcap": (0, 990), "x_1.mcap": (5_000, 6_000)}, [["x_0.mcap"], ["x_1.mcap"]]),
        ({"x_0.mcap": (0, 990), "x_1.mcap": (500, 1_500)}, [["x_0.mcap"], ["x_1.mcap"]]),
        ({"x_0.mcap": (0, 990), "x_1.mcap": (0, 990)}, [["x_0.mcap"], ["x_1.mcap"]]),
        # A number that is missing, a word for episodes, another folder.
        ({"x_0.mcap": (0, 990), "x_2.mcap": (1_000, 1_500)}, [["x_0.mcap"], ["x_2.mcap"]]),
        (
            {"episode_0.mcap": (0, 990), "episode_1.mcap": (1_000, 1_500)},
            [["episode_0.mcap"], ["episode_1.mcap"]],
        ),
        ({"a/x_0.mcap": (0, 990), "b/x_1.mcap": (1_000, 1_500)}, [["a/x_0.mcap"], ["b/x_1.mcap"]]),
    ],
)
def test_which_files_are_one_recording(tmp_path, files, expected):
    found = recordings_in(mcaps(tmp_path, files))

    assert [[name for _, name, _ in one.parts] for one in found] == expected
    report = probe_path(tmp_path)
    division = report.structure["division"]
    assert (division["episodes"], sum(r["files"] for r in division["recordings"].values())) == (
        len(expected),
        len(files),
    )
    assert ("multiple_recordings" in report.codes) == (len(expected) > 1)


def test_separate_bags_are_an_episode_each_and_those_of_one_time_are_told(tmp_path):
    ros1(tmp_path / "a.bag", 0, 2_000)
    ros1(tmp_path / "b.bag", 1_500, 3_000)
    ros1(tmp_path / "c.bag", 4_000, 5_000)

    report = probe_path(tmp_path)
    found = list(from_bags.episodes(tmp_path, fps=10))
    (whole,) = from_bags.episodes(tmp_path, fps=10, split=Split("one"))
    gaps = list(from_bags.episodes(tmp_path, fps=10, split=Split("gap", seconds=0.5)))

    told = [(w.path, w.message) for w in report.warnings if w.code == "overlapping_recordings"]
    assert told == [("b.bag", "recorded at the same time as a.bag for 0.500 s")]
    assert report.structure["division"]["recordings"]["b.bag"] == {
        "files": 1,
        "messageCount": 151,
        "startNs": START + 1_500 * MS,
        "endNs": START + 3_000 * MS,
        "durationNs": 1_500 * MS,
    }
    assert [e.source["path"] for e in found] == ["a.bag", "b.bag", "c.bag"]
    assert seconds(found) == [(0, 2.0), (1.5, 3.0), (4.0, 5.0)]
    assert (seconds([whole]), whole.source["path"]) == ([(0, 5.0)], tmp_path.name)
    assert [(e.source["path"], e.source["ref"]) for e in gaps] == [
        (f"{name}.bag", "part 0: /joint_states") for name in "abc"
    ]


def test_a_recording_that_fails_keeps_no_other_from_being_an_episode(tmp_path):
    mcaps(tmp_path, {"a.mcap": (0, 1_000), "c.mcap": (5_000, 6_000)})
    recording(tmp_path / "b.mcap", {"/other": [(2_000, {"data": 1})]})
    skipped = []

    found = from_bags.episodes(tmp_path, fps=10, topics=["/joint_states"], skipped=skipped)

    assert [e.source["path"] for e in found] == ["a.mcap", "c.mcap"]
    assert [(item["source"]["path"], item["reason"][:12]) for item in skipped] == [("b.mcap", "no numbers i")]


def test_folders_of_rosbag2_and_one_that_was_killed(tmp_path):
    for name in ("run_2", "run_10"):
        write_rosbag2(tmp_path / name)
    mcaps(tmp_path, {"killed/killed_0.mcap": (0, 990), "killed/killed_1.mcap": (1_000, 2_000)})

    report = probe_path(tmp_path)

    assert list(report.structure["division"]["recordings"]) == [
        "killed/killed_0.mcap,killed/killed_1.mcap",
        "run_2",
        "run_10",
    ]
    assert {w.path for w in report.warnings if w.code == "metadata_missing"} == {
        "killed/killed_0.mcap",
        "killed/killed_1.mcap",
    }
    assert [one.name for one in recordings_in(tmp_path)] == list(report.structure["division"]["recordings"])


def test_names_may_say_which_recordings_are_one(tmp_path):
    for episode in (1, 2):
        start = episode * 10_000
        recording(tmp_path / f"ep{episode}_arm.mcap", arm(start, start + 1_000))
        grip = [(ms, {"v": 1.0}) for ms in range(start, start + 1_001, 20)]
        recording(tmp_path / f"ep{episode}_hand.mcap", {"/grip": grip})
    split = Split("name", pattern="ep{episode}_*.mcap")

    found = list(from_bags.episodes(tmp_path, fps=10, split=split))

    assert [e.source["path"] for e in found] == ["ep1_arm.mcap,ep1_hand.mcap", "ep2_arm.mcap,ep2_hand.mcap"]
    assert [sorted(e.features) for e in found] == [["observation.grip", "observation.state"]] * 2
    with pytest.raises(InvalidInputError, match=r"no file fits 'x\{episode\}'; there are ep1_arm"):
        recordings_in(tmp_path, "name", "x{episode}")
    assert json.dumps(probe_path(tmp_path).to_json())


@pytest.mark.parametrize(
    ("path", "ref", "other", "other_ref", "same"),
    [
        ("run_0", None, "run_0/run_0_1.mcap", "/a", True),
        ("x_0.bag,x_1.bag", None, "x_1.bag", "/a", True),
        ("x_1.bag", None, "x_10.bag", "/a", False),
        ("episode_0/front.mp4", "/", "episode_0/front.mp4,episode_0/wrist.mp4", "/", True),
        ("episode_0/front.mp4,episode_0/wrist.mp4", "/", "episode_1/front.mp4", "/", False),
        (None, "a,b", "folder", "b", True),
        ("x.hdf5", "demo_1", "x.hdf5", "demo_10", False),
    ],
)
def test_what_was_forgotten_is_known_however_the_folder_is_divided(path, ref, other, other_ref, same):
    assert Place("0", path, ref).has({"path": other, "ref": other_ref}) is same


def test_a_pause_between_recordings_is_no_gap_of_a_stream(tmp_path):
    ros1(tmp_path / "a.bag", 0, 1_000)
    ros1(tmp_path / "b.bag", 60_000, 61_000)
    report = quality_report(tmp_path, checks=["gaps", "time_monotonic"])
    assert [(check["severity"], check["coverage"]["declared"]) for check in report["checks"]] == [
        ("pass", 2),
        ("pass", 2),
    ]

    # One with a pause of its own is named, and the other is not blamed.
    store = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(tmp_path / "c.bag") as writer:
        topic = writer.add_connection("/joint_states", "sensor_msgs/msg/JointState", typestore=store)
        for ms in (*range(120_000, 121_000, 10), *range(125_000, 126_000, 10)):
            data = store.serialize_ros1(_joint_state(store, ms), topic.msgtype)
            writer.write(topic, START + ms * MS, data)
    (gaps,) = quality_report(tmp_path, checks=["gaps"])["checks"]
    assert gaps["places"] == ["c.bag: /joint_states: 1 gaps, the longest 4.010 s"]


def test_recordings_of_another_container_are_told(tmp_path):
    ros1(tmp_path / "a.bag", 0, 1_000)
    ros1(tmp_path / "b.bag", 2_000, 3_000)
    mcaps(tmp_path, {"c.mcap": (0, 500)})
    report = probe_path(tmp_path)
    told = [w.message for w in report.warnings if w.code == "mixed_containers"]
    assert told == [
        "1 recordings of mcap are left out (c.mcap); `asset register --each` takes each by itself"
    ]
