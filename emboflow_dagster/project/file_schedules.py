"""The schedules that workflows bring in their files: part of the published version, like the rest of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from emboflow_dagster.model.run_schedule import STATE, RunSchedule
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion, WorkflowStatus
from emboflow_dagster.mongo.client import Raw, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.opened import Opened

# A version may be large, and this is asked every few seconds.
_NEEDED: Final = {
    "workflowDefinitionId": 1,
    "versionNumber": 1,
    "runtimeGraph.schedule": 1,
    "createdBy": 1,
    "createdAt": 1,
}


def of_project(opened: Opened, states: Mapping[str, Raw]) -> list[RunSchedule]:
    """Those of every published version of the project.

    Args:
        opened: The project.
        states: What became of them so far, by workflow id.
    """
    versions: Documents[WorkflowDefinitionVersion] = Documents(
        opened.mongo, opened.scope, WorkflowDefinitionVersion
    )
    filter_ = {"runtimeGraph.schedule.cron": {"$type": "string"}, **opened.scope.filter(versions.row)}
    by_workflow: dict[str, dict[int, Raw]] = {}
    with translated():
        for raw in versions.raw.find(filter_, _NEEDED):
            by_workflow.setdefault(raw["workflowDefinitionId"], {})[raw["versionNumber"]] = raw
    if not by_workflow:
        return []
    heads: Documents[WorkflowDefinition] = Documents(opened.mongo, opened.scope, WorkflowDefinition)
    published = {"_id": {"$in": sorted(by_workflow)}, "status": WorkflowStatus.PUBLISHED.value}
    return [
        _schedule(head, _unchanged(rows, head.published_version_number), states.get(head.id, {}))
        for head in heads.find(published, sort=[("_id", 1)], limit=0)
        if head.published_version_number in (rows := by_workflow[head.id])
    ]


def _unchanged(rows: Mapping[int, Raw], number: int) -> list[Raw]:
    """The published version and those before it, without a gap, that ran at the same times; newest first."""
    found = [rows[number]]
    while (before := rows.get(number - len(found))) is not None and _when(before) == _when(found[0]):
        found.append(before)
    return found


def _when(raw: Raw) -> tuple[str, str]:
    said = raw["runtimeGraph"]["schedule"]
    return said["cron"], said["timezone"]


def _schedule(head: WorkflowDefinition, rows: Sequence[Raw], state: Mapping[str, Any]) -> RunSchedule:
    said = rows[0]["runtimeGraph"]["schedule"]
    # Its ticks count from when this expression came to hold: another version of the same changes nothing.
    since = rows[-1]["createdAt"]
    kept = {name: state.get(name, default) for name, default in STATE.items()}
    kept["tickedAt"] = max(kept["tickedAt"] or since, since)
    return RunSchedule.from_mongo(
        {
            "_id": head.id,
            "workspaceId": head.workspace_id,
            "projectId": head.project_id,
            "name": head.slug,
            "origin": "workflow",
            "workflowDefinitionId": head.id,
            "workflowSlug": head.slug,
            "cron": said["cron"],
            "timezone": said["timezone"],
            "assets": said["assets"],
            "createdBy": rows[0]["createdBy"],
            "createdAt": since,
            "updatedAt": rows[0]["createdAt"],
            **kept,
        }
    )
