"""What recording costs a task: claim + settle, against one bare majority write of the same server.

Runs a workflow of N source nodes whose work is nothing, so that what is measured is the two transactions.
Prints medians in milliseconds and the ratio to the bare write, interleaved.

    python benchmarks/bookkeeping.py [--tasks 200]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo import embedded
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from emboflow_dagster.runtime.outputs import Outputs

TARGET_MS = 15


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100, help="claim + settle this often")
    parser.add_argument("--nodes", type=int, default=5, help="nodes of each run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
        home = Path(folder) / "home"
        try:
            with EmboFlow.open(Settings.from_env(home=home)) as ef:
                _measure(ef, Path(folder), options.tasks, options.nodes)
        finally:
            embedded.stop(home)


def _measure(ef: EmboFlow, folder: Path, tasks: int, nodes: int) -> None:
    path = folder / "rows.csv"
    path.write_text("t\n0\n")
    asset = ef.assets.register(path, type="raw_file")
    ids = [f"src-{n}" for n in range(nodes)]
    ef.workflows.publish({"workflow": "bench", "nodes": [{"id": i, "type": "source"} for i in ids]})
    claim: list[float] = []
    settle: list[float] = []
    bare: list[float] = []
    while len(claim) < tasks:
        run = ef.workflows.run("bench", assets=[asset.id])
        for node in ids:
            start = time.perf_counter()
            claimed = ef.runs.recorder.claim(run.id, node, "bench")
            claim.append(time.perf_counter() - start)
            start = time.perf_counter()
            ef.runs.recorder.succeed(claimed, {"lastResultPreview": {"n": 1}}, Outputs())
            settle.append(time.perf_counter() - start)
            start = time.perf_counter()
            ef.mongo["_emboflow_meta"].update_one({"_id": "bench"}, {"$set": {"at": utc_now()}}, upsert=True)
            bare.append(time.perf_counter() - start)
    rows = {
        "claim": claim,
        "settle": settle,
        "claim + settle": [a + b for a, b in zip(claim, settle, strict=True)],
    }
    write = statistics.median(bare) * 1e3
    print(f"{len(claim)} tasks, {nodes} a run; one bare majority write: {write:.2f} ms median")
    print(f"{'':16} {'median ms':>10} {'p95 ms':>8} {'x bare write':>13}")
    for name, times in rows.items():
        millis = sorted(t * 1e3 for t in times)
        median = statistics.median(millis)
        print(f"{name:16} {median:10.2f} {millis[int(len(millis) * 0.95)]:8.2f} {median / write:13.2f}")
    print(f"target: claim + settle under {TARGET_MS} ms median")


if __name__ == "__main__":
    main()
