"""What recording adds to Dagster: the same graph of five nodes, ours and plain ``@dg.asset``, in turn.

Both do nothing in a step; ours claims a task, works out assets and cache key, settles it, promotes the next
one, and says so in the events. In one process (where workflows of short nodes run) and with a forked process
a step. Also the whole command: ``emboflow workflow run --wait`` where no daemon runs.

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
from dagster._core.execution.api import execute_run

from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import direct
from emboflow_dagster.orchestration import instance as dagster_instance
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
FORK = (
    "dg.multiprocess_executor.configured({'start_method': {'forkserver': {'preload_modules': ['dagster']}}})"
)


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
        for name, count in (("in one process", rounds), ("forked steps", forked)):
            inside = name == "in one process"
            assets = [["acme", "bench", "artifacts", "bench", f"n{n}"] for n in range(NODES)]
            plain_text = PLAIN.format(executor="dg.in_process_executor" if inside else FORK, nodes=NODES)
            our_text = OURS.format(
                executor="dg.in_process_executor" if inside else "FORKED", catalog=str(catalog), keys=assets
            )
            sides = {
                "plain": _side(folder, f"plain_{inside}", plain_text),
                "ours": _side(folder, f"ours_{inside}", our_text),
            }
            times = _in_turn(instance, ef, asset.id, sides, count)
            plain, ours = (statistics.median(times[side]) for side in ("plain", "ours"))
            step = (ours - plain) / NODES
            limit = IN_PROCESS if inside else FORKED
            rows.append((f"run of {NODES}, {name}", plain, ours, limit * plain))
            if not inside:
                rows.append(("a forked step", plain / NODES, ours / NODES, (1 + FORKED_STEP) * plain / NODES))
            print(f"{name}: recording adds {step * 1e3:.1f} ms a step", file=sys.stderr)
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
        print(f"| {name} | {plain:.3f} | {ours:.3f} | {ratio} | {limit:.3f} | {met} |")
    return 0 if all(ours <= limit for _, _, ours, limit in rows) else 1


def _requested(ef: EmboFlow, asset_id: str) -> str:
    return ef.workflows.run("bench", assets=[asset_id]).id


def _side(folder: Path, name: str, text: str) -> Any:
    path = folder / f"{name}.py"
    path.write_text(text)
    return ReconstructableRepository.for_file(str(path), "defs", str(folder)).get_reconstructable_job("bench")


def _in_turn(
    instance: dg.DagsterInstance, ef: EmboFlow, asset_id: str, sides: dict[str, Any], count: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(count + 1):
        for name, job in sides.items():
            tags = {}
            if name == "ours":
                tags = {TAG_RUN_ID: _requested(ef, asset_id)}
            definition = job.get_definition()
            run = instance.create_run_for_job(
                job_def=definition,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                tags=tags,
                job_code_origin=job.get_python_origin(),
            )
            took = _timed(lambda job=job, run=run: execute_run(job, run, instance, raise_on_error=True))
            if turn:  # the first loads what is loaded once
                times[name].append(took)
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
