"""No container outlives its worker, its run or its attempt."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import ExecutionError
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.containers import guard
from emboflow_dagster.runtime.containers.job import ATTEMPT_LABEL, TASK_LABEL, WORKER_LABEL
from tests import docker_engine
from tests.integration.containers.test_container_node import sh, workflow


def until(what: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def requested(ef: EmboFlow, file: Path) -> WorkflowRun:
    ef.workflows.publish(workflow(sh("echo up; sleep 120")))
    return ef.runs.request("boxed", assets=[ef.assets.register(file, type="raw_file").id])


def let_lease_run_out(ef: EmboFlow, task: RunTask) -> None:
    """It is not waited for."""
    long_ago = task.created_at - timedelta(seconds=60)
    ef.mongo["run_tasks"].update_one({"_id": task.id}, {"$set": {"heartbeatAt": long_ago}})


@pytest.fixture
def worker(docker_client: Any, ef: EmboFlow, asset_file: Path) -> Any:
    """A run, and another process that works at it."""
    run = requested(ef, asset_file)
    env = {**os.environ, **ef.settings.environment()}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "emboflow"), "worker", "--once"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield run, process
    if process.poll() is None:
        process.kill()
    process.wait()


def running(client: Any) -> list[Any]:
    return [
        c
        for c in client.containers.list(filters={"label": TASK_LABEL}, ignore_removed=True)
        if c.status == "running"
    ]


def test_the_container_of_a_killed_worker_is_gone_and_its_task_settled(
    docker_client: Any, ef: EmboFlow, worker: tuple[WorkflowRun, Any]
) -> None:
    run, process = worker
    [container] = until(lambda: running(docker_client))
    task = ef.tasks.get(run.id, "box")
    assert container.labels[TASK_LABEL] == task.id

    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: not docker_client.containers.list(all=True, ignore_removed=True), 30)
    assert time.monotonic() - killed < 30
    let_lease_run_out(ef, task)
    said = ef.runs.settle_stuck()

    assert ef.tasks.get(run.id, "box").status.value == "failed"
    assert "was not heard of" in said[0]
    assert ef.verify().problems == []


def test_without_its_guard_a_container_would_stay_and_the_recorder_ends_it(
    docker_client: Any, ef: EmboFlow, asset_file: Path
) -> None:
    """The control of the test above, and the second net."""
    run = requested(ef, asset_file)
    ef.tasks.work(run.id, "src")
    claimed = ef.runs.recorder.claim(run.id, "box", "gone")
    labels = {TASK_LABEL: claimed.task.id, ATTEMPT_LABEL: "1", WORKER_LABEL: "gone"}
    other = {**labels, TASK_LABEL: "tsk_of_another_project"}
    for one in (labels, other):
        docker_client.containers.run(
            docker_engine.BASE, sh("sleep 120"), labels=one, network_mode="none", detach=True
        )

    assert [line for line in ef.runs.settle_stuck() if "container" in line] == []
    let_lease_run_out(ef, claimed.task)
    said = ef.runs.settle_stuck()

    assert any("container" in line and "not held by its worker" in line for line in said)
    [left] = docker_client.containers.list()
    assert left.labels[TASK_LABEL] == "tsk_of_another_project"
    left.remove(force=True)


def test_cancelling_ends_the_container_and_the_task(
    docker_client: Any, ef: EmboFlow, worker: tuple[WorkflowRun, Any]
) -> None:
    run, process = worker
    until(lambda: running(docker_client))

    ef.runs.cancel(run.id)
    said = ef.runs.settle_stuck()

    assert any("was cancelled" in line for line in said)
    until(lambda: ef.tasks.get(run.id, "box").status.value == "cancelled")
    assert docker_client.containers.list(all=True, ignore_removed=True) == []
    assert ef.runs.get(run.id).status.value == "cancelled"
    process.wait(30)
    assert ef.verify().problems == []


def test_an_interrupt_ends_the_container(
    docker_client: Any, ef: EmboFlow, worker: tuple[WorkflowRun, Any]
) -> None:
    run, process = worker
    until(lambda: running(docker_client))

    process.send_signal(signal.SIGINT)
    process.wait(30)

    assert docker_client.containers.list(all=True, ignore_removed=True) == []
    assert ef.tasks.get(run.id, "box").status.value == "cancelled"


def test_a_guard_that_is_killed_takes_nothing_with_it(docker_client: Any) -> None:
    container = docker_client.containers.create(docker_engine.BASE, sh("sleep 120"), network_mode="none")
    with guard.guarded(container.id):
        pass
    assert docker_client.containers.list(all=True, ignore_removed=True) == []


def test_output_comes_while_it_runs(docker_client: Any, ef: EmboFlow, asset_file: Path) -> None:
    run = requested(ef, asset_file)
    seen: list[bytes] = []

    def work() -> None:
        with pytest.raises(ExecutionError):
            ef.tasks.work(run.id, "box", watch=lambda _stream, data: seen.append(data))

    worker = threading.Thread(target=work)
    ef.tasks.work(run.id, "src")
    worker.start()
    until(lambda: any(b"up" in data for data in seen))
    [container] = until(lambda: running(docker_client))
    container.kill()
    worker.join()
    assert "signal 9" in (ef.tasks.get(run.id, "box").error_message or "")
