"""What `emboflow verify` found, and the view of the database it looks through."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.model.collections import COLLECTIONS, Reach
from emboflow_dagster.mongo.client import Mongo, translated
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

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def add(self, code: str, collection: str, id_: object, field_: str | None, message: str) -> None:
        """Note a finding."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Finding(code, collection, str(id_), field_, message))

    def to_json(self) -> dict[str, Any]:
        """``{"ok", "problems", "counts"}``."""
        return {
            "ok": self.ok,
            "problems": [p.to_json() for p in self.problems],
            "counts": dict(sorted(self.counts.items())),
        }


class View:
    """The documents to verify: one workspace's, or all."""

    def __init__(self, opened: Opened, *, everything: bool) -> None:
        self.mongo: Mongo = opened.mongo
        self.blobs: Blobs = opened.blobs
        self.workspace_id = opened.scope.workspace_id
        self.everything = everything
        self._parents: dict[str, list[str]] = {}

    def find(self, name: str, projection: dict[str, int] | None = None) -> Iterator[dict[str, Any]]:
        """The raw documents of a collection, in id order."""
        with translated():
            yield from self.mongo[name].find(self.limits(name), projection).sort("_id", 1)

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

    def exists(self, name: str, ids: set[str]) -> set[str]:
        """Which of ``ids`` are documents of a collection of what is verified."""
        field_ = {"_id": 1}
        with translated():
            return {
                row["_id"]
                for row in self.mongo[name].find({"_id": {"$in": sorted(ids)}, **self._space(name)}, field_)
            }

    def _space(self, name: str) -> dict[str, Any]:
        row = COLLECTIONS[name]
        return self.limits(name) if row.reach is not Reach.PARENT else {}

    def _ids(self, name: str) -> list[str]:
        if name not in self._parents:
            with translated():
                rows = self.mongo[name].find(self.limits(name), {"_id": 1})
                self._parents[name] = [row["_id"] for row in rows]
        return self._parents[name]
