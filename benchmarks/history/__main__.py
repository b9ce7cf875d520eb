"""Does what is done all day cost the same at a million runs as at ten thousand?

Fills two databases of one server with real documents (10 tasks a run), then measures in turn, first the
small one and then the large one: what the sensors ask each tick, pages of the history, a run shown, a task
claimed and settled. Prints medians, their ratio, and what the server read for one call (its own profiler).

    python benchmarks/history                    # ten thousand and a million runs: 20 minutes, 8 GB of disk
    python benchmarks/history --runs 100000      # a smaller large one
    python benchmarks/history --home FOLDER      # keeps the databases there and finds them again
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import fill
import measure

from emboflow_dagster.mongo import embedded
from emboflow_dagster.mongo.client import connect
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

SMALL = 10_000
LIMIT = 2.0


def main() -> int:
    """Fill, measure, print; 1 when something grew with the history."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000, help="runs of the large database")
    parser.add_argument("--rounds", type=int, default=40, help="how often each operation is measured")
    parser.add_argument("--home", type=Path, help="where the databases are kept")
    parser.add_argument("--fill-only", action="store_true", help="make the databases and stop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
        home = options.home or Path(folder) / "home"
        server = embedded.ensure(home)
        try:
            handles = [opened(home, server.uri, runs) for runs in (SMALL, options.runs)]
            try:
                if options.fill_only:
                    return 0
                return report(handles, options.rounds)
            finally:
                for handle in handles:
                    handle.close()
        finally:
            embedded.stop(home)


def opened(home: Path, uri: str, runs: int) -> EmboFlow:
    """A project with ``runs`` runs, made when it is not there."""
    database = f"history_{runs}"
    settings = Settings.from_env(
        home=home, mongo_uri=uri, database=database, workspace="acme", project="bench", actor="user:ada"
    )
    probe = connect(uri, database)
    try:
        filled = probe["_emboflow_bench"].find_one({"_id": runs}) is not None
        if not filled:
            probe.client.drop_database(database)
    finally:
        probe.close()
    handle = EmboFlow.open(settings)
    if not filled:
        assets = []
        for number in range(fill.ASSETS):
            path = home / "asset.csv"
            path.write_text(f"t\n{number}\n")
            assets.append(handle.assets.register(path, type="raw_file", name=f"asset-{number:03}").id)
        for number in range(fill.WORKFLOWS):
            handle.workflows.publish(fill.flow(number))
        start = time.monotonic()
        fill.fill(handle, assets, runs)
        handle.mongo["_emboflow_bench"].insert_one({"_id": runs})
        took = time.monotonic() - start
        print(f"{runs:,} runs, {runs * fill.NODES:,} tasks written in {took:.0f} s", file=sys.stderr)
    return handle


def report(handles: list[EmboFlow], rounds: int) -> int:
    """Print the table; 1 when an operation takes more than :data:`LIMIT` times as long, or scans."""
    small, large = handles
    rows = measure.measured(small, large, rounds)
    sizes = [handle.mongo["workflow_runs"].estimated_document_count() for handle in handles]
    print(
        f"{sizes[0]:,} and {sizes[1]:,} runs, {fill.NODES} tasks each; medians of {rounds} rounds, in turn\n"
    )
    print("| operation | ms | ms | ratio | documents read / returned | plans |")
    print("|---|---:|---:|---:|---:|---|")
    bad = []
    for row in rows:
        ratio = row.large_ms / row.small_ms
        read = f"{row.read.examined:,} / {row.read.returned:,}"
        cells = (row.name, f"{row.small_ms:.2f}", f"{row.large_ms:.2f}", f"{ratio:.2f}", read, row.read.plans)
        print(f"| {' | '.join(cells)} |")
        if ratio > LIMIT:
            bad.append(f"{row.name} takes {ratio:.1f} times as long")
        if "COLLSCAN" in row.read.plans:
            bad.append(f"{row.name} scans a collection")
    print(f"\ntarget: at most {LIMIT:g} times as long, no collection scan: " + ("; ".join(bad) or "met"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
