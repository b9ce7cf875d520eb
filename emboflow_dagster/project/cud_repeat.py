"""A request to `ef.cud` that is repeated by somebody who does not know whether it was done.

What a request id stands for is a note written in the request's own transaction: both are there, or neither.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from emboflow_dagster.errors import ConflictError, ErrorKind, shown
from emboflow_dagster.model.base import Document
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.text import refuse
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.changes import Change
from emboflow_dagster.project.opened import Opened

MAX_ID_CHARS: Final = 200
#: Deeper than any free-form dict may be: what lies below is refused, not compared.
_DEEPEST: Final = 40


class Repeat:
    """What a request id stands for.

    Args:
        opened: The deployment and scope: ids of other projects are others.
        request_id: The caller's, 1 to 200 visible characters.
        changes: The request.

    Raises:
        InvalidInputError: The id is none.
    """

    def __init__(self, opened: Opened, request_id: str, changes: Sequence[Change]) -> None:
        if (
            type(request_id) is not str
            or not 0 < len(request_id) <= MAX_ID_CHARS
            or not request_id.isprintable()
        ):
            raise refuse(
                ErrorKind.ID,
                "request_id",
                f"found {shown(request_id)}; 1 to {MAX_ID_CHARS} visible characters",
            )
        self._opened = opened
        self._id = request_id
        self._digest = fingerprint(changes)
        self._name = f"{opened.scope.project_id}:{hashlib.sha256(request_id.encode()).hexdigest()[:32]}"

    def answer(self, session: Session) -> list[Document] | None:
        """The records of the request as they are now, when it was carried out before.

        Raises:
            ConflictError: Kind ``request-reused``: the id stands for another request.
        """
        note = marks.read(self._opened.mongo, Mark.REQUEST, self._name, session)
        if note is None:
            return None
        if note["digest"] != self._digest:
            raise ConflictError(
                f"request id {shown(self._id)} stands for another request, "
                f"made at {note['createdAt']:%Y-%m-%d %H:%M} UTC by {note['by']}",
                kind=ErrorKind.REQUEST_REUSED,
                hint="give each request an id of its own; nothing was written",
            )
        mongo, scope = self._opened.mongo, self._opened.scope
        found: list[Document] = []
        for collection, id_ in note["records"]:
            documents: Documents[Any] = Documents(mongo, scope, COLLECTIONS[collection].document)
            found.append(documents.get(id_, session=session))
        return found

    def remember(self, session: Session, records: Sequence[tuple[str, str]]) -> None:
        """Note, in the request's transaction, which records it wrote."""
        scope = self._opened.scope
        marks.write(
            self._opened.mongo,
            Mark.REQUEST,
            self._name,
            scope.workspace_id,
            session=session,
            requestId=self._id,
            digest=self._digest,
            records=[list(record) for record in records],
            by=scope.actor,
        )


def fingerprint(changes: Sequence[Change]) -> str:
    """The same for the same request, however its dicts are ordered."""
    rows = [
        [
            type(change).__name__,
            change.collection,
            getattr(change, "id", None),
            getattr(change, "ref", None),
            getattr(change, "fields", None),
        ]
        for change in changes
    ]
    text = json.dumps(_plain(rows, 0), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, depth: int) -> Any:
    """JSON for whatever a caller may have put there; what no document can hold is refused later."""
    if depth > _DEEPEST:
        return "deeper"
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Mapping):
        return {f"{type(key).__name__} {key}": _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Enum):
        return _plain(value.value, depth + 1)
    if value is None or isinstance(value, bool | str):
        return value
    # No mapping has such keys here, so that 1 is not "1", nor a date its text.
    return {
        "type": type(value).__name__,
        "value": value.isoformat() if isinstance(value, datetime) else repr(value),
    }
