"""Who owns a version of a blob, who is meant to, or who let it go."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from emboflow_dagster.errors import ObjectNotFoundError
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import BlobRef
from emboflow_dagster.mongo import marks, objects, ownership
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.mongo.marks import Mark, name_of


class OwnerStatus(StrEnum):
    """How a version of a blob stands to records."""

    OWNED = "owned"  #: a record's
    INTENDED = "intended"  #: for a record and field that its upload named; none has claimed it
    LET_GO = "let_go"  #: nobody's any more; collected after the grace, unless it is claimed again
    FREE = "free"  #: nobody's yet


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a version belongs to; ``record``, ``record_id``, ``field``: whose it is, or was until ``since``."""

    object_id: str
    version: int
    newest: bool
    status: OwnerStatus
    record: str | None = None
    record_id: str | None = None
    field: str | None = None
    name: str | None = None
    """What people call the record; only of one of this project."""
    since: datetime | None = None
    by: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "objectId": self.object_id,
            "version": self.version,
            "newest": self.newest,
            "status": self.status.value,
            "collection": self.record,
            "id": self.record_id,
            "field": self.field,
            "name": self.name,
            "since": self.since and self.since.isoformat(),
            "by": self.by,
            "reason": self.reason,
        }


def owner_of(mongo: Mongo, scope: Scope, object_id: str, version: int | None) -> Owner:
    """See :meth:`Owning.owner`."""
    if version is None:
        version = objects.head(mongo, scope.workspace_id, object_id).version
    ref = BlobRef(object_id=object_id, version=version)
    found = ownership.versions(mongo, scope, None, [ref]).get(ref)
    if found is None:
        raise ObjectNotFoundError(f"Object not found for object_id={object_id}, version={version}.")
    blob, where = found.blob, (object_id, version, found.newest)
    note = marks.read(mongo, Mark.RELEASE, name_of(object_id, version))
    if note is not None:
        record, record_id = note.get("record"), note.get("recordId")
        return Owner(
            *where,
            OwnerStatus.LET_GO,
            record,
            record_id,
            note.get("field"),
            _name(mongo, scope, record, record_id),
            note.get("releasedAt"),
            note.get("releasedBy"),
            note.get("reason"),
        )
    if blob.owner_record is None:
        return Owner(*where, OwnerStatus.FREE)
    named = (blob.owner_record, blob.owner_record_id, blob.owner_record_field)
    if blob.owner_record_id is None:
        return Owner(*where, OwnerStatus.INTENDED, *named)
    return Owner(
        *where, OwnerStatus.OWNED, *named, _name(mongo, scope, blob.owner_record, blob.owner_record_id)
    )


def _name(mongo: Mongo, scope: Scope, record: str | None, record_id: str | None) -> str | None:
    row = COLLECTIONS.get(record or "")
    limits = scope.filter(row) if row is not None else {}
    if record is None or not limits:
        return None
    with translated():
        found = mongo[record].find_one({"_id": record_id, **limits}, {"displayName": 1, "name": 1})
    name = (found or {}).get("displayName") or (found or {}).get("name")
    return None if name is None else str(name)
