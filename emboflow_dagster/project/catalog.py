"""A snapshot of what is published and registered, for Dagster's definitions.

Built without Dagster, read without the database: the code location keeps the last one.
"""

from collections.abc import Mapping
from typing import Any

from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.model.text import to_slug
from emboflow_dagster.model.workflow import (
    LogicNode,
    NodeConfig,
    WorkflowDefinition,
    WorkflowDefinitionVersion,
    WorkflowStatus,
)
from emboflow_dagster.model.workspace import ArchivableStatus
from emboflow_dagster.mongo.documents import OLDEST, Documents
from emboflow_dagster.project import sources
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.datasets import Datasets
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.schedules import Schedules
from emboflow_dagster.project.workflows import Workflows
from emboflow_dagster.runtime.asset_bindings import of_version
from emboflow_dagster.runtime.digest import node_code_version
from emboflow_dagster.runtime.registry import node_types
from emboflow_dagster.runtime.selector import is_selector
from emboflow_dagster.runtime.step_processes import steps_of

CATALOG_SCHEMA = 1


def catalog(opened: Opened, *, all_projects: bool = False) -> dict[str, Any]:
    """The snapshot: workspaces, their projects, and in each assets, datasets and published workflows.

    Args:
        opened: The deployment, at the scope to describe.
        all_projects: Every project of the database, not only the handle's.
    """
    spaces: dict[str, dict[str, Any]] = {}
    filter_: dict[str, Any] = {"status": ArchivableStatus.ACTIVE.value}
    if not all_projects:
        filter_["_id"] = opened.scope.project_id
    for row in opened.mongo["projects"].find(filter_).sort("_id"):
        space = opened.mongo["workspaces"].find_one({"_id": row["workspaceId"]})
        if space is None or space["status"] != ArchivableStatus.ACTIVE.value:
            continue
        entry = spaces.setdefault(space["_id"], {"id": space["_id"], "slug": space["slug"], "projects": []})
        entry["projects"].append(_project(opened.at(space["slug"], row["slug"]), row["_id"]))
    return {
        "schema": CATALOG_SCHEMA,
        "generatedAt": utc_now().isoformat(),
        "workspaces": list(spaces.values()),
    }


def asset_key_names(assets: list[Asset]) -> dict[str, str]:
    """Asset id to the last part of its Dagster asset key: its name as a slug, made unique, oldest first."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for asset in sorted(assets, key=lambda a: (a.created_at, a.id)):
        plain = to_slug(asset.display_name, "asset")
        name = plain if plain not in taken else f"{plain[:36]}-{asset.id[-26:].lower()}"
        taken.add(name)
        names[asset.id] = name
    return names


def _project(opened: Opened, project_id: str) -> dict[str, Any]:
    assets = sources.candidates(Assets(opened))
    keys = asset_key_names(assets)
    return {
        "id": project_id,
        "slug": opened.scope.project_slug,
        "assets": [_asset(a, keys[a.id]) for a in assets],
        "datasets": _datasets(opened),
        "workflows": _workflows(opened, assets, keys),
        "schedules": _schedules(opened),
    }


def _schedules(opened: Opened) -> list[dict[str, Any]]:
    """Those that were added and have ticks; whether they are paused is asked at each tick."""
    return [
        {
            "id": one.id,
            "name": one.name,
            "definitionId": one.workflow_definition_id,
            "workflow": one.workflow_slug,
            "cron": one.cron,
            "timezone": one.timezone,
            "createdBy": one.created_by,
        }
        for one in Schedules(opened, Workflows(opened)).added()
        if one.cron is not None
    ]


def _asset(asset: Asset, key: str) -> dict[str, Any]:
    return {
        "id": asset.id,
        "name": asset.display_name,
        "key": key,
        "type": asset.type.value,
        "format": asset.detected_formats[0] if asset.detected_formats else None,
        "sizeBytes": asset.size_bytes,
        "fileCount": asset.file_count,
        "status": asset.status.value,
        "checksum": asset.storage_ref.checksum,
        "createdBy": asset.created_by,
        "updatedAt": asset.updated_at.isoformat(),
    }


def _datasets(opened: Opened) -> list[dict[str, Any]]:
    datasets: list[Dataset] = Datasets(opened).documents.find(sort=OLDEST, limit=1_000)
    ids = [d.latest_version_id for d in datasets if d.latest_version_id]
    rows: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)
    versions = {v.id: v for v in rows.find({"_id": {"$in": ids}}, limit=0)}
    result = []
    for dataset in datasets:
        version = versions.get(dataset.latest_version_id or "")
        result.append(
            {
                "id": dataset.id,
                "name": dataset.name,
                "type": dataset.type,
                "latestVersionId": dataset.latest_version_id,
                "versionTag": version.version_tag if version else None,
                "stats": version.stats if version else {},
            }
        )
    return result


def _workflows(opened: Opened, assets: list[Asset], keys: Mapping[str, str]) -> list[dict[str, Any]]:
    heads: list[WorkflowDefinition] = Workflows(opened).documents.find(
        {"status": WorkflowStatus.PUBLISHED.value}, sort=[("_id", 1)], limit=10_000
    )
    rows: Documents[WorkflowDefinitionVersion] = Documents(
        opened.mongo, opened.scope, WorkflowDefinitionVersion
    )
    wanted = [{"workflowDefinitionId": h.id, "versionNumber": h.published_version_number} for h in heads]
    found = {v.workflow_definition_id: v for v in rows.find({"$or": wanted}, limit=0)} if wanted else {}
    return [_workflow(head, found[head.id], assets, keys) for head in heads if head.id in found]


def _workflow(
    head: WorkflowDefinition, version: WorkflowDefinitionVersion, assets: list[Asset], keys: Mapping[str, str]
) -> dict[str, Any]:
    upstream = version.logic_graph.upstream()
    summary = version.summary or {}
    schedule = version.runtime_graph.schedule
    return {
        "definitionId": head.id,
        "slug": head.slug,
        "name": head.name,
        "description": summary.get("description", ""),
        "versionId": version.id,
        "versionNumber": version.version_number,
        "executionDigest": summary.get("executionDigest", ""),
        "createdBy": version.created_by,
        "schedule": schedule.to_json() if schedule else None,
        **steps_of(version.runtime_graph),
        "nodes": [
            _node(node, version.node(node.id)[1], upstream[node.id], _bound(version, node.id, assets), keys)
            for node in version.logic_graph.nodes
        ],
    }


def _bound(version: WorkflowDefinitionVersion, node_id: str, assets: list[Asset]) -> list[Asset]:
    """The assets that a source can take: those that the file binds to it, where it names them."""
    names = of_version(version).get(node_id)
    if names is None or any(is_selector(name) for name in names):
        return assets
    return [asset for asset in assets if asset.display_name in names or asset.id in names]


def _node(
    node: LogicNode, config: NodeConfig, after: list[str], assets: list[Asset], keys: Mapping[str, str]
) -> dict[str, Any]:
    known = node_types().get(node.type)
    raw: list[str] = []
    if known and known.source:
        raw = [keys[a.id] for a in assets if sources.takes(config.config, a)][: sources.MAX_TAKEN]
    return {
        "id": node.id,
        "type": node.type,
        "title": config.title,
        "description": known.description if known else "",
        "codeVersion": node_code_version(node, config, node_types(), after),
        "config": config.config,
        "after": after,
        "produces": config.artifact_type or (known.produces if known else None),
        "dataset": config.config.get("dataset") if node.type == "publish-dataset" else None,
        "executor": config.executor.value,
        "retries": config.retries,
        "kinds": list(known.kinds) if known else [],
        **({"waits": True} if known and known.waits else {}),
        "assetKeys": raw,
    }
