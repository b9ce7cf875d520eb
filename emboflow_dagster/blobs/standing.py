"""What became of versions since they were put: let go, collected, or set aside because they are damaged."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from emboflow_dagster.blobs.quarantine import described
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo.client import Mongo, Raw, translated
from emboflow_dagster.mongo.marks import Mark, name_of


class State(StrEnum):
    """What can have become of a version."""

    LET_GO = "let go"  #: readable until it is collected
    COLLECTED = "collected"  #: its bytes are gone, its metadata stay
    DAMAGED = "damaged"  #: in quarantine: not read until it is repaired


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a version that is not simply there, since when, by whom and why."""

    state: State
    since: datetime
    by: str | None
    why: str


#: In the order in which they are told: what is collected was let go before.
_MARKS: Final = (
    (Mark.TOMBSTONE, State.COLLECTED),
    (Mark.QUARANTINE, State.DAMAGED),
    (Mark.RELEASE, State.LET_GO),
)


def standing(mongo: Mongo, workspace_id: str, object_id: str, versions: Iterable[int]) -> dict[int, Standing]:
    """Version to what became of it; those that are simply there are left out. One command."""
    names = {name_of(object_id, version): version for version in versions}
    ids = [f"{mark.value}:{name}" for mark, _ in _MARKS for name in names]
    with translated():
        notes = {
            row["_id"]: row for row in mongo[META].find({"_id": {"$in": ids}, "workspaceId": workspace_id})
        }
    result: dict[int, Standing] = {}
    for name, version in names.items():
        for mark, state in _MARKS:
            if (note := notes.get(f"{mark.value}:{name}")) is not None:
                result[version] = _told(state, note)
                break
    return result


def _told(state: State, note: Raw) -> Standing:
    if state is State.COLLECTED:
        return Standing(state, note["createdAt"], note.get("by"), note["why"])
    if state is State.DAMAGED:
        return Standing(state, note["seenAt"], note.get("seenBy"), described(note))
    why = note.get("reason") or f"released by {note.get('record')}.{note.get('recordId')}"
    return Standing(state, note["releasedAt"], note.get("releasedBy"), why)
