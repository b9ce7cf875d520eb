"""What `emboflow verify` found, and the view of the database it looks through."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.model.collections import COLLECTIONS, Reach
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.object_storage.store import ObjectStore
from emboflow_dagster.project.opened import Opened

MAX_PROBLEMS = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise: where, and what was found instead."""

    code: str
    collection: str
    id: str
    field: str | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """The finding for ``--json``."""
        return {
            "code": self.code,
            "collection": self.collection,
            "id": self.id,
            "field": self.field,
            "message": self.message,
        }


@dataclass(slots=True)
class VerifyReport:
    """All findings, and how much was looked at: documents by collection, payloads, bytes."""

    problems: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    complete: bool = True
    """Every payload was read; ``False`` when a budget ended it before."""
    sound: set[str] | None = None
    """Names (``<object_id>.v<n>``) of the versions whose bytes were read and are right, where asked for."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def add(self, code: str, collection: str, id_: object, field_: str | None, message: str) -> None:
        """Note a finding."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Finding(code, collection, str(id_), field_, message))

    def to_json(self) -> dict[str, Any]:
        """``{"ok", "problems", "counts"}``, and ``"complete": false`` when payloads are left to read."""
        result: dict[str, Any] = {
            "ok": self.ok,
            "problems": [p.to_json() for p in self.problems],
            "counts": dict(sorted(self.counts.items())),
        }
        return result if self.complete else {**result, "complete": False}


class View:
    """The documents to verify: one workspace's, or all."""

    def __init__(self, opened: Opened, *, everything: bool) -> None:
        self.mongo: Mongo = opened.mongo
        self.store: ObjectStore = opened.store
        self.scope: Scope = opened.scope
        self.blobs: Blobs = opened.blobs
        self._store = opened.store
        self.workspace_id = opened.scope.workspace_id
        self.everything = everything
        self.invalid: set[tuple[str, str]] = set()
        """Collection and shown id of documents that do not pass their model: said once, then left aside."""
        self._parents: dict[str, list[str]] = {}

    def find(self, name: str, projection: dict[str, int] | None = None) -> Iterator[dict[str, Any]]:
        """The raw documents of a collection, in id order."""
        with translated():
            yield from self.mongo[name].find(self.limits(name), projection).sort("_id", 1)

    def sound(self, name: str, projection: dict[str, int] | None = None) -> Iterator[dict[str, Any]]:
        """As :meth:`find`, without the documents that were found invalid."""
        yield from (raw for raw in self.find(name, projection) if self.is_sound(name, raw))

    def is_sound(self, name: str, raw: dict[str, Any]) -> bool:
        """Whether a document was not found invalid."""
        return (name, repr(raw["_id"])) not in self.invalid

    def limits(self, name: str) -> dict[str, Any]:
        """The filter that keeps to what is verified."""
        row = COLLECTIONS[name]
        if self.everything:
            return {}
        if name in ("objects", "object_history"):
            return {"workspace_id": self.workspace_id}
        if name == "workspaces":
            return {"_id": self.workspace_id}
        if row.reach is Reach.PARENT and row.parent is not None:
            return {row.parent.field: {"$in": self._ids(row.parent.target)}}
        return {"workspaceId": self.workspace_id} if "workspaceId" in row.fields else {}

    def exists(self, name: str, ids: set[str], workspace_id: str | None) -> set[str]:
        """Which of ``ids`` are documents of a collection, in that workspace when it is known."""
        filter_: dict[str, Any] = {"_id": {"$in": sorted(ids)}}
        if workspace_id is not None:
            filter_ |= _inside(name, workspace_id)
        with translated():
            return {row["_id"] for row in self.mongo[name].find(filter_, {"_id": 1})}

    def has_payload(self, key: str) -> bool:
        """Whether the object store has something under a key."""
        return self._store.exists(key)

    def _ids(self, name: str) -> list[str]:
        if name not in self._parents:
            with translated():
                rows = self.mongo[name].find(self.limits(name), {"_id": 1})
                self._parents[name] = [row["_id"] for row in rows]
        return self._parents[name]


def _inside(name: str, workspace_id: str) -> dict[str, Any]:
    """What keeps to one workspace, where the documents of a collection say which one is theirs."""
    fields = COLLECTIONS[name].fields
    if name == "plugins":  # the platform's own belong to nobody
        return {"workspaceId": {"$in": [workspace_id, None]}}
    if "workspace_id" in fields:
        return {"workspace_id": workspace_id}
    return {"workspaceId": workspace_id} if "workspaceId" in fields else {}
