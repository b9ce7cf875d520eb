"""Normalising beside reading the same file once with the same library, in turn; and the memory that it takes.

Each side is a process of its own, run from bytecode as installed packages are; its processor time is counted
without start and imports. `large` is four times the file of `small`: memory that grows with it is shown by
the last column, and what does not grow is the constant cost.

    python benchmarks/normalise.py [--rounds 3] [--only hdf5,lerobot,bag,video]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {"small": 1, "large": 4}
FORMATS = {
    "hdf5": "hdf5_robosuite_raw",
    "lerobot": "lerobot_v2.1",
    "bag": "mcap",
    "video": "video_collection",
}
FPS = 20


def main() -> int:
    """Print the table."""
    if sys.argv[1:2] == ["--side"]:
        return side(*sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(FORMATS))
    options = parser.parse_args()
    print(
        f"{'source':8} {'size':>6} {'MiB':>7} {'read s':>8} {'normalise s':>12} {'ratio':>7} {'peak MiB':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
        for kind in options.only.split(","):
            for size, times in SIZES.items():
                source = Path(folder) / f"{kind}-{size}"
                MAKERS[kind](source, times)
                read: list[float] = []
                ours: list[float] = []
                peak = 0.0
                for number in range(-1, options.rounds):
                    before = run("read", kind, source, Path(folder) / "none")["cpu"]
                    done = run("normalise", kind, source, Path(folder) / f"out-{kind}-{size}-{number}")
                    if number < 0:  # it compiled
                        continue
                    read.append(before)
                    ours.append(done["cpu"])
                    peak = max(peak, done["peak"])
                ratio = statistics.median(o / r for o, r in zip(ours, read, strict=True))
                mib = sum(p.stat().st_size for p in source.rglob("*") if p.is_file()) / 2**20
                print(
                    f"{kind:8} {size:>6} {mib:7.1f} {statistics.median(read):8.2f} "
                    f"{statistics.median(ours):12.2f} {ratio:7.2f} {peak:9.0f}",
                    flush=True,
                )
    return 0


def run(what: str, kind: str, source: Path, out: Path) -> dict[str, float]:
    """One side in a process of its own: processor seconds and MiB."""
    command = [sys.executable, __file__, "--side", what, kind, str(source), str(out)]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = {"PYTHONPYCACHEPREFIX": str(source.parent / "bytecode")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept | compiled)
    return json.loads(done.stdout.splitlines()[-1])


def side(what: str, kind: str, source: str, out: str) -> int:
    """Do it and say what it took."""
    import av  # noqa: F401 - imported by both sides before the clock starts
    import h5py  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from emboflow_dagster.runtime.normalizing import normalize

    start = time.process_time()
    if what == "read":
        READERS[kind](Path(source))
    else:
        asset = {"id": "a", "name": kind, "path": source, "format": FORMATS[kind], "sha256": "0" * 64}
        wishes: dict[str, Any] = {"robotType": None, "task": None, "topics": [], "mapping": {}}
        wishes |= {"ratePolicy": "hold", "onMismatch": "separate", "fps": FPS}
        normalize({"assets": [asset], "out": out, **wishes})
    used = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": used, "peak": peak}))
    return 0


def make_hdf5(path: Path, times: int) -> None:
    """Demonstrations of 400 frames, 32 and 7 numbers each."""
    import h5py
    import numpy as np

    path.mkdir()
    random = np.random.default_rng(7)
    with h5py.File(path / "demo.hdf5", "w") as file:
        for number in range(100 * times):
            demo = file.create_group(f"data/demo_{number}")
            demo["states"] = random.normal(size=(400, 32))
            demo["actions"] = random.normal(size=(400, 7))


def make_video(path: Path, times: int) -> None:
    """Videos of 200 frames, at 25 frames per second: sampled at another rate, so encoded."""
    path.mkdir()
    for number in range(2 * times):
        write_video(path / f"take_{number}.mp4", 200, 25)


def make_lerobot(path: Path, times: int) -> None:
    """A 2.1 tree: 40 episodes of 200 frames with a video each, which is copied."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, length = 40 * times, 200
    vector = {"dtype": "float32", "shape": [14], "names": None}
    features = {"observation.state": vector, "action": vector}
    features["observation.images.top"] = {"dtype": "video", "shape": [240, 320, 3], "names": None}
    info = {"codebase_version": "v2.1", "fps": FPS, "chunks_size": 1000, "features": features}
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    (path / "data").mkdir()
    random = np.random.default_rng(7)
    videos = path / "videos/observation.images.top"
    videos.mkdir(parents=True)
    write_video(videos / "episode_000000.mp4", length, FPS)
    for number in range(count):
        values = random.normal(size=(length, 14)).astype(np.float32).tolist()
        columns = {"observation.state": values, "action": values, "timestamp": np.arange(length) / FPS}
        columns |= {"frame_index": np.arange(length), "episode_index": np.full(length, number)}
        pq.write_table(pa.table(columns), path / f"data/episode_{number:06d}.parquet")
        if number:
            data = (videos / "episode_000000.mp4").read_bytes()
            (videos / f"episode_{number:06d}.mp4").write_bytes(data)


def make_bag(path: Path, times: int) -> None:
    """An MCAP of joint states at 200 Hz, for a minute and for four."""
    from mcap_ros2.writer import Writer

    path.mkdir()
    definition = "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n"
    with (path / "arm.mcap").open("wb") as stream:
        writer = Writer(stream)
        schema = writer.register_msgdef("sensor_msgs/msg/JointState", definition)
        names = [f"joint_{number}" for number in range(14)]
        for number in range(12_000 * times):
            row = [number * 0.001 + place for place in range(14)]
            message = {"name": names, "position": row, "velocity": row, "effort": row}
            stamp = 1_700_000_000_000_000_000 + number * 5_000_000
            writer.write_message("/joint_states", schema, message, stamp, stamp)
        writer.finish()


def write_video(path: Path, frames: int, fps: int) -> None:
    """Pictures of 320x240 with a moving edge."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        picture = np.random.default_rng(3).integers(0, 255, (240, 320, 3), dtype=np.uint8)
        for number in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, number, 1), format="rgb24"))
            )
        container.mux(stream.encode())


def read_hdf5(path: Path) -> None:
    """Every number, with h5py."""
    import h5py

    with h5py.File(path / "demo.hdf5") as file:
        for demo in file["data"].values():
            for dataset in demo.values():
                dataset[...]


def read_lerobot(path: Path) -> None:
    """Every table with pyarrow, every byte of the videos."""
    import pyarrow.parquet as pq

    for file in sorted(path.rglob("*.parquet")):
        pq.read_table(file)
    for file in sorted(path.rglob("*.mp4")):
        file.read_bytes()


def read_bag(path: Path) -> None:
    """Every message, decoded with rosbags."""
    from rosbags.highlevel import AnyReader

    with AnyReader([path / "arm.mcap"]) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)


def read_video(path: Path) -> None:
    """Every frame as RGB, with PyAV."""
    import av

    for file in sorted(path.iterdir()):
        with av.open(str(file)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")


MAKERS = {"hdf5": make_hdf5, "lerobot": make_lerobot, "bag": make_bag, "video": make_video}
READERS = {"hdf5": read_hdf5, "lerobot": read_lerobot, "bag": read_bag, "video": read_video}

if __name__ == "__main__":
    sys.exit(main())
