"""Payloads of episodes that were forgotten (decision 26), as who reads or verifies meets them."""

from collections.abc import Iterator
from typing import Final

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark

_SHOWN: Final = 3


def tombstones(mongo: Mongo, workspace_id: str | None, project_id: str = "") -> Iterator[Raw]:
    """What was forgotten, in a workspace or (``None``) everywhere."""
    prefix = f"{project_id}:" if project_id else ""
    yield from marks.every(mongo, Mark.FORGOTTEN, prefix, workspace_id)


def rules(mongo: Mongo, workspace_id: str, project_id: str, session: Session | None = None) -> Iterator[Raw]:
    """The tombstones of a project without their lists: what is forgotten, by whom and why."""
    lists: dict[str, int] = dict.fromkeys(
        (
            "payloads",
            "versions",
            "artifacts",
            "annotations",
            "cache",
            "oldManifests",
            "tasks",
            "logs",
            "kept",
        ),
        0,
    )
    prefix = f"{project_id}:"
    yield from marks.every(mongo, Mark.FORGOTTEN, prefix, workspace_id, session=session, leave_out=lists)


def reinstated(mongo: Mongo, project_id: str, session: Session | None = None) -> dict[str, Raw]:
    """What may be made again in a project, by the name of its tombstone: who allowed it, and why."""
    found = marks.every(mongo, Mark.REINSTATED, f"{project_id}:", session=session)
    return {note["name"]: note for note in found}


def forgotten_payloads(mongo: Mongo, workspace_id: str | None) -> set[str]:
    """The sha256 of every payload that was destroyed with an episode, or is about to be."""
    with translated():
        return {
            payload["sha256"]
            for note in tombstones(mongo, workspace_id)
            for payload in note["payloads"]
            if not payload.get("keptBy")
        }


def is_forgotten(mongo: Mongo, workspace_id: str, sha256: str) -> bool:
    """Whether a payload was destroyed with an episode."""
    return _tombstone_of(mongo, workspace_id, sha256) is not None


def refuse(mongo: Mongo, workspace_id: str, sha256: str) -> None:
    """Raise when a payload was destroyed with an episode.

    Raises:
        IntegrityError: Kind `episode-forgotten`; who forgot what, when and why.
    """
    note = _tombstone_of(mongo, workspace_id, sha256)
    if note is not None:
        raise IntegrityError(told(note), kind=ErrorKind.EPISODE_FORGOTTEN)


def _tombstone_of(mongo: Mongo, workspace_id: str, sha256: str) -> Raw | None:
    ids = {"$gte": f"{Mark.FORGOTTEN.value}:", "$lt": f"{Mark.FORGOTTEN.value};"}
    with translated():
        return mongo[META].find_one(
            {"_id": ids, "workspaceId": workspace_id, "payloads.sha256": sha256}, sort=[("_id", 1)]
        )


def told(note: Raw) -> str:
    """One line on what was forgotten."""
    names = [str(episode["id"]) for episode in note["episodes"]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"episode {', '.join(names[:_SHOWN])}{more}: forgotten by {note['by']} on "
        f"{note['createdAt']:%Y-%m-%d %H:%M} UTC ({note['reason']}); its bytes were destroyed"
    )
