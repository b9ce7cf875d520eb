"""Runs that nobody works at: settled, or given back to the queue; asked every few seconds."""

from emboflow_dagster.project import lost_logs, orphan_containers
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.task_logs import TaskLogs
from emboflow_dagster.runtime import gates, lease
from emboflow_dagster.runtime.record import Recorder


def settle(opened: Opened, recorder: Recorder) -> list[str]:
    """Settle tasks whose worker is gone, and give runs that somebody could work at back to the queue.

    What waits for people is left alone: until they have approved nobody can work at it.

    Returns:
        What was done, one line each.
    """
    ended = lease.settle_expired(recorder)
    decided = gates.release(recorder)
    left = gates.withdraw_left(recorder)
    idle = lease.requeue_idle(recorder)
    logs = lost_logs.collect(TaskLogs(opened, recorder))
    return [
        *(f"task {t.node_id} of {t.workflow_run_id}: {t.error_message}" for t in ended),
        *(f"{run} goes on: what it waited for is decided" for run in decided),
        *(f"annotation task {ant} was cancelled: no run waits for it" for ant in left),
        *(f"{run.id} is in the queue again: nobody worked at it" for run in idle),
        *(f"task {t.node_id} of {t.workflow_run_id}: the log of its lost worker was kept" for t in logs),
        *orphan_containers.end_orphans(recorder),
    ]
