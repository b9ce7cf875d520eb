"""A collection as one scope sees it: the scope is in every filter and every document.

There is no unscoped call. Documents that carry no workspace of their own (tasks, probe reports) are as
visible as the run or asset they belong to.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from pymongo import ASCENDING, DESCENDING, ReturnDocument

from emboflow_dagster.errors import (
    ErrorKind,
    ForbiddenError,
    ImmutableError,
    NotFoundError,
    TransitionError,
    shown,
)
from emboflow_dagster.model.base import Document
from emboflow_dagster.model.collections import COLLECTIONS, Reach
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, Raw, Session, find_one_and_update, translated

D = TypeVar("D", bound=Document)
NEWEST = (("createdAt", DESCENDING), ("_id", DESCENDING))
OLDEST = (("createdAt", ASCENDING), ("_id", ASCENDING))
BY_TICK = (("triggeredBy", DESCENDING), *NEWEST)
# What people call a document, where its collection's name does not say it.
_WORDS = {
    "workflow_runs": "run",
    "run_tasks": "task",
    "workflow_definitions": "workflow",
    "workflow_definition_versions": "workflow version",
    "asset_probe_reports": "probe report",
}
# Where people find the id of what has no name.
_LISTED = {"workflow_runs": "run", "artifacts": "artifact", "annotation_tasks": "annotation"}


class Documents(Generic[D]):
    """The documents of one type that ``scope`` may see."""

    def __init__(self, mongo: Mongo, scope: Scope, document: type[D]) -> None:
        self.mongo = mongo
        self.scope = scope
        self.document = document
        self.row = COLLECTIONS[document.collection]
        self.raw = mongo[document.collection]

    def find_one(self, filter_: Mapping[str, Any], *, session: Session | None = None) -> D | None:
        """The first match in scope, or ``None``."""
        with translated():
            raw = self.raw.find_one(self._scoped(filter_), session=session)
        if raw is None or not self._parent_visible([raw], session):
            return None
        return self.document.from_mongo(raw)

    def get(self, document_id: str, *, session: Session | None = None) -> D:
        """The document with that id.

        Raises:
            NotFoundError: There is none in this scope; one elsewhere is not told from none.
        """
        found = self.find_one({"_id": document_id}, session=session)
        if found is None:
            raise self.not_found(document_id)
        return found

    def find(
        self,
        filter_: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] = NEWEST,
        limit: int = 100,
        session: Session | None = None,
    ) -> list[D]:
        """Up to ``limit`` matches in scope, newest first unless told otherwise."""
        if (filter_ or {}).get("_id") == {"$in": []}:  # of nothing: the server need not be asked
            return []
        with translated():
            cursor = self.raw.find(self._scoped(filter_ or {}), session=session).sort(list(sort))
            rows = list(cursor.limit(limit) if limit else cursor)
        if not self._parent_visible(rows, session):
            return []
        return [self.document.from_mongo(row) for row in rows]

    def count(self, filter_: Mapping[str, Any] | None = None) -> int:
        """How many match in scope."""
        with translated():
            return self.raw.count_documents(self._scoped(filter_ or {}))

    def insert(self, *documents: D, session: Session | None = None) -> None:
        """Store new documents.

        Raises:
            ForbiddenError: A document names another workspace or project.
            AlreadyExistsError: A unique key is taken.
        """
        rows = [document.to_mongo() for document in documents]
        for row in rows:
            self._own(row)
        if rows:
            with translated():
                self.raw.insert_many(rows, ordered=True, session=session)

    def change(
        self,
        document_id: str,
        changes: Mapping[str, Any],
        *,
        expected: Mapping[str, Any] | None = None,
        server_time: Sequence[str] = (),
        session: Session | None = None,
    ) -> D:
        """Set fields of one document that is as ``expected``; all or nothing.

        Args:
            document_id: Which one.
            changes: Stored field names to new values.
            expected: Stored field names to the values (or operators) the document must have.
            server_time: Fields that become now, on the server's clock.
            session: The transaction this belongs to.

        Raises:
            ImmutableError: ``changes`` names a field that never changes.
            TransitionError: The document is not as expected; nothing was changed.
            NotFoundError: There is none in this scope.
        """
        self._refuse_frozen(changes)
        with translated():
            raw = find_one_and_update(
                self.raw,
                self._scoped({"_id": document_id, **(expected or {})}),
                _update(changes, server_time),
                return_document=ReturnDocument.AFTER,
                session=session,
            )
        if raw is not None:
            return self.document.from_mongo(raw)
        with translated():
            found = self.raw.find_one(self._scoped({"_id": document_id}), session=session)
        if found is None:
            raise self.not_found(document_id)
        wanted = ", ".join(f"{k}={v!r}" for k, v in (expected or {}).items())
        have = ", ".join(f"{k}={found.get(k)!r}" for k in (expected or {}))
        raise TransitionError(
            f"{self.row.name} {document_id}: expected {wanted}, found {have}; nothing was changed"
        )

    def scoped(self, filter_: Mapping[str, Any]) -> Raw:
        """``filter_`` limited to the scope: for reads of :attr:`raw` that want less than whole documents."""
        return self._scoped(filter_)

    def _scoped(self, filter_: Mapping[str, Any]) -> Raw:
        limits = self.scope.filter(self.row)
        if not limits:
            return dict(filter_)
        return {"$and": [limits, dict(filter_)]} if limits.keys() & filter_.keys() else {**filter_, **limits}

    def _own(self, row: Raw) -> None:
        for field, value in self.scope.filter(self.row).items():
            if row.get(field) != value:
                raise ForbiddenError(
                    f"{self.row.name} {row.get('_id')}: {field} is {shown(row.get(field))}, "
                    f"outside of this scope ({value})"
                )

    def _parent_visible(self, rows: Sequence[Raw], session: Session | None) -> bool:
        parent = self.row.parent
        if parent is None or self.row.reach is not Reach.PARENT or not rows:
            return True
        ids = sorted({row[parent.field] for row in rows})
        limits = self.scope.filter(COLLECTIONS[parent.target])
        with translated():
            seen = self.mongo[parent.target].count_documents({"_id": {"$in": ids}, **limits}, session=session)
        return seen == len(ids)

    def _refuse_frozen(self, changes: Mapping[str, Any]) -> None:
        frozen = self.row.immutable
        named = set(changes) if "*" in frozen else frozen.intersection(k.split(".")[0] for k in changes)
        if self.row.name == "dataset_versions":  # the one field of a version that moves (C-13)
            named = named - {"status"}
        if named:
            raise ImmutableError(
                f"{self.row.name}: {', '.join(sorted(named))} never change once written",
                kind=ErrorKind.IMMUTABLE if "*" in frozen else ErrorKind.IMMUTABLE_FIELD,
            )

    def not_found(self, document_id: str) -> NotFoundError:
        """What to raise for a document that is not there, or elsewhere."""
        word = _WORDS.get(self.row.name, self.row.name.removesuffix("s").replace("_", " "))
        listed = _LISTED.get(self.row.name)
        return NotFoundError(
            f"{word} {shown(document_id)}: there is none in this project",
            hint=f"`emboflow {listed} list` shows what there is" if listed else None,
        )


def _update(changes: Mapping[str, Any], server_time: Sequence[str]) -> Raw:
    # A field cannot be set twice in one update.
    update: Raw = {"$set": {name: value for name, value in changes.items() if name not in server_time}}
    if server_time:
        update["$currentDate"] = dict.fromkeys(server_time, True)
    return update
