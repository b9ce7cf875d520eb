"""Recordings cut at any byte, and what is written of them again."""

import hashlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader  # noqa: TID253 - this module is about files that these libraries write
from mcap.writer import CompressionType  # noqa: TID253
from mcap.writer import Writer as McapWriter  # noqa: TID253
from rosbags.rosbag1 import Reader as Ros1Reader  # noqa: TID253
from rosbags.rosbag1 import Writer as Ros1Writer  # noqa: TID253
from rosbags.rosbag2 import Reader as Ros2Reader  # noqa: TID253
from rosbags.rosbag2 import StoragePlugin  # noqa: TID253
from rosbags.rosbag2 import Writer as Ros2Writer  # noqa: TID253
from rosbags.typesys import Stores, get_typestore  # noqa: TID253

from emboflow_dagster.errors import IntegrityError, InvalidInputError
from emboflow_dagster.formats import recover as recover_module
from emboflow_dagster.formats.detect import recording_parts
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.recording import Facts
from emboflow_dagster.formats.recover import recover_recording

START = 1_700_000_000_000_000_000
STEP = 20_000_000
MESSAGES = 40


def payload(index: int) -> bytes:
    """Found once in a file, so that it is known where a message ends; some are longer than a page."""
    text = hashlib.sha256(str(index).encode()).hexdigest().encode()
    return b"<%d:" % index + text * (1 if index % 7 else 90) + b":%d>" % index


def stamp(index: int) -> int:
    return START + index * STEP


def write_rosbag1(folder: Path, compression=None) -> Path:
    path = folder / "a.bag"
    writer = Ros1Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    writer.chunk_threshold = 3_000
    store = get_typestore(Stores.ROS1_NOETIC)
    with writer:
        text = writer.add_connection(
            "/chatter", "std_msgs/msg/String", typestore=store, callerid="/a", latching=1
        )
        other = writer.add_connection("/other", "std_msgs/msg/String", typestore=store)
        for index in range(MESSAGES):
            writer.write(text if index % 3 else other, stamp(index), payload(index))
    return path


def write_mcap(folder: Path, compression=CompressionType.NONE, **options) -> Path:
    path = folder / "a.mcap"
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=3_000, compression=compression, **options)
        writer.start(profile="", library="test")
        schema = writer.register_schema("demo.Arm", "jsonschema", b"{}")
        channels = [writer.register_channel(f"/arm{n}", "json", schema, {"n": str(n)}) for n in range(2)]
        writer.add_metadata("robot", {"name": "arm"})
        writer.add_attachment(1, 2, "notes.txt", "text/plain", b"a note")
        for index in range(MESSAGES):
            writer.add_message(channels[index % 2], stamp(index), payload(index), stamp(index) - 5, index)
        writer.finish()
    return path


def write_rosbag2(folder: Path, storage=StoragePlugin.SQLITE3) -> Path:
    store = get_typestore(Stores.ROS2_JAZZY)
    with Ros2Writer(folder / "bag", version=9, storage_plugin=storage) as writer:
        text = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=store)
        for index in range(MESSAGES):
            writer.write(text, stamp(index), payload(index))
    return next(p for p in (folder / "bag").iterdir() if p.suffix in (".db3", ".mcap"))


WRITERS = {
    "rosbag1": write_rosbag1,
    "mcap": write_mcap,
    "mcap-unchunked": lambda folder: write_mcap(folder, use_chunking=False),
    "sqlite3": write_rosbag2,
    "rosbag2-mcap": lambda folder: write_rosbag2(folder, StoragePlugin.MCAP),
}
COMPRESSED = {
    "rosbag1-bz2": lambda folder: write_rosbag1(folder, Ros1Writer.CompressionFormat.BZ2),
    "rosbag1-lz4": lambda folder: write_rosbag1(folder, Ros1Writer.CompressionFormat.LZ4),
    "mcap-lz4": lambda folder: write_mcap(folder, CompressionType.LZ4),
    "mcap-zstd": lambda folder: write_mcap(folder, CompressionType.ZSTD),
}


FINE = {"metadata_missing", "undecodable_topics", "definition_mismatch", "single_message"}


def messages(path: Path) -> list[tuple[str, str, int, bytes]]:
    return [
        (m.connection.topic, m.connection.type, m.stamp_ns, m.data)
        for part in recording_parts(path)
        for m in part[2](part[0], Facts(), lambda _: True)
    ]


def by_others(path: Path) -> list[tuple[int, bytes]]:
    """Stamps and bytes as the libraries read them that people use, by their index."""
    if path.suffix == ".bag":
        with Ros1Reader(path) as bag:
            return [(at, bytes(data)) for _, at, data in bag.messages()]
    if path.suffix == ".mcap":
        with path.open("rb") as stream:
            reader = make_reader(stream, validate_crcs=True)
            return [(m.log_time, m.data) for _, _, m in reader.iter_messages()]
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = database.execute("SELECT timestamp, data FROM messages ORDER BY timestamp").fetchall()
    database.close()
    return rows


@pytest.fixture(scope="module", params=[*WRITERS, *COMPRESSED])
def recording(request, tmp_path_factory) -> tuple[Path, list[int]]:
    """A recording and where each of its messages ends; no ends where they are compressed."""
    path = (WRITERS | COMPRESSED)[request.param](tmp_path_factory.mktemp("bag"))
    content = path.read_bytes()
    return path, [] if request.param in COMPRESSED else [end_of(n, content) for n in range(MESSAGES)]


def end_of(number: int, content: bytes) -> int:
    """Where the last byte of a message is: SQLite may keep the rest of a long one before its beginning."""
    data = payload(number)
    start = content.find(b"<%d:" % number)
    pairs = zip(data, content[start : start + len(data)], strict=False)
    here = next((place for place, (one, other) in enumerate(pairs) if one != other), len(data))
    pointer = 4 if here < len(data) else 0  # to the page of the rest
    rest = b":%d>" % number
    return max(start + here + pointer, content.find(rest) + len(rest))


def cut_at(recording: tuple[Path, list[int]], folder: Path, at: int) -> None:
    original, ends = recording
    path, out = folder / original.name, folder / "out"
    path.write_bytes(original.read_bytes()[:at])
    out.mkdir()
    before = [(stamp(n), payload(n)) for n in range(MESSAGES) if n < len(ends) and ends[n] <= at]
    whole = messages(original)

    try:
        found = recover_recording(path, out)
    except InvalidInputError:
        assert not before
        assert [p for p in out.rglob("*") if p.is_file()] == []
        return

    copy = out / found["path"]
    read = messages(copy)
    assert probe_path(copy).codes <= FINE
    assert sorted(by_others(copy)) == sorted((at, data) for _, _, at, data in read)
    assert found["messages"] == len(read)
    assert found["bytes"] == sum(len(data) for *_, data in read)
    if ends:
        assert sorted((at, data) for _, _, at, data in read) == before
    assert sorted(read) == sorted(whole[: len(read)]) or original.suffix == ".db3"
    assert set(read) <= set(whole)
    probed = probe_path(path)
    assert probed.structure["recoverable"]["messages"] == len(read)
    assert probed.structure["recoverable"]["bytes"] == found["bytes"]
    assert probed.recommended_next_nodes[0] == "recover"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cut_at_any_byte_exactly_the_messages_before_the_cut_are_recovered(recording, tmp_path_factory, data):
    size = recording[0].stat().st_size
    cut_at(recording, tmp_path_factory.mktemp("cut"), data.draw(st.integers(0, size - 1)))


@pytest.mark.parametrize("recording", WRITERS, indirect=True)
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_cut_at_the_edge_of_a_message(recording, tmp_path, offset):
    cut_at(recording, tmp_path, recording[1][17] + offset)


def test_what_is_no_message_goes_along_in_an_mcap(tmp_path):
    path = write_mcap(tmp_path, CompressionType.ZSTD)
    path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "out").mkdir()

    found = recover_recording(path, tmp_path / "out")

    with (tmp_path / "out" / found["path"]).open("rb") as stream:
        reader = make_reader(stream)
        rows = list(reader.iter_messages())
        assert [(m.sequence, m.publish_time) for _, _, m in rows] == [
            (n, stamp(n) - 5) for n in range(MESSAGES)
        ]
        assert {c.metadata["n"] for _, c, _ in rows} == {"0", "1"}
        assert [(m.name, m.metadata) for m in reader.iter_metadata()] == [("robot", {"name": "arm"})]
        assert [(a.name, a.data) for a in reader.iter_attachments()] == [("notes.txt", b"a note")]


def test_a_split_rosbag2_folder_comes_back_with_metadata_that_is_true(tmp_path):
    path = write_rosbag2(tmp_path)
    folder = path.parent
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    (tmp_path / "out").mkdir()

    found = recover_recording(folder, tmp_path / "out")

    assert found["path"] == "bag"
    assert 0 < found["messages"] < MESSAGES
    report = probe_path(tmp_path / "out" / "bag")
    assert report.codes <= FINE
    assert report.structure["messageCount"] == found["messages"]
    with Ros2Reader(tmp_path / "out" / "bag") as bag:
        assert bag.message_count == found["messages"]
        assert len(list(bag.messages())) == found["messages"]


def test_callers_and_latching_of_a_ros1_bag_stay(tmp_path):
    path = write_rosbag1(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "out").mkdir()

    found = recover_recording(path, tmp_path / "out")

    with Ros1Reader(tmp_path / "out" / found["path"]) as bag:
        said = {c.topic: (c.ext.callerid, c.ext.latching, c.msgtype) for c in bag.connections}
    assert said == {
        "/chatter": ("/a", 1, "std_msgs/msg/String"),
        "/other": (None, None, "std_msgs/msg/String"),
    }


def test_a_whole_recording_is_left_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()

    found = recover_recording(write_mcap(tmp_path), tmp_path / "out")

    assert (found["whole"], found["path"], found["messages"]) == (True, None, MESSAGES)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_copy_that_does_not_hold_what_was_read_is_an_error(tmp_path, monkeypatch):
    path = write_mcap(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "out").mkdir()
    real = recover_module.sink

    def forgetful(*arguments):
        made = real(*arguments)
        add, count = made.add, 0

        def skip_one(message):
            nonlocal count
            count += 1
            if count != 5:
                add(message)

        made.add = skip_one
        return made

    monkeypatch.setattr(recover_module, "sink", forgetful)

    with pytest.raises(IntegrityError):
        recover_recording(path, tmp_path / "out")


def test_what_is_no_recording_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x" * 100)
    (tmp_path / "out").mkdir()

    with pytest.raises(InvalidInputError):
        recover_recording(tmp_path / "a.bin", tmp_path / "out")
