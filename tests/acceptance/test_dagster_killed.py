"""A command that executes a run and is killed leaves a run that the next one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from emboflow_dagster import EmboFlow
from emboflow_dagster.orchestration import direct, orphans, recorder

SLOW = "import time\ndef go(ctx, inputs):\n    time.sleep(120)\n"


def _workflow(slug: str, *nodes: dict[str, object]) -> dict[str, object]:
    return {"workflow": slug, "nodes": [{"id": "take", "type": "source"}, *nodes]}


def test_a_run_whose_command_was_killed_is_settled_by_the_next(
    ef: EmboFlow, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("t,x\n0,1\n")
    ef.assets.register(path, type="raw_file", name="rows")
    hook = {"language": "python", "entrypoint": "go", "source": SLOW}
    ef.workflows.publish(
        _workflow("slow", {"id": "wait", "type": "python", "after": ["take"], "codeHook": hook})
    )
    ef.workflows.publish(_workflow("quick"))
    command = [
        str(Path(sys.executable).parent / "emboflow"),
        "workflow",
        "run",
        "slow",
        "--asset",
        "rows",
        "--wait",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not (runs := ef.runs.list(workflow="slow")) or "wait" not in _running(ef, runs[0].id):
            assert time.monotonic() < deadline, "the run did not start"
            assert process.poll() is None, "the command ended by itself"
            time.sleep(0.2)
        alive = recorder.settle(ef, instance)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    direct.execute_queued(ef, ef.workflows.run("quick", assets=["rows"]).id)
    killed = ef.runs.get(runs[0].id)

    assert alive == []
    assert killed.status.value == "failed"
    assert ef.tasks.get(killed.id, "wait").status.value == "failed"
    assert ef.runs.list(workflow="quick")[0].status.value == "success"
    assert ef.verify().problems == []


def test_a_process_is_told_from_its_successor_with_the_same_number() -> None:
    mark = orphans.process_mark()
    host, pid, started = mark.rsplit(":", 2)

    assert (pid, started.isdigit()) == (str(os.getpid()), True)
    for tag, gone in (
        (mark, False),
        (f"{host}:{pid}:1", True),
        (f"{host}:999999999:{started}", True),
        (f"elsewhere:{pid}:1", False),
        ("", False),
    ):
        run = dg.DagsterRun(job_name="x", tags={orphans.PROCESS_TAG: tag})
        assert orphans._process_is_gone(run) is gone, tag


def _running(ef: EmboFlow, run_id: str) -> set[str]:
    return {task.node_id for task in ef.tasks.list(run_id) if task.status.value == "running"}
