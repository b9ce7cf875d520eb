"""Bringing back what a dataset held before: a version more, of which only the manifest is new."""

import json
from typing import Any

from emboflow_dagster.errors import TransitionError
from emboflow_dagster.model.dataset import Dataset, DatasetVersion, DatasetVersionStatus
from emboflow_dagster.project.dataset_commit import commit
from emboflow_dagster.project.opened import Opened


def restore(
    opened: Opened,
    dataset: Dataset,
    latest: DatasetVersion,
    target: DatasetVersion,
    *,
    kind: str,
    reason: str | None,
    tag: str | None,
) -> DatasetVersion:
    """Commit a version that holds what ``target`` holds; only its manifest is new.

    Raises:
        TransitionError: ``target`` was withdrawn.
        ConflictError: Another version came meanwhile.
    """
    if target.status is DatasetVersionStatus.WITHDRAWN:
        raise TransitionError(f"version {target.version_tag} was withdrawn: its bytes are no longer kept")
    manifest = json.loads(opened.blobs.read_ref(target.manifest_ref))
    told = {
        "kind": kind,
        "restores": target.id,
        "restoresTag": target.version_tag,
        "reason": reason,
        "episodes": {"from": latest.stats.get("episodes"), "to": target.stats.get("episodes")},
    }
    return commit(
        opened,
        dataset,
        latest,
        manifest,
        action=f"dataset.{kind}",
        told={"edit": told},
        summary={**kept(target), "edit": told},
        stats=target.stats,
        tag=tag,
    )


def before_last_edit(versions: dict[str, DatasetVersion], latest: DatasetVersion) -> DatasetVersion:
    """The version that an undo brings back: the one before the newest edit that stands.

    Raises:
        TransitionError: The content of the latest version was published, not edited.
    """
    at, seen = latest, {latest.id}
    while True:
        said = (at.summary or {}).get("edit") or {}
        following = at.parent_version_id if said.get("kind") == "edit" else said.get("restores")
        before = versions.get(str(following))
        if before is None or before.id in seen:
            raise TransitionError(
                f"version {latest.version_tag}: there is no edit to undo; its content was published",
                hint="`emboflow dataset edit restore DATASET TAG` brings any version back",
            )
        if said.get("kind") == "edit":
            return before
        at = before
        seen.add(at.id)


def kept(version: DatasetVersion) -> dict[str, Any]:
    """What the summary of a version says of its content, and so of its successor's."""
    names = ("description", "robotType", "features", "tasks", "sourceAssetCount", "skippedEpisodes")
    return {name: (version.summary or {})[name] for name in names if name in (version.summary or {})}
