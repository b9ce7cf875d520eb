"""What keeps a payload: the kinds of edges, and where in the documents references stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.storage import StorageRef


class EdgeKind(StrEnum):
    """Why something is kept; the first that applies is counted."""

    VERSION = "version"  #: a version that nobody let go
    OWNER = "owner"  #: owned by a record
    RECORD = "record"  #: referred to by a record
    LISTING = "listing"  #: named inside of a folder's listing or a dataset's manifest
    HOLD = "hold"  #: legal hold
    RETENTION = "retention"  #: a retention rule that is not over
    RUN = "run"  #: made by a run that is not over, or used by one
    TASK = "task"  #: an output of a task
    CACHE = "cache"  #: what a cache key stands for
    DATASET = "dataset"  #: used by a dataset version
    TEMPORARY = "temporary"  #: temporary, not expired yet
    GRACE = "grace"  #: let go, but the grace is not over
    PENDING = "pending"  #: a writer is about to refer to it
    YOUNG = "young"  #: put lately
    SHARED = "shared"  #: the same bytes as something that is kept
    DOCUMENT = "document"  #: the bytes are part of a document, which is never changed


@dataclass(frozen=True, slots=True)
class Edge:
    """One thing that keeps a version: what it is, in words, and which document says so."""

    kind: EdgeKind
    text: str
    collection: str | None = None
    id: str | None = None
    field: str | None = None
    until: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """The edge for ``--json``."""
        return {
            "kind": self.kind.value,
            "text": self.text,
            "collection": self.collection,
            "id": self.id,
            "field": self.field,
            "until": self.until.isoformat() if self.until else None,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reference stands: a collection, the path to it, and the field at the top of that path."""

    collection: str
    path: str
    field: str


_BLOBS: Final = ("objects", "object_history")


def _places() -> Iterator[Place]:
    for row in COLLECTIONS.values():
        if row.name in _BLOBS:
            continue
        typed = set(_refs(row.document))
        for path in sorted(typed):
            yield Place(row.name, path, path.split(".", 1)[0])
        # A field of the blob type that is free-form is the reference, or holds it under `ref`.
        for field in row.blobs:
            if field not in typed:
                yield Place(row.name, field, field)
                yield Place(row.name, f"{field}.ref", field)


def _refs(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The stored paths of every field that holds a reference, also in documents inside."""
    for name, info in model.model_fields.items():
        stored = prefix + (info.serialization_alias or info.alias or name)
        for inner in _models(info.annotation):
            if issubclass(inner, StorageRef):
                yield stored
            else:
                yield from _refs(inner, f"{stored}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, list, tuple, dict) or hasattr(
        annotation, "__metadata__"
    ):
        for inner in get_args(annotation):
            yield from _models(inner)


#: Every place of every record where a payload can be referred to.
PLACES: Final = tuple(_places())
