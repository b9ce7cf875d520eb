"""A probe beside reading the file once with the library that people use, interleaved, and its memory.

    python benchmarks/probe.py                 # 200 MiB of each
    python benchmarks/probe.py --full          # 5 GiB of each: needs that much disk at a time, deletes it

Both sides run in processes of their own over the same file; the ratio is that of processor seconds (other
work on the machine does not change it much), the aim of spec/performance.md at most 1.2. Peak memory is that
of the whole process, libraries included. A probe decodes the first message of each topic, for which rosbags
needs numpy: the third side of ROS 1 is the library that reads the file and does that, too. All run from
bytecode, as installed packages do: the first round compiles and is not counted. `--small` measures a file of
1 MiB: what a probe costs whatever its size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
ROUNDS = 3
START = 1_700_000_000_000_000_000
SIDES = {
    "ours": """
from emboflow_dagster.formats.probe import probe_path
report = probe_path(path)
print_result(report.structure["messageCount"])
""",
    "rosbag1": """
from rosbags.rosbag1 import Reader
with Reader(path) as bag:
    print_result(sum(1 for _ in bag.messages()))
""",
    "rosbag1+decoded": """
from rosbags.rosbag1 import Reader
from rosbags.typesys import Stores, get_typestore
types, seen, count = get_typestore(Stores.ROS1_NOETIC), set(), 0
with Reader(path) as bag:
    for connection, _, data in bag.messages():
        count += 1
        if connection.topic not in seen:
            seen.add(connection.topic)
            try:
                types.deserialize_ros1(data, connection.msgtype)
            except Exception:  # of random bytes
                pass
print_result(count)
""",
    "mcap": """
from mcap.reader import make_reader
with path.open("rb") as stream:
    print_result(sum(1 for _ in make_reader(stream).iter_messages(log_time_order=False)))
""",
    "sqlite3": """
import sqlite3
with sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True) as database:
    print_result(sum(1 for _ in database.execute("SELECT id, topic_id, timestamp, data FROM messages")))
""",
}
FRAME = """
import json, resource, sys
from pathlib import Path
path = Path(sys.argv[1])
def print_result(count):
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: that begins with what the process that started this one had.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"messages": count, "cpu": used.ru_utime + used.ru_stime, "mib": peak}))
"""


def write(kind: str, path: Path, size: int) -> None:
    """A recording of about ``size`` bytes: pictures of 256 KiB at 30 Hz and joint states at 300 Hz."""
    picture, state = os.urandom(256 << 10), os.urandom(400)
    if kind == "rosbag1":
        from rosbags.rosbag1 import Writer
        from rosbags.typesys import Stores, get_typestore

        types = get_typestore(Stores.ROS1_NOETIC)
        with Writer(path) as bag:
            camera = bag.add_connection("/camera", "std_msgs/msg/UInt8MultiArray", typestore=types)
            joints = bag.add_connection("/joints", "std_msgs/msg/UInt8MultiArray", typestore=types)
            for stamp, is_picture in _samples(size, len(picture) + 10 * len(state)):
                bag.write(camera if is_picture else joints, stamp, picture if is_picture else state)
    elif kind == "mcap":
        from mcap.writer import CompressionType, Writer

        with path.open("wb") as stream:
            writer = Writer(stream, compression=CompressionType.NONE)
            writer.start()
            schema = writer.register_schema("demo.Bytes", "", b"")
            channels = [writer.register_channel(name, "bytes", schema) for name in ("/joints", "/camera")]
            for stamp, is_picture in _samples(size, len(picture) + 10 * len(state)):
                writer.add_message(channels[is_picture], stamp, picture if is_picture else state, stamp)
            writer.finish()
    else:
        import sqlite3

        with sqlite3.connect(path) as database:
            database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT,"
                " serialization_format TEXT, offered_qos_profiles TEXT);"
                "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER,"
                " data BLOB);"
                "INSERT INTO topics VALUES (1, '/joints', 'a/msg/B', 'cdr', '');"
                "INSERT INTO topics VALUES (2, '/camera', 'a/msg/C', 'cdr', '');"
            )
            for stamp, is_picture in _samples(size, len(picture) + 10 * len(state)):
                row = (2 if is_picture else 1, stamp, picture if is_picture else state)
                database.execute("INSERT INTO messages VALUES (NULL, ?, ?, ?)", row)
        database.close()


def _samples(size: int, group: int) -> Iterator[tuple[int, bool]]:
    for number in range(size // group * 11):
        yield START + number * 3_000_000, number % 11 == 10


def measured(side: str, path: Path) -> dict[str, float]:
    """One run in a process of its own: messages, processor seconds, peak MiB."""
    command = [sys.executable, "-c", FRAME + SIDES[side], str(path)]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = {"PYTHONPYCACHEPREFIX": str(path.parent / "bytecode")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept | compiled)
    return json.loads(done.stdout)


def compare(kind: str, size: int, folder: Path, rounds: int) -> dict[str, float]:
    """Both sides of one container, in turns."""
    path = folder / {"rosbag1": "a.bag", "mcap": "a.mcap", "sqlite3": "a.db3"}[kind]
    write(kind, path, size)
    runs: dict[str, list[dict[str, float]]] = {"ours": [], kind: []}
    if f"{kind}+decoded" in SIDES:
        runs[f"{kind}+decoded"] = []
    for number in range(rounds + 1):
        for side, found in runs.items():
            run = measured(side, path)
            if number:
                found.append(run)
    actual = path.stat().st_size
    path.unlink()
    ours, theirs, alike = (
        min(run["cpu"] for run in runs.get(side, runs[kind])) for side in ("ours", kind, f"{kind}+decoded")
    )
    counts = {run["messages"] for found in runs.values() for run in found}
    if len(counts) != 1:
        raise SystemExit(f"{kind}: the sides count {sorted(counts)}")
    return {
        "mib": actual / MIB,
        "messages": counts.pop(),
        "ours": ours,
        "theirs": theirs,
        "ratio": ours / theirs,
        "ratioAlike": ours / alike,
        "peak": max(run["mib"] for run in runs["ours"]),
        "peakTheirs": max(run["mib"] for run in runs[kind]),
    }


def main() -> None:
    """Measure and print one line a container."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="5 GiB of each instead of 200 MiB")
    parser.add_argument("--small", action="store_true", help="1 MiB of each")
    parser.add_argument("--mib", type=int, help="so many MiB of each")
    parser.add_argument("--only", choices=("rosbag1", "mcap", "sqlite3"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    size = (5 << 30) if options.full else MIB if options.small else (options.mib or 200) * MIB
    for kind in (options.only,) if options.only else ("rosbag1", "mcap", "sqlite3"):
        with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
            found = compare(kind, size, Path(folder), options.rounds)
        sys.stdout.write(
            f"{kind}: {found['mib']:.0f} MiB, {found['messages']:.0f} messages: "
            f"probe {found['ours']:.2f} s CPU, "
            f"read once {found['theirs']:.2f} s CPU, ratio {found['ratio']:.2f} "
            f"({found['ratioAlike']:.2f} where it decodes one message a topic); "
            f"peak {found['peak']:.0f} MiB, the library's {found['peakTheirs']:.0f} MiB\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
