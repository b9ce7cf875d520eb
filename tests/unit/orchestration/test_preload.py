"""What the fork server imports: enough for a step, and nothing that a fork must not inherit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.orchestration import executors
from tests.unit.orchestration.catalogs import catalog, node, project, workflow

# As a step does, without its database: opens Dagster's instance, makes the definitions, plans.
STEP: str = """
import json, os, sys, threading
import emboflow_dagster.orchestration.preload
preloaded = set(sys.modules)
sockets = [f for f in os.listdir("/proc/self/fd") if "socket:" in os.path.realpath(f"/proc/self/fd/{f}")]
threads = threading.active_count()
import dagster as dg
from emboflow_dagster import build_definitions
with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
    instance.get_runs_count()
    job = build_definitions(json.loads(sys.argv[1])).resolve_job_def(sys.argv[2])
    instance.create_run_for_job(job)
print(json.dumps({
    "new": sorted(set(sys.modules) - preloaded), "sockets": sockets, "threads": threads,
    "grpc": "grpc" in preloaded, "pymongo": "pymongo" in preloaded,
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("dagster")
    nodes = [node("take", "source"), node("look", "probe", after=["take"])]
    told = catalog(project("pick-place", workflows=[workflow("triage", nodes)]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEP, json.dumps(told), "acme__pick_place__triage"],
        capture_output=True,
        text=True,
        check=False,
        env={"DAGSTER_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_step_finds_what_it_imports(found: Any) -> None:
    """Without the preloading a step imports more than a thousand modules."""
    assert len(found["new"]) <= 20, found["new"]
    assert found["pymongo"]


def test_nothing_is_open_and_no_thread_runs_before_the_fork(found: Any) -> None:
    assert (found["threads"], found["sockets"]) == (1, [])
    assert not found["grpc"]


def test_the_fork_server_is_told_modules_that_there_are() -> None:
    """It passes over one that cannot be imported, and says nothing."""
    names = [name.rpartition(".")[2] for name in executors.PRELOADED if name.startswith("emboflow_dagster")]
    folder = Path(executors.__file__).parent
    assert names
    assert all((folder / f"{name}.py").exists() for name in names)
