"""What a put and a verified get cost beside the least that does the same: file, sha256, fsync.

Both sides run in turn on the same folder, so only the ratios travel: above 1 is faster than the plain way.
Usage: ``python benchmarks/put_get.py [--folder DIR] [--rounds N]``.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from emboflow_dagster.object_storage import LocalObjectStore

SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20, "256 MiB": 256 << 20}
TYPE = "application/octet-stream"
CHUNK = 1 << 20


def plain_put(source: Path, target: Path) -> None:
    """Copy, hash, fsync: one after the other."""
    sha256 = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as out:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())


def plain_get(path: Path) -> None:
    """Read and hash."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="emboflow-bench-", dir=arguments.folder))
    columns = ("plain put", "put", "ratio", "plain get", "get", "ratio")
    print(f"{'payload':>8}" + "".join(f"{column:>13}" for column in columns))
    try:
        store = LocalObjectStore(folder / "objects")
        for name, size in SIZES.items():
            times: dict[str, list[float]] = {"plain put": [], "put": [], "plain get": [], "get": []}
            rounds = arguments.rounds * (10 if size <= 1 << 20 else 1)
            for turn in range(rounds):
                measure(store, folder, size, times, plain_first=turn % 2 == 0)
            median = {what: statistics.median(values) * 1000 for what, values in times.items()}
            row = f"{name:>8}"
            for plain, ours in (("plain put", "put"), ("plain get", "get")):
                row += (
                    f"{median[plain]:>10.2f} ms{median[ours]:>10.2f} ms{median[plain] / median[ours]:>13.2f}"
                )
            print(row)
    finally:
        shutil.rmtree(folder)


def measure(
    store: LocalObjectStore, folder: Path, size: int, times: dict[str, list[float]], *, plain_first: bool
) -> None:
    """One round of both sides with a payload that the store has not seen."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(os.urandom(min(size, CHUNK)) * max(1, size // CHUNK))
    os.sync()
    keys: list[tuple[str, str, int]] = []

    def put() -> None:
        stored = store.put(source, content_type=TYPE)
        keys.append((stored.key, stored.sha256, stored.size))

    def get() -> None:
        key, sha256, length = keys[0]
        with store.open(key, sha256=sha256, size=length) as stream:
            while stream.read(CHUNK):
                pass

    puts = [("plain put", lambda: plain_put(source, target)), ("put", put)]
    for what, action in puts if plain_first else reversed(puts):
        times[what].append(seconds(action))
    path = store.path_of(keys[0][0])
    plain_get(path)  # both reads from a warm page cache
    gets = [("plain get", lambda: plain_get(path)), ("get", get)]
    for what, action in gets if plain_first else reversed(gets):
        times[what].append(seconds(action))
    store.delete(keys[0][0])
    target.unlink()


if __name__ == "__main__":
    main()
