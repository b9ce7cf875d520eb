"""A version whose bytes were collected: the note that says when, why and by whom (C-14).

The note is written before the bytes go, in one transaction with the removal of the note that let the version
go. Who takes the version up again removes that note too: one of the two comes first, and the other sees it.
"""

from typing import Any

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark


def collected_names(mongo: Mongo, workspace_id: str | None = None) -> set[str]:
    """The versions (`<object_id>.v<n>`) whose bytes were collected, of one workspace or of all."""
    limits = {} if workspace_id is None else {"workspaceId": workspace_id}
    with translated():
        rows = mongo[META].find({**of_kind(Mark.TOMBSTONE), **limits}, {"name": 1})
        return {row["name"] for row in rows}


def of_kind(kind: Mark, prefix: str = "") -> dict[str, dict[str, str]]:
    """The filter for the notes of a kind whose names begin with ``prefix``; answered by the index of ids."""
    start = f"{kind.value}:{prefix}"
    return {"_id": {"$gte": start, "$lt": start[:-1] + chr(ord(start[-1]) + 1)}}


def is_collected(mongo: Mongo, names: list[str]) -> set[str]:
    """Which of some versions were collected."""
    ids = [f"{Mark.TOMBSTONE.value}:{name}" for name in names]
    with translated():
        return {row["name"] for row in mongo[META].find({"_id": {"$in": ids}}, {"name": 1})}


def bury(mongo: Mongo, payloads: dict[str, list[dict[str, Any]]], by: str) -> set[str]:
    """Say that the bytes of versions are gone, unless somebody took one up meanwhile.

    Args:
        mongo: The open database.
        payloads: Keys to the versions they have, each with ``name``, ``object_id``, ``workspace_id``,
            ``sha256`` and ``size``.
        by: Who collects.

    Returns:
        The keys of which every version has its tombstone now.
    """
    versions = [version for found in payloads.values() for version in found]
    if not versions:
        return set(payloads)

    def body(session: Session) -> set[str]:
        kinds = (Mark.RELEASE, Mark.TOMBSTONE)
        ids = {f"{kind.value}:{version['name']}" for kind in kinds for version in versions}
        ids |= {f"{Mark.HOLD.value}:{version['object_id']}" for version in versions}
        notes = {row["_id"]: row for row in mongo[META].find({"_id": {"$in": sorted(ids)}}, session=session)}

        def may_go(version: dict[str, Any]) -> bool:
            held = notes.get(f"{Mark.HOLD.value}:{version['object_id']}", {}).get("hold")
            return not held and any(f"{kind.value}:{version['name']}" in notes for kind in kinds)

        fine = {key for key, found in payloads.items() if all(may_go(version) for version in found)}
        fresh = {
            version["name"]: version
            for key in sorted(fine)
            for version in payloads[key]
            if f"{Mark.RELEASE.value}:{version['name']}" in notes
        }
        if fresh:
            releases = {name: notes[f"{Mark.RELEASE.value}:{name}"] for name in fresh}
            gone = [r["_id"] for r in releases.values()]
            gone += [
                f"{Mark.QUARANTINE.value}:{name}" for name in fresh
            ]  # damage that nobody will read again
            mongo[META].delete_many({"_id": {"$in": gone}}, session=session)
            mongo[META].insert_many(
                [_tombstone(version, releases[name], by) for name, version in fresh.items()], session=session
            )
        return fine

    return mongo.in_transaction(body)


def _tombstone(version: dict[str, Any], release: Raw, by: str) -> Raw:
    return {
        "_id": f"{Mark.TOMBSTONE.value}:{version['name']}",
        "kind": Mark.TOMBSTONE.value,
        "name": version["name"],
        "workspaceId": version["workspace_id"],
        "createdAt": utc_now(),
        "why": release.get("reason") or "released by its owner",
        "by": by,
        "releasedAt": release["releasedAt"],
        "releasedBy": release.get("releasedBy"),
        "rule": release.get("rule"),
        "sha256": version.get("sha256"),
        "size": version.get("size"),
    }
