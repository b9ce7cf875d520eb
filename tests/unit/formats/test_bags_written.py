"""Bags written here with the real libraries, then cut, damaged, hidden or described wrongly."""

import io
import json
import sqlite3
import struct
import sys
from pathlib import Path

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType  # noqa: TID253
from mcap.writer import Writer as McapWriter  # noqa: TID253
from PIL import Image  # noqa: TID253
from rosbags.rosbag1 import Writer as Ros1Writer  # noqa: TID253
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin  # noqa: TID253
from rosbags.rosbag2 import Writer as Ros2Writer  # noqa: TID253
from rosbags.typesys import Stores, get_typestore  # noqa: TID253

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.formats import decoding, rosbag2_packed
from emboflow_dagster.formats.messages import flatten, iter_numeric, numeric_topics
from emboflow_dagster.formats.pictures import iter_images
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.report import ProbeWarning

MESSAGES = 60
START = 1_700_000_000_000_000_000
STEP = 20_000_000
JOINTS = ["shoulder", "elbow"]


def _stamps(count: int = MESSAGES) -> list[int]:
    return [START + index * STEP for index in range(count)]


def _joint_state(store, index):
    types = store.types
    time = types["builtin_interfaces/msg/Time"](sec=index, nanosec=0)
    extra = {"seq": index} if "seq" in dict(store.fielddefs["std_msgs/msg/Header"][1]) else {}
    return types["sensor_msgs/msg/JointState"](
        header=types["std_msgs/msg/Header"](stamp=time, frame_id="base", **extra),
        name=JOINTS,
        position=np.array([index / 10, -index / 10]),
        velocity=np.array([1.0, 2.0]),
        effort=np.array([]),
    )


def _image(store, encoding, width, height, data):
    types = store.types
    time = types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    return types["sensor_msgs/msg/Image"](
        header=types["std_msgs/msg/Header"](stamp=time, frame_id="camera"),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=np.frombuffer(data, dtype=np.uint8),
    )


def write_rosbag1(path: Path, compression: "Ros1Writer.CompressionFormat | None" = None) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Ros1Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    writer.chunk_threshold = 1_500
    with writer:
        joints = writer.add_connection("/joint_states", "sensor_msgs/msg/JointState", typestore=store)
        for index, stamp in enumerate(_stamps()):
            data = store.serialize_ros1(_joint_state(store, index), joints.msgtype)
            writer.write(joints, stamp, data)
    return path


def write_rosbag2(folder: Path, storage: StoragePlugin = StoragePlugin.SQLITE3, mode=None) -> Path:
    store = get_typestore(Stores.ROS2_JAZZY)
    writer = Ros2Writer(folder, version=9, storage_plugin=storage)
    if mode is not None:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        joints = writer.add_connection("/joint_states", "sensor_msgs/msg/JointState", typestore=store)
        for index, stamp in enumerate(_stamps()):
            writer.write(joints, stamp, store.serialize_cdr(_joint_state(store, index), joints.msgtype))
    return folder


def write_mcap(
    path: Path, compression: CompressionType = CompressionType.ZSTD, *, encoding: str = "json", **options
) -> Path:
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=1_000, compression=compression, **options)
        writer.start(profile="", library="test")
        schema = writer.register_schema("demo.Arm", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("arm", encoding, schema)
        writer.register_channel("never", encoding, schema)
        for index, stamp in enumerate(_stamps()):
            data = json.dumps(
                {"name": JOINTS, "position": [index, -index], "ok": True, "note": "x" * 40}
            ).encode()
            writer.add_message(channel, stamp, data, stamp, index)
        writer.finish()
    return path


WRITERS = {
    "rosbag1": lambda folder: write_rosbag1(folder / "a.bag"),
    "rosbag1-bz2": lambda folder: write_rosbag1(folder / "a.bag", Ros1Writer.CompressionFormat.BZ2),
    "rosbag1-lz4": lambda folder: write_rosbag1(folder / "a.bag", Ros1Writer.CompressionFormat.LZ4),
    "mcap": lambda folder: write_mcap(folder / "a.mcap", CompressionType.NONE),
    "mcap-lz4": lambda folder: write_mcap(folder / "a.mcap", CompressionType.LZ4),
    "mcap-zstd": lambda folder: write_mcap(folder / "a.mcap"),
    "mcap-unchunked": lambda folder: write_mcap(folder / "a.mcap", use_chunking=False),
    "sqlite3": lambda folder: next(write_rosbag2(folder / "bag").glob("*.db3")),
}


@pytest.fixture(scope="module", params=WRITERS)
def recording(request, tmp_path_factory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("bag"))


def test_a_whole_recording_is_counted_exactly(recording):
    report = probe_path(recording)
    structure = report.structure

    assert structure["messageCount"] == MESSAGES
    assert (structure["startNs"], structure["endNs"]) == (_stamps()[0], _stamps()[-1])
    assert structure["durationNs"] == (MESSAGES - 1) * STEP
    assert structure["files"] == {recording.name: MESSAGES}
    counted = [
        stream for topic, stream in structure["streams"].items() if structure["topics"][topic]["count"]
    ]
    assert counted[0]["meanHz"] == pytest.approx(50)
    assert counted[0]["maxGapNs"] == STEP
    assert report.codes <= {"metadata_missing"}
    assert report.recommended_next_nodes == ["quality-report", "preview", "normalize", "publish-dataset"]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_a_cut_recording_gives_what_stands_before_the_cut(recording, tmp_path, share):
    data = recording.read_bytes()
    cut = tmp_path / recording.name
    cut.write_bytes(data[: int(len(data) * share)])

    report = probe_path(cut)

    if report.format == "unknown":
        assert share < 0.05
        return
    count = report.structure["messageCount"]
    assert 0 <= count <= MESSAGES
    assert report.codes & {"truncated", "unreadable", "unindexed"}
    if count:
        assert report.structure["recoverable"]["messages"] == count
        assert report.recommended_next_nodes[0] == "recover"
        if recording.suffix != ".db3":  # a database loses pages, not always the last messages
            assert report.structure["startNs"] == START
            assert report.structure["endNs"] == _stamps()[count - 1]
    if share == 0.95 and recording.suffix != ".db3":
        assert count > MESSAGES * 0.7


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises(recording, tmp_path, data):
    content = bytearray(recording.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / recording.name
    damaged.write_bytes(content)

    report = probe_path(damaged)

    assert report.format
    assert report.structure.get("messageCount", 0) <= MESSAGES
    json.dumps(report.to_json(), allow_nan=False)


def test_a_flipped_byte_is_found_by_the_checksum_and_costs_one_chunk(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", CompressionType.NONE)
    data = bytearray(path.read_bytes())
    data[data.index(b"xxxx")] ^= 1
    path.write_bytes(data)

    report = probe_path(path)

    assert "corrupt" in report.codes
    assert report.structure["messageCount"] == MESSAGES


@pytest.mark.parametrize("compression", list(CompressionType))
def test_an_mcap_without_a_summary_is_counted_and_called_unindexed(tmp_path, compression):
    path = write_mcap(
        tmp_path / "a.mcap",
        compression,
        index_types=IndexType.NONE,
        use_statistics=False,
        use_summary_offsets=False,
        repeat_channels=False,
        repeat_schemas=False,
    )

    report = probe_path(path)

    assert report.codes == {"unindexed"}
    assert report.structure["messageCount"] == MESSAGES


def test_topics_without_messages_are_listed_with_zero(tmp_path):
    topics = probe_path(write_mcap(tmp_path / "a.mcap")).structure["topics"]

    assert topics == {
        "arm": {"type": "demo.Arm", "count": MESSAGES},
        "never": {"type": "demo.Arm", "count": 0},
    }


def test_an_encoding_nobody_reads_is_still_counted(tmp_path):
    report = probe_path(write_mcap(tmp_path / "a.mcap", encoding="flatbuffer"))

    assert report.codes == {"unsupported_serialization"}
    assert report.structure["messageCount"] == MESSAGES
    assert report.recommended_next_nodes == ["quality-report", "preview"]


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        (StoragePlugin.SQLITE3, None),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        *((StoragePlugin.MCAP, mode) for mode in (None, *CompressionMode)),
    ],
)
def test_rosbag2_folders_in_every_compression(tmp_path, storage, mode):
    folder = write_rosbag2(tmp_path / "bag", storage, mode)

    report = probe_path(tmp_path)  # the recording may lie in a folder of the asset

    assert report.format == ("rosbag2_mcap" if storage is StoragePlugin.MCAP else "rosbag2_sqlite3")
    assert report.structure["messageCount"] == MESSAGES
    assert report.codes == set()
    rows = list(iter_numeric(folder))
    assert len(rows) == MESSAGES
    assert rows[-1].stamp_ns == _stamps()[-1]


def test_a_file_that_unpacks_beyond_the_bound_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rosbag2_packed, "MAX_UNPACKED_BYTES", 1_000)
    write_rosbag2(tmp_path / "bag", mode=CompressionMode.FILE)

    report = probe_path(tmp_path / "bag")

    assert "compressed_files" in report.codes
    assert "no_messages" not in report.codes
    assert report.structure["declared"]["messageCount"] == MESSAGES


def test_a_missing_part_and_an_unlisted_one_are_named(tmp_path):
    folder = write_rosbag2(tmp_path / "bag")
    (database,) = folder.glob("*.db3")
    database.rename(folder / "other.db3")

    report = probe_path(folder)

    assert {(w.code, w.path) for w in report.warnings} == {
        ("missing_parts", database.name),
        ("metadata_mismatch", "other.db3"),
    }
    assert report.structure["files"] == {"other.db3": MESSAGES}


def test_metadata_never_leads_out_of_its_folder(tmp_path):
    outside = write_rosbag2(tmp_path / "outside")
    folder = write_rosbag2(tmp_path / "bag")
    (database,) = folder.glob("*.db3")
    metadata = folder / "metadata.yaml"
    (target,) = outside.glob("*.db3")
    metadata.write_text(metadata.read_text().replace(database.name, f"../outside/{target.name}"))
    database.unlink()

    report = probe_path(folder)

    assert report.structure["messageCount"] == 0
    assert {"missing_parts", "no_messages"} <= report.codes


@pytest.mark.parametrize(
    "text",
    [
        "rosbag2_bagfile_information: [1, 2",
        "rosbag2_bagfile_information: 7",
        "rosbag2_bagfile_information: {version: x, message_count: true, topics_with_message_count: {a: 1}}",
        "rosbag2_bagfile_information: {relative_file_paths: [1, null], starting_time: 9999-12-31}",
        "rosbag2_bagfile_information: !!python/object/apply:os.system ['true']",
    ],
)
def test_metadata_that_makes_no_sense_hides_no_message(tmp_path, text):
    folder = write_rosbag2(tmp_path / "bag")
    (folder / "metadata.yaml").write_text(text)

    report = probe_path(folder)

    assert report.format == "rosbag2_sqlite3"
    assert report.structure["messageCount"] == MESSAGES
    assert report.codes & {"metadata_missing", "metadata_mismatch"}


def test_lying_metadata_is_called_out_value_by_value(tmp_path):
    folder = write_rosbag2(tmp_path / "bag")
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(f"message_count: {MESSAGES}", "message_count: 7"))

    report = probe_path(folder)

    messages = [w.message for w in report.warnings if w.code == "metadata_mismatch"]
    assert f"message count: declared 7, found {MESSAGES}" in messages
    assert f"message count of /joint_states: declared 7, found {MESSAGES}" in messages
    assert report.structure["messageCount"] == MESSAGES


def test_a_database_that_is_no_recording_is_unknown(tmp_path):
    path = tmp_path / "app.db3"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE users (id INTEGER)")
    database.close()

    assert probe_path(path).format == "unknown"


def test_an_unmerged_wal_is_reported(tmp_path):
    folder = write_rosbag2(tmp_path / "bag")
    (database,) = folder.glob("*.db3")
    (folder / f"{database.name}-wal").write_bytes(b"x" * 100)

    assert "unapplied_wal" in probe_path(folder).codes


def test_several_recordings_in_one_folder_are_counted_together(tmp_path):
    write_rosbag2(tmp_path / "a")
    write_rosbag2(tmp_path / "b", StoragePlugin.MCAP)

    report = probe_path(tmp_path)

    assert report.codes == {"multiple_recordings", "overlapping_recordings"}
    assert report.structure["messageCount"] == 2 * MESSAGES
    assert set(report.structure["declared"]["recordings"]) == {"a/", "b/"}


def test_an_unclosed_rosbag1_is_unindexed_and_whole(tmp_path):
    path = write_rosbag1(tmp_path / "a.bag")
    data = bytearray(path.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    (index,) = struct.unpack_from("<Q", data, at)
    data[at : at + 8] = bytes(8)
    path.write_bytes(data[:index])

    report = probe_path(path)

    assert report.codes == {"unindexed"}
    assert report.structure["messageCount"] == MESSAGES


def test_a_chunk_that_is_damaged_costs_no_other_chunk(tmp_path):
    path = write_rosbag1(tmp_path / "a.bag", Ros1Writer.CompressionFormat.BZ2)
    data = bytearray(path.read_bytes())
    second = data.index(b"BZh", data.index(b"BZh") + 3)
    data[second + 20] ^= 0xFF
    path.write_bytes(data)

    report = probe_path(path)

    assert "corrupt" in report.codes
    assert 0 < report.structure["messageCount"] < MESSAGES
    assert report.structure["endNs"] == _stamps()[-1]


@pytest.mark.parametrize("name", ["rosbag1-lz4", "sqlite3"])
def test_joint_names_stand_for_indices(tmp_path, name):
    path = WRITERS[name](tmp_path)

    rows = list(iter_numeric(path, ["/joint_states"]))

    assert len(rows) == MESSAGES
    assert rows[3].names == (
        "position.shoulder",
        "position.elbow",
        "velocity.shoulder",
        "velocity.elbow",
    )
    assert rows[3].values == (0.3, -0.3, 1.0, 2.0)
    assert rows[3].stamp_ns == _stamps()[3]
    assert numeric_topics(path)["/joint_states"]["count"] == MESSAGES


def test_json_messages_are_read_and_broken_ones_reported_once(tmp_path):
    path = write_mcap(tmp_path / "a.mcap")
    broken = tmp_path / "b.mcap"
    with broken.open("wb") as stream:
        writer = McapWriter(stream)
        writer.start()
        channel = writer.register_channel("arm", "json", writer.register_schema("A", "jsonschema", b"{}"))
        for stamp in _stamps(3):
            writer.add_message(channel, stamp, b"{not json", stamp)
        writer.finish()
    problems: list[ProbeWarning] = []

    rows = list(iter_numeric(path))
    assert rows[2].names == ("position.shoulder", "position.elbow", "ok")
    assert rows[2].values == (2.0, -2.0, 1.0)
    assert list(iter_numeric(broken, problems=problems)) == []
    assert [(p.code, p.path) for p in problems] == [("undecodable_topics", "arm")]


def test_only_numbers_are_flattened():
    names, values = flatten(
        {
            "header": {"seq": 1},
            "pose": {"x": 1, "covariance": [0.0] * 36},
            "text": "no",
            "none": None,
            "scan": [0.0] * 1_000,
            "pair": [1.5, 2.5],
            "blob": np.zeros(10, dtype=np.uint8),
            "flags": np.array([True]),
        }
    )

    assert names == ("pose.x", "pair.0", "pair.1", "flags.0")
    assert values == (1.0, 1.5, 2.5, 1.0)


@pytest.mark.parametrize(("encoding", "first"), [("rgb8", (9, 8, 7)), ("bgr8", (7, 8, 9)), ("mono8", 9)])
def test_raw_pictures_become_png(tmp_path, encoding, first):
    store = get_typestore(Stores.ROS2_JAZZY)
    pixel = bytes([9]) if encoding == "mono8" else bytes([9, 8, 7])
    with Ros2Writer(tmp_path / "bag", version=9) as writer:
        camera = writer.add_connection("/camera", "sensor_msgs/msg/Image", typestore=store)
        for stamp in _stamps(6):
            message = _image(store, encoding, 4, 2, pixel * 8)
            writer.write(camera, stamp, store.serialize_cdr(message, camera.msgtype))

    pictures = list(iter_images(tmp_path / "bag", "/camera", 2, every=2))

    assert [stamp for stamp, _ in pictures] == [_stamps()[0], _stamps()[2]]
    with Image.open(io.BytesIO(pictures[0][1])) as image:
        assert image.size == (4, 2)
        assert image.getpixel((0, 0)) == first


def test_a_picture_that_lies_about_its_size_is_reported(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Ros2Writer(tmp_path / "bag", version=9) as writer:
        camera = writer.add_connection("/camera", "sensor_msgs/msg/Image", typestore=store)
        message = _image(store, "rgb8", 4_000, 2, b"123456")
        writer.write(camera, START, store.serialize_cdr(message, camera.msgtype))
    problems: list[ProbeWarning] = []

    assert list(iter_images(tmp_path / "bag", "/camera", 2, problems=problems)) == []
    assert [p.path for p in problems] == ["/camera"]


@pytest.mark.parametrize(("name", "library"), [("sqlite3", "rosbags.typesys"), ("mcap-zstd", "zstandard")])
def test_without_the_extra_a_probe_says_what_to_install(tmp_path, monkeypatch, name, library):
    path = WRITERS[name](tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    decoding._recorded.cache_clear()
    decoding._release_types.cache_clear()

    report = probe_path(path)

    assert "extra_missing" in report.codes
    assert "undecodable_topics" not in report.codes
    assert any("emboflow-dagster[rosbag]" in warning.message for warning in report.warnings)
    if name == "sqlite3":
        assert report.structure["messageCount"] == MESSAGES
    with pytest.raises(ConfigurationError):
        list(iter_numeric(path))
