"""What tasks say of an episode: previews and logs may show its numbers, and a hook may print anything."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.log_chunks import COLLECTION
from emboflow_dagster.mongo.marks import name_of
from emboflow_dagster.project.gc.tombstones import is_collected
from emboflow_dagster.project.opened import Opened

#: What a task's document is left with. Its id, state, times, inputs and outputs stay.
EMPTIED: Final[dict[str, Any]] = {
    "lastResultPreview": None,
    "logRef": None,
    "logLines": [],
    "stdoutLines": [],
    "stderrLines": [],
}
_FORGOTTEN: Final = "forgotten with an episode: `emboflow dataset forgotten`"


@dataclass(frozen=True, slots=True)
class Work:
    """Tasks, and what they say: ``logs`` are blobs, of every attempt."""

    tasks: list[dict[str, Any]]
    logs: list[dict[str, Any]]
    dagster_runs: list[str]


def look(opened: Opened, assets: Collection[str], producers: Collection[str]) -> Work:
    """The tasks that were given one of the assets, or left one of the artifacts that go.

    Args:
        opened: The deployment and scope.
        assets: What the episodes were made of, and copies of that.
        producers: Ids of tasks.
    """
    mongo, scope = opened.mongo, opened.scope
    runs: Documents[WorkflowRun] = Documents(mongo, scope, WorkflowRun)
    project = {"workspaceId": scope.workspace_id, "projectId": scope.project_id}
    given = {"$or": [{"assetIds": {"$in": sorted(assets)}}, {"_id": {"$in": sorted(producers)}}]}
    fields = dict.fromkeys(("_id", "workflowRunId", "nodeId", "attempt"), 1)
    with translated():
        ours = {row["_id"]: row for row in runs.raw.find(project, {"dagsterRunIds": 1})}
        tasks = [
            row
            for row in mongo[RunTask.collection].find(given, fields).sort("_id", 1)
            if row["workflowRunId"] in ours
        ]
    told = [{"id": row["_id"], "runId": row["workflowRunId"], "nodeId": row["nodeId"]} for row in tasks]
    of_runs = {row["runId"] for row in told}
    dagster = {one for run in of_runs for one in ours[run].get("dagsterRunIds") or ()}
    return Work(told, _logs(opened, sorted(row["id"] for row in told)), sorted(dagster))


def _logs(opened: Opened, ids: list[str]) -> list[dict[str, Any]]:
    mine = {"workspace_id": opened.scope.workspace_id, "type": "task_log", "task_id": {"$in": ids}}
    fields = dict.fromkeys(("object_id", "version", "data_sha256", "object_size_bytes"), 1)
    with translated():
        rows = [
            row
            for name in ("objects", "object_history")
            for row in opened.mongo[name].find(mine, fields)
            if row.get("data_sha256")
        ]
    names = {name_of(row.get("object_id") or row["_id"], row["version"]): row for row in rows}
    gone = is_collected(opened.mongo, sorted(names))
    return [
        {
            "objectId": row.get("object_id") or row["_id"],
            "version": row["version"],
            "sha256": row["data_sha256"],
            "size": row["object_size_bytes"],
        }
        for name, row in sorted(names.items())
        if name not in gone
    ]


def empty(opened: Opened, ids: list[str], session: Session) -> None:
    """Take away what tasks say; in the transaction that lets go of the rest."""
    tasks = opened.mongo[RunTask.collection]
    tasks.update_many({"_id": {"$in": ids}}, {"$set": EMPTIED}, session=session)
    failed = {"_id": {"$in": ids}, "errorMessage": {"$type": "string"}}
    tasks.update_many(failed, {"$set": {"errorMessage": _FORGOTTEN}}, session=session)
    opened.mongo[COLLECTION].delete_many({"taskId": {"$in": ids}}, session=session)
