"""The cache key of a task: one digest over everything that its result can depend on, and nothing else.

==============================================  =========================================================
in the key                                      not in the key
==============================================  =========================================================
type and version of the node                    ids of run, task and artifacts; times; who asked
its config, as canonical JSON                   order of the config's keys, layout, titles, labels
executor, image, definition, kind of artifact   retries, cache policy, version number of the workflow
the hook's language, entry point and source     the schedule
its assets in order: id, name, type, sha256     everything about an asset that the node cannot see
what came from upstream in order: see `Sight`   how upstream came to it
==============================================  =========================================================

A node type says what it can see (:class:`~emboflow_dagster.runtime.node.Sight`): a filter depends on what
a probe found, not on the artifact that the probe left.

Source: requirements R-221; AT-020, AT-073; decision 20.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.asset import Asset, AssetProbeReport
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.containers.job import PINNED
from emboflow_dagster.runtime.digest import sha256_of
from emboflow_dagster.runtime.node import NodeInput, NodeType, Sight

SCHEMA: Final = 1
# A report is known by what it says, not by which look it was.
_NOT_SAID: Final = frozenset({"_id", "assetId", "reportVersion", "createdAt"})


def code_digest(task: RunTask, node_type: NodeType) -> str:
    """sha256 (hex) over what is executed: type, version, executor, config, code."""
    executor = task.executor_config or {}
    return sha256_of(
        {
            "type": f"{node_type.id}@{node_type.version}",
            "definition": task.node_definition_id,
            "executor": task.executor_type.value,
            # The bytes, not the name: a name may be given to another image.
            "image": executor.get(PINNED) or executor.get("image"),
            "config": executor.get("config") or {},
            "hook": task.code_hook_spec.to_json() if task.code_hook_spec else None,
            "artifactType": task.artifact_type,
        }
    )


def cache_key(
    task: RunTask,
    workflow_slug: str,
    node_type: NodeType,
    assets: Sequence[Asset],
    reports: Mapping[str, AssetProbeReport],
    inputs: Mapping[str, NodeInput],
) -> str:
    """``sha256:<hex>`` over what is executed and what it is given.

    Args:
        task: The task, with its effective assets.
        workflow_slug: What its workflow is called.
        node_type: What it executes.
        assets: Its assets, in order.
        reports: Asset id to its newest probe report.
        inputs: What the nodes before it left, in the order of ``after``.
    """
    sees = node_type.sees
    return "sha256:" + sha256_of(
        {
            "schema": SCHEMA,
            "code": code_digest(task, node_type),
            "itself": [workflow_slug, task.node_id] if Sight.ITSELF in sees else None,
            "assets": [_asset(asset, reports.get(asset.id), sees) for asset in assets],
            "inputs": [_input(given, sees) for given in inputs.values()],
        }
    )


def _asset(asset: Asset, report: AssetProbeReport | None, sees: frozenset[Sight]) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "id": asset.id,
        "name": asset.display_name,
        "type": asset.type.value,
        "sha256": asset.storage_ref.sha256,
        "paths": asset.top_level_paths,
    }
    if Sight.STATUS in sees:
        seen["status"] = asset.status.value
    if Sight.REPORT in sees:
        seen["report"] = said(report) if report else None
    return seen


def said(report: AssetProbeReport) -> str:
    """sha256 (hex) over what a probe report says; a whole report in a blob counts by its other fields."""
    left_out = _NOT_SAID | ({"rawReport"} if report.raw_report_ref else set())
    return sha256_of({name: value for name, value in report.to_json().items() if name not in left_out})


def _input(given: NodeInput, sees: frozenset[Sight]) -> dict[str, Any]:
    seen: dict[str, Any] = {"type": given.node_type, "assets": list(given.asset_ids)}
    if Sight.NAMES in sees:
        seen["name"] = given.node_id
    if Sight.INPUTS in sees:
        seen["preview"] = given.preview
        seen["artifacts"] = [_artifact(artifact) for artifact in given.artifacts]
    elif Sight.RECORDINGS in sees and (made := [a for a in given.artifacts if derived.is_bundle(a)]):
        seen["recordings"] = [_artifact(artifact) for artifact in made]
    return seen


def _artifact(artifact: Artifact) -> dict[str, Any]:
    ref = artifact.storage_ref
    summary = {name: value for name, value in (artifact.summary or {}).items() if name != "title"}
    return {
        "type": artifact.type,
        "sha256": ref.sha256,
        "contentType": ref.content_type,
        "summary": summary,
    }
