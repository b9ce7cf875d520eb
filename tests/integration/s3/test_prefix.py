"""A prefix of a bucket as an asset: listed with pages, probed by ranges, nothing downloaded whole."""

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from emboflow_dagster.errors import EmboflowError, IntegrityError
from emboflow_dagster.formats.ranged import BudgetError, Ranged
from emboflow_dagster.object_storage.prefix import Prefix
from tests import mutant_files
from tests.integration.s3.proxy import Exchange, Fault

BULK = 3 << 20


def recordings(folder: Path) -> dict[str, bytes]:
    """One of each telling kind, with bulk that nobody needs in those that can have it."""
    import h5py
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from mcap.writer import CompressionType, Writer

    found: dict[str, bytes] = {}
    noise = os.urandom(BULK)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("bulk.bin", noise)
        archive.writestr("arm.urdf", "<robot/>")
    found["a/robot.zip"] = packed.getvalue()
    stream = io.BytesIO()
    writer = Writer(stream, compression=CompressionType.NONE)
    writer.start()
    schema = writer.register_schema("demo.Arm", "jsonschema", b"{}")
    channel = writer.register_channel("arm", "json", schema)
    for number in range(3):
        writer.add_message(channel, 10**9 + number, noise[: BULK // 3], 0)
    writer.finish()
    found["a/arm.mcap"] = stream.getvalue()
    table = pa.table({"x": np.frombuffer(noise, dtype=np.uint8), "y": np.zeros(BULK)})
    pq.write_table(table, folder / "t.parquet", compression="none", use_dictionary=False)
    found["b/t.parquet"] = (folder / "t.parquet").read_bytes()
    with h5py.File(folder / "d.hdf5", "w") as file:
        file.create_dataset("data/demo_1/actions", data=np.zeros((BULK // 56, 7)))
        file.create_dataset("data/demo_1/obs/eef_pos", data=np.ones((10, 3)))
    found["b/d.hdf5"] = (folder / "d.hdf5").read_bytes()
    mutant_files.mp4(folder)
    video = (folder / "a.mp4").read_bytes()
    at = video.index(b"mdat") - 4
    # The index of the video stands at its end, behind the bulk.
    bulk = (len(noise) + 8).to_bytes(4, "big") + b"free" + noise
    assert video.index(b"moov") > at
    found["c/clip.mp4"] = video + bulk if video.index(b"moov") < at else video[:at] + video[at:] + bulk
    np.save(folder / "n.npy", np.zeros((BULK // 40, 5)))
    found["c/n.npy"] = (folder / "n.npy").read_bytes()
    ends = {"bag.bag": _bag(folder, noise), "bag.db3": _database(folder, noise)}
    found |= {f"d/{name}": data for name, data in ends.items()}
    found["rows.csv"] = b"t,x\n" + b"0,1\n" * (BULK // 4)
    return found


def _bag(folder: Path, noise: bytes) -> bytes:
    """Chunks of bulk, their index behind them."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer(folder / "r.bag") as writer:
        for topic, count in (("/arm", 3), ("/hand", 2)):
            connection = writer.add_connection(topic, "std_msgs/msg/String", typestore=store)
            for number in range(count):
                writer.write(connection, 10**9 * (1 + number), noise[: BULK // 5])
    return (folder / "r.bag").read_bytes()


def _database(folder: Path, noise: bytes) -> bytes:
    import sqlite3

    database = sqlite3.connect(folder / "r.db3")
    database.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT,"
        " offered_qos_profiles TEXT);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);"
        "INSERT INTO topics VALUES (1, '/arm', 'std_msgs/msg/String', 'cdr', '');"
    )
    rows = ((n + 1, 10**9 + 10**6 * n, noise[: BULK // 600]) for n in range(600))
    database.executemany("INSERT INTO messages VALUES (?, 1, ?, ?)", rows)
    database.commit()
    database.close()
    return (folder / "r.db3").read_bytes()


def test_a_prefix_is_probed_by_ranges_and_nothing_is_downloaded_whole(
    s3_server, bucket, proxy, ef, tmp_path, monkeypatch
):
    objects = recordings(tmp_path)
    for name, data in objects.items():
        s3_server.client.put_object(Bucket=bucket, Key=f"lake/{name}", Body=data)
    s3_server.client.put_object(Bucket=bucket, Key="lake-other/x.csv", Body=b"not,ours\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    sent: list[tuple[int, int]] = []

    def count(exchange: Exchange) -> None:
        sent.append((exchange.status, len(exchange.reply)))

    proxy.faults.append(Fault("GetObject", times=10**6, after=count))

    asset = ef.assets.register(f"s3://{bucket}/lake", type="object_storage_prefix")
    report = ef.assets.probe(asset.id)

    total = sum(map(len, objects.values()))
    assert (asset.file_count, asset.size_bytes, asset.source_type) == (9, total, "object_storage")
    assert asset.top_level_paths == ["a", "b", "c", "d", "rows.csv"]
    found = report.structure_summary
    assert (found["files"], found["bytes"]) == (9, total)
    looked = found["objects"]
    assert looked["a/robot.zip"]["members"] == 2
    assert looked["a/arm.mcap"]["messageCount"] == 3
    assert looked["a/arm.mcap"]["topics"] == {"arm": {"type": "demo.Arm", "count": 3}}
    assert looked["b/t.parquet"]["rows"] == BULK
    assert (looked["b/d.hdf5"]["format"], looked["b/d.hdf5"]["episodes"]) == ("hdf5_robomimic", 1)
    assert (looked["c/clip.mp4"]["codec"], looked["c/clip.mp4"]["width"]) == ("h264", 64)
    assert looked["c/n.npy"]["shape"] == [BULK // 40, 5]
    assert (looked["d/bag.bag"]["format"], looked["d/bag.bag"]["messageCount"]) == ("rosbag1", 5)
    assert {name: row["count"] for name, row in looked["d/bag.bag"]["topics"].items()} == {
        "/arm": 3,
        "/hand": 2,
    }
    assert looked["d/bag.bag"]["durationNs"] == 2 * 10**9
    assert (looked["d/bag.db3"]["format"], looked["d/bag.db3"]["messageCount"]) == ("rosbag2_sqlite3", 600)
    assert looked["d/bag.db3"]["durationNs"] == 599 * 10**6
    assert looked["d/bag.db3"]["topics"] == {"/arm": {"type": "std_msgs/msg/String"}}
    assert looked["rows.csv"]["columns"] == ["t", "x"]
    assert not report.warnings
    # Every answer is a range, and all of them together are a part of what is there.
    assert {status for status, _ in sent} == {206}
    assert sum(size for _, size in sent) < total / 6
    assert report.raw_report["fetchedBytes"] == sum(size for _, size in sent)
    assert ef.verify().ok


def test_a_listing_of_several_pages_is_exact(s3_server, bucket):
    for number in range(23):
        s3_server.client.put_object(Bucket=bucket, Key=f"many/{number:05d}.txt", Body=b"x" * (number % 3))

    found = list(Prefix(f"s3://{bucket}/many/", page=5).objects())

    assert [entry.path for entry in found] == [f"{number:05d}.txt" for number in range(23)]
    assert sum(entry.size for entry in found) == sum(number % 3 for number in range(23))


def test_what_changed_or_went_since_the_registration_is_said(s3_server, bucket, ef):
    for name in ("a.csv", "b.csv", "c.csv"):
        s3_server.client.put_object(Bucket=bucket, Key=f"lake/{name}", Body=b"t,x\n")
    asset = ef.assets.register(f"s3://{bucket}/lake/", type="object_storage_prefix", name="lake")
    s3_server.client.delete_object(Bucket=bucket, Key="lake/a.csv")
    s3_server.client.put_object(Bucket=bucket, Key="lake/b.csv", Body=b"other,columns\n")

    report = ef.assets.probe(asset.id)

    assert {warning.code for warning in report.warnings} == {"missing_parts", "metadata_mismatch"}
    with pytest.raises(IntegrityError, match=r"b\.csv|a\.csv"), ef.assets.path(asset):
        pass


def test_a_url_that_is_none_and_a_bucket_that_is_none_are_refused(bucket, ef):
    for url in (
        f"s3://{bucket}/lake?x=1",
        "s3://user@bucket/lake",
        "s3://NO/lake",
        "s3://no-such-bucket-here/x",
    ):
        with pytest.raises(EmboflowError):
            ef.assets.register(url, type="object_storage_prefix")
    with pytest.raises(EmboflowError):
        ef.assets.register(f"s3://{bucket}/lake", type="folder")


def test_what_a_dataset_says_of_itself_is_what_the_prefix_is(s3_server, bucket, ef):
    info = {"codebase_version": "v2.1", "fps": 10, "total_episodes": 2, "total_frames": 9, "features": {}}
    splits = {"splits": [{"name": "train", "shardLengths": ["3", "4"]}]}
    objects = {
        "one/data/a.csv": b"a\n1\n",
        "one/meta/info.json": json.dumps(info).encode(),
        "two/dataset_info.json": json.dumps(splits).encode(),
        "odd/meta/info.json": b"{",
        "odd/%2F&+ \u00e9.csv": b"b\n1\n",
        "odd/marker/": b"",
    }
    for name, data in objects.items():
        s3_server.client.put_object(Bucket=bucket, Key=f"lake/{name}", Body=data)

    asset = ef.assets.register(f"s3://{bucket}/lake/one", type="object_storage_prefix", name="one")
    report = ef.assets.probe(asset.id)
    assert report.detected_format_candidates[0].format == "lerobot_v2.1"
    assert report.structure_summary["declared"] == {"episodes": 2, "frames": 9}
    asset = ef.assets.register(f"s3://{bucket}/lake", type="object_storage_prefix", name="all")
    report = ef.assets.probe(asset.id)
    looked = report.structure_summary["objects"]
    assert looked["two/dataset_info.json"]["episodes"] == 7
    assert looked["odd/%2F&+ \u00e9.csv"]["columns"] == ["b"]
    assert {(warning.code, warning.path) for warning in report.warnings} == {
        ("multiple_recordings", None),
        ("unreadable", "odd/meta/info.json"),
    }
    assert report.structure_summary["files"] == 5


def test_an_object_that_is_replaced_while_it_is_read_is_told(s3_server, bucket):
    s3_server.client.put_object(Bucket=bucket, Key="x/a.bin", Body=bytes(1 << 18))
    prefix = Prefix(f"s3://{bucket}/x")
    (found,) = prefix.objects()
    source = Ranged(prefix.lend("a.bin"), found.size, budget=1 << 20, tag=found.etag)
    assert source.read(4) == bytes(4)

    s3_server.client.put_object(Bucket=bucket, Key="x/a.bin", Body=b"1" * (1 << 18))

    source.seek(1 << 17)
    with pytest.raises(OSError, match="was replaced while it was read"):
        source.read(4)


def test_reading_stops_at_the_budget(s3_server, bucket):
    s3_server.client.put_object(Bucket=bucket, Key="x/big.bin", Body=bytes(1 << 20))
    source = Ranged(Prefix(f"s3://{bucket}/x").lend("big.bin"), 1 << 20, budget=300_000)

    assert source.read(10) == bytes(10)
    with pytest.raises(BudgetError):
        source.readall()
    with pytest.raises(ValueError, match="no http"):
        Ranged("file:///etc/hostname", 10, budget=10)
