"""The summary that moves with its tasks equals their aggregate; a step reads its children, not the graph."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.model.run import RunSummary, RunTask, WorkflowRun
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import advance, control, record
from emboflow_dagster.runtime.advance import Moved
from tests.integration.project.graphs import done, requested, wide
from tests.integration.project.test_summary import summed

# Two roots, a join whose parents end in either order, a branch beside it, and something below all.
KITE = {"a": [], "b": [], "join": ["a", "b"], "side": ["b"], "end": ["join", "side"]}


@pytest.fixture
def asset_id(ef: EmboFlow, asset_file: Path) -> str:
    return ef.assets.register(asset_file, type="raw_file").id


def sound(ef: EmboFlow, run_id: str) -> None:
    """The run says what its tasks say, at one moment of the server."""
    with ef.mongo.client.start_session(snapshot=True) as session:
        raw = ef.mongo["workflow_runs"].find_one({"_id": run_id}, session=session)
        tasks = list(ef.mongo["run_tasks"].find({"workflowRunId": run_id}, session=session))
    assert raw is not None
    summary = {**raw["summary"], "failedTaskIds": sorted(raw["summary"]["failedTaskIds"])}
    assert summary == summed(tasks)
    started = [task["startedAt"] for task in tasks if task["startedAt"]]
    assert raw["startedAt"] == min(started, default=None)


def story(ef: EmboFlow, asset_id: str) -> None:
    """Success, failure, a retry of the step itself, of the task, of the run; checked after every event."""
    recorder = ef.runs.recorder
    run = requested(ef, asset_id, KITE)

    def claim(node: str) -> Any:
        claimed = recorder.claim(run.id, node, "w")
        sound(ef, run.id)
        return claimed

    b, a = claim("b"), claim("a")
    done(ef, b, lines=3)
    sound(ef, run.id)
    a = recorder.again(a, "w")
    sound(ef, run.id)
    side = claim("side")
    done(ef, a)
    sound(ef, run.id)
    recorder.fail(side, {}, "no")
    sound(ef, run.id)
    assert ef.runs.get(run.id).status == "running"
    done(ef, claim("join"))
    sound(ef, run.id)
    assert ef.runs.get(run.id).status == "failed"
    control.retry_tasks(recorder, run.id, ["side"])
    sound(ef, run.id)
    done(ef, claim("side"))
    sound(ef, run.id)
    done(ef, claim("end"), lines=2)
    sound(ef, run.id)
    found = ef.runs.get(run.id)
    assert (found.status, found.summary.stdout_line_count) == ("success", 8)
    again = ef.runs.retry(run.id)
    recorder.claim(again.id, "a", "w")
    ef.runs.cancel(again.id)
    sound(ef, again.id)


def test_a_run_says_what_its_tasks_say_after_every_event(ef: EmboFlow, asset_id: str) -> None:
    story(ef, asset_id)

    assert ef.verify().problems == []


ADVANCED, READY, SETTLE_STEP = advance.advanced, advance.ready, record.settle_step


def looks_at_the_first_parent_only(
    recorder: Any, run: WorkflowRun, task: RunTask, *how: Any
) -> list[RunTask]:
    return [t for t in READY(recorder, run, task, *how) if t.upstream_node_ids[0] == task.node_id]


def takes_nothing_out(summary: RunSummary, moved: Sequence[Moved]) -> RunSummary:
    counts = dict(summary.task_counts)
    for row in moved:
        counts[row.after.status] += 1
    return ADVANCED(summary, moved).model_copy(update={"task_counts": counts})


def forgets_what_was_promoted(summary: RunSummary, moved: Sequence[Moved]) -> RunSummary:
    return ADVANCED(summary, moved[:1])


def forgets_the_lines(summary: RunSummary, moved: Sequence[Moved]) -> RunSummary:
    return ADVANCED(summary, moved).model_copy(update={"stdout_line_count": summary.stdout_line_count})


def says_nobody_failed(recorder: Any, run: WorkflowRun, session: Any) -> list[str]:
    return []


def starts_with_the_last(recorder: Any, run: WorkflowRun, *how: Any) -> WorkflowRun:
    return SETTLE_STEP(recorder, run.model_copy(update={"started_at": None}), *how)


@pytest.mark.parametrize(
    ("place", "name", "broken"),
    [
        (advance, "ready", looks_at_the_first_parent_only),
        (advance, "advanced", takes_nothing_out),
        (advance, "advanced", forgets_what_was_promoted),
        (advance, "advanced", forgets_the_lines),
        (advance, "_failed", says_nobody_failed),
        (record, "settle_step", starts_with_the_last),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_that_adds_up_wrongly_is_caught(
    ef: EmboFlow, asset_id: str, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(place, name, broken)

    with pytest.raises(Exception, match=r"assert|pending|queued"):
        story(ef, asset_id)


# ------------------------------------------------------------------------------------- many steps at once

WORKER = """
import sys
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from tests.integration.project.graphs import done
home, uri, database, run_id, *nodes = sys.argv[1:]
place = {"workspace": "acme", "project": "pick-place"}
settings = Settings.from_env(home=home, mongo_uri=uri, database=database, **place)
with EmboFlow.open(settings) as ef:
    print("ready", flush=True)
    sys.stdin.readline()
    for node in nodes:
        done(ef, ef.runs.recorder.claim(run_id, node, "p"))
"""


def test_it_does_when_threads_and_processes_settle_at_once(
    ef: EmboFlow, asset_id: str, mongo_uri: str
) -> None:
    roots = [f"r{number}" for number in range(24)]
    run = requested(ef, asset_id, {**{node: [] for node in roots}, "join": roots})
    home, database = str(ef.settings.home), ef.mongo.db.name
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, home, mongo_uri, database, run.id, *roots[start::4]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for start in (0, 1)
    ]
    wrong: list[str] = []
    over = threading.Event()

    def settle(nodes: Sequence[str]) -> None:
        for node in nodes:
            done(ef, ef.runs.recorder.claim(run.id, node, "t"))

    def look() -> None:
        while not over.is_set():
            try:
                sound(ef, run.id)
            except AssertionError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=settle, args=(roots[start::4],)) for start in (2, 3)]
    watcher = threading.Thread(target=look)
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        watcher.start()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        over.set()
        if watcher.ident is not None:
            watcher.join()
        for process in processes:
            process.kill()
            process.communicate()

    assert (codes, wrong) == ([0, 0], [])
    assert ef.runs.get(run.id).summary.task_counts["success"] == len(roots)
    assert ef.tasks.get(run.id, "join").status == "queued"
    sound(ef, run.id)


class Together:
    """Two steps that both have read their run before either writes it, the first time."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)
        self._met = threading.local()

    def meet(self) -> None:
        if not getattr(self._met, "once", False):
            self._met.once = True
            self._barrier.wait(timeout=60)


def both(ef: EmboFlow, asset_id: str) -> WorkflowRun:
    """Two tasks claimed, then settled at the same moment."""
    run = requested(ef, asset_id, {"a": [], "b": [], "join": ["a", "b"]})
    claims = [ef.runs.recorder.claim(run.id, node, node) for node in ("a", "b")]
    threads = [threading.Thread(target=done, args=(ef, claimed)) for claimed in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ef.runs.get(run.id)


def test_of_two_that_read_the_same_run_one_reads_it_again(
    ef: EmboFlow, asset_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Together()
    reads: list[str] = []

    def read_and_meet(*how: Any) -> tuple[WorkflowRun, list[RunTask]]:
        found = advance.read_beside(*how)
        if threading.current_thread() is not threading.main_thread():  # which claims
            reads.append(found[0].id)
            together.meet()
        return found

    monkeypatch.setattr(record, "read_beside", read_and_meet)
    run = both(ef, asset_id)

    assert len(reads) > 2
    assert run.summary.task_counts["success"] == 2
    assert ef.tasks.get(run.id, "join").status == "queued"
    sound(ef, run.id)


def test_a_summary_that_nobody_compares_loses_an_update(
    ef: EmboFlow, asset_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: read and written beside the transaction, the later one knows nothing of the other."""
    together = Together()

    def settle_beside(recorder: Any, run: WorkflowRun, moved: Any, now: Any, session: Any) -> WorkflowRun:
        seen = recorder.runs.get(run.id)
        if any(row.after.status == "success" for row in moved):
            together.meet()
        summary = ADVANCED(seen.summary, moved).to_mongo()
        recorder.runs.raw.update_one({"_id": run.id}, {"$set": {"summary": summary}})
        return seen

    monkeypatch.setattr(record, "settle_step", settle_beside)
    run = both(ef, asset_id)

    assert run.summary.task_counts["success"] == 1
    with pytest.raises(AssertionError):
        sound(ef, run.id)


def test_a_summary_that_is_incremented_is_wrong_after_a_crash(
    ef: EmboFlow, asset_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with `$inc` in a write of its own, who dies between the two stays counted for ever."""
    run = requested(ef, asset_id, {"a": []})
    claimed = ef.runs.recorder.claim(run.id, "a", "w")

    def increment_beside(recorder: Any, run: WorkflowRun, moved: Any, now: Any, session: Any) -> WorkflowRun:
        steps = {"summary.taskCounts.running": -1, "summary.taskCounts.success": 1}
        recorder.runs.raw.update_one({"_id": run.id}, {"$inc": steps})
        raise ConnectionResetError

    monkeypatch.setattr(record, "settle_step", increment_beside)
    with pytest.raises(ConnectionResetError):
        done(ef, claimed)

    with pytest.raises(AssertionError):
        sound(ef, run.id)


# --------------------------------------------------------------------------------------- large graphs


@pytest.fixture
def profiled(database: Mongo) -> Iterator[Callable[[Callable[[], Any]], tuple[int, int]]]:
    """Documents and index keys that the server looked at while something was done."""

    def cost(call: Callable[[], Any]) -> tuple[int, int]:
        database.db.drop_collection("system.profile")
        database.db.command("profile", 2)
        try:
            call()
        finally:
            database.db.command("profile", 0)
        rows = list(database["system.profile"].find({"planSummary": {"$exists": True}}))
        assert not [row for row in rows if "COLLSCAN" in row["planSummary"]]
        return sum(r.get("docsExamined", 0) for r in rows), sum(r.get("keysExamined", 0) for r in rows)

    yield cost
    database.db.drop_collection("system.profile")


def test_claim_and_promotion_cost_the_children_however_large_the_graph(
    ef: EmboFlow, asset_id: str, profiled: Callable[..., tuple[int, int]]
) -> None:
    found: dict[str, list[tuple[int, int]]] = {"claim": [], "settle": [], "join": []}
    for width, chain in ((3, 5), (3, 995), (300, 5)):
        run = requested(ef, asset_id, wide(width, chain))
        found["claim"].append(profiled(lambda run=run: ef.runs.recorder.claim(run.id, "src", "w")))
        claimed = record.Claimed(ef.runs.get(run.id), ef.tasks.get(run.id, "src"))
        found["settle"].append(profiled(lambda claimed=claimed: done(ef, claimed)))
        middle = ef.runs.recorder.claim(run.id, "m0", "w")
        found["join"].append(profiled(lambda middle=middle: done(ef, middle)))
    small, long, broad = range(3)

    assert found["claim"][small] == found["claim"][long] == found["claim"][broad]
    assert found["settle"][small] == found["settle"][long]
    documents, keys = (b - s for b, s in zip(found["settle"][broad], found["settle"][small], strict=True))
    assert (documents, keys) < (3 * 297, 4 * 297)
    # One of three hundred that join reads what one of three reads.
    assert found["join"][small][0] == found["join"][long][0] == found["join"][broad][0]
    assert found["join"][broad][1] <= found["join"][small][1] + 2 * 300


def test_a_thousand_nodes_three_hundred_wide_run_to_their_end(ef: EmboFlow, asset_id: str) -> None:
    run = requested(ef, asset_id, wide(300, 698))
    assert run.summary.total_task_count == 1_000
    order = ["src", *(f"m{n}" for n in reversed(range(300))), "join", *(f"c{n}" for n in range(698))]
    for node in order:
        done(ef, ef.runs.recorder.claim(run.id, node, "w"))
        if node in {"src", "m150", "m0", "c300"}:
            sound(ef, run.id)
    found = ef.runs.get(run.id)

    assert (found.status, found.summary.completed_task_count) == ("success", 1_000)
    assert found.summary.stdout_line_count == 1_000
    sound(ef, run.id)
