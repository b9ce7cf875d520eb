"""MCAP deliveries: read back by other libraries and by our own, number for number, stamp for stamp."""

import io
import json
import shutil
from dataclasses import replace

import av  # noqa: TID253 - this module compares pictures
import numpy as np  # noqa: TID253 - and numbers
import pytest
from mcap.reader import make_reader  # noqa: TID253
from mcap_ros2.decoder import DecoderFactory  # noqa: TID253
from PIL import Image  # noqa: TID253

from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec, RawStream
from emboflow_dagster.formats.canonical.writer import write_canonical
from emboflow_dagster.formats.exports.package import check_package, files_of
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality.report import quality_report
from emboflow_dagster.runtime import delivering

FPS = 20
START = 1_700_000_000_123_456_789
NAMES = {"observation.state": ("x", "y", "z"), "action": ("dx", "dy"), "task": ("t",), "camera.wrist": ("c",)}


def picture(number):
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 3 + number * 5, y * 4, (x + y) * 2], axis=-1).astype(np.uint8)


def episode(seed, length, *, stamped=True):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(length, 3)).astype(np.float32)
    state[1, 1] = np.nan
    features = {"observation.state": state, "action": state[:, :2] * 2}
    features |= {"task": state[:, :1], "camera.wrist": state[:, 2:]}
    stamps = START + np.arange(length) * (10**9 // FPS) + rng.integers(0, 10**6, length)
    raw = np.arange(length * 5, dtype=np.float32).reshape(-1, 1)
    return Episode(
        source={"assetId": f"ast_{seed}", "path": "a.bag", "ref": "/joints"},
        features=features,
        specs={
            name: FeatureSpec(NAMES[name], "state" if "state" in name else "action", "m", "/joints")
            for name in features
        },
        source_timestamp_ns=stamps if stamped else None,
        t0_ns=START if stamped else None,
        frame_tasks=tuple("lift" if place < length // 2 else "place" for place in range(length)),
        success=True,
        valid=np.arange(length) != 3,
        cameras={"wrist": Camera((48, 64, 3), lambda: map(picture, range(length)), "/cam")},
        raw_streams=(RawStream(START + np.arange(length * 5) * 10**7, raw, "/imu/data"),) if seed else (),
    )


@pytest.fixture(scope="module")
def canonical(tmp_path_factory):
    out = tmp_path_factory.mktemp("mcap") / "canonical"
    write_canonical([episode(0, 8, stamped=False), episode(1, 12)], out, fps=FPS, robot_type="arm")
    return out


def deliver(folder, out):
    request = {
        "package": str(folder),
        "out": str(out),
        "format": delivering.MCAP,
        "name": "reach",
        "tag": "v1",
    }
    return delivering.deliver(request)


@pytest.fixture(scope="module")
def delivered(canonical, tmp_path_factory):
    out = tmp_path_factory.mktemp("delivered") / "package"
    return out, deliver(canonical, out)


def messages(path):
    """Topic to (log time, decoded message) in the order of the file, and the file's metadata."""
    found = {}
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message.log_time, decoded))
        (record,) = reader.iter_metadata()
    return found, record.metadata


def vectors(rows):
    return np.array([list(message.position) for _, message in rows], np.float32)


def test_every_number_and_stamp_is_the_versions(canonical, delivered):
    dataset = open_canonical(canonical)
    found, told = messages(delivered[0] / "episodes/episode_000001.mcap")

    stamps = dataset.frames(1).column("source_timestamp_ns").to_pylist()
    topics = {
        "observation.state": "/observation/state",
        "action": "/action",
        "task": "/task_2",
        "camera.wrist": "/camera/wrist",
    }
    for feature, topic in topics.items():
        np.testing.assert_array_equal(vectors(found[topic]), dataset.vector(feature, 1))
        assert [stamp for stamp, _ in found[topic]] == stamps
        first = found[topic][0][1]
        assert first.name == list(NAMES[feature])
        assert first.header.stamp.sec * 10**9 + first.header.stamp.nanosec == stamps[0]
    assert [(stamp, said.data) for stamp, said in found["/task"]] == [
        (stamps[0], "lift"),
        (stamps[6], "place"),
    ]
    assert [(at, one.data) for at, one in found["/valid"]] == [
        (stamps[0], True), (stamps[3], False), (stamps[4], True),
    ]  # fmt: skip
    raw = found["/raw/imu/data"]
    assert [stamp for stamp, _ in raw] == [START + n * 10**7 for n in range(60)]
    assert vectors(raw)[:, 0].tolist() == list(range(60))
    assert told["clock"] == "recorded"
    assert json.loads(told["episode"])["source"]["assetId"] == "ast_1"
    assert told["versionSha256"] == delivered[1]["versionSha256"]


def test_every_picture_is_the_versions_but_for_jpeg(canonical, delivered):
    dataset = open_canonical(canonical)
    found, _ = messages(delivered[0] / "episodes/episode_000001.mcap")
    with av.open(str(dataset.path("videos/wrist/episode_000001.mp4"))) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    rows = found["/camera/wrist_2"]
    assert len(rows) == len(truth) == 12
    assert rows[5][0] == dataset.frames(1).column("source_timestamp_ns").to_pylist()[5]
    for (_, message), wanted in zip(rows, truth, strict=True):
        assert (message.format, message.header.frame_id) == ("jpeg", "wrist")
        with Image.open(io.BytesIO(message.data)) as jpeg:
            off = np.abs(np.asarray(jpeg.convert("RGB"), np.int16) - wanted)
        assert off.mean() < 3


def test_an_episode_without_time_has_its_grid(delivered):
    folder, made = delivered
    found, told = messages(folder / "episodes/episode_000000.mcap")

    assert [stamp for stamp, _ in found["/action"]] == [n * 10**9 // FPS for n in range(8)]
    assert told["clock"] == "grid"
    assert (made["episodes"], made["frames"], made["leftOut"]) == (2, 20, [])
    readme = (folder / "README.md").read_text()
    assert "1 of 2 episodes hold no recorded time" in readme
    assert "| `/camera/wrist_2` | `observation.images.wrist` | video | 48x64x3 |" in readme


def test_our_own_probe_and_checks_read_it(delivered):
    path = delivered[0] / "episodes/episode_000001.mcap"

    report = probe_path(path).to_json()
    quality = quality_report(path, checks=["time_monotonic", "nan_inf"])

    assert report["detectedFormatCandidates"][0]["format"] == "mcap"
    assert report["warnings"] == []
    topics = report["structureSummary"]["topics"]
    assert topics["/observation/state"] == {"type": "sensor_msgs/msg/JointState", "count": 12}
    assert topics["/camera/wrist_2"]["count"] == 12
    assert report["structureSummary"]["messageCount"] == 12 * 5 + 60 + 2 + 3
    found = {check["check"]: check for check in quality["checks"]}
    assert found["time_monotonic"]["severity"] == "pass"
    assert found["nan_inf"]["values"]["notFinite"] == {"min": 0, "max": 1}


def test_the_same_bytes_again(canonical, delivered, tmp_path):
    moved = shutil.copytree(canonical, tmp_path / "elsewhere")
    deliver(moved, tmp_path / "again")

    first = {name: path.read_bytes() for name, path in files_of(delivered[0])}
    assert {name: path.read_bytes() for name, path in files_of(tmp_path / "again")} == first
    document = check_package(tmp_path / "again")
    assert document["format"] == "mcap"
    assert {"mcap", "rosbags", "zstandard", "pillow"} <= set(document["producer"]["libraries"])


def test_what_cannot_be_said_in_mcap_is_named(tmp_path):
    one = episode(1, 8)
    early = RawStream(np.arange(3) - 5, np.zeros((3, 1), np.float32), "/early")
    write_canonical([replace(one, raw_streams=(*one.raw_streams, early))], tmp_path / "c", fps=FPS)

    made = deliver(tmp_path / "c", tmp_path / "out")

    assert made["leftOut"] == ["/early"]
    assert check_package(tmp_path / "out")["leftOut"][0]["reason"] == "has stamps before 1970"
    assert "/raw/early" not in messages(tmp_path / "out/episodes/episode_000000.mcap")[0]
