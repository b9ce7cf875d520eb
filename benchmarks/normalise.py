"""Normalising beside reading the same recording once with the same library, in turn; and the memory it takes.

Each side is a process of its own with the environment that a node's child has; its processor time is counted
without start and imports. Two sizes of each source: memory that grows with the recording is shown by the last
columns, and what does not grow is the constant cost.

    python benchmarks/normalise.py [--only hdf5,mcap] [--size 250MiB,5GiB] [--rounds 5] [--package FOLDER ...]

``--size`` instead of the small recordings: one is made at a time and deleted, so a size needs that much disk
twice. ``--package`` measures the code of another folder in the same turns (a checkout of the release before).
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recordings.made import FPS, MAKERS

MIB = 1 << 20
SMALL = {
    "hdf5": (12 * MIB, 48 * MIB),
    "hdf5-long": (24 * MIB, 96 * MIB),
    "hdf5-cameras": (88 * MIB, 352 * MIB),
    "lerobot": (13 * MIB, 52 * MIB),
    "mcap": (7 * MIB, 28 * MIB),
    "mcap-camera": (48 * MIB, 192 * MIB),
    "rosbag1-camera": (48 * MIB, 192 * MIB),
    "video": (88 * MIB, 352 * MIB),
    "pictures": (88 * MIB, 352 * MIB),
}
FORMATS = {
    "hdf5": "hdf5_robosuite_raw",
    "hdf5-long": "hdf5_robosuite_raw",
    "hdf5-cameras": "hdf5_robomimic",
    "lerobot": "lerobot_v2.1",
    "mcap": "mcap",
    "mcap-camera": "rosbag2_mcap",
    "rosbag1-camera": "rosbag1",
    "video": "video_collection",
    "pictures": "image_sequence",
}
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Print the table."""
    if sys.argv[1:2] == ["--side"]:
        return side(*sys.argv[2:])
    options = _options()
    packages = {"ours": ROOT} | {Path(folder).name: Path(folder) for folder in options.package}
    print(
        f"{'source':15} {'MiB':>7} {'package':10} {'read s':>8} {'normalise s':>12} {'ratio':>7} "
        f"{'peak MiB':>9} {'read':>6}"
    )
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-", dir=options.folder) as folder:
        for kind in options.only.split(","):
            for size in options.size or SMALL[kind]:
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    measure(kind, size, Path(place), options.rounds, packages)
    return 0


def measure(kind: str, size: int, place: Path, rounds: int, packages: dict[str, Path]) -> None:
    """One source of one size, all sides in turn."""
    source = place / kind
    MAKERS[kind](source, size)
    read: list[dict[str, float]] = []
    ours: dict[str, list[dict[str, float]]] = {name: [] for name in packages}
    for _ in range(rounds):
        read.append(run("read", kind, source, place, ROOT))
        for name, root in packages.items():
            ours[name].append(run("normalise", kind, source, place, root))
    mib = sum(p.stat().st_size for p in source.rglob("*") if p.is_file()) / MIB
    for name, found in ours.items():
        ratio = statistics.median(o["cpu"] / r["cpu"] for o, r in zip(found, read, strict=True))
        print(
            f"{kind:15} {mib:7.1f} {name[:10]:10} {statistics.median(r['cpu'] for r in read):8.3f} "
            f"{statistics.median(o['cpu'] for o in found):12.3f} {ratio:7.2f} "
            f"{max(o['peak'] for o in found):9.0f} {max(r['peak'] for r in read):6.0f}",
            flush=True,
        )


def run(what: str, kind: str, source: Path, place: Path, package: Path) -> dict[str, float]:
    """One side in a process of its own: processor seconds and MiB at the most."""
    from emboflow_dagster.runtime.child import FRUGAL

    with tempfile.TemporaryDirectory(dir=place) as out:
        command = [sys.executable, __file__, "--side", what, kind, str(source), f"{out}/package"]
        where = {
            "PYTHONPATH": str(package),
            "PYTHONPYCACHEPREFIX": str(place.parent / f"code-{package.name}"),
        }
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=place, env={**FRUGAL, **where}
        )
    if done.returncode:
        raise SystemExit(f"{what} of {kind}: {done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def side(what: str, kind: str, source: str, out: str) -> int:
    """Do it and say what it took."""
    import time

    loaded(what)
    from recordings.once import READERS

    start = time.process_time()
    if what == "read":
        READERS[kind](Path(source))
    else:
        from emboflow_dagster.runtime.normalizing import normalize

        if not normalize(wishes(kind, Path(source), Path(out)))["packages"]:
            raise SystemExit("nothing was normalised")
    used = time.process_time() - start
    print(json.dumps({"cpu": used, "peak": peak()}))
    return 0


def peak() -> float:
    """The most MiB that this process has held; ``ru_maxrss`` begins with what its parent had."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def wishes(kind: str, source: Path, out: Path) -> dict[str, Any]:
    """What the node asks for."""
    asset = {"id": "a", "name": kind, "path": str(source), "format": FORMATS[kind], "sha256": "0" * 64}
    said: dict[str, Any] = {"robotType": None, "task": None, "topics": [], "mapping": {}, "fps": FPS}
    said |= {"ratePolicy": "hold", "onMismatch": "separate"}
    return {"assets": [asset], "out": str(out), **said}


def loaded(what: str) -> None:
    """Import what a side needs, before its clock starts: the libraries of both, and our own modules."""
    import importlib
    import pkgutil

    for name in ("av", "h5py", "pyarrow.parquet", "PIL.Image", "PIL.ImageOps", "rosbags.highlevel"):
        importlib.import_module(name)
    if what == "read":
        return
    from emboflow_dagster.formats import canonical

    importlib.import_module("emboflow_dagster.runtime.normalizing")
    for found in pkgutil.iter_modules(canonical.__path__, f"{canonical.__name__}."):
        importlib.import_module(found.name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(MAKERS))
    parser.add_argument("--size", type=_sizes, help="for example 250MiB,5GiB")
    parser.add_argument("--package", action="append", default=[], help="a folder with `emboflow_dagster`")
    parser.add_argument("--folder", type=Path, help="on which disk; default: a temporary folder")
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    found = [re.fullmatch(r"(\d+)(KiB|MiB|GiB)", one.strip()) for one in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}; write 250MiB or 5GiB")
    return [int(one[1]) << {"KiB": 10, "MiB": 20, "GiB": 30}[one[2]] for one in found if one]


if __name__ == "__main__":
    sys.exit(main())
