"""A project with a long history, quickly: documents of planned runs, ids and times stamped into their bytes.

Encoding ten million documents one by one takes longer than storing them. So a run and its tasks are planned
and encoded once for each workflow and outcome; what differs from run to run is of one length in all of them.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern

from emboflow_dagster.model.run import RunStatus, RunTask, TaskStatus, TaskSummary, WorkflowRun
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.machine import summarise
from emboflow_dagster.runtime.plan import plan_run

NODES = 10
WORKFLOWS = 20
ASSETS = 100
OPEN = 20
"""Runs that are queued, and as many that a Dagster run has: what goes on does not grow with the history."""
STEP = timedelta(seconds=30)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FAST = WriteConcern(w=1)
_BATCH = 1_000
_RUN = "run_" + "R" * 26
_DAGSTER = "D" * 36
_TASKS = [f"tsk_{'T' * 22}{node:04}" for node in range(NODES)]
_CREATED, _STARTED, _FINISHED = (datetime(2100, 1, 1 + day, tzinfo=UTC) for day in range(3))
_PERSON, _SCHEDULE = "user:ada", "schedule:nightly-#@20990101T000000Z"


class Stamp(NamedTuple):
    """Encoded documents and where in them the values of one run go."""

    run: bytes
    tasks: list[bytes]


def flow(number: int) -> dict[str, Any]:
    """One of the workflows: a source and nodes that pass its assets on, as a chain."""
    nodes: list[dict[str, Any]] = [{"id": "take", "type": "source"}]
    for node in range(1, NODES):
        before = nodes[-1]["id"]
        nodes.append({"id": f"step-{node}", "type": "set-union", "after": [before], "title": f"Step {node}"})
    return {"workflow": f"flow-{number:02}", "nodes": nodes}


def fill(ef: EmboFlow, assets: list[str], runs: int) -> None:
    """Write ``runs`` runs of :data:`NODES` tasks each; the newest are queued and running."""
    heads = [ef.workflows.get(f"flow-{number:02}") for number in range(WORKFLOWS)]
    versions = [ef.workflows.version(head.id, None) for head in heads]
    stamps: dict[tuple[int, str, str], Stamp] = {}
    for number, head in enumerate(heads):
        for status in RunStatus:
            for way in (_PERSON, _SCHEDULE):
                planned = plan_run(
                    ef.scope, head, versions[number], bound(assets, number), triggered_by=way, run_id=_RUN
                )
                stamps[number, status.value, way] = _stamp(*planned, status)
    targets = [ef.mongo[name].with_options(write_concern=FAST) for name in ("workflow_runs", "run_tasks")]
    batches: tuple[list[RawBSONDocument], list[RawBSONDocument]] = ([], [])
    for run, tasks in _documents(stamps, runs):
        batches[0].append(RawBSONDocument(run))
        batches[1].extend(map(RawBSONDocument, tasks))
        for batch, target in zip(batches, targets, strict=True):
            if len(batch) >= _BATCH:
                target.insert_many(batch, ordered=False, bypass_document_validation=True)
                batch.clear()
    for batch, target in zip(batches, targets, strict=True):
        if batch:
            target.insert_many(batch, ordered=False, bypass_document_validation=True)


def bound(assets: list[str], number: int) -> list[str]:
    """The assets that the runs of a workflow bind; the last asset is bound by one workflow alone."""
    some = [assets[(number * 7 + place * 3) % (ASSETS - 1)] for place in range(3)]
    return [*dict.fromkeys(some), assets[-1]] if number == WORKFLOWS - 1 else list(dict.fromkeys(some))


def status_of(place: int, runs: int) -> str:
    """How the run at a place ended: 3 in 100 failed, 1 was cancelled; the newest are open."""
    if place >= runs - 2 * OPEN:
        return "queued" if place >= runs - OPEN else "running"
    return {0: "failed", 33: "failed", 66: "failed", 50: "cancelled"}.get(place % 100, "success")


def way_in(place: int) -> tuple[str, str]:
    """How a run was requested, as planned and as written: 1 in 100 by a person, else by nine schedules."""
    if place % 100 == 7:
        return _PERSON, _PERSON
    return _SCHEDULE, f"schedule:nightly-{place % 9}@{EPOCH + place * STEP:%Y%m%dT%H%M%SZ}"


def _documents(stamps: dict[tuple[int, str, str], Stamp], runs: int) -> Iterator[tuple[bytes, list[bytes]]]:
    times = [struct.pack("<q", _millis(moment)) for moment in (_CREATED, _STARTED, _FINISHED)]
    for place in range(runs):
        planned, triggered_by = way_in(place)
        stamp = stamps[place * 7 % WORKFLOWS, status_of(place, runs), planned]
        created = EPOCH + place * STEP
        moments = [struct.pack("<q", _millis(created) + ms) for ms in (0, 1_000, 6_000)]
        run_id = f"run_{place:026}".encode()
        run = stamp.run.replace(_RUN.encode(), run_id).replace(planned.encode(), triggered_by.encode())
        run = run.replace(_DAGSTER.encode(), f"{place:036}".encode())
        run = run.replace(b"T" * 22, f"{place:022}".encode())
        tasks = [
            task.replace(_RUN.encode(), run_id).replace(b"T" * 22, f"{place:022}".encode())
            for task in stamp.tasks
        ]
        for old, new in zip(times, moments, strict=True):
            run = run.replace(old, new)
            tasks = [task.replace(old, new) for task in tasks]
        yield run, tasks


def _stamp(run: WorkflowRun, tasks: list[RunTask], status: RunStatus) -> Stamp:
    done = {
        RunStatus.SUCCESS: NODES,
        RunStatus.FAILED: 4,
        RunStatus.CANCELLED: 2,
        RunStatus.RUNNING: 3,
        RunStatus.QUEUED: 0,
    }[status]
    here = {
        RunStatus.FAILED: TaskStatus.FAILED,
        RunStatus.CANCELLED: TaskStatus.CANCELLED,
        RunStatus.RUNNING: TaskStatus.RUNNING,
    }
    rows = []
    for place, (task, id_) in enumerate(zip(tasks, _TASKS, strict=True)):
        changes: dict[str, Any] = {"id": id_, "created_at": _CREATED, "updated_at": _FINISHED}
        now = TaskStatus.SUCCESS if place < done else here.get(status) if place == done else None
        if status is RunStatus.CANCELLED and place > done:
            now = TaskStatus.CANCELLED
        if now is not None:
            changes |= {"status": now, "started_at": _STARTED, "lease_owner": None}
        if now in (TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED):
            summary = TaskSummary(executor="python", outcome=now.value, asset_count=3, stdout_line_count=2)
            changes |= {"finished_at": _FINISHED, "duration_ms": 5_000, "summary": summary}
            changes |= {"stdout_lines": ["looked at 3 assets", "kept 3"]}
        if now is TaskStatus.FAILED:
            changes["error_message"] = "ValueError: the recording has no topic /joint_states"
        rows.append(task.model_copy(update=changes))
    over = status in (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED)
    run = run.model_copy(
        update={
            "status": status,
            "summary": summarise(rows),
            "created_at": _CREATED,
            "updated_at": _FINISHED,
            "started_at": None if status is RunStatus.QUEUED else _STARTED,
            "finished_at": _FINISHED if over else None,
            "duration_ms": 5_000 if over else None,
            "dagster_run_ids": [] if status is RunStatus.QUEUED else [_DAGSTER],
        }
    )
    return Stamp(bson.encode(run.to_mongo()), [bson.encode(row.to_mongo()) for row in rows])


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
