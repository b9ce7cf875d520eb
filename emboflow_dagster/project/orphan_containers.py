"""Containers whose worker is gone are ended: found by their labels, judged by their task.

A container belongs to one attempt of one task of one worker. Where that attempt does not run any more, or its
lease ran out, nobody waits for the container. Those of other projects are left to their own recorders.
"""

from contextlib import suppress
from typing import Any

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.model.run import RunStatus, TaskStatus
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.runtime.containers import engine
from emboflow_dagster.runtime.containers.job import ATTEMPT_LABEL, TASK_LABEL, WORKER_LABEL
from emboflow_dagster.runtime.lease import LEASE_S, older_than
from emboflow_dagster.runtime.record import Recorder

_ANSWER_S = 10


def end_orphans(recorder: Recorder, *, lease_s: int = LEASE_S) -> list[str]:
    """Remove this machine's containers that no live task of the project holds; one line for each.

    Nothing where there is no daemon.
    """
    if not engine.may_be_there():
        return []
    with suppress(ConfigurationError), engine.connected(_ANSWER_S) as client:
        return engine.remove_where(client, TASK_LABEL, lambda labels: _why(recorder, labels, lease_s))
    return []


def _why(recorder: Recorder, labels: dict[str, Any], lease_s: int) -> str | None:
    """Why nobody waits for a container; ``None`` while somebody does, or when it is none of ours."""
    task = recorder.tasks.find_one({"_id": labels[TASK_LABEL]})
    if task is None:
        return None
    run = recorder.runs.get(task.workflow_run_id)
    if run.status is RunStatus.CANCELLED:
        return f"run {run.id} was cancelled"
    held = {
        "_id": task.id,
        "status": TaskStatus.RUNNING.value,
        "attempt": int(labels.get(ATTEMPT_LABEL) or 0),
        "leaseOwner": labels.get(WORKER_LABEL) or None,
    }
    dead = {"$expr": older_than({"$ifNull": ["$heartbeatAt", "$startedAt"]}, lease_s)}
    with translated():
        if recorder.tasks.raw.count_documents(held) and not recorder.tasks.raw.count_documents(
            {**held, **dead}
        ):
            return None
    return f"task {task.node_id} of {task.workflow_run_id} is not held by its worker any more"
