"""Runs and tasks as people read them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emboflow_dagster.cli import figures, output, run_tasks

if TYPE_CHECKING:
    from emboflow_dagster.model.run import RunTask, WorkflowRun


def show(run: "WorkflowRun", tasks: "Sequence[RunTask]", *, everything: bool = False) -> None:
    """One run with its tasks; of many those that matter most, with ``everything`` all of them."""
    snapshot, summary = run.runtime_snapshot, run.summary
    # "Done" counts what failed and what was cancelled, too.
    told = len(tasks) > run_tasks.MANY or any(summary.task_counts.get(s) for s in ("failed", "cancelled"))
    output.pairs(
        [
            ("run", output.styled(run.id, "bold")),
            ("workflow", f"{snapshot.workflow_slug} version {snapshot.version_number}"),
            ("status", run.status.value),
            ("tasks", f"{summary.completed_task_count} of {summary.total_task_count} done"),
            ("", run_tasks.counts(summary.task_counts) if told else None),
            ("artifacts", summary.artifact_count),
            ("assets", len(run.asset_ids)),
            ("took", figures.duration(run.duration_ms)),
            ("requested", f"{figures.moment(run.created_at)} by {run.triggered_by}"),
            ("started", figures.moment(run.started_at)),
            ("finished", figures.moment(run.finished_at)),
            ("dagster run", ", ".join(filter(None, run.dagster_run_ids)) or None),
            ("retry of", run.retry_of_run_id),
            ("label", run.config.label if run.config else None),
            ("cache", run.config.cache_policy if run.config else None),
        ]
    )
    run_tasks.table(tasks, everything=everything)
    run_tasks.errors(tasks, everything=everything)
    run_tasks.waiting(tasks)


def cache(task: "RunTask") -> str | None:
    """What the cache said of a task, and why."""
    if task.cache_hit is None:
        return None
    said = task.summary.cache if task.summary else None
    if task.cache_hit:
        return said.reason if said else "hit"
    return f"miss: {said.reason}" if said else "miss"


def task_page(task: "RunTask") -> None:
    """One task."""
    output.pairs(
        [
            ("task", output.styled(f"{task.workflow_run_id}:{task.node_id}", "bold")),
            ("id", task.id),
            ("type", task.node_type),
            ("status", task.status.value),
            ("attempt", task.attempt),
            ("outcome", task.summary.outcome if task.summary else None),
            ("took", figures.duration(task.duration_ms)),
            ("after", ", ".join(task.upstream_node_ids) or None),
            ("executor", task.executor_type.value),
            ("cache", cache(task)),
            ("cache key", task.cache_key),
            ("started", figures.moment(task.started_at)),
            ("finished", figures.moment(task.finished_at)),
            ("lease", task.lease_owner),
            ("late reports", task.late_reports or None),
        ]
    )
    for title, ids in (("Assets", task.asset_ids), ("Artifacts", task.output_artifact_ids)):
        if ids:
            output.heading(f"{title} ({len(ids)})")
            output.lines(f"  {id_}" for id_ in ids)
    if task.error_message:
        output.heading("Error")
        output.lines(f"  {line}" for line in task.error_message.splitlines())
    if task.last_result_preview:
        from emboflow_dagster.cli.report_page import values

        values("Result", task.last_result_preview)
    counts = task.summary
    if counts and (task.log_lines or counts.stdout_line_count or counts.stderr_line_count):
        output.note(f"its log: emboflow task logs {task.workflow_run_id}:{task.node_id}")
