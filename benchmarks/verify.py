"""`emboflow verify` beside reading and hashing the same payloads plainly, and its documents alone.

    python benchmarks/verify.py [VERSIONS] [PAYLOADS] [MEBIBYTES]

Target (spec: performance 10): the documents of 100,000 versions under 30 s; payloads at 0.85 of a plain read
with sha256 on as many threads.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emboflow_dagster.mongo import embedded
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

ROUNDS = 3
HISTORY = 10
TARGET_SECONDS = 30.0
TARGET_RATIO = 0.85


def timed(action: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def add_versions(ef: EmboFlow, count: int) -> None:
    """Documents of blobs with ten versions each, all of one payload."""
    sample = ef.blobs.put(b"one payload", object_id="sample").to_mongo()
    heads, older = [], []
    for number in range(count // HISTORY):
        row = {**sample, "object_id": f"bulk-{number:07}"}
        rows = [
            {**row, "_id": f"{row['object_id']}.v{v}", "version": v, "prev_version": v - 1 if v else None}
            for v in range(HISTORY)
        ]
        older += rows[:-1]
        heads.append({**rows[-1], "_id": row["object_id"], "tail": [], "request_ids": []})
    ef.mongo["objects"].insert_many(heads, ordered=False)
    ef.mongo["object_history"].insert_many(older, ordered=False)


def plain(paths: list[Path], workers: int) -> None:
    """Read and hash files on some threads."""

    def one(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, paths))


def settings(home: Path, workspace: str) -> Settings:
    """A scope in one database."""
    uri = embedded.ensure(home).uri
    return Settings.from_env(home=home, mongo_uri=uri, workspace=workspace, project="p", actor="user:bench")


def main(versions: int = 100_000, payloads: int = 64, mebibytes: int = 8) -> int:
    """Print both tables; exit 1 when a target is missed."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            with EmboFlow.open(settings(home, "documents")) as ef:
                add_versions(ef, versions)
                used = time.process_time()
                whole = timed(ef.verify)
                used = time.process_time() - used
            print(f"{versions} versions and one payload: {whole:.1f} s, {used:.1f} s of processor time")
            with EmboFlow.open(settings(home, "payloads")) as ef:
                for _ in range(payloads):
                    ef.blobs.put(os.urandom(mebibytes << 20))
                paths = [p for key in ef.store.iter_keys() if (p := ef.store.path_of(key)) is not None]
                ratios = []
                for _ in range(ROUNDS):
                    bare = timed(lambda: plain(paths, workers))
                    ours = timed(ef.scrub)
                    ratios.append(bare / ours)
                    print(f"{payloads} x {mebibytes} MiB: plain {bare:.2f} s, scrub {ours:.2f} s")
        finally:
            embedded.stop(home)
    ratio = statistics.median(ratios)
    print(f"target: documents under {TARGET_SECONDS:g} s: {whole:.1f} s")
    print(f"target: scrub at {TARGET_RATIO} of plain: {ratio:.2f}")
    return 0 if whole < TARGET_SECONDS and ratio >= TARGET_RATIO else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
