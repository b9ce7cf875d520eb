"""How long a code location takes to load: 200 published workflows of 5 nodes against none.

Each row is the median of fresh processes, interleaved. ``server`` is what a code server does (all
definitions and the snapshot that the webserver reads), ``worker`` what a process does before its first line
that does not say what it executes (the repository and one job), ``step`` what a run worker or step does that
says so (decision 36). ``plain`` is the same graph written with ``@dg.asset``.

    python benchmarks/code_location.py [workflows] [repeats]
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NODES = ("take", "look", "keep", "report", "publish")
TYPES = ("source", "probe", "filter", "quality-report", "publish-dataset")
TARGET_SECONDS = 5.0
LOAD = """
import json, sys, time
started = time.perf_counter(), time.process_time()
import dagster as dg
imported = time.perf_counter()
kind, state, mode = sys.argv[1:4]
catalog = json.load(open(state))
if kind == "plain":
    assets, jobs = [], []
    for workflow in catalog["workspaces"][0]["projects"][0]["workflows"]:
        before, keys = None, []
        for node in workflow["nodes"]:
            key = dg.AssetKey(["plain", workflow["slug"], node["id"]])
            def compute():
                return None
            compute.__name__ = f"{workflow['slug']}_{node['id']}".replace("-", "_")
            assets.append(dg.asset(key=key, deps=[before] if before else [])(compute))
            before = key
            keys.append(key)
        jobs.append(dg.define_asset_job(workflow["slug"].replace("-", "_"), dg.AssetSelection.assets(*keys)))
    defs = dg.Definitions(assets=assets, jobs=jobs)
    job = jobs[-1].name if jobs else None
else:
    from emboflow_dagster.orchestration.component import EmboFlowWorkflows
    from emboflow_dagster.orchestration.definitions import definitions_from_catalog
    from emboflow_dagster.orchestration.narrow import Needed
    needed = None
    if mode == "step":
        taken = dg.AssetKey(["acme", "bench", "artifacts", "flow-7", "take"])
        needed = Needed("emboflow__workflows", frozenset([taken]))
    defs = definitions_from_catalog(catalog, resources=EmboFlowWorkflows().resources(), needed=needed)
    projects = [p for w in catalog["workspaces"] for p in w["projects"]]
    job = f"acme__bench__{projects[0]['workflows'][-1]['slug']}".replace("-", "_") if projects else None
repository = defs.get_repository_def()
if mode == "server":
    from dagster._core.remote_representation.external_data import RepositorySnap
    repository.load_all_definitions()
    RepositorySnap.from_def(repository)
elif job:
    # Above some number of workflows they share a job (decision 6).
    repository.get_job(job if mode == "worker" and repository.has_job(job) else "emboflow__workflows")
wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
print(json.dumps({"wall": wall, "cpu": cpu, "after_import": time.perf_counter() - imported}))
"""


def node(index: int, slug: str) -> dict[str, Any]:
    """One node of the chain."""
    return {
        "id": NODES[index],
        "type": TYPES[index],
        "title": None,
        "description": "One step of the chain.",
        "codeVersion": "1",
        "config": {},
        "after": list(NODES[index - 1 : index]) if index else [],
        "produces": None,
        "dataset": f"{slug}-data" if index == len(NODES) - 1 else None,
        "executor": "python",
        "retries": 0,
        "kinds": [],
        "assetKeys": [],
    }


def catalog(workflows: int) -> dict[str, Any]:
    """A project with that many workflows of five nodes; none at all for 0."""
    rows = [
        {
            "definitionId": f"wf_{number:05}",
            "slug": f"flow-{number}",
            "name": f"Flow {number}",
            "description": "",
            "versionId": f"wfv_{number:05}",
            "versionNumber": 1,
            "executionDigest": str(number),
            "createdBy": "bench",
            "schedule": None,
            "nodes": [node(index, f"flow-{number}") for index in range(len(NODES))],
        }
        for number in range(workflows)
    ]
    projects = [{"id": "prj_1", "slug": "bench", "assets": [], "datasets": [], "workflows": rows}]
    workspaces = [{"id": "ws_1", "slug": "acme", "projects": projects}] if workflows else []
    return {"schema": 1, "generatedAt": "", "workspaces": workspaces}


def load(kind: str, state: Path, mode: str) -> dict[str, float]:
    """Seconds of one fresh process."""
    command = [sys.executable, "-W", "ignore", "-c", LOAD, kind, str(state), mode]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main(workflows: int = 200, repeats: int = 3) -> int:
    """Print the table; exit 1 when the target is missed."""
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty.json", Path(folder) / "full.json"
        empty.write_text(json.dumps(catalog(0)))
        full.write_text(json.dumps(catalog(workflows)))
        rows = [
            ("emboflow", empty, "server"),
            ("emboflow", full, "server"),
            ("plain", full, "server"),
            ("emboflow", empty, "worker"),
            ("emboflow", full, "worker"),
            ("emboflow", full, "step"),
            ("plain", full, "worker"),
        ]
        samples: dict[int, list[dict[str, float]]] = {index: [] for index in range(len(rows))}
        for _ in range(repeats):
            for index, row in enumerate(rows):
                samples[index].append(load(*row))
    medians = [
        {name: statistics.median(sample[name] for sample in samples[index]) for name in ("wall", "cpu")}
        for index in range(len(rows))
    ]
    print(f"{workflows} workflows of {len(NODES)} nodes, median of {repeats} fresh processes, seconds\n")
    print(f"{'':10}{'':10}{'wall':>8}{'cpu':>8}{'beyond empty':>14}{'of plain':>10}")
    for (kind, state, mode), median in zip(rows, medians, strict=True):
        base = medians[0 if mode == "server" else 3]["wall"]
        plain = medians[2 if mode == "server" else 6]["wall"]
        name = "empty" if state.name == "empty.json" else kind
        line = f"{mode:10}{name:10}{median['wall']:8.2f}{median['cpu']:8.2f}{median['wall'] - base:14.2f}"
        print(f"{line}{median['wall'] / plain:10.2f}")
    beyond = medians[1]["wall"] - medians[0]["wall"]
    print(f"\ntarget: server under {TARGET_SECONDS:g} s beyond an empty one: {beyond:.2f} s")
    return 0 if beyond < TARGET_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
