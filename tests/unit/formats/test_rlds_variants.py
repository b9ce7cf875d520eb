"""RLDS as it stands on people's disks: packed, cut, damaged, in versions, with pictures of every kind."""

import gzip
import io
import json
import struct
import zlib

import numpy as np  # noqa: TID253 - this module writes what these libraries read
import pytest
from PIL import Image  # noqa: TID253

from emboflow_dagster.formats.canonical import from_rlds
from emboflow_dagster.formats.canonical.writer import write_canonical
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.tfrecord_file import masked_crc32c

SHAPE = (16, 24, 3)


def framed(data, *, crc=None):
    from tfrecord.writer import TFRecordWriter

    head = struct.pack("<Q", len(data))
    tail = TFRecordWriter.masked_crc(data) if crc is None else struct.pack("<I", crc)
    return head + struct.pack("<I", masked_crc32c(head)) + data + tail


def record(length, *, first=0, last=None, **more):
    """One episode; values of `more` are lists of bytes, floats or integers."""
    from tfrecord import example_pb2

    example = example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    steps = example.features.feature
    flags = np.zeros(length, int)
    for name, place in (("is_first", first), ("is_last", length - 1 if last is None else last)):
        values = flags.copy()
        if length:
            values[place] = 1
        steps[f"steps/{name}"].int64_list.value.extend(values.tolist())
    steps["steps/action"].float_list.value.extend(np.arange(length * 2) / 2)
    for name, values in more.items():
        kinds = {bytes: "bytes_list", float: "float_list"}
        feature = steps[f"steps/{name.replace('__', '/')}"]
        getattr(feature, kinds.get(type(values[0]), "int64_list")).value.extend(values)
    return example.SerializeToString()


def described(folder, *, splits=(), **features):
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: {"tensor": {"dtype": dtype, "shape": {"dimensions": [str(n) for n in shape]}}}
            for name, (dtype, shape) in {"action": ("float32", (2,)), **features}.items()}  # fmt: skip
    steps = {"sequence": {"feature": {"featuresDict": {"features": rows}}}}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    info = {"splits": [{"name": name, "shardLengths": lengths} for name, lengths in splits]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def read(path):
    skipped = []
    found = list(from_rlds.episodes(path, skipped=skipped))
    return found, [(row["source"]["ref"], row["reason"]) for row in skipped]


def codes(path):
    return {warning.code for warning in probe_path(path).warnings}


def test_shards_that_are_packed_cut_damaged_or_absent(tmp_path):
    whole = framed(record(3)) + framed(record(2)) + framed(record(4))
    packed = described(tmp_path / "packed", splits=[("train", ["3"])])
    (packed / "x-train.tfrecord-00000-of-00001").write_bytes(gzip.compress(whole))
    assert codes(packed) == set()
    assert [e.length for e in read(packed)[0]] == [3, 2, 4]
    (packed / "x-train.tfrecord-00000-of-00001").write_bytes(gzip.compress(whole)[:-40])
    assert "truncated" in codes(packed)
    assert "ends within record" in read(packed)[1][0][1]

    damaged = described(tmp_path / "damaged", splits=[("train", ["3"])])
    shard = damaged / "x-train.tfrecord-00000-of-00001"
    shard.write_bytes(framed(record(3)) + framed(record(2), crc=7) + framed(record(4), crc=0))
    report = probe_path(damaged)
    assert [(w.code, w.message) for w in report.warnings] == [
        ("corrupt", "1 records do not match their checksum: 1")
    ]
    found, left = read(damaged)
    assert [e.length for e in found] == [3, 4]
    assert left == [("record 1", "its bytes do not match their checksum")]

    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "x-train.tfrecord-00002-of-00004").write_bytes(whole)
    assert {"missing_split_file", "metadata_missing"} == codes(bare)
    single = bare / "x-train.tfrecord-00002-of-00004"
    single.write_bytes(gzip.compress(whole))
    assert probe_path(single).format == "rlds_tfrecord"


def test_the_newest_version_is_read_and_other_folders_one_after_the_other(tmp_path):
    for version, length in (("1.9.0", 2), ("1.10.0", 3)):
        folder = described(tmp_path / "set" / version, splits=[("train", ["1"])])
        (folder / "x-train.tfrecord-00000-of-00001").write_bytes(framed(record(length)))
    report = probe_path(tmp_path / "set")
    assert (report.structure["episodes"], report.structure["frames"]) == (1, 3)
    assert codes(tmp_path / "set") == {"multiple_recordings"}
    found, left = read(tmp_path / "set")
    assert [e.length for e in found] == [3]
    assert left == [("1.9.0", "an older version than 1.10.0")]

    for name, width in (("a", 2), ("b", 4)):
        folder = described(tmp_path / "both" / name, wide=("float32", (width,)))
        rows = framed(record(4, wide=[0.5] * 4 * width))
        (folder / "x-train.tfrecord-00000-of-00001").write_bytes(rows)
    assert [e.features["wide"].shape for e in read(tmp_path / "both")[0]] == [(4, 2), (4, 4)]


def png(value, *, depth=False):
    target = io.BytesIO()
    pixels = np.full(SHAPE[:2] if depth else SHAPE, value, np.uint16 if depth else np.uint8)
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def test_pictures_of_every_kind_become_cameras_and_depth_does_not(tmp_path):
    folder = described(
        tmp_path / "x",
        raw=("uint8", SHAPE),
        packed=("uint8", SHAPE),
        numbers=("uint8", SHAPE),
        grey=("uint8", (16, 24, 1)),
    )
    pixels = [np.full(SHAPE, 40 + step, np.uint8) for step in range(3)]
    rows = record(
        3,
        observation__png=[png(40 + step) for step in range(3)],
        observation__depth=[png(1_000 + step, depth=True) for step in range(3)],
        raw=[p.tobytes() for p in pixels],
        packed=[zlib.compress(p.tobytes()) for p in pixels],
        numbers=np.concatenate([p.ravel() for p in pixels]).tolist(),
        grey=[p[:, :, :1].tobytes() for p in pixels],
        language_instruction=[b"reach", b"reach", b"grasp"],
        embedding=[0.25] * 3 * 8,
        action__ragged_flat_values=[1.0, 2.0, 3.0],
        action__ragged_row_lengths_0=[1, 2, 0],
    )
    (folder / "x-train.tfrecord-00000-of-00001").write_bytes(framed(rows))

    (found,), left = read(folder)

    assert sorted(found.cameras) == ["grey", "numbers", "packed", "png", "raw"]
    for camera in found.cameras.values():
        assert [int(picture[0, 0, 0]) for picture in camera.frames()] == [40, 41, 42]
        assert camera.shape == SHAPE
    assert dict(left)["steps/observation/depth"] == "pictures of more than 8 bits are depth and no video"
    assert dict(left)["steps/action/ragged_flat_values"] == "its steps hold different numbers of values"
    assert {name: values.shape[1] for name, values in found.features.items()} == {
        "action": 2, "embedding": 8, "is_first": 1, "is_last": 1,
    }  # fmt: skip
    assert found.tasks == ("reach", "grasp")
    write_canonical([found], tmp_path / "d", fps=5)


@pytest.mark.parametrize(("first", "last", "fits"), [(0, 3, True), (1, 3, False), (0, 2, False)])
def test_flags_that_say_another_beginning_or_end_are_told(tmp_path, first, last, fits):
    folder = described(tmp_path / "x")
    shard = framed(record(4, first=first, last=last)) + framed(record(0))
    (folder / "x-train.tfrecord-00000-of-00001").write_bytes(shard)

    found, left = read(folder)

    assert ("step_flags_mismatch" in codes(folder)) != fits
    assert ("step_flags_mismatch" in found[0].flags) != fits
    assert "empty_episode" in codes(folder)
    assert left == [("record 1", "holds no step")]
