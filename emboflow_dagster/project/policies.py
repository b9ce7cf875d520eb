"""From an episode to the policies that have seen it: the training configs that list it."""

import json
from typing import Any, Final

from emboflow_dagster.blobs.listing import is_listing, payload_ref, read_listing
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.artifact import TRAINING_CONFIG_PACKAGE, Artifact
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.dataset_content import opened_content
from emboflow_dagster.project.opened import Opened

LINEAGE: Final = "lineage/episodes.jsonl"


def policies_of(opened: Opened, version: DatasetVersion, episode: str) -> list[dict[str, Any]]:
    """Training configs of the project that list an episode, newest first.

    Args:
        opened: The deployment.
        version: Where the episode is looked up.
        episode: Its number there, its id, or the sha256 of its content.

    Returns:
        ``artifactId``, ``runId``, ``node``, ``policy``, ``versionSha256``, ``episode`` (its place), ``by``:
        ``content`` where the data is the same, else ``id`` (it was trimmed or changed since), ``madeAt``.

    Raises:
        NotFoundError: The version has no such episode.
    """
    with opened_content(opened, version) as content:
        wanted = next(
            (
                one.entry
                for one in content.episodes()
                if episode in (str(one.index), one.entry["id"], one.entry["content"])
            ),
            None,
        )
    if wanted is None:
        raise NotFoundError(f"{version.version_tag} has no episode {episode}")
    artifacts: Documents[Artifact] = Documents(opened.mongo, opened.scope, Artifact)
    found: list[dict[str, Any]] = []
    for artifact in artifacts.find({"type": TRAINING_CONFIG_PACKAGE}, limit=0):
        line = _line(opened, artifact, wanted)
        if line is not None:
            summary = artifact.summary or {}
            found.append(
                {
                    "artifactId": artifact.id,
                    "runId": artifact.lineage.workflow_run_id,
                    "node": artifact.lineage.node_id,
                    "policy": summary.get("policy"),
                    "versionSha256": summary.get("versionSha256"),
                    "episode": line["episode"],
                    "by": "content" if line["content"] == wanted["content"] else "id",
                    "madeAt": artifact.created_at.isoformat(),
                }
            )
    return found


def _line(opened: Opened, artifact: Artifact, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a package's lineage that is the episode; one with the same data before one with its id."""
    ref = artifact.storage_ref
    if not is_listing(ref):
        return None
    with opened.blobs.open_ref(ref) as stream:
        entry = next((entry for entry in read_listing(stream) if entry.path == LINEAGE), None)
    if entry is None:
        return None
    lines = opened.blobs.read_ref(payload_ref(ref, entry.sha256, entry.size)).splitlines()
    rows = list(map(json.loads, lines))
    for key in ("content", "id"):
        for row in rows:
            if row[key] == wanted[key]:
                return row
    return None
