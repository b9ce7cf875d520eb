"""The changes that a request to `ef.cud` is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Create:
    """A new record.

    Args:
        collection: Where it goes.
        fields: Stored names to values. A field of the blob type takes a
            :class:`~emboflow_dagster.model.storage.BlobRef` or ``{"objectId", "version"}``. Ids, scope,
            author and times are filled in.
        ref: A name such as ``#1`` that stands for the new id in reference fields of the same request.
    """

    collection: str
    fields: Mapping[str, Any]
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Fields of a record that get other values; a blob that is replaced is let go."""

    collection: str
    id: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deactivate:
    """A record that is put out of use: archived, cancelled, rejected, disabled, withdrawn."""

    collection: str
    id: str


Change: TypeAlias = Create | Update | Deactivate
