"""A run's summary equals the sum of its tasks at every moment that anybody can look."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import HOOK, hook

LOOKS_A_SECOND = 50
FAILS = "def count(ctx, inputs):\n    print('a')\n    raise ValueError('no')\n"
STATUSES = ("pending", "queued", "running", "success", "failed", "cancelled")


def fan(branches: int, failing: int | None = None) -> dict[str, Any]:
    """src -> `branches` hooks, each with a node below, -> one that joins them."""
    nodes: list[dict[str, Any]] = [{"id": "src", "type": "source"}]
    for number in range(branches):
        code = FAILS if number == failing else HOOK
        nodes.append({"id": f"b{number}", "type": "python", "after": ["src"], "codeHook": hook(code)})
        nodes.append({"id": f"u{number}", "type": "set-union", "after": [f"b{number}"]})
    nodes.append({"id": "join", "type": "set-union", "after": [f"u{n}" for n in range(branches)]})
    return {"workflow": "fan", "nodes": nodes}


def summed(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """The aggregate, written down once more, from the stored documents alone."""
    counts = Counter(task["status"] for task in tasks)
    summaries = [task["summary"] for task in tasks if task["summary"]]
    return {
        "totalTaskCount": len(tasks),
        "completedTaskCount": counts["success"] + counts["failed"] + counts["cancelled"],
        "taskCounts": {status: counts[status] for status in STATUSES},
        "artifactCount": sum(len(task["outputArtifactIds"]) for task in tasks),
        "stdoutLineCount": sum(s["stdoutLineCount"] for s in summaries),
        "stderrLineCount": sum(s["stderrLineCount"] for s in summaries),
        "failedTaskIds": sorted(task["_id"] for task in tasks if task["status"] == "failed"),
    }


def watched(ef: EmboFlow, watcher: EmboFlow, run_id: str) -> list[dict[str, Any]]:
    """Works the run while another connection looks; every summary that it saw, each equal to the sum."""
    seen: list[dict[str, Any]] = []
    wrong: list[tuple[Any, Any]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with watcher.mongo.client.start_session(snapshot=True) as session:
                run = watcher.mongo["workflow_runs"].find_one({"_id": run_id}, session=session)
                tasks = list(watcher.mongo["run_tasks"].find({"workflowRunId": run_id}, session=session))
            assert run is not None
            summary = {**run["summary"], "failedTaskIds": sorted(run["summary"]["failedTaskIds"])}
            seen.append(summary)
            if summary != summed(tasks):
                wrong.append((summary, summed(tasks)))
            time.sleep(1 / LOOKS_A_SECOND)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        workers = [
            threading.Thread(target=ef.runs.work, args=(run_id,), kwargs={"worker": f"w{n}"})
            for n in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        ef.runs.work(run_id)  # what was queued after the other two had looked last
    finally:
        done.set()
        thread.join()
    assert wrong == []
    return seen


def test_it_does_while_twenty_tasks_are_worked_on(ef: EmboFlow, opener, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file")
    ef.workflows.publish(fan(9))
    run = ef.runs.request("fan", assets=[asset.id])
    assert run.summary.total_task_count == 20
    seen = watched(ef, opener(), run.id)
    completed = [summary["completedTaskCount"] for summary in seen]

    assert ef.runs.get(run.id).status == "success"
    assert len(seen) > 10
    assert completed == sorted(completed)
    assert len(set(completed)) > 5
    assert ef.runs.get(run.id).summary.stdout_line_count == 27
    assert ef.verify().problems == []


def test_it_does_while_a_branch_fails(ef: EmboFlow, opener, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file")
    ef.workflows.publish(fan(3, failing=1))
    run = ef.runs.request("fan", assets=[asset.id])
    watched(ef, opener(), run.id)
    done = ef.runs.get(run.id)

    assert done.status == "failed"
    assert done.summary.failed_task_ids == [ef.tasks.get(run.id, "b1").id]
    # The other branches ran to their end; what hangs on the failed one waits.
    assert done.summary.task_counts == {
        "pending": 2, "queued": 0, "running": 0, "success": 5, "failed": 1, "cancelled": 0,
    }  # fmt: skip
    assert ef.verify().problems == []


def test_it_does_when_a_run_is_lost_or_stopped(ef: EmboFlow, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file")
    ef.workflows.publish(fan(2))
    for cancelled in (False, True):
        run = ef.runs.request("fan", assets=[asset.id])
        ef.tasks.work(run.id, "src")
        ef.runs.recorder.claim(run.id, "b0", "w")
        ef.runs.settle_lost(run.id, "gone", cancelled=cancelled)
        raw = ef.mongo["workflow_runs"].find_one({"_id": run.id})
        tasks = list(ef.mongo["run_tasks"].find({"workflowRunId": run.id}))
        assert raw is not None
        assert {**raw["summary"], "failedTaskIds": sorted(raw["summary"]["failedTaskIds"])} == summed(tasks)
    assert ef.verify().problems == []
