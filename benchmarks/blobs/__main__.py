"""Our blob store beside raw files and nine others, one table in `benchmarks/RESULTS.md`.

python benchmarks/blobs [--sizes 1KiB,1MiB] [--rounds N] [--peers emboflow,mlflow] [--quick]
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from measure import Plan, Runner
from peers import GIB, MIB, PEERS, Peer
from process import SideError
from report import write
from s3_server import moto
from venvs import ROOT, python_of

from emboflow_dagster.mongo import embedded

SIZES = (1 << 10, 64 << 10, MIB, 16 * MIB, 256 * MIB, GIB)
QUICK = SIZES[:4]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def main() -> int:
    """Install, measure, write the table."""
    options = _options()
    chosen = [p for p in PEERS if not options.peers or p.name in options.peers]
    skipped: dict[str, str] = {}
    pythons: dict[Peer, Path] = {}
    for peer in chosen:
        try:
            pythons[peer] = python_of(peer)
        except RuntimeError as error:
            skipped[peer.name] = str(error)
            print(f"{peer.name}: skipped, {error}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="emboflow-bench-", dir=options.folder))
    began = time.monotonic()
    plan = Plan(
        sizes=options.sizes or (QUICK if options.quick else SIZES),
        rounds=options.rounds or (3 if options.quick else None),
        minutes=options.minutes or (2 if options.quick else 14),
        small_seconds=0.5 if options.quick else 2.0,
        frame_rows=1_000_000,
        frame_rounds=1 if options.quick else 3,
    )
    os.environ.setdefault("EMBOFLOW_MONGOD_CACHE_GB", "1")
    try:
        server = embedded.ensure(folder / "mongod")
        with moto() as s3:
            runner = Runner(folder, plan)
            try:
                for number, (peer, python) in enumerate(pythons.items()):
                    print(f"starting {peer.name}", flush=True)
                    shared = {"mongo": server.uri, "s3": s3, "database": f"bench_{number}"}
                    try:
                        runner.start(peer, python, shared | peer.options)
                    except SideError as error:
                        skipped[peer.name] = str(error)
                        print(f"{peer.name}: skipped, {error}", flush=True)
                runner.run()
            finally:
                runner.close()
    finally:
        embedded.stop(folder / "mongod")
        shutil.rmtree(folder, ignore_errors=True)
    print(write(options.output, runner.found, skipped, plan, time.monotonic() - began))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = lambda text: [n.strip() for n in text.split(",")]  # noqa: E731 - two words, used once
    parser.add_argument("--sizes", type=_sizes, help="for example 1KiB,64MiB; default: 1 KiB to 1 GiB")
    parser.add_argument("--rounds", type=int, help="of each size; default: more of the short ones")
    parser.add_argument("--peers", type=names, help=f"of: {', '.join(p.name for p in PEERS)}")
    parser.add_argument("--quick", action="store_true", help="up to 16 MiB, three rounds")
    parser.add_argument(
        "--minutes", type=float, help="begin no further round after this; default 14, quick 2"
    )
    parser.add_argument("--folder", type=Path, help="on which disk; default: a temporary folder")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    unknown = set(options.peers or ()) - {p.name for p in PEERS}
    if unknown:
        parser.error(f"--peers: {', '.join(sorted(unknown))}; known are {', '.join(p.name for p in PEERS)}")
    return options


def _sizes(text: str) -> tuple[int, ...]:
    found = re.findall(r"(\d+) ?(KiB|MiB|GiB)", text)
    if not found:
        raise argparse.ArgumentTypeError("write 1KiB,64MiB,1GiB")
    return tuple(int(n) << {"KiB": 10, "MiB": 20, "GiB": 30}[unit] for n, unit in found)


if __name__ == "__main__":
    sys.exit(main())
