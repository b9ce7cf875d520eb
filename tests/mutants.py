"""Damaged files of every format, probed as assets are: in child processes, hundreds in one child.

Small valid files are made with the libraries that people use, then bytes are flipped, cut off, put in, moved,
and fields that look like lengths are changed. Each probe must end with a report in time: no crash, no hang,
no exception, no traceback, and the child that made hundreds of them must hold no more memory and no more
open files than one that made a few.

Recordings are also damaged first and then packed, so that looking into archives meets them.

``make mutants`` probes 400 of each and prints the table; ``tests/integration/test_mutants.py`` a few.
"""

import gzip
import io
import json
import os
import random
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from emboflow_dagster.errors import ExecutionError, LimitError
from emboflow_dagster.runtime.child import run_child

SECONDS = 20.0
WARM = 30
#: What a child may hold more after all mutants than after the first thirty.
MAX_GROWTH_MB = 96
MAX_MORE_FILES = 2
START = 1_700_000_000_000_000_000


def _ros_types(name: str) -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(getattr(Stores, name))


def rosbag1(folder: Path) -> list[str]:
    """A bag with two chunks, lz4."""
    from rosbags.rosbag1 import Writer

    writer = Writer(folder / "a.bag")
    writer.set_compression(Writer.CompressionFormat.LZ4)
    writer.chunk_threshold = 800
    with writer:
        said = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=_ros_types("ROS1_NOETIC"))
        for index in range(30):
            writer.write(said, START + index * 10**8, struct.pack("<I", 40) + b"%040d" % index)
    return ["a.bag"]


def rosbag1_plain(folder: Path) -> list[str]:
    """A bag with two chunks, not compressed."""
    from rosbags.rosbag1 import Writer

    with Writer(folder / "a.bag") as writer:
        writer.chunk_threshold = 800
        said = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=_ros_types("ROS1_NOETIC"))
        for index in range(30):
            writer.write(said, START + index * 10**8, struct.pack("<I", 40) + b"%040d" % index)
    return ["a.bag"]


def _rosbag2(folder: Path, storage: str) -> list[str]:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin[storage]) as writer:
        said = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=_ros_types("ROS2_HUMBLE"))
        for index in range(30):
            data = b"\0\1\0\0" + struct.pack("<I", 41) + b"%040d\0" % index
            writer.write(said, START + index * 10**8, data)
    names = sorted(f"bag/{path.name}" for path in (folder / "bag").iterdir())
    # The storage is damaged four times as often as what describes it.
    return [name for name in names if not name.endswith(".yaml")] * 4 + ["bag/metadata.yaml"]


def rosbag2_sqlite3(folder: Path) -> list[str]:
    """A rosbag2 folder with a database."""
    return _rosbag2(folder, "SQLITE3")


def rosbag2_mcap(folder: Path) -> list[str]:
    """A rosbag2 folder with an MCAP."""
    return _rosbag2(folder, "MCAP")


def mcap(folder: Path) -> list[str]:
    """An MCAP with chunks in zstd."""
    from mcap.writer import CompressionType, Writer

    with (folder / "a.mcap").open("wb") as stream:
        writer = Writer(stream, chunk_size=800, compression=CompressionType.ZSTD)
        writer.start(profile="", library="test")
        schema = writer.register_schema("demo.Arm", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("arm", "json", schema)
        writer.add_metadata("robot", {"name": "arm"})
        writer.add_attachment(1, 2, "notes.txt", "text/plain", b"a note")
        for index in range(30):
            writer.add_message(channel, START + index * 10**8, b'{"position": [%d]}' % index, 0, index)
        writer.finish()
    return ["a.mcap"]


def mcap_protobuf(folder: Path) -> list[str]:
    """An MCAP without chunks, its messages and the descriptors that stand in it in protobuf."""
    from google.protobuf import descriptor_pb2, struct_pb2
    from mcap.writer import Writer

    file = descriptor_pb2.FileDescriptorProto.FromString(struct_pb2.DESCRIPTOR.serialized_pb)
    definition = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    with (folder / "a.mcap").open("wb") as stream:
        writer = Writer(stream, use_chunking=False)
        writer.start()
        schema = writer.register_schema("google.protobuf.Struct", "protobuf", definition)
        channel = writer.register_channel("arm", "protobuf", schema)
        for index in range(10):
            said = struct_pb2.Struct()
            said.update({"position": [index, 0.5], "name": "elbow"})
            writer.add_message(channel, START + index * 10**8, said.SerializeToString(), 0)
        writer.finish()
    return ["a.mcap"]


def hdf5(folder: Path) -> list[str]:
    """Demonstrations as robomimic writes them, compressed."""
    import h5py
    import numpy as np

    with h5py.File(folder / "a.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for number in range(2):
            demo = data.create_group(f"demo_{number}")
            demo.create_dataset("actions", data=np.zeros((20, 7)), chunks=(10, 7), compression="gzip")
            demo.create_dataset("obs/eef_pos", data=np.ones((20, 3)))
            demo.create_dataset("note", data="a text", dtype=h5py.string_dtype())
    return ["a.hdf5"]


def lerobot(folder: Path) -> list[str]:
    """A dataset of two episodes, version 2.1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "meta").mkdir()
    (folder / "data/chunk-000").mkdir(parents=True)
    names = ("timestamp", "frame_index", "episode_index", "index", "task_index", "action")
    kinds = ("float32", *["int64"] * 4, "float32")
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "total_episodes": 2,
        "total_frames": 40,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": {name: {"dtype": kind, "shape": [1]} for name, kind in zip(names, kinds, strict=True)},
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    for name in ("episodes", "tasks", "episodes_stats"):
        (folder / f"meta/{name}.jsonl").write_text('{"episode_index": 0}\n{"episode_index": 1}\n')
    for episode in range(2):
        table = pa.table(
            {
                "timestamp": pa.array([i / 10 for i in range(20)], pa.float32()),
                "frame_index": list(range(20)),
                "episode_index": [episode] * 20,
                "index": [episode * 20 + i for i in range(20)],
                "task_index": [0] * 20,
                "action": pa.array([float(i) for i in range(20)], pa.float32()),
            }
        )
        pq.write_table(table, folder / f"data/chunk-000/episode_{episode:06d}.parquet")
    return ["data/chunk-000/episode_000001.parquet"] * 3 + ["meta/info.json"]


def tfrecord(folder: Path) -> list[str]:
    """An RLDS shard with its description."""
    from tfrecord import example_pb2

    from emboflow_dagster.formats.tfrecord_file import masked_crc32c

    with (folder / "demo-train.tfrecord-00000-of-00001").open("wb") as stream:
        for _ in range(4):
            example = example_pb2.Example()
            example.features.feature["steps/action"].float_list.value.extend([0.0] * 14)
            example.features.feature["steps/is_first"].int64_list.value.extend([1] + [0] * 6)
            data = example.SerializeToString()
            head = struct.pack("<Q", len(data))
            stream.write(head + struct.pack("<I", masked_crc32c(head)))
            stream.write(data + struct.pack("<I", masked_crc32c(data)))
    (folder / "dataset_info.json").write_text(
        json.dumps({"name": "demo", "splits": [{"name": "train", "shardLengths": ["4"]}]})
    )
    (folder / "features.json").write_text("{}")
    return ["demo-train.tfrecord-00000-of-00001"] * 3 + ["dataset_info.json"]


def _video(path: Path, codec: str) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            picture = np.full((48, 64, 3), index * 20, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def mp4(folder: Path) -> list[str]:
    """A video in H.264."""
    _video(folder / "a.mp4", "libx264")
    return ["a.mp4"]


def mkv(folder: Path) -> list[str]:
    """A video in AV1 or, where the library brings no encoder, MPEG-4."""
    _video(folder / "a.mkv", "mpeg4")
    return ["a.mkv"]


def _members() -> Iterator[tuple[str, bytes]]:
    yield "robot/joints.csv", b"t,x\n0,1\n" * 50
    yield "robot/arm.urdf", b'<robot name="arm"><link name="base"/></robot>'
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"inside" * 20)
    yield "robot/inner.zip", inner.getvalue()


def zip_(folder: Path) -> list[str]:
    """A zip with an archive in it."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _members():
            archive.writestr(name, data)
    return ["a.zip"]


def tar_gz(folder: Path) -> list[str]:
    """A compressed tar with an archive in it."""
    return _tar(folder, "a.tar.gz", "w:gz")


def tar(folder: Path) -> list[str]:
    """A plain tar."""
    return _tar(folder, "a.tar", "w")


def _tar(folder: Path, name: str, mode: Literal["w", "w:gz"]) -> list[str]:
    with tarfile.open(folder / name, mode) as archive:
        for member, data in _members():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return [name]


def tar_zst(folder: Path) -> list[str]:
    """A tar in zstd with an archive in it."""
    from backports import zstd

    plain = folder / _tar(folder, "a.tar", "w")[0]
    (folder / "a.tar.zst").write_bytes(zstd.compress(plain.read_bytes()))
    plain.unlink()
    return ["a.tar.zst"]


def gz(folder: Path) -> list[str]:
    """One file, compressed."""
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"t,x\n0,1\n" * 200))
    return ["a.csv.gz"]


def seven_zip(folder: Path) -> list[str]:
    """A 7z archive of two small files, as 7-Zip's own writer makes them (encoded header)."""
    (folder / "a.7z").write_bytes(bytes.fromhex(SEVEN_ZIP))
    return ["a.7z"]


SEVEN_ZIP = (
    "377abcaf271c0004bd9f949db20000000000000016000000000000004970784ce000b200235d003a0b0b00a66c"
    "54e6a416c428038648a043e02e2475dcd931ec439507581e8aa68f789a00e0009c007f5d0000813307ae0fd0b5"
    "28fc9f39109c6cea561a8ee1ce421bf7ef80306b1ec2b91f2503a1296d97e25467a207fad8c27304157d1c547a"
    "89d28e37fc0e6365378463a60c12418387726f2c66eb650c34236d655a0f51268cff8175feb6d7a59f1ce09c95"
    "735e11fd17a00dc4067ad59f2744cdc12cc6a4939722f941e2440000000017062b0109808700070b0100012121"
    "01180c809d0000"
)


def npy(folder: Path) -> list[str]:
    """A folder of arrays."""
    import numpy as np

    for number in range(3):
        np.save(folder / f"{number}.npy", np.arange(30, dtype=np.float32).reshape(10, 3))
    return ["1.npy"]


def csv(folder: Path) -> list[str]:
    """A table."""
    (folder / "a.csv").write_text("time,joint\n" + "".join(f"{i / 10},{i % 7}\n" for i in range(40)))
    return ["a.csv"]


def _pictures(folder: Path, suffix: str) -> list[str]:
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (32, 24), (number * 40, 10, 10)).save(folder / f"{number:03d}{suffix}")
    return [f"002{suffix}"]


def png(folder: Path) -> list[str]:
    """A folder of PNG pictures."""
    return _pictures(folder, ".png")


def jpg(folder: Path) -> list[str]:
    """A folder of JPEG pictures."""
    return _pictures(folder, ".jpg")


def urdf(folder: Path) -> list[str]:
    """A robot's description."""
    joints = "".join(
        f'<joint name="j{i}" type="revolute"><parent link="l{i}"/><child link="l{i + 1}"/>'
        '<limit lower="-1" upper="1" effort="2" velocity="3"/></joint>'
        for i in range(5)
    )
    links = "".join(
        f'<link name="l{i}"><visual><mesh filename="m{i}.stl"/></visual></link>' for i in range(6)
    )
    (folder / "a.urdf").write_text(f'<?xml version="1.0"?><robot name="arm">{links}{joints}</robot>')
    return ["a.urdf"]


WRITERS: dict[str, Callable[[Path], list[str]]] = {
    "rosbag1": rosbag1,
    "rosbag1 (plain)": rosbag1_plain,
    "rosbag2 sqlite3": rosbag2_sqlite3,
    "rosbag2 mcap": rosbag2_mcap,
    "mcap": mcap,
    "mcap protobuf": mcap_protobuf,
    "hdf5": hdf5,
    "lerobot parquet": lerobot,
    "tfrecord": tfrecord,
    "mp4": mp4,
    "mkv": mkv,
    "zip": zip_,
    "tar": tar,
    "tar.gz": tar_gz,
    "tar.zst": tar_zst,
    "gz": gz,
    "7z": seven_zip,
    "npy": npy,
    "csv": csv,
    "png": png,
    "jpg": jpg,
    "urdf": urdf,
}
#: Recordings that are damaged first and then packed: what looks inside an archive meets them whole.
INSIDE = (
    *("rosbag1", "rosbag2 sqlite3", "mcap", "hdf5", "lerobot parquet", "tfrecord", "mp4"),
    *("npy", "csv", "png", "urdf"),
)


def _zipped(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, f"robot/{path.relative_to(folder).as_posix()}")


def _tarred(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "robot")


def _twice(folder: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="emboflow-mutants-") as place:
        _tarred(folder, Path(place) / "inner.tar.gz")
        _zipped(Path(place), target)


PACKERS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "damaged in a zip": ("a.zip", _zipped),
    "damaged in a tar.gz": ("a.tar.gz", _tarred),
    "damaged in a tar.gz in a zip": ("a.zip", _twice),
}
KINDS = (*WRITERS, *PACKERS)
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One damaged copy: bytes flipped, cut, put in, taken out, moved, or a length changed."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        if not found:
            break
        at = chance.randrange(len(found))
        kind = chance.randrange(7)
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            found[at:at] = chance.randbytes(chance.choice((1, 4, 64)))
        elif kind == 3:
            del found[at : at + chance.choice((1, 4, 64))]
        elif kind == 4:
            size = chance.choice((1, 2, 4, 8))
            value = chance.choice(_EDGES) & ((1 << 8 * size) - 1)
            found[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
        elif kind == 5:
            other = chance.randrange(len(found))
            size = chance.choice((4, 32, 256))
            found[at : at + size] = found[other : other + size]
        else:
            found[at] = chance.randrange(256)
    return bytes(found)


@dataclass(slots=True)
class Outcome:
    """What became of all mutants of one format."""

    format: str
    mutants: int = 0
    unharmed: int = 0
    warned: int = 0
    unknown: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    growth_mb: float = 0.0
    more_files: int = 0

    @property
    def is_fine(self) -> bool:
        """Whether nothing crashed, hung, raised or leaked."""
        return not self.faults and self.growth_mb <= MAX_GROWTH_MB and self.more_files <= MAX_MORE_FILES


def probe_all(paths: list[str], done: str) -> None:
    """In the child: probe each path; a line of JSON for each in ``done`` also says what the process holds."""
    from emboflow_dagster.formats.probe import probe_path

    with Path(done).open("a", encoding="utf-8") as stream:
        for path in paths:
            # Not handled in Python: the alarm ends native code too.
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            begun = time.monotonic()
            try:
                report = probe_path(Path(path)).to_json()
                said: dict[str, Any] = {
                    "format": report["detectedFormatCandidates"][0]["format"],
                    "codes": sorted({warning["code"] for warning in report["warnings"]}),
                }
                json.dumps(report, allow_nan=False)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a probe never raises: this is what is looked for
                said = {"raised": f"{type(error).__name__}: {error}"}
            signal.setitimer(signal.ITIMER_REAL, 0)
            said |= {
                "seconds": time.monotonic() - begun,
                "rss": _rss(),
                "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            }
            stream.write(json.dumps(said) + "\n")
            stream.flush()


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(name: str, count: int, *, seed: int = 20_251_126, target: str = "tests.mutants:probe_all") -> Outcome:
    """Make and probe ``count`` mutants of one format; the same seed makes the same ones.

    Args:
        name: Of :data:`KINDS`.
        count: How many.
        seed: Of the damage.
        target: What is called in the child; only a control has another one.
    """
    with tempfile.TemporaryDirectory(prefix="emboflow-mutants-") as place:
        make = _make_packed if name in PACKERS else _make
        paths = make(name, count, random.Random(f"{seed} {name}"), Path(place))
        return _judged(Outcome(name), paths, Path(place) / "done.jsonl", target)


def _make(name: str, count: int, chance: random.Random, place: Path) -> list[str]:
    original = place / "original"
    original.mkdir()
    targets = WRITERS[name](original)
    paths: list[str] = []
    for number in range(count):
        folder = place / f"{number:04d}"
        shutil.copytree(original, folder)
        target = folder / chance.choice(targets)
        target.write_bytes(mutated(target.read_bytes(), chance))
        alone = len(list(original.rglob("*"))) == 1
        paths.append(str(target if alone else folder))
    return paths


def _make_packed(name: str, count: int, chance: random.Random, place: Path) -> list[str]:
    """Damaged recordings of :data:`INSIDE` in turn, each packed without a fault of the archive's own."""
    file, pack = PACKERS[name]
    paths: list[tuple[int, str]] = []
    for turn, inside in enumerate(INSIDE):
        below = place / f"of-{turn:02d}"
        below.mkdir()
        for number, path in enumerate(_make(inside, len(range(turn, count, len(INSIDE))), chance, below)):
            damaged = Path(path)
            target = place / f"{turn:02d}-{number:04d}" / file
            target.parent.mkdir()
            pack(damaged if damaged.is_dir() else damaged.parent, target)
            paths.append((number, str(target)))
        shutil.rmtree(below)
    return [path for _, path in sorted(paths)]  # mixed: what a format's library takes is no leak


def _judged(outcome: Outcome, paths: list[str], done: Path, target: str) -> Outcome:
    shown: list[str] = []
    lines: list[dict[str, Any]] = []
    done.touch()
    while len(lines) < len(paths):
        failure: ExecutionError | None = None
        left = paths[len(lines) :]
        try:
            run_child(target, left, str(done), timeout_s=3_600, on_stderr=shown.append)
        except ExecutionError as error:
            failure = error
        before = len(lines)
        lines = [json.loads(line) for line in done.read_text().splitlines()]
        _leaks(outcome, lines[before:])
        if failure is not None:
            kind = "hang" if isinstance(failure, LimitError) or "SIGALRM" in failure.message else "crash"
            outcome.faults.append(f"{kind} at mutant {len(lines)}: {failure.message}")
            lines.append({"format": "none", "codes": [kind], "seconds": SECONDS})
            done.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number, line in enumerate(lines):
        outcome.mutants += 1
        outcome.slowest_s = max(outcome.slowest_s, line["seconds"])
        if "raised" in line:
            outcome.faults.append(f"mutant {number} raised {line['raised']}")
            continue
        outcome.codes.update(line["codes"])
        outcome.unknown += line["format"] == "unknown"
        outcome.unharmed += not line["codes"]
        outcome.warned += bool(line["codes"])
    if any(text.startswith("Traceback") for text in shown):
        outcome.faults.append("a traceback on stderr: " + " | ".join(shown[-5:]))
    return outcome


def _leaks(outcome: Outcome, lines: list[dict[str, Any]]) -> None:
    """How much more memory and files one child held at its end than after the first few."""
    if len(lines) >= 3 * WARM:
        start, end = lines[WARM : 2 * WARM], lines[-WARM:]
        growth = min(line["rss"] for line in end) - max(line["rss"] for line in start)
        outcome.growth_mb = max(outcome.growth_mb, growth / 2**20)
    if len(lines) > 1:
        more = lines[-1]["files"] - min(line["files"] for line in lines[:WARM])
        outcome.more_files = max(outcome.more_files, more)


def table(outcomes: list[Outcome]) -> str:
    """The outcomes, one line a format."""
    rows = [
        "| format | mutants | unharmed | warned | unknown | faults | slowest s | growth MiB | more files |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    rows += [
        f"| {o.format} | {o.mutants} | {o.unharmed} | {o.warned} | {o.unknown} | {len(o.faults)} "
        f"| {o.slowest_s:.2f} | {o.growth_mb:.0f} | {o.more_files} |"
        for o in outcomes
    ]
    return "\n".join(rows)


def main() -> int:
    """400 mutants of each format, or of those named; the count may be given as ``--count N``."""
    arguments = sys.argv[1:]
    count = 400
    if "--count" in arguments:
        at = arguments.index("--count")
        count = int(arguments[at + 1])
        del arguments[at : at + 2]
    outcomes = []
    for name in arguments or KINDS:
        outcome = run(name, count)
        outcomes.append(outcome)
        codes = ", ".join(f"{code} {number}" for code, number in outcome.codes.most_common(8))
        sys.stdout.write(f"{name}: {codes}\n")
        sys.stdout.writelines(f"  FAULT {fault}\n" for fault in outcome.faults[:20])
        sys.stdout.flush()
    sys.stdout.write(table(outcomes) + "\n")
    return 0 if all(outcome.is_fine for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
