"""A run that a command executes in its own process ends when somebody else cancels it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.orchestration import termination
from tests.acceptance.served import until

EMBOFLOW = Path(sys.executable).with_name("emboflow")
LONG = pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="EMBOFLOW_FAULTS=all runs it")
SLOW = """
import os, time
from pathlib import Path
def run(ctx, inputs):
    print("long story")
    Path({mark!r}).write_text(str(os.getpid()))
    time.sleep(600)
"""


def by_command(ef: EmboFlow, _instance: dg.DagsterInstance, run: WorkflowRun) -> None:
    """What `emboflow run cancel` does."""
    termination.terminate(ef, ef.runs.cancel(run.id))


def in_the_ui(ef: EmboFlow, instance: dg.DagsterInstance, run: WorkflowRun) -> None:
    """What Terminate on the run's page does."""
    (dagster_run,) = ef.runs.get(run.id).dagster_run_ids
    instance.run_launcher.terminate(dagster_run)


def on_a_machine_with_another_dagster(ef: EmboFlow, _instance: dg.DagsterInstance, run: WorkflowRun) -> None:
    """The document is all that both know of."""
    ef.runs.cancel(run.id)


WAITING = ("workflow", "run", "slow", "--asset", "joints.csv", "--wait")
WORKER = ("worker", "--once")


@pytest.mark.parametrize(
    ("words", "stop"),
    [
        pytest.param(WAITING, by_command, id="command"),
        pytest.param(WAITING, in_the_ui, id="ui", marks=LONG),
        pytest.param(WAITING, on_a_machine_with_another_dagster, id="elsewhere", marks=LONG),
        pytest.param(WORKER, on_a_machine_with_another_dagster, id="worker"),
    ],
)
def test_what_a_command_executes_ends_within_seconds(
    ef: EmboFlow,
    instance: dg.DagsterInstance,
    asset: Asset,
    tmp_path: Path,
    words: tuple[str, ...],
    stop: Callable[[EmboFlow, dg.DagsterInstance, WorkflowRun], None],
) -> None:
    mark = tmp_path / "mark"
    hook = {"language": "python", "entrypoint": "run", "source": SLOW.format(mark=str(mark))}
    nodes = [
        {"id": "take", "type": "source"},
        {"id": "long", "type": "python", "after": ["take"], "codeHook": hook},
        {"id": "below", "type": "filter", "after": ["long"]},
    ]
    ef.workflows.publish({"workflow": "slow", "nodes": nodes})
    if words is WORKER:
        ef.workflows.run("slow", assets=[asset.id])
    with subprocess.Popen(
        [EMBOFLOW, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            child = int(until(lambda: (mark.exists() and mark.read_text()) or None, 90))
            (run,) = ef.runs.list()
            begun = time.monotonic()

            stop(ef, instance, run)
            said, _ = process.communicate(timeout=30)

            took = time.monotonic() - begun
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    assert (process.returncode, took < 15) == (1, True), said
    assert "error[run-failed]: " in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    # As after any other cancel.
    ended = ef.runs.get(run.id)
    statuses = {task.node_id: task.status.value for task in ef.runs.tasks(ended)}
    assert (ended.status.value, statuses) == (
        "cancelled",
        {"take": "success", "long": "cancelled", "below": "cancelled"},
    )
    assert ended.finished_at is not None
    assert [line.text for line in ef.tasks.logs(run.id, "long", streams=["stdout"])] == ["long story"]
    of_dagster = instance.get_runs(dg.RunsFilter(run_ids=ended.dagster_run_ids)) if words is WAITING else []
    assert [one.status for one in of_dagster] == [dg.DagsterRunStatus.CANCELED] * len(ended.dagster_run_ids)
    assert ef.verify().problems == []
