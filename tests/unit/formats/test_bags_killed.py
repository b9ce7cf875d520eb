"""What a recorder leaves that was killed: no metadata, a database that was never merged, a half frame."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin  # noqa: TID253 - files that these libraries write
from rosbags.rosbag2 import Reader as Ros2Reader  # noqa: TID253

from emboflow_dagster.formats.messages import iter_numeric
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.recover import recover_recording
from tests.unit.formats.test_bags_written import MESSAGES, write_mcap, write_rosbag2


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE], ids=lambda mode: mode.name)
@pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda plugin: plugin.name)
def test_compressed_recordings_are_read_without_metadata(tmp_path, storage, mode):
    folder = write_rosbag2(tmp_path / "bag", storage, mode)
    (folder / "metadata.yaml").unlink()
    (file,) = folder.iterdir()

    for path in (folder, file):
        report = probe_path(path)

        assert report.format in {"rosbag2_sqlite3", "rosbag2_mcap", "mcap"}
        assert report.structure["messageCount"] == MESSAGES
        assert report.codes <= {"metadata_missing"}
        assert "normalize" in report.recommended_next_nodes
        assert len(list(iter_numeric(path))) == MESSAGES


def test_a_compressed_file_needs_no_name_that_says_what_is_inside(tmp_path):
    folder = write_rosbag2(tmp_path / "bag", mode=CompressionMode.FILE)
    (file,) = folder.glob("*.zstd")
    other = shutil.copy(file, tmp_path / "upload.zst")

    assert probe_path(Path(other)).structure["messageCount"] == MESSAGES


def test_zstd_around_anything_else_is_no_recording(tmp_path):
    import zstandard

    path = tmp_path / "notes.zst"
    path.write_bytes(zstandard.compress(b"a text, and nothing else"))

    assert probe_path(path).format not in {"rosbag2_sqlite3", "rosbag2_mcap"}


def test_a_compressed_file_that_was_cut_is_said_and_read_up_to_there(tmp_path):
    folder = write_rosbag2(tmp_path / "bag", mode=CompressionMode.FILE)
    (file,) = folder.glob("*.zstd")
    import zstandard

    # Blocks of their own, so that some of them are whole before the cut.
    packer = zstandard.ZstdCompressor().compressobj()
    content = zstandard.decompress(file.read_bytes(), max_output_size=1 << 26)
    blocks = [
        packer.compress(content[at : at + 4_096]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for at in range(0, len(content), 4_096)
    ]
    file.write_bytes(b"".join(blocks))  # the frame never ends

    report = probe_path(folder)
    assert "truncated" in report.codes
    assert report.structure["recoverable"]["messages"] == MESSAGES

    file.write_bytes(b"".join(blocks)[:-1])
    report = probe_path(folder)
    found = report.structure["recoverable"]["messages"]
    assert 0 < found < MESSAGES
    (tmp_path / "out").mkdir()
    assert recover_recording(folder, tmp_path / "out")["messages"] == found


def killed_database(folder: Path) -> Path:
    """A recording whose second half stands in the database's ``-wal`` alone."""
    (database,) = write_rosbag2(folder.with_name("made")).glob("*.db3")
    folder.mkdir()
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("SELECT * FROM messages ORDER BY id").fetchall()[MESSAGES // 2 :]
        connection.execute("DELETE FROM messages WHERE id >= ?", (rows[0][0],))
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
        connection.commit()
        for name in (database.name, f"{database.name}-wal", f"{database.name}-shm"):
            shutil.copy(database.with_name(name), folder / name)
    finally:
        connection.close()
    return folder


def test_messages_that_were_never_merged_are_read_and_recovered(tmp_path):
    folder = killed_database(tmp_path / "bag")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    report = probe_path(folder)

    assert report.structure["messageCount"] == MESSAGES
    assert {"unapplied_wal", "metadata_missing"} <= report.codes
    assert report.recommended_next_nodes[0] == "recover"
    assert len(list(iter_numeric(folder))) == MESSAGES

    (tmp_path / "out").mkdir()
    done = recover_recording(folder, tmp_path / "out")
    assert done["messages"] == MESSAGES
    made = tmp_path / "out" / "bag"
    with Ros2Reader(made) as bag:  # a folder that ROS plays: with a metadata.yaml
        assert bag.message_count == MESSAGES
    assert not probe_path(made).codes
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_alone_is_read_with_what_stands_beside_it(tmp_path):
    folder = killed_database(tmp_path / "bag")
    (database,) = folder.glob("*.db3")

    assert probe_path(database).structure["messageCount"] == MESSAGES


@pytest.mark.parametrize("more", [b"\0" * 512, None], ids=["zeros", "another"])
def test_bytes_behind_the_end_of_an_mcap_are_said_and_left_out_of_the_copy(tmp_path, more):
    from mcap.reader import make_reader

    path = write_mcap(tmp_path / "a.mcap")
    whole = path.read_bytes()
    path.write_bytes(whole + (more if more is not None else whole))

    report = probe_path(path)

    assert "trailing_bytes" in report.codes
    assert report.recommended_next_nodes[0] == "recover"
    (tmp_path / "out").mkdir()
    done = recover_recording(path, tmp_path / "out")
    assert done["messages"] == MESSAGES
    with (tmp_path / "out" / "a.mcap").open("rb") as stream:
        assert len(list(make_reader(stream).iter_messages())) == MESSAGES
