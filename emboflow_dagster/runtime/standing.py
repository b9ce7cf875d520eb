"""How the tasks of a run stand to each other, as people want to see it. Pure."""

from collections.abc import Sequence

from emboflow_dagster.model.run import RunTask, TaskStatus

_STOPPED = (TaskStatus.FAILED, TaskStatus.CANCELLED)


def blocked_by(tasks: Sequence[RunTask]) -> dict[str, str]:
    """Pending nodes that cannot start, each with the failed or cancelled node above it.

    A stored task stays ``pending`` below a failed one; "blocked" is derived (spec/state-machines.md 4.1).

    Args:
        tasks: Of one run, in graph order.
    """
    stopped = {task.node_id for task in tasks if task.status in _STOPPED}
    found: dict[str, str] = {}
    for task in tasks:
        if task.status != TaskStatus.PENDING:
            continue
        for up in task.upstream_node_ids:
            if up in stopped or up in found:
                found[task.node_id] = found.get(up, up)
                break
    return found
