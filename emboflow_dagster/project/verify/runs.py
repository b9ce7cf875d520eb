"""Runs agree with their tasks, tasks with their artifacts, the audit log with itself."""

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.audit import AuditLog
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run import (
    RUN_TERMINAL,
    TASK_TERMINAL,
    RunStatus,
    RunTask,
    TaskStatus,
    WorkflowRun,
)
from emboflow_dagster.mongo.audit import link
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.project.verify.report import VerifyReport, View
from emboflow_dagster.runtime.machine import summarise


def check_runs(view: View, report: VerifyReport) -> None:
    """Invariants I1-I14 of the state machine, run by run."""
    for raw in view.sound("workflow_runs"):
        try:
            run = WorkflowRun.from_mongo(raw)
            with translated():
                rows = list(view.mongo["run_tasks"].find({"workflowRunId": run.id}))
            tasks = [RunTask.from_mongo(row) for row in rows]
        except EmboflowError:  # reported as an invalid document
            continue
        place = {node: i for i, node in enumerate(run.runtime_snapshot.node_types)}
        tasks.sort(key=lambda task: place.get(task.node_id, len(place)))
        _run(report, run, tasks)
        for task in tasks:
            _task(view, report, run, task, {t.node_id: t for t in tasks})


def _run(report: VerifyReport, run: WorkflowRun, tasks: list[RunTask]) -> None:
    def add(field: str, message: str) -> None:
        report.add("run-state", "workflow_runs", run.id, field, message)

    expected = set(run.selected_node_ids or run.runtime_snapshot.node_types)
    if {task.node_id for task in tasks} != expected:
        add("selectedNodeIds", f"has tasks {sorted(t.node_id for t in tasks)}; expected {sorted(expected)}")
    if run.summary != summarise(tasks):
        add("summary", f"is {run.summary.to_json()}; its tasks give {summarise(tasks).to_json()}")
    statuses = {task.status for task in tasks}
    if run.status == RunStatus.SUCCESS and statuses != {TaskStatus.SUCCESS}:
        add("status", f"success with tasks {sorted(statuses)}")
    if run.status == RunStatus.FAILED and (
        TaskStatus.FAILED not in statuses or statuses & {TaskStatus.RUNNING, TaskStatus.QUEUED}
    ):
        add("status", f"failed with tasks {sorted(statuses)}")
    if run.status == RunStatus.CANCELLED and statuses & {TaskStatus.QUEUED, TaskStatus.PENDING}:
        add("status", f"cancelled with tasks {sorted(statuses)}")
    started = min((t.started_at for t in tasks if t.started_at), default=None)
    if started is not None and run.started_at != started:
        add("startedAt", f"is {run.started_at}; the first task started at {started}")
    over = run.status in RUN_TERMINAL and TaskStatus.RUNNING not in statuses
    finished = max((t.finished_at for t in tasks if t.finished_at), default=None)
    if over and (run.finished_at is None or run.finished_at != (finished or run.finished_at)):
        add(
            "finishedAt", f"is {run.finished_at} in a run that is {run.status}; its last task's is {finished}"
        )
    if not over and run.finished_at is not None:
        add("finishedAt", f"is set in a run that is {run.status}")
    if run.started_at and run.finished_at and run.duration_ms is not None:
        millis = round((run.finished_at - run.started_at).total_seconds() * 1000)
        if millis != run.duration_ms:
            add("durationMs", f"is {run.duration_ms}; finishedAt - startedAt is {millis}")


def _task(
    view: View, report: VerifyReport, run: WorkflowRun, task: RunTask, by_node: dict[str, RunTask]
) -> None:
    def add(field: str, message: str) -> None:
        report.add("task-state", "run_tasks", task.id, field, message)

    order = {asset: i for i, asset in enumerate(run.asset_ids)}
    places = [order.get(asset, -1) for asset in task.asset_ids]
    if -1 in places or places != sorted(places):
        add("assetIds", "is no subset of the run's assets in their order")
    if task.status in (TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.SUCCESS):
        late = [u for u in task.upstream_node_ids if u in by_node and by_node[u].status != TaskStatus.SUCCESS]
        if late:
            add("upstreamNodeIds", f"is {task.status} although {', '.join(late)} has not succeeded")
    if task.status == TaskStatus.RUNNING and (task.started_at is None or task.finished_at is not None):
        add("startedAt", "running without startedAt, or with finishedAt")
    if task.status in TASK_TERMINAL - {TaskStatus.CANCELLED} and not (task.started_at and task.finished_at):
        add("finishedAt", f"is {task.status} without both times")
    with translated():
        made = view.mongo["artifacts"].find(
            {"producerType": "run_task", "producerId": task.id}, {"lineage.attempt": 1, "createdAt": 1}
        )
        # Below a task that was retried the attempt stays: what it left before is older than its start.
        current = {
            row["_id"]
            for row in made
            if (row.get("lineage") or {}).get("attempt") in (None, task.attempt)
            and (task.started_at is None or row["createdAt"] >= task.started_at)
        }
    if task.status != TaskStatus.SUCCESS:
        current = set()
    elif task.cache_hit:
        # Made by an earlier task with the same key, and listed by both.
        with translated():
            key = {"_id": {"$in": task.output_artifact_ids}, "lineage.cacheKey": task.cache_key}
            current |= {row["_id"] for row in view.mongo["artifacts"].find(key, {"_id": 1})}
    if current != set(task.output_artifact_ids):
        add(
            "outputArtifactIds", f"names {sorted(task.output_artifact_ids)}; artifacts name {sorted(current)}"
        )


def check_audit(view: View, report: VerifyReport) -> None:
    """Rows of each workspace are numbered without gaps and chained (I17)."""
    with translated():
        for space in view.find("workspaces", {"_id": 1}):
            _audit_of(view, report, space["_id"])


def _audit_of(view: View, report: VerifyReport, workspace_id: str) -> None:
    def add(code: str, id_: str, field: str, message: str) -> None:
        report.add(code, "audit_logs", id_, field, message)

    number = 0
    previous = {""}
    """What the next row may be linked to: the chain value as stored, and as it should have been."""
    for raw in view.mongo["audit_logs"].find({"workspaceId": workspace_id}).sort("metadata.sequence", 1):
        number += 1
        try:
            row = AuditLog.from_mongo(raw)
        except EmboflowError:  # reported as an invalid document
            previous = set()
            continue
        sequence, chain = row.metadata.get("sequence"), str(row.metadata.get("chain"))
        if sequence != number:
            add("audit-gap", row.id, "metadata.sequence", f"is {sequence}; expected {number}")
            number = sequence if type(sequence) is int else number
            previous = {chain}
            continue
        links = {link(row, value) for value in previous}
        if links and chain not in links:
            add("audit-chain", row.id, "metadata.chain", "the row was changed after it was written")
        previous = links | {chain}
    head = view.mongo[META].find_one({"_id": f"audit:{workspace_id}"}) or {}
    written = head.get("sequence", 0)
    if written != number:
        message = f"{written} rows were written; {number} are there"
        add("audit-gap", workspace_id, "metadata.sequence", message)
