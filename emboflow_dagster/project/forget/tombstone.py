"""What is kept of an episode that was forgotten: the note that says what went with it, and its hash."""

import hashlib
import json
from datetime import datetime
from typing import Any

from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.project.forget.survey import Survey


def digest_of(note: Raw) -> str:
    """The hash of all that a tombstone says but itself; the audit log has it.

    Not by `runtime.digest.canonical_json`, which spells text and whole floats in another way: hashes that
    stand in audit logs must come out again for ever.
    """
    said = {
        name: note[name]
        for name in ("asked", "reason", "by", "episodes", "versions", "artifacts", "annotations", "payloads")
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def shown(note: Raw, reinstated: Raw | None = None) -> dict[str, Any]:
    """A tombstone as people and programs get it; ``reinstated`` says who let it be made again."""
    left_out = ("_id", "kind", "name", "workspaceId", "match", "oldManifests")
    said = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in note.items()
        if name not in left_out
    }
    if reinstated is not None:
        said["reinstated"] = {
            "by": reinstated["by"],
            "reason": reinstated["reason"],
            "at": reinstated["createdAt"].isoformat(),
        }
    return {"id": note["name"].rpartition(":")[2], **said}


def lists(found: Survey) -> dict[str, Any]:
    """What was found, as it is kept."""
    return {
        "versions": found.versions,
        "artifacts": found.artifacts,
        "annotations": found.annotations,
        "sources": found.sources,
        "cache": found.cache,
        "payloads": [{"sha256": sha, "size": size} for sha, size in sorted(found.payloads.items())],
        "oldManifests": [{"sha256": sha} for sha in found.old_manifests],
    }


def told_of(entry: dict[str, Any], fps: float) -> dict[str, Any]:
    """An episode as it is kept: what it was, and the hashes of all its bytes.

    ``seconds`` are from its first frame to where the last one ends; frames end half-way.
    """
    said = {name: entry[name] for name in ("episode", "id", "content", "length", "source", "t0Ns")}
    said["seconds"] = round((entry["length"] - 0.5) / fps, 9)
    files = {kind: {"sha256": f["sha256"], "size": f["size"]} for kind, f in entry["files"].items()}
    return {**said, "files": [{"kind": kind, **file} for kind, file in sorted(files.items())]}
