"""A version as Flowcept writes it, and as we do; both ways, losing nothing that can be kept."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from emboflow_dagster.blobs.flowcept_report import Code
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.base import check_datetime, utc_now
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.text import check_object_id
from emboflow_dagster.mongo.flowcept import as_json, from_json

Say = Callable[[Code, str], None]
#: Keys of `custom_metadata` that hold what has no place of its own here.
AS_JSON: Final = "flowcept_json"
WAS_ID: Final = "flowcept_object_id"
LOST: Final = "flowcept_lost"
PICKLE: Final = "pickle"
_MAX_TYPE: Final = 64
_MAX_CLEAN: Final = 80
_KNOWN: Final = frozenset(
    {
        "_id",
        "object_id",
        "version",
        "prev_version",
        "type",
        "object_type",
        "task_id",
        "workflow_id",
        "custom_metadata",
        "tags",
        "created_at",
        "created_by",
        "updated_at",
        "updated_by",
        "object_size_bytes",
        "data_sha256",
        "data_hash_algo",
        "data",
        "grid_fs_file_id",
        "pickle",
        "source",  # "objects_snapshot", in every row of the history
    }
)


def id_here(object_id: str, prefix: str) -> str:
    """The id of a Flowcept object here: its own where it is allowed, else one made from it for ever."""
    try:
        return check_object_id(prefix + object_id)
    except InvalidInputError:
        clean = re.sub(r"[^A-Za-z0-9]+", "-", object_id).strip("-")[:_MAX_CLEAN] or "object"
        return check_object_id(f"{prefix}{clean}-{hashlib.sha256(object_id.encode()).hexdigest()[:12]}")


def request_of(row: dict[str, Any], object_id: str, version: int) -> str:
    """What makes a repeated import make no second version: the row's own marks, not where it was read."""
    marks = [object_id, version, *(str(row.get(k)) for k in ("created_at", "updated_at", "data_sha256"))]
    return "flowcept-" + hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:40]


def fields_of(row: dict[str, Any], object_id: str, say: Say) -> dict[str, Any]:
    """The metadata of a Flowcept row under our names; both spellings of the type, times as dates.

    Args:
        row: The document; its payload is not looked at.
        object_id: Its id in Flowcept.
        say: Told what had to be changed.
    """
    others = sorted(str(name) for name in row if name not in _KNOWN)
    if others:
        say(Code.FIELD_IGNORED, f"fields that no blob has: {', '.join(others)}")
    created = _moment(row.get("created_at"), None) or _moment(row.get("updated_at"), None)
    if created is None:
        say(Code.TIME_REPLACED, f"created_at is {row.get('created_at')!r}")
    created = created or utc_now()
    updated = _moment(row.get("updated_at"), created)
    creator = _text(row.get("created_by")) or "flowcept"
    return {
        "type": _type(row, say),
        "task_id": _text(row.get("task_id")),
        "workflow_id": _text(row.get("workflow_id")),
        "custom_metadata": _metadata(row.get("custom_metadata"), object_id, say),
        "tags": _tags(row.get("tags")),
        "created_at": created,
        "created_by": creator,
        "updated_at": updated,
        "updated_by": _text(row.get("updated_by")) or creator,
        "serializer": PICKLE if row.get("pickle") else None,
    }


def _type(row: dict[str, Any], say: Say) -> str:
    kind = row.get("type") if row.get("type") is not None else row.get("object_type")
    if isinstance(kind, str) and 0 < len(kind) <= _MAX_TYPE:
        return kind
    if kind is not None:
        say(Code.TYPE_REPLACED, f"the type is {str(kind)[:80]!r}; now 'artifact'")
    return "artifact"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _tags(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(tag) for tag in value] if isinstance(value, list) else [str(value)]


def _moment(value: Any, otherwise: datetime | None) -> Any:
    """A time from an epoch number (seconds) or a date."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value, UTC)
        return check_datetime(value)
    except (InvalidInputError, OverflowError, OSError, ValueError):
        return otherwise


def _metadata(value: Any, object_id: str, say: Say) -> dict[str, Any]:
    named = {} if _allowed(object_id) else {WAS_ID: object_id}
    if value is None:
        return named
    try:
        return check_freeform({**value, **named})
    except (InvalidInputError, TypeError) as error:
        text = {AS_JSON: as_json(value), **named}
        try:
            check_freeform(text)
        except InvalidInputError:
            say(Code.METADATA_DROPPED, f"custom_metadata is not allowed here and too large for text: {error}")
            return named
        say(Code.METADATA_AS_TEXT, f"custom_metadata is kept as text: {str(error)[:200]}")
        return text


def _allowed(object_id: str) -> bool:
    try:
        check_object_id(object_id)
    except InvalidInputError:
        return False
    return True


def flowcept_id(blob: BlobObject) -> str:
    """The id that a blob has, or had, in Flowcept."""
    return str(blob.custom_metadata.get(WAS_ID, blob.object_id))


def row_of(blob: BlobObject, *, head: bool) -> dict[str, Any]:
    """A version's document in Flowcept's shape, its payload still to be added.

    Heads leave out what is ``None``, rows of the history do not: as Flowcept writes them.
    """
    metadata: Any = {k: v for k, v in blob.custom_metadata.items() if k not in {WAS_ID, LOST, AS_JSON}}
    if AS_JSON in blob.custom_metadata:
        metadata = from_json(blob.custom_metadata[AS_JSON])
    row: dict[str, Any] = {
        "object_id": flowcept_id(blob),
        "version": blob.version,
        "prev_version": blob.prev_version,
        "created_at": blob.created_at.timestamp(),
        "created_by": blob.created_by,
        "updated_at": blob.updated_at.timestamp(),
        "updated_by": blob.updated_by,
        "task_id": blob.task_id,
        "workflow_id": blob.workflow_id,
        "object_type": blob.type,
        "custom_metadata": metadata or None,
        "tags": blob.tags or None,
        "object_size_bytes": blob.object_size_bytes,
        "data_sha256": blob.data_sha256,
        "data_hash_algo": blob.data_hash_algo,
    }
    if blob.serializer == PICKLE:
        row["pickle"] = True
    if head:
        return {name: value for name, value in row.items() if value is not None or name == "prev_version"}
    return {**row, "source": "objects_snapshot"}
