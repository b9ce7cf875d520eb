"""Lets no work slip by that read an episode before it was forgotten, and is recorded after it was looked for.

What records work reads the tombstones in its transaction, with `refuse_new` of `runtime.forgotten`. A
transaction that began before the tombstone was there does not see it. So once it is there, what such
transactions write to (a running task, a dataset) is written to here: one that began before is either done by
then, and found, or has a conflict, begins again and sees the tombstone.
"""

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.dataset import Dataset
from emboflow_dagster.model.run import RUN_ACTIVE, RunTask, TaskStatus, WorkflowRun
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.opened import Opened


def fence(opened: Opened) -> None:
    """Touch all that work in the project is recorded with."""
    scope, mongo = opened.scope, opened.mongo
    tasks: Documents[RunTask] = Documents(mongo, scope, RunTask)
    datasets: Documents[Dataset] = Documents(mongo, scope, Dataset)
    runs: Documents[WorkflowRun] = Documents(mongo, scope, WorkflowRun)
    now = {"$set": {"updatedAt": utc_now()}}
    project = {"workspaceId": scope.workspace_id, "projectId": scope.project_id}
    active = {**project, "status": {"$in": [status.value for status in RUN_ACTIVE]}}
    with translated():
        # A cancelled run's task may be at work still, but what it leaves is not recorded.
        going = [row["_id"] for row in runs.raw.find(active, {"_id": 1})]
        tasks.raw.update_many({"workflowRunId": {"$in": going}, "status": TaskStatus.RUNNING.value}, now)
        datasets.raw.update_many(project, now)
