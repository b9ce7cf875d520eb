"""Rules over counts and stamps, and the memory that reading a recording may take."""

import tracemalloc

import pytest
from mcap.writer import CompressionType, Writer  # noqa: TID253 - this module is about files that it writes

from emboflow_dagster.formats import framing, mcap_file
from emboflow_dagster.formats.decoding import Decoder, UndecodableError
from emboflow_dagster.formats.framing import CutError, Window
from emboflow_dagster.formats.recording import Connection, Facts
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.formats.topics import MAX_STAMP, TopicTable


def _table(**counts: tuple[str, int]) -> TopicTable:
    table = TopicTable()
    for name, (type_name, count) in counts.items():
        topic = table.topic(name.replace("__", "/"), type_name)
        for index in range(count):
            topic.seen(index * 10)
    return table


def _codes(table: TopicTable) -> frozenset[str]:
    report = Probe()
    table.warn(report)
    return report.codes


@pytest.mark.parametrize(
    ("infos", "pictures", "picture_topic", "sparse"),
    [
        (15, 1, "__cam__image__compressed", True),
        (15, 7, "__cam__image_raw", True),
        (15, 8, "__cam__image_raw", False),
        (15, 0, "__cam__image_raw", True),
        (4, 1, "__cam__image_raw", False),
        (15, 1, "__other__image_raw", False),
        (15, 1, "__cam__depth__front__image_raw", False),
    ],
)
def test_a_camera_without_its_pictures_is_too_sparse(infos, pictures, picture_topic, sparse):
    table = _table(
        __cam__camera_info=("sensor_msgs/CameraInfo", infos),
        **{picture_topic: ("sensor_msgs/msg/CompressedImage", pictures)},
    )

    assert ("stream_too_sparse" in _codes(table)) is sparse


def test_slow_topics_beside_fast_ones_are_no_sparse_streams():
    table = _table(__imu=("sensor_msgs/Imu", 1_000), __tf_static=("tf2_msgs/TFMessage", 2))

    assert _codes(table) == frozenset()


def test_equal_stamps_are_ordinary_and_earlier_ones_are_not():
    table = TopicTable()
    topic = table.topic("/odom", "nav_msgs/Odometry")
    for stamp in (5, 5, 7):
        topic.seen(stamp)
    assert _codes(table) == frozenset()

    topic.seen(6)
    assert _codes(table) == {"time_not_monotonic"}
    assert (table.start_ns, table.end_ns) == (5, 7)


def test_order_is_judged_within_a_file():
    table, second = TopicTable(), TopicTable()
    table.topic("/a", "x/A").seen(100)
    for stamp in (50, 60):
        second.topic("/a", "x/A").seen(stamp)
    table.absorb(second)

    assert "time_not_monotonic" not in _codes(table)
    assert (table.start_ns, table.end_ns) == (50, 100)


@pytest.mark.parametrize("stamp", [MAX_STAMP, 2**64 - 1, -1])
def test_a_stamp_that_is_no_time_is_left_out(stamp):
    table = TopicTable()
    topic = table.topic("/a", "x/A")
    topic.seen(stamp)
    topic.seen(3)

    assert "invalid_stamp" in _codes(table)
    assert (table.count, table.start_ns, table.end_ns) == (2, 3, 3)


def test_no_message_one_message_and_two_types_are_told():
    assert _codes(TopicTable()) == {"no_messages"}
    table = _table(__a=("x/A", 1))
    table.topic("/a", "x/B")
    assert _codes(table) == {"single_message", "mixed_types"}
    assert table.structure()["durationNs"] == 0


def test_a_window_ends_where_its_bytes_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        window = Window(file, 8)
        assert window.read(2) == b"01"
        window.skip(3)
        assert window.read(1) == b"5"
        with pytest.raises(CutError, match="3 bytes is announced where 2"):
            window.read(3)
        with pytest.raises(CutError):
            window.skip(3)


@pytest.mark.parametrize("compression", list(CompressionType))
def test_one_huge_chunk_needs_little_memory(tmp_path, compression):
    path = tmp_path / "huge.mcap"
    blob = bytes(range(256)) * 400
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=2**30, compression=compression)
        writer.start()
        channel = writer.register_channel("t", "raw", writer.register_schema("T", "", b""))
        for index in range(500):
            writer.add_message(channel, index, blob, index)
        writer.finish()
    assert 500 * len(blob) > 2 * framing.WHOLE_CHUNK

    tracemalloc.start()
    facts = Facts()
    count = sum(1 for _ in mcap_file.messages(path, facts, lambda _connection: False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 500
    assert facts.warnings == []
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize(
    "type_name",
    ["a/msg/B:\n    import os\nclass C", "a/msg/B\nint32 x", "a/../msg/B'", "", "x" * 10],
)
def test_a_hostile_type_name_reaches_no_generated_code(type_name):
    connection = Connection("/t", type_name, "cdr", b"string data\n", "ros2msg")

    try:
        decoder = Decoder(connection)
    except UndecodableError:
        return
    with pytest.raises(UndecodableError):
        decoder(b"")
