"""The state machine of runs and tasks, as pure functions over documents.

What changes when a task is taken, succeeds or fails is worked out here from the task documents
alone; :mod:`emboflow_dagster.runtime.record` writes it.

Source: spec/state-machines.md 4.2-4.4.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from emboflow_dagster.model.run import (
    RUN_TERMINAL,
    TASK_TERMINAL,
    RunStatus,
    RunSummary,
    RunTask,
    TaskStatus,
    WorkflowRun,
)
from emboflow_dagster.runtime.narrowing import effective
from emboflow_dagster.runtime.node import Narrowing


def summarise(tasks: Sequence[RunTask]) -> RunSummary:
    """The aggregate a run carries over its tasks (invariants I1-I5); failed ids in graph order."""
    counts = {status.value: 0 for status in TaskStatus}
    for task in tasks:
        counts[task.status] += 1
    summaries = [task.summary for task in tasks if task.summary is not None]
    return RunSummary(
        total_task_count=len(tasks),
        completed_task_count=sum(counts[status] for status in TASK_TERMINAL),
        task_counts=counts,
        artifact_count=sum(len(task.output_artifact_ids) for task in tasks),
        stdout_line_count=sum(summary.stdout_line_count for summary in summaries),
        stderr_line_count=sum(summary.stderr_line_count for summary in summaries),
        failed_task_ids=[task.id for task in tasks if task.status == TaskStatus.FAILED],
    )


def promotions(
    tasks: Sequence[RunTask], bound: Sequence[str], narrowings: Mapping[str, Narrowing | None]
) -> dict[str, list[str]]:
    """Pending tasks whose upstream tasks have all succeeded, with their effective asset ids.

    Args:
        tasks: All tasks of a run.
        bound: The run's assets, in order.
        narrowings: Node type to how it combines what comes from upstream.
    """
    by_node = {task.node_id: task for task in tasks}
    ready: dict[str, list[str]] = {}
    for task in tasks:
        if task.status == TaskStatus.PENDING and _upstream_done(task, by_node):
            ready[task.id] = effective_assets(task, by_node, bound, narrowings)
    return ready


def effective_assets(
    task: RunTask,
    by_node: Mapping[str, RunTask],
    bound: Sequence[str],
    narrowings: Mapping[str, Narrowing | None],
) -> list[str]:
    """The assets that a task is executed with: what its upstream tasks passed on, at a root those bound."""
    inside = {node: by_node[node].asset_ids for node in task.upstream_node_ids if node in by_node}
    passed = outside_assets(task) | inside
    sets = [passed[node] for node in task.upstream_node_ids if node in passed]
    if sets:
        return effective(narrowings.get(task.node_type), sets, bound)
    own = own_assets(task)
    return list(bound) if own is None else own


def _upstream_done(task: RunTask, by_node: Mapping[str, RunTask]) -> bool:
    inside = (by_node[node] for node in task.upstream_node_ids if node in by_node)
    return all(up.status == TaskStatus.SUCCESS for up in inside)


def below(targets: Iterable[str], tasks: Sequence[RunTask]) -> set[str]:
    """The nodes of a run that stand below any of ``targets``, without the targets themselves."""
    children: dict[str, list[str]] = {}
    for task in tasks:
        for node in task.upstream_node_ids:
            children.setdefault(node, []).append(task.node_id)
    wanted = set(targets)
    found: set[str] = set()
    frontier = list(wanted)
    while frontier:
        for child in children.get(frontier.pop(), ()):
            if child not in found:
                found.add(child)
                frontier.append(child)
    return found - wanted


def not_retryable(target: str, tasks: Sequence[RunTask]) -> str | None:
    """Why the task of a node cannot be retried now; ``None`` when it can (spec/state-machines.md 4.2)."""
    by_node = {task.node_id: task for task in tasks}
    task = by_node[target]
    if task.status not in TASK_TERMINAL:
        return f"it is {task.status.value}; a task that is over can be retried"
    if not _upstream_done(task, by_node):
        late = next(n for n in task.upstream_node_ids if n in by_node and by_node[n].status != "success")
        return f"{late}, which comes before it, is {by_node[late].status.value}; retry that one"
    busy = [n for n in sorted(below([target], tasks)) if by_node[n].status in _AT_WORK]
    return f"{busy[0]}, which comes after it, is {by_node[busy[0]].status.value}" if busy else None


_AT_WORK = (TaskStatus.RUNNING, TaskStatus.QUEUED)


def outside_assets(task: RunTask) -> dict[str, list[str]]:
    """What upstream nodes without a task in this run passed on when last successful; frozen by the plan."""
    return dict((task.executor_config or {}).get("outside") or {})


def own_assets(task: RunTask) -> list[str] | None:
    """The assets that a source was given of its own, frozen by the plan; ``None``: it takes its run's."""
    own = (task.executor_config or {}).get("bound")
    return None if own is None else list(own)


class Standing(Protocol):
    """As much of a task as the status of a run depends on."""

    @property
    def status(self) -> TaskStatus:
        """Where it is."""
        ...


def run_status(tasks: Iterable[Standing], current: RunStatus) -> RunStatus:
    """The status a run has when its tasks are ``tasks``.

    A failed run waits for its other branches; a cancelled one stays cancelled.
    """
    if current in RUN_TERMINAL:
        return current
    statuses = {task.status for task in tasks}
    if statuses <= {TaskStatus.SUCCESS}:
        return RunStatus.SUCCESS
    if statuses & {TaskStatus.RUNNING, TaskStatus.QUEUED}:
        return current
    if TaskStatus.FAILED in statuses:
        return RunStatus.FAILED
    return RunStatus.CANCELLED if TaskStatus.CANCELLED in statuses else current


def run_changes(run: WorkflowRun, tasks: Sequence[RunTask], now: datetime) -> dict[str, Any]:
    """The fields of ``run`` that follow from its tasks: summary, status, times (invariant I6)."""
    status = run_status(tasks, run.status)
    changes: dict[str, Any] = {"summary": summarise(tasks).to_mongo(), "updatedAt": now}
    started = _least(task.started_at for task in tasks)
    if started is not None:
        changes["startedAt"] = started
        if run.status == RunStatus.QUEUED and status == RunStatus.QUEUED:
            status = RunStatus.RUNNING
    draining = any(task.status == TaskStatus.RUNNING for task in tasks)
    if status in RUN_TERMINAL and not draining:
        finished = _most(task.finished_at for task in tasks) or now
        begun = started or finished
        changes["finishedAt"] = finished
        changes["durationMs"] = max(0, round((finished - begun).total_seconds() * 1000))
    if status != run.status:
        changes["status"] = status.value
    return changes


def _least(times: Iterable[datetime | None]) -> datetime | None:
    return min((t for t in times if t is not None), default=None)


def _most(times: Iterable[datetime | None]) -> datetime | None:
    return max((t for t in times if t is not None), default=None)
