"""What is kept of an episode that was forgotten: the note that says what went with it, and its hash."""

import hashlib
import json
from datetime import datetime
from typing import Any, Final

from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.project.forget.survey import Survey


def digest_of(note: Raw) -> str:
    """The hash of all that a tombstone says but itself; the audit log has it.

    Not by `runtime.digest.canonical_json`, which spells text and whole floats in another way: hashes that
    stand in audit logs must come out again for ever.
    """
    names = ("asked", "reason", "by", "episodes", "versions", "artifacts", "annotations", "payloads")
    # Tombstones of before said less; their hashes stand in audit logs.
    names += tuple(name for name in ("tasks", "logs", "sources", "kept") if "kept" in note)
    said = {name: note[name] for name in names}
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
        "wholeAnnotations": found.whole,
        "sources": found.sources,
        "cache": found.cache,
        "tasks": found.tasks,
        "logs": found.logs,
        "dagsterRuns": found.dagster_runs,
        "copies": found.copies,
        "payloads": [{"sha256": sha, "size": size} for sha, size in sorted(found.payloads.items())],
        "oldManifests": [{"sha256": sha} for sha in found.old_manifests],
    }


def kept_of(note: Raw) -> list[dict[str, Any]]:
    """What is left that tells of the episodes, each with the reason; the tombstone says it.

    Args:
        note: As it is about to stay.
    """
    kept: list[dict[str, Any]] = [
        {"what": "pages and manifests of the versions", "count": len(note["versions"]), "why": _PAGES},
        {"what": "the audit log and this tombstone", "count": None, "why": _AUDIT},
    ]
    stays = [row for row in note["sources"] if not note["asked"]["withSource"]]
    kept += [
        {"what": f"recording {row['name']}", "id": row["id"], "sha256": row.get("sha256"), "why": _why(row)}
        for row in stays
    ]
    if note["sources"]:
        kept.append({"what": "probe reports", "count": None, "why": _REPORTS})
    whole = note.get("wholeAnnotations") or []
    if whole:
        kept.append({"what": "annotations of whole versions", "ids": whole, "why": _WHOLE})
    inside = [row for row in (*note.get("artifacts", ()), *note.get("annotations", ())) if row.get("sha256")]
    if inside:
        kept.append({"what": "MongoDB's oplog and files", "count": None, "why": _OPLOG})
    shared = [row["sha256"] for row in note["payloads"] if row.get("keptBy")]
    if shared:
        kept.append({"what": "payloads", "sha256": shared, "why": "something else in the store names them"})
    for row in note.get("copies", ()):
        name = f"blob {row['objectId']}, version {row['version']}"
        kept.append({"what": name, "sha256": row["sha256"], "why": _BY_HAND})
    runs = note.get("dagsterRuns", [])
    if runs:
        kept.append({"what": "runs in Dagster's storage", "ids": runs, "why": _DAGSTER})
    return kept


def _why(row: dict[str, Any]) -> str:
    if row["inPlace"]:
        return "registered in place: its file is not the store's; delete it yourself"
    return _ASK if row["alone"] else f"other episodes come from it; {_UNUSED}"


_UNUSED: Final = "no node is given the episode"
_ASK: Final = f"--with-source was not asked for; {_UNUSED}"
_PAGES: Final = "they prove what was there: labels, statistics and hashes of each episode, no frame of it"
_AUDIT: Final = "who, when, why, ids, hashes and comments, in one chain; without it nothing is proved"
_REPORTS: Final = "they say what is in a recording: names, counts, times, no frames"
_WHOLE: Final = (
    "they name no episode, and are stale at the successor; `emboflow annotation reject` where one is about it"
)
_OPLOG: Final = (
    "documents are emptied, but the server keeps what it overwrote until it needs the room: the oplog rolls "
    "over, `compact` writes a collection anew"
)
_BY_HAND: Final = "somebody put the same bytes as a blob of their own: `emboflow blob retain`, then `gc`"
_DAGSTER: Final = (
    "their pages show pictures and numbers, and Dagster alone writes there: the sensor `..__forgotten_runs` "
    "deletes each once it is over, with its logs; where no daemon runs, `dagster run delete ID`"
)


def told_of(entry: dict[str, Any], fps: float) -> dict[str, Any]:
    """An episode as it is kept: what it was, and the hashes of all its bytes.

    ``seconds`` are from its first frame to where the last one ends; frames end half-way.
    """
    said = {name: entry[name] for name in ("episode", "id", "content", "length", "source", "t0Ns")}
    said["seconds"] = round((entry["length"] - 0.5) / fps, 9)
    files = {kind: {"sha256": f["sha256"], "size": f["size"]} for kind, f in entry["files"].items()}
    return {**said, "files": [{"kind": kind, **file} for kind, file in sorted(files.items())]}
