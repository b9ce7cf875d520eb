"""Single flight: of equal tasks that are at work at once one computes; who waits is never left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.model.collections import CACHE
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.project import cache as project_cache
from emboflow_dagster.project.execution import Execution
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import lease
from emboflow_dagster.runtime.cache import Entries
from tests.integration.project.flows import HOOK, hook

PATIENCE_S = 120
Opener = Callable[..., EmboFlow]
FLOW: dict[str, Any] = {
    "workflow": "chain",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "count", "type": "python", "after": ["src"], "codeHook": hook(HOOK)},
    ],
}


class Held:
    """Executions of `count` are counted, and held until the test lets them go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Event()
        self.fails = False
        self.one_began = threading.Event()

    def run(self, real: Any, execution: Execution, claimed: Any, *rest: Any) -> Any:
        if claimed.task.node_id.startswith("count"):
            self.begun.append(claimed.run.id)
            self.one_began.set()
            assert self.go.wait(PATIENCE_S)
            if self.fails and len(self.begun) == 1:
                raise ValueError("the first one fails")
        return real(execution, claimed, *rest)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held, real = Held(), Execution.run
    monkeypatch.setattr(Execution, "run", lambda self, *rest: held.run(real, self, *rest))
    monkeypatch.setattr(project_cache, "POLL_S", (0.02, 0.1))
    yield held
    held.go.set()


@pytest.fixture
def runs(ef: EmboFlow, asset_file: Path) -> list[WorkflowRun]:
    """Two runs of the same."""
    ef.assets.register(asset_file, type="raw_file", name="rows")
    ef.workflows.publish(FLOW)
    return [ef.runs.request("chain", assets=["rows"]) for _ in range(2)]


def at_work(opener: Opener, run: WorkflowRun) -> threading.Thread:
    handle = opener()
    thread = threading.Thread(target=handle.runs.work, args=(run.id,), daemon=True)
    thread.start()
    return thread


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def done(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it hangs"


def count(ef: EmboFlow, run: WorkflowRun) -> RunTask:
    return ef.tasks.get(run.id, "count")


def waits(ef: EmboFlow, run: WorkflowRun) -> bool:
    """Whether its task is at work and has found out what it would compute."""
    task = count(ef, run)
    return task.status == "running" and task.cache_key is not None


def reason(task: RunTask) -> str:
    assert task.summary is not None
    assert task.summary.cache is not None
    return task.summary.cache.reason


def together(ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held) -> None:
    first = at_work(opener, runs[0])
    assert held.one_began.wait(PATIENCE_S)
    second = at_work(opener, runs[1])
    until(lambda: waits(ef, runs[1]), "the second task is at work")
    held.go.set()
    done(first, second)

    assert held.begun == [runs[0].id]
    one, other = count(ef, runs[0]), count(ef, runs[1])
    assert (one.cache_hit, other.cache_hit) == (False, True)
    assert other.output_artifact_ids == one.output_artifact_ids
    assert f"hit of run {runs[0].id}, task count; waited" in reason(other)
    assert any("which computes the same" in line for line in other.log_lines)
    assert ef.verify().problems == []


def test_of_two_equal_tasks_at_once_one_computes(
    ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held
) -> None:
    together(ef, opener, runs, held)


def test_without_the_lease_both_compute(
    ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entries, "at_work", lambda *_: None)

    with pytest.raises(AssertionError):
        together(ef, opener, runs, held)


def test_who_waits_takes_the_turn_of_one_that_fails(
    ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held
) -> None:
    held.fails = True
    first = at_work(opener, runs[0])
    assert held.one_began.wait(PATIENCE_S)
    second = at_work(opener, runs[1])
    until(lambda: waits(ef, runs[1]), "the second task is at work")
    held.go.set()
    done(first, second)

    assert held.begun == [runs[0].id, runs[1].id]
    assert count(ef, runs[0]).status == "failed"
    other = count(ef, runs[1])
    assert (other.status, other.cache_hit) == ("success", False)
    assert f"run {runs[0].id}, task count ended without a result" in reason(other)


def test_who_waits_can_be_cancelled(
    ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held
) -> None:
    first = at_work(opener, runs[0])
    assert held.one_began.wait(PATIENCE_S)
    second = at_work(opener, runs[1])
    until(lambda: waits(ef, runs[1]), "the second task is at work")
    ef.runs.cancel(runs[1].id)
    done(second)
    assert count(ef, runs[1]).status == "cancelled"
    assert ef.runs.get(runs[1].id).finished_at is not None
    held.go.set()
    done(first)

    assert held.begun == [runs[0].id]
    assert count(ef, runs[0]).status == "success"
    assert ef.verify().problems == []


def test_waiting_is_bounded(ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held) -> None:
    first = at_work(opener, runs[0])
    assert held.one_began.wait(PATIENCE_S)
    impatient = opener(cache_wait_s=0.0)
    second = threading.Thread(target=impatient.runs.work, args=(runs[1].id,), daemon=True)
    second.start()
    until(lambda: len(held.begun) == 2, "the second computes beside the first")
    held.go.set()
    done(first, second)

    other = count(ef, runs[1])
    assert other.cache_hit is False
    assert f"computed beside run {runs[0].id}, task count" in reason(other)
    kept = ef.mongo[CACHE].find_one({"result.nodeId": "count"})
    assert kept is not None
    assert kept["result"]["taskId"] == count(ef, runs[0]).id
    assert ef.verify().problems == []


def test_a_turn_that_was_lost_leaves_nothing(
    ef: EmboFlow, opener: Opener, runs: list[WorkflowRun], held: Held
) -> None:
    """A worker that was thought dead: it settles its own task, and what is there for others is not its."""
    first = at_work(opener, runs[0])
    assert held.one_began.wait(PATIENCE_S)
    taken = {"flight.token": "another", "flight.taskId": "tsk_another"}
    ef.mongo[CACHE].update_one({"flight.nodeId": "count"}, {"$set": taken})
    held.go.set()
    done(first)

    assert count(ef, runs[0]).status == "success"
    assert ef.mongo[CACHE].count_documents({"result.nodeId": "count"}) == 0


def test_equal_nodes_of_one_run_at_once_do_not_wait_in_a_circle(
    ef: EmboFlow, opener: Opener, asset_file: Path, held: Held
) -> None:
    held.go.set()
    ef.assets.register(asset_file, type="raw_file", name="rows")
    nodes = [{"id": "src", "type": "source"}]
    nodes += [{"id": f"probe-{n}", "type": "probe", "after": ["src"]} for n in range(4)]
    nodes += [
        {"id": f"below-{n}", "type": "probe", "after": [f"probe-{n}", f"probe-{(n + 1) % 4}"]}
        for n in range(4)
    ]
    ef.workflows.publish({"workflow": "diamonds", "nodes": nodes})
    run = ef.runs.request("diamonds", assets=["rows"])
    while ef.runs.get(run.id).status in ("queued", "running"):
        done(*[at_work(opener, run) for _ in range(3)])

    assert ef.runs.get(run.id).status == "success"
    executed = [task.node_id.partition("-")[0] for task in ef.tasks.list(run.id) if not task.cache_hit]
    assert sorted(executed) == ["below", "probe", "src"]
    assert ef.verify().problems == []


# ------------------------------------------------------------------------------------------ processes

SLOW = """
def count(ctx, inputs):
    import pathlib, time
    with open({log!r}, "a") as file:
        file.write("begun\\n")
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
    return {{"assets": len(ctx.assets)}}
"""
WORKER = """
import sys
from emboflow_dagster.project.handle import EmboFlow
with EmboFlow.from_env() as ef:
    ef.runs.work(sys.argv[1], worker=sys.argv[2])
"""


class Processes:
    """Workers in processes of their own, and a hook that waits for a file."""

    def __init__(self, ef: EmboFlow, folder: Path) -> None:
        self.ef = ef
        self.log, self.go = folder / "begun", folder / "go"
        self.log.touch()
        self._running: list[subprocess.Popen[bytes]] = []
        source = SLOW.format(log=str(self.log), go=str(self.go))
        slow = {**FLOW["nodes"][1], "codeHook": hook(source)}
        ef.workflows.publish({**FLOW, "nodes": [FLOW["nodes"][0], slow]})
        self.runs = [ef.runs.request("chain", assets=["rows"]) for _ in range(2)]

    def start(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, self.runs[number].id, f"worker-{number}"]
        environment = {**os.environ, **self.ef.settings.environment()}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        self._running.append(process)
        return process

    @property
    def begun(self) -> int:
        return len(self.log.read_text().splitlines())

    def end(self) -> None:
        self.go.touch()
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)


@pytest.fixture
def processes(ef: EmboFlow, asset_file: Path, tmp_path: Path) -> Iterator[Processes]:
    ef.assets.register(asset_file, type="raw_file", name="rows")
    processes = Processes(ef, tmp_path)
    yield processes
    processes.end()


def test_two_processes_compute_it_once(ef: EmboFlow, processes: Processes) -> None:
    first = processes.start(0)
    until(lambda: processes.begun == 1, "the first computes")
    second = processes.start(1)
    until(lambda: waits(ef, processes.runs[1]), "the second waits")
    processes.go.touch()
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0)

    assert processes.begun == 1
    assert [count(ef, run).cache_hit for run in processes.runs] == [False, True]
    assert ef.verify().problems == []


def test_who_waits_takes_the_turn_of_one_that_was_killed(
    ef: EmboFlow, opener: Opener, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = processes.start(0)
    until(lambda: processes.begun == 1, "the first computes")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(PATIENCE_S)
    # Its task still says that it runs: only its lease tells, on the server's clock.
    assert count(ef, processes.runs[0]).status == "running"
    monkeypatch.setattr(lease, "LEASE_S", 6)
    monkeypatch.setattr(project_cache, "POLL_S", (0.02, 0.1))
    second = at_work(opener, processes.runs[1])
    until(lambda: processes.begun == 2, "the second takes its turn")
    processes.go.touch()
    done(second)

    other = count(ef, processes.runs[1])
    assert (other.status, other.cache_hit) == ("success", False)
    assert lease.settle_expired(ef.runs.recorder, lease_s=0)[0].workflow_run_id == processes.runs[0].id
    kept = ef.mongo[CACHE].find_one({"result.nodeId": "count"})
    assert kept is not None
    assert kept["result"]["taskId"] == other.id
    assert ef.verify().problems == []
