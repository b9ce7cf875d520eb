"""Logs of tasks: followed while they grow, whole afterwards, kept over retries and over workers that die."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import EmboflowError, InvalidInputError, NotFoundError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import MAX_LOG_BYTES, RunTask, WorkflowRun
from emboflow_dagster.mongo.client import connect
from emboflow_dagster.mongo.log_chunks import COLLECTION, LogChunks, LogOf
from emboflow_dagster.project import lost_logs, task_logs, tasks
from emboflow_dagster.project.gc.collect import UNSAFE
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import lease
from emboflow_dagster.runtime.live_log import LiveLog, records_of
from emboflow_dagster.runtime.logs import TaskLog
from tests.integration.project.flows import hook

LONG_S = 120
#: Prints, waits for a file, prints again.
SLOW = """
import sys, time
from pathlib import Path

def count(ctx, inputs):
    print("one")
    print("50%", end="", flush=True)
    ctx.log("said")
    gate = Path(ctx.config["gate"])
    until = time.monotonic() + 120
    while not gate.exists() and time.monotonic() < until:
        time.sleep(0.02)
    print(" 100%")
    print("two", file=sys.stderr)
    return None
"""
WORKER = """
import sys
from emboflow_dagster.project.gc.collect import UNSAFE
from emboflow_dagster.project.handle import EmboFlow

with EmboFlow.from_env() as ef:
    ef.tasks.work(sys.argv[1], sys.argv[2])
"""


def flow(source: str, **fields: Any) -> dict[str, Any]:
    return {
        "workflow": "logs",
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "count", "type": "python", "after": ["src"], "codeHook": hook(source), **fields},
        ],
    }


@pytest.fixture
def asset(ef: EmboFlow, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "rows.csv"
    path.write_text("t,x\n0,1\n")
    yield ef.assets.register(path, type="raw_file").display_name
    ef.mongo[COLLECTION].drop()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def request(ef: EmboFlow, workflow: dict[str, Any], asset: str) -> WorkflowRun:
    ef.workflows.publish(workflow)
    return ef.runs.request(workflow["workflow"], assets=[asset])


def run(ef: EmboFlow, source: str, asset: str, **fields: Any) -> RunTask:
    requested = request(ef, flow(source, **fields), asset)
    ef.runs.work(requested.id)
    return ef.tasks.get(requested.id, "count")


def texts(ef: EmboFlow, task: RunTask, **how: Any) -> list[tuple[str, str]]:
    return [(row.stream, row.text) for row in ef.tasks.logs(task.workflow_run_id, task.node_id, **how)]


def until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


@contextmanager
def at_work(ef: EmboFlow, run_id: str) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=ef.runs.work, args=(run_id,))
    thread.start()
    try:
        yield thread
    finally:
        thread.join(LONG_S)


@contextmanager
def killable(ef: EmboFlow, run_id: str, node_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own."""
    ef.tasks.work(run_id, "src")
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, run_id, node_id],
        env={**os.environ, **ef.settings.environment()},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_lines_are_read_stream_by_stream_in_the_order_in_which_they_came(ef: EmboFlow, asset: str) -> None:
    source = (
        "import sys\n"
        "def count(ctx, inputs):\n"
        "    for n in range(3):\n"
        "        print(n, flush=True)\n"
        "        sys.stderr.write(f'e{n}\\n')\n"
    )
    task = run(ef, source, asset)

    assert task.log_ref is not None
    read = texts(ef, task)
    assert [text for stream, text in read if stream == "stdout"] == ["0", "1", "2"]
    assert [text for stream, text in read if stream == "stderr"] == ["e0", "e1", "e2"]
    assert texts(ef, task, streams=["stdout"], lines=2) == [("stdout", "1"), ("stdout", "2")]
    assert texts(ef, task, lines=0) == []
    with pytest.raises(InvalidInputError, match="allowed are log, stdout, stderr"):
        ef.tasks.logs(task.workflow_run_id, "count", streams=["stdin"])
    with pytest.raises(NotFoundError, match="no attempt 2"):
        ef.tasks.logs(task.workflow_run_id, "count", attempt=2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task is over before its log would be shipped."""
    monkeypatch.setattr(tasks, "LiveLog", partial(LiveLog, first_after_s=LONG_S))


def test_a_log_of_one_stream_that_fits_costs_no_blob(ef: EmboFlow, asset: str, short: None) -> None:
    task = run(ef, "def count(ctx, inputs):\n    print('one')\n    print('two')\n", asset)

    assert task.log_ref is None
    assert texts(ef, task) == texts(ef, task, follow=True) == [("stdout", "one"), ("stdout", "two")]
    assert list(ef.tasks.output(task.workflow_run_id, "count")) == [b"one\n", b"two\n"]


def test_a_log_is_followed_while_the_task_runs_elsewhere(ef: EmboFlow, asset: str, gate: Path) -> None:
    requested = request(ef, flow(SLOW, config={"gate": str(gate)}), asset)
    with at_work(ef, requested.id):
        until(lambda: ef.tasks.get(requested.id, "count").status.value == "running", "it runs")
        rows = ef.tasks.logs(requested.id, "count", follow=True, unfinished=True)
        before = []
        for row in rows:
            before.append((row.stream, row.text, row.ends))
            if {("stdout", "50%", False), ("log", "said", True)} <= set(before):
                break
        assert ef.tasks.get(requested.id, "count").status.value == "running"
        assert ("stdout", "one", True) in before
        gate.touch()
        after = [(row.stream, row.text, row.ends) for row in rows]

    assert sorted(after) == [("stderr", "two", True), ("stdout", " 100%", True)]
    task = ef.tasks.get(requested.id, "count")
    assert b"".join(ef.tasks.output(requested.id, "count")) == b"one\n50% 100%\n"
    assert task.stdout_lines == ["one", "50% 100%"]
    assert ef.mongo[COLLECTION].count_documents({}) == 0
    assert ef.verify().problems == []


def test_following_waits_for_a_task_that_is_queued_and_ends_where_nothing_will_come(
    ef: EmboFlow, asset: str
) -> None:
    nodes = flow("def count(ctx, inputs):\n    raise ValueError('no')\n")
    nodes["nodes"].append({"id": "below", "type": "python", "after": ["count"], "codeHook": hook(SLOW)})
    requested = request(ef, nodes, asset)
    seen: list[Any] = []
    reader = threading.Thread(
        target=lambda: seen.extend(ef.tasks.logs(requested.id, "count", follow=True)), daemon=True
    )
    reader.start()
    ef.runs.work(requested.id)
    reader.join(LONG_S)

    assert not reader.is_alive()
    assert any("ValueError: no" in row.text for row in seen)
    assert list(ef.tasks.logs(requested.id, "below", follow=True)) == []


def test_every_attempt_keeps_its_log(
    ef: EmboFlow, asset: str, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from pathlib import Path\n"
        "def count(ctx, inputs):\n"
        "    seen = Path(ctx.config['seen'])\n"
        "    seen.write_text(seen.read_text() + 'x' if seen.exists() else 'x')\n"
        "    print('attempt', len(seen.read_text()))\n"
        "    assert len(seen.read_text()) > 1, 'the first one'\n"
    )
    task = run(ef, source, asset, config={"seen": str(tmp_path / "seen")}, retries=1)
    assert (task.status.value, task.attempt) == ("success", 2)
    assert task.log_ref is None
    ef.runs.retry_tasks(task.workflow_run_id, ["count"])
    queued = ef.tasks.get(task.workflow_run_id, "count")
    assert (queued.attempt, texts(ef, queued)) == (3, [])
    ef.runs.work(task.workflow_run_id)
    last = ef.tasks.get(task.workflow_run_id, "count")

    by_attempt = [
        [text for stream, text in texts(ef, last, attempt=n, streams=["stdout"])] for n in (1, 2, 3)
    ]
    assert by_attempt == [["attempt 1"], ["attempt 2"], ["attempt 3"]]
    assert "AssertionError: the first one" in str(texts(ef, last, attempt=1))
    assert [
        row.attempt for row in ef.tasks.logs(task.workflow_run_id, "count", follow=True, attempt=1)
    ].count(1) > 1
    assert ef.verify().problems == []
    monkeypatch.setenv(UNSAFE, "1")
    ef.gc(grace_s=0, force=True)
    assert ("stdout", "attempt 1") in texts(ef, last, attempt=1)


def test_following_goes_on_with_the_next_attempt(ef: EmboFlow, asset: str, gate: Path) -> None:
    source = SLOW.replace("return None", "raise ValueError('again')")
    requested = request(ef, flow(source, config={"gate": str(gate)}, retries=1), asset)
    seen: list[Any] = []
    with at_work(ef, requested.id):
        for row in ef.tasks.logs(requested.id, "count", follow=True):
            seen.append((row.attempt, row.stream, row.text))
            if row.text == "said":
                gate.touch()

    for attempt in (1, 2):
        assert (attempt, "stdout", "one") in seen
        assert (attempt, "stderr", "two") in seen
    assert seen == sorted(seen, key=lambda row: row[0])


def test_a_million_lines_and_one_huge_line_are_whole_and_the_task_stays_small(
    ef: EmboFlow, asset: str
) -> None:
    count = 1_000_000 if os.environ.get("EMBOFLOW_FAULTS") == "all" else 100_000
    source = (
        "import sys\n"
        "def count(ctx, inputs):\n"
        f"    for start in range(0, {count}, 1000):\n"
        "        sys.stdout.write(''.join(f'{n}\\n' for n in range(start, start + 1000)))\n"
        "    print('x' * 5_000_000)\n"
        "    sys.stdout.buffer.write(b'\\x00\\xff\\xfe no end')\n"
        "    sys.stdout.flush()\n"
    )
    task = run(ef, source, asset)
    expected = hashlib.sha256()
    for start in range(0, count, 1000):
        expected.update("".join(f"{n}\n" for n in range(start, start + 1000)).encode())
    expected.update(b"x" * 5_000_000 + b"\n\0\xff\xfe no end")
    printed = hashlib.sha256()
    for chunk in ef.tasks.output(task.workflow_run_id, "count"):
        printed.update(chunk)
    row = ef.mongo["run_tasks"].find_one({"_id": task.id})

    assert task.status.value == "success"
    assert task.summary is not None
    assert task.summary.stdout_line_count == count + 2
    assert ef.runs.get(task.workflow_run_id).summary.stdout_line_count == count + 2
    assert sum(len(line.encode()) for line in task.stdout_lines) <= MAX_LOG_BYTES
    assert len(str(row)) < 1 << 20
    assert printed.hexdigest() == expected.hexdigest()
    assert task.log_ref is not None
    blob = ef.blobs.get(str(task.log_ref.object_id))
    assert blob.custom_metadata["lines"] == {"log": 0, "stdout": count + 2, "stderr": 0}
    assert blob.data_sha256 == hashlib.sha256(ef.blobs.read_ref(task.log_ref)).hexdigest()
    assert sum(1 for _ in ef.tasks.logs(task.workflow_run_id, "count")) == count + 2
    assert ef.mongo[COLLECTION].count_documents({}) == 0


def test_a_child_that_writes_from_many_processes_loses_no_line(ef: EmboFlow, asset: str) -> None:
    source = (
        "import subprocess, sys\n"
        "def count(ctx, inputs):\n"
        "    code = 'import sys\\nfor n in range(400): print(sys.argv[1], n, flush=True)'\n"
        "    many = [subprocess.Popen([sys.executable, '-S', '-c', code, str(k)]) for k in range(6)]\n"
        "    assert [one.wait() for one in many] == [0] * 6\n"
    )
    task = run(ef, source, asset)

    assert task.summary is not None, task.error_message
    assert task.summary.stdout_line_count == 2_400
    assert sorted(text for _, text in texts(ef, task, streams=["stdout"])) == sorted(
        f"{k} {n}" for k in range(6) for n in range(400)
    )


def test_a_killed_worker_leaves_what_it_had_sent(ef: EmboFlow, asset: str, gate: Path) -> None:
    requested = request(ef, flow(SLOW, config={"gate": str(gate)}), asset)
    with killable(ef, requested.id, "count") as worker:
        until(lambda: b"said" in _shipped(ef), "the log is followed")
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    left = {("stdout", "one"), ("stdout", "50%"), ("log", "said")}
    task = ef.tasks.get(requested.id, "count")
    assert task.status.value == "running"
    assert set(texts(ef, task)) == left  # nobody has settled it yet
    ef.mongo[COLLECTION].rename("elsewhere")
    assert texts(ef, task) == []  # the control: nothing else has it
    ef.mongo["elsewhere"].rename(COLLECTION)
    assert lost_logs.collect(task_logs.TaskLogs(ef._opened, ef.runs.recorder)) == []

    until(lambda: lease.settle_expired(ef.runs.recorder, lease_s=1), "its lease runs out")
    assert set(texts(ef, task, follow=True)) == left
    done = [text for text in ef.runs.settle_stuck() if "log of its lost worker" in text]
    settled = ef.tasks.get(requested.id, "count")

    assert len(done) == 1
    assert settled.status.value == "failed"
    assert settled.log_ref is not None
    assert (settled.log_lines, settled.stdout_lines) == (["said"], ["one", "50%"])
    assert settled.summary is not None
    assert settled.summary.stdout_line_count == 2
    assert ef.runs.get(requested.id).summary.stdout_line_count == 2
    assert set(texts(ef, settled)) == left | {("note", "the worker was lost: this is what it had sent")}
    assert ef.mongo[COLLECTION].count_documents({}) == 0
    assert ef.runs.settle_stuck() == []
    assert ef.verify().problems == []


def test_a_stopped_worker_records_its_log_by_itself(ef: EmboFlow, asset: str, gate: Path) -> None:
    requested = request(ef, flow(SLOW, config={"gate": str(gate)}), asset)
    with killable(ef, requested.id, "count") as worker:
        until(lambda: b"said" in _shipped(ef), "the log is followed")
        os.kill(worker.pid, signal.SIGINT)
        worker.wait(LONG_S)
    task = ef.tasks.get(requested.id, "count")

    assert task.status.value == "cancelled"
    assert (task.log_lines, task.stdout_lines) == (["said"], ["one", "50%"])
    assert task.log_ref is not None
    assert ef.mongo[COLLECTION].count_documents({}) == 0
    assert ef.verify().problems == []


def _shipped(ef: EmboFlow) -> bytes:
    return b"".join(row["data"] for row in ef.mongo[COLLECTION].find().sort("_id", 1))


def _of(attempt: int = 1) -> LogOf:
    return LogOf("run_1", "tsk_1", attempt, utc_now())


@contextmanager
def shipping(ef: EmboFlow, path: Path, **how: Any) -> Iterator[tuple[TaskLog, LiveLog, LogChunks]]:
    """A log that is shipped when it is told to."""
    log, chunks = TaskLog(path), LogChunks(ef.mongo, ef.scope)
    live = LiveLog(log, chunks, _of(), first_after_s=LONG_S, **how)
    try:
        yield log, live, chunks
    finally:
        live.stop()
        log.close()


def test_what_comes_too_fast_is_left_out_visibly(ef: EmboFlow, asset: str, tmp_path: Path) -> None:
    with shipping(ef, tmp_path / "log", flush_bytes=64 << 10) as (log, live, chunks):
        log.streams["stdout"].feed(b"".join(b"%07d\n" % n for n in range(40_000)))
        live.ship()
        found = list(chunks.read(live.id))
        at = task_logs._At()
        rows = list(task_logs.TaskLogs(ef._opened, ef.runs.recorder)._chunked(live.id, at))

    assert found[0].start > 0
    assert found[-1].end == at.offset == (tmp_path / "log").stat().st_size
    numbers = [int(r.data) for chunk in found for r in records_of(chunk)]
    assert numbers == list(range(numbers[0], 40_000))
    assert rows[0].stream == "note"
    assert rows[0].data.startswith(f"{found[0].start} bytes came too fast".encode())


def test_a_long_log_keeps_its_end_in_chunks(ef: EmboFlow, asset: str, tmp_path: Path) -> None:
    with shipping(ef, tmp_path / "log", kept_bytes=300_000) as (log, live, chunks):
        for start in range(0, 60_000, 10_000):
            log.streams["stdout"].feed(b"".join(b"%07d\n" % n for n in range(start, start + 10_000)))
            live.ship()
        found = list(chunks.read(live.id))

    assert sum(len(chunk.data) for chunk in found) <= 300_000
    assert found[-1].counts == {"log": 0, "stdout": 60_000, "stderr": 0}
    assert [int(r.data) for r in records_of(found[-1])][-1] == 59_999


def test_an_outage_of_the_database_loses_nothing(failing_mongo_uri: str, opener, tmp_path: Path) -> None:
    mongo = connect(failing_mongo_uri, "logs")
    try:
        ef = opener()
        log, chunks = TaskLog(tmp_path / "log"), LogChunks(mongo, ef.scope)
        live = LiveLog(log, chunks, _of(), first_after_s=0, every_s=0.05)
        log.add("log", "before")
        until(lambda: list(chunks.read(live.id)), "the first chunk")
        fail = {"failCommands": ["update"], "errorCode": 11602}
        mongo.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fail)
        log.add("log", "meanwhile")
        with pytest.raises(EmboflowError):  # the control: nothing can be shipped now
            live.ship()
        mongo.client.admin.command("configureFailPoint", "failCommand", mode="off")
        until(lambda: chunks_of(chunks, live.id) == b"log\tbefore\nlog\tmeanwhile\n", "all of it")
        live.discard()
        log.close()

        assert list(chunks.read(live.id)) == []
    finally:
        mongo.client.drop_database("logs")
        mongo.close()


def chunks_of(chunks: LogChunks, log_id: str) -> bytes:
    return b"".join(chunk.data for chunk in chunks.read(log_id))


def test_chunks_of_another_project_are_neither_read_nor_collected(ef: EmboFlow, opener, asset: str) -> None:
    other = opener(project="elsewhere")
    mine, theirs = LogChunks(ef.mongo, ef.scope), LogChunks(other.mongo, other.scope)
    log = TaskLog(ef.settings.home / "log")
    log.add("log", "mine")
    live = LiveLog(log, mine, _of(), first_after_s=LONG_S)
    live.ship()

    assert theirs.logs() == []
    assert theirs.newest("tsk_1", 1) is None
    assert list(theirs.read(live.id)) == []
    theirs.drop(live.id)
    assert [log_id for log_id, _ in mine.logs()] == [live.id]
    live.discard()
    log.close()
    assert mine.logs() == []
