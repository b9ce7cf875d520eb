"""What a put that was acknowledged is worth: several writers at once, and writers that are killed.

The sides of `benchmarks/blobs`, each in its own environment, with the real tool. Two trials:

- *together*: four processes put 25 versions of 64 KiB each of one object, all at once;
- *killed*: a process that puts versions of 16 MiB is killed with -9 at a random moment, ten times over.

Every payload is random, its sha256 written down before the put and the handle after it. In the end a fresh
process reads all that was acknowledged.

    python benchmarks/promises [--peers emboflow,mlflow] [--kills 10] [--seed 1]
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "blobs"))

from peers import PEERS, Peer
from process import SideError
from promises_report import write
from s3_server import moto
from trials import Killed, Place, Together, killed, together
from venvs import ROOT, python_of

from emboflow_dagster.mongo import embedded

RESULTS = ROOT / "benchmarks" / "PROMISES.md"
LEFT_OUT = ("raw file", "emboflow arrow")  # no versions; another format of frames, the same put


def main() -> int:
    """Both trials of every side, one table."""
    options = _options()
    found: dict[Peer, tuple[str, Together, Killed]] = {}
    skipped: dict[str, str] = {}
    folder = Path(tempfile.mkdtemp(prefix="emboflow-promises-"))
    try:
        server = embedded.ensure(folder / "mongod")
        with moto() as s3:
            for number, peer in enumerate(PEERS):
                if peer.name in LEFT_OUT or (options.peers and peer.name not in options.peers):
                    continue
                print(f"{peer.name} ...", flush=True)
                shared = {"mongo": server.uri, "s3": s3, "run_each": True, **peer.options}
                try:
                    place = Place(peer, python_of(peer), folder / f"side-{number}", shared)
                    found[peer] = (
                        place.versions(),
                        together(place, f"together_{number}"),
                        killed(place, f"killed_{number}", options.kills, options.seed),
                    )
                except (RuntimeError, SideError) as error:
                    skipped[peer.name] = str(error)
                    print(f"  skipped, {error}", flush=True)
                shutil.rmtree(folder / f"side-{number}", ignore_errors=True)
    finally:
        embedded.stop(folder / "mongod")
        shutil.rmtree(folder, ignore_errors=True)
    print(write(options.output, found, skipped, options.kills))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=lambda text: [n.strip() for n in text.split(",")])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
