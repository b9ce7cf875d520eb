"""What recording adds to Dagster: the same graph of five nodes, ours and plain ``@dg.asset``, in turn.

Both do nothing in a step; ours claims a task, works out assets and cache key, settles it, promotes the next
one, and says so in the events. In one process (where workflows of short nodes run) and with a forked process
a step. Also the whole command: ``emboflow workflow run --wait`` where no daemon runs.

Each side has a process of its own, as a run worker is one: a process has one fork server, and what that
imports would be the other side's as well. Forked steps are compared with two plain sides: one whose fork
server imports ``dagster``, and one that is given all that ours imports, so that the difference is recording
alone. The start of the fork server is in the first run, which is printed and not counted.

    python benchmarks/recording.py [--rounds 7] [--forked-rounds 3]
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository

from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import direct
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration.executors import PRELOADED
from emboflow_dagster.orchestration.keys import TAG_RUN_ID
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from emboflow_dagster.runtime.outputs import Outputs

NODES = 5
STEP_MS, IN_PROCESS, FORKED, FORKED_STEP, DIRECT_S = 15, 2.0, 1.05, 0.03, 1.5
PLAIN = """
import dagster as dg
executor = {executor}
def node(number):
    @dg.asset(name=f"plain_{{number}}", deps=[f"plain_{{number - 1}}"] if number else [])
    def compute() -> None:
        return None
    return compute
defs = dg.Definitions(
    assets=[node(n) for n in range({nodes})],
    jobs=[dg.define_asset_job("bench", selection="*", executor_def=executor)],
)
"""
OURS = """
import json
import dagster as dg
from emboflow_dagster.orchestration import build_definitions
from emboflow_dagster.orchestration.executors import FORKED
executor = {executor}
ours = build_definitions(json.load(open({catalog!r})))
names = dg.AssetSelection.assets(*{keys!r})
job = dg.define_asset_job("bench", selection=names.without_checks(), executor_def=executor)
defs = dg.Definitions.merge(ours, dg.Definitions(jobs=[job]))
"""
SIDE = """
import sys, time
import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run
job = ReconstructableRepository.for_file(sys.argv[1], "defs", sys.argv[2]).get_reconstructable_job("bench")
with dg.DagsterInstance.get() as instance:
    for line in sys.stdin:
        run = instance.get_run_by_id(line.strip())
        start = time.perf_counter()
        execute_run(job, run, instance, raise_on_error=True)
        print(time.perf_counter() - start, flush=True)
"""
FORK = "dg.multiprocess_executor.configured({{'start_method': {{'forkserver': {{'preload_modules': {0}}}}}}})"


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="runs of each side in one process")
    parser.add_argument("--forked-rounds", type=int, default=3, help="runs of each side with forked steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
        home = Path(folder) / "home"
        os.environ |= {"EMBOFLOW_HOME": str(home), "EMBOFLOW_WORKSPACE": "acme", "EMBOFLOW_PROJECT": "bench"}
        os.environ |= {"EMBOFLOW_ACTOR": "user:bench", "DAGSTER_HOME": str(home / "dagster")}
        try:
            with EmboFlow.open(Settings.from_env(home=home)) as ef:
                return _report(ef, Path(folder), options.rounds, options.forked_rounds)
        finally:
            embedded.stop(home)


def _report(ef: EmboFlow, folder: Path, rounds: int, forked: int) -> int:
    path = folder / "rows.csv"
    path.write_text("t\n0\n")
    asset = ef.assets.register(path, type="raw_file", name="rows")
    nodes: list[dict[str, Any]] = [{"id": "n0", "type": "source"}]
    nodes += [{"id": f"n{n}", "type": "set-union", "after": [f"n{n - 1}"]} for n in range(1, NODES)]
    ef.workflows.publish({"workflow": "bench", "nodes": nodes})
    catalog = folder / "catalog.json"
    catalog.write_text(json.dumps(ef.catalog()))
    rows: list[tuple[str, float, float, float]] = []
    with dagster_instance.opened(ef.settings.dagster_home) as instance:
        for inside, count in ((True, rounds), (False, forked)):
            name = "in one process" if inside else "forked steps"
            assets = [["acme", "bench", "artifacts", "bench", f"n{n}"] for n in range(NODES)]
            our_text = OURS.format(
                executor="dg.in_process_executor" if inside else "FORKED", catalog=str(catalog), keys=assets
            )
            alone = "dg.in_process_executor" if inside else FORK.format(["dagster"])
            texts = {"plain": PLAIN.format(executor=alone, nodes=NODES), "ours": our_text}
            if not inside:
                texts["alike"] = PLAIN.format(executor=FORK.format(list(PRELOADED)), nodes=NODES)
            with contextlib.ExitStack() as stack:
                sides = {
                    side: stack.enter_context(_side(folder, f"{side}_{inside}", text))
                    for side, text in texts.items()
                }
                times = _in_turn(instance, ef, asset.id, sides, count)
            plain, ours = (statistics.median(times[side]) for side in ("plain", "ours"))
            limit = IN_PROCESS if inside else FORKED
            rows.append((f"run of {NODES}, {name}", plain, ours, limit * plain))
            step = ours - plain
            if not inside:
                rows.append(("a forked step", plain / NODES, ours / NODES, (1 + FORKED_STEP) * plain / NODES))
                alike = statistics.median(times["alike"])
                rows.append(
                    ("a forked step, plain given our imports", alike / NODES, ours / NODES, float("inf"))
                )
                step = ours - alike
            print(f"{name}: recording adds {step / NODES * 1e3:.1f} ms a step", file=sys.stderr)
    rows.append(("claim + settle", 0, _recorded(ef, asset.id), STEP_MS / 1e3))
    here = [_timed(lambda: direct.execute_queued(ef, _requested(ef, asset.id))) for _ in range(3)]
    rows.append(("direct path, in Python", 0, statistics.median(here), DIRECT_S))
    emboflow = str(Path(sys.executable).parent / "emboflow")
    command = [emboflow, "workflow", "run", "bench", "--asset", "rows", "--wait"]
    whole = [_timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(3)]
    bare = [sys.executable, "-c", "import dagster"]
    floor = statistics.median([_timed(lambda: subprocess.run(bare, check=True)) for _ in range(3)])
    rows.append(
        (
            "direct path, the command (plain: `import dagster`)",
            floor,
            statistics.median(whole),
            floor + DIRECT_S,
        )
    )
    print("\n| | plain s | ours s | ratio | at most s | |")
    print("|---|---:|---:|---:|---:|---|")
    for name, plain, ours, limit in rows:
        ratio = f"{ours / plain:.2f}" if plain else "-"
        met = "met" if ours <= limit else "MISSED"
        bound = f"{limit:.3f} | {met}" if limit < float("inf") else "- | "
        print(f"| {name} | {plain:.3f} | {ours:.3f} | {ratio} | {bound} |")
    return 0 if all(ours <= limit for _, _, ours, limit in rows) else 1


def _requested(ef: EmboFlow, asset_id: str) -> str:
    return ef.workflows.run("bench", assets=[asset_id]).id


class Side:
    """One side's runs, in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", job: Any) -> None:
        self.process = process
        self.job = job
        self.definition = job.get_definition()

    def execute(self, run_id: str) -> float:
        """Execute a Dagster run that is there; the seconds it took."""
        asked, told = self.process.stdin, self.process.stdout
        if asked is None or told is None:
            raise SystemExit("the side has no pipes")
        asked.write(run_id + "\n")
        asked.flush()
        return float(told.readline())


@contextlib.contextmanager
def _side(folder: Path, name: str, text: str) -> Iterator[Side]:
    path = folder / f"{name}.py"
    path.write_text(text)
    repository = ReconstructableRepository.for_file(str(path), "defs", str(folder))
    process = subprocess.Popen(
        # No script: a forked step imports the main module of its run worker, which Dagster's has not.
        [sys.executable, "-W", "ignore", "-c", SIDE, str(path), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Side(process, repository.get_reconstructable_job("bench"))
    finally:
        process.communicate()


def _in_turn(
    instance: dg.DagsterInstance, ef: EmboFlow, asset_id: str, sides: dict[str, Side], count: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(count + 1):
        for name, side in sides.items():
            tags = {}
            if name == "ours":
                tags = {TAG_RUN_ID: _requested(ef, asset_id)}
            run = instance.create_run_for_job(
                job_def=side.definition,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                tags=tags,
                job_code_origin=side.job.get_python_origin(),
            )
            took = side.execute(run.run_id)
            if turn:  # the first loads what is loaded once
                times[name].append(took)
            else:
                print(f"{name}: the first run {took:.3f} s", file=sys.stderr)
            if tags and ef.runs.get(tags[TAG_RUN_ID]).status != "success":
                raise SystemExit(f"run {tags[TAG_RUN_ID]} is not a success")
    return times


def _recorded(ef: EmboFlow, asset_id: str) -> float:
    spent = []
    for _ in range(10):
        run = ef.workflows.run("bench", assets=[asset_id])
        for number in range(NODES):
            start = time.perf_counter()
            ef.runs.recorder.succeed(ef.runs.recorder.claim(run.id, f"n{number}", "bench"), {}, Outputs())
            spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def _timed(call: Callable[[], object]) -> float:
    with _quiet():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


if __name__ == "__main__":
    sys.exit(main())
