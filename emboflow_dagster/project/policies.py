"""From episodes to the policies that have seen them, and back: the training configs that list them."""

import json
from typing import Any, Final

from emboflow_dagster.blobs.listing import is_listing, payload_ref, read_listing
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.artifact import TRAINING_CONFIG_PACKAGE, Artifact
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.dataset_content import opened_content
from emboflow_dagster.project.gc.tombstones import is_collected
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
    found: list[dict[str, Any]] = []
    for artifact in trained(opened):
        line = _line(opened, artifact, wanted)
        if line is not None:
            by = "content" if line["content"] == wanted["content"] else "id"
            found.append({**_told(artifact), "episode": line["episode"], "by": by})
    return found


def trained(opened: Opened) -> list[Artifact]:
    """The training configs of the project that are not collected, newest first."""
    artifacts: Documents[Artifact] = Documents(opened.mongo, opened.scope, Artifact)
    found = artifacts.find({"type": TRAINING_CONFIG_PACKAGE}, limit=0)
    names = {one.id: f"{one.storage_ref.object_id}.v{one.storage_ref.version}" for one in found}
    gone = is_collected(opened.mongo, sorted(names.values()))
    return [one for one in found if names[one.id] not in gone]


def all_policies_of(opened: Opened, version: DatasetVersion) -> list[dict[str, Any]]:
    """Training configs that list any episode of a version, newest first.

    Returns:
        As :func:`policies_of` has them, with ``same`` (episodes with the same data), ``changed`` (with the
        same id, trimmed or changed since) and ``listed`` (how many it lists in all) instead of ``episode``
        and ``by``.
    """
    lists = [(artifact, episodes_of(opened, artifact)) for artifact in trained(opened)]
    if not any(rows for _, rows in lists):
        return []
    counts = [(artifact, rows, {row["content"] for row in rows}, {row["id"] for row in rows}, [0, 0])
              for artifact, rows in lists]  # fmt: skip
    with opened_content(opened, version) as content:
        for one in content.episodes():
            for _, _, contents, ids, found in counts:
                if one.entry["content"] in contents:
                    found[0] += 1
                elif one.entry["id"] in ids:
                    found[1] += 1
    return [
        {**_told(artifact), "same": found[0], "changed": found[1], "listed": len(rows)}
        for artifact, rows, _, _, found in counts
        if any(found)
    ]


def episodes_of(opened: Opened, artifact: Artifact) -> list[dict[str, Any]]:
    """What a policy saw: the episodes that a training config lists, each with place, id and hash."""
    ref = artifact.storage_ref
    if not is_listing(ref):
        return []
    with opened.blobs.open_ref(ref) as stream:
        entry = next((entry for entry in read_listing(stream) if entry.path == LINEAGE), None)
    if entry is None:
        return []
    lines = opened.blobs.read_ref(payload_ref(ref, entry.sha256, entry.size)).splitlines()
    return list(map(json.loads, lines))


def _told(artifact: Artifact) -> dict[str, Any]:
    summary = artifact.summary or {}
    return {
        "artifactId": artifact.id,
        "runId": artifact.lineage.workflow_run_id,
        "node": artifact.lineage.node_id,
        "policy": summary.get("policy"),
        "versionSha256": summary.get("versionSha256"),
        "madeAt": artifact.created_at.isoformat(),
    }


def _line(opened: Opened, artifact: Artifact, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a package's lineage that is the episode; one with the same data before one with its id."""
    rows = episodes_of(opened, artifact)
    for key in ("content", "id"):
        for row in rows:
            if row[key] == wanted[key]:
                return row
    return None
