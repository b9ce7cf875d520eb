"""Bringing back what a dataset held before: a version more, of which only the manifest is new."""

import json
from typing import Any, Final

from emboflow_dagster.blobs.forgotten import told as told_of
from emboflow_dagster.blobs.forgotten import tombstones
from emboflow_dagster.errors import TransitionError
from emboflow_dagster.model.dataset import Dataset, DatasetVersion, DatasetVersionStatus
from emboflow_dagster.project.dataset_commit import commit
from emboflow_dagster.project.opened import Opened

_LATER: Final = "what follows it stands: `emboflow dataset versions DATASET` lists what can be brought back"


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
        raise TransitionError(
            f"version {target.version_tag} was withdrawn: {_why(opened, target)}", hint=_LATER
        )
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


def _why(opened: Opened, version: DatasetVersion) -> str:
    for note in tombstones(opened.mongo, opened.scope.workspace_id, opened.scope.project_id):
        if any(row["id"] == version.id for row in note["versions"]):
            return f"it has {told_of(note)}; tombstone {note['name'].rpartition(':')[2]}"
    return "its bytes are no longer kept"


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
