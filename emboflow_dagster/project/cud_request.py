"""A request to `ef.cud`, checked whole: drafts of its documents, its blobs, its references.

Reads happen in the transaction that writes afterwards, so what was checked is what is changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, Problem, shown
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import COLLECTIONS, Reach, Reference
from emboflow_dagster.model.records import TARGETS, references_of
from emboflow_dagster.mongo import ownership
from emboflow_dagster.mongo.client import Raw, Session, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.ownership import Mention
from emboflow_dagster.project.changes import Change, Create
from emboflow_dagster.project.cud_draft import Draft
from emboflow_dagster.project.opened import Opened

_ANNOTATION_TASK: Final = "annotation_tasks"


class Request:
    """Every change of a request as a draft, and what they do to blobs."""

    def __init__(
        self, opened: Opened, session: Session, changes: Sequence[Change], ids: Sequence[str]
    ) -> None:
        self._opened = opened
        self._session = session
        self.claims: list[Mention] = []
        """Versions that get their owner."""
        self.replaced: list[Mention] = []
        """Versions that lose it."""
        now = utc_now()
        self.drafts = [
            Draft(number, change, id_, opened.scope, now)
            for number, (change, id_) in enumerate(zip(changes, ids, strict=True))
        ]

    def check(self) -> list[Problem]:
        """Everything that is wrong with the request, in its order; then every draft has its document."""
        self._names()
        self._load()
        self._blobs()
        for draft in self.drafts:
            draft.build()
        self._references()
        return [problem for draft in self.drafts for problem in draft.problems]

    def _names(self) -> None:
        """Names of new records are mapped to their ids (P-31); a record is changed once."""
        known: dict[str, str] = {}
        seen: dict[tuple[str, str], int] = {}
        for draft in self.drafts:
            ref = draft.change.ref if isinstance(draft.change, Create) else None
            if ref is not None:
                if not isinstance(ref, str) or not ref.startswith("#") or ref in known:
                    draft.add(ErrorKind.INVALID_INPUT, "ref", f"found {shown(ref)}; a name of its own: '#1'")
                else:
                    known[ref] = draft.id
            other = seen.setdefault((draft.collection, str(draft.id)), draft.number)
            if other != draft.number:
                draft.add(
                    ErrorKind.DUPLICATE, "id", f"{draft.id} is changed by {other} of this request already"
                )
        for draft in self.drafts:
            draft.map_names(known)

    def _load(self) -> None:
        """The stored documents of what is updated or put out of use."""
        wanted: dict[str, list[Draft]] = {}
        for draft in self.drafts:
            if not isinstance(draft.change, Create) and draft.usable:
                wanted.setdefault(draft.collection, []).append(draft)
        for name, drafts in wanted.items():
            limits = self._opened.scope.filter(COLLECTIONS[name])
            ids = [draft.id for draft in drafts]
            with translated():
                rows = self._opened.mongo[name].find({"_id": {"$in": ids}, **limits}, session=self._session)
                found = {row["_id"]: row for row in rows}
            for draft in drafts:
                draft.load(found.get(draft.id))

    def _blobs(self) -> None:
        mentions = [(draft, mention) for draft in self.drafts for mention in draft.mentions()]
        checked = ownership.check(
            self._opened.mongo, self._opened.scope, self._session, [mention for _, mention in mentions]
        )
        self.claims = checked.claims
        for (draft, mention), blob, problems in zip(mentions, checked.blobs, checked.problems, strict=True):
            draft.problems += problems
            draft.resolve(mention, blob)
        gone = [mention for draft in self.drafts for mention in draft.replaced()]
        there = ownership.versions(
            self._opened.mongo, self._opened.scope, self._session, [mention.ref for mention in gone]
        )
        # What it let go before may have another owner by now.
        self.replaced = [m for m in gone if m.ref in there and m.owns(there[m.ref].blob)]

    def _references(self) -> None:
        """Every reference that is written ends at a record of this scope or of this request (R-319)."""
        made = {(d.collection, d.id) for d in self.drafts if isinstance(d.change, Create)}
        rows = [
            (draft, reference, value)
            for draft in self.drafts
            for reference, value in self._written(draft)
            if (reference.target, value) not in made
        ]
        for target in {reference.target for _, reference, _ in rows}:
            there = self._there(target, {value for _, r, value in rows if r.target == target})
            for draft, reference, value in rows:
                if reference.target == target and value not in there:
                    draft.add(
                        ErrorKind.REF_NOT_FOUND,
                        reference.field,
                        f"found {shown(value)}; {target} has no such document in this project",
                    )

    def _written(self, draft: Draft) -> Iterator[tuple[Reference, str]]:
        """The references of a draft that this request sets."""
        body = draft.body
        references = list(references_of(draft.collection, body)) if draft.built else []
        if draft.built and draft.collection == "annotations":
            kind = self._target_type(body.get("annotationTaskId"))
            if kind in TARGETS:
                references.append(Reference("targetRef.id", TARGETS[kind]))
        for reference in references:
            if reference.field.partition(".")[0] in draft.written:
                for value in values_at(body, reference.field):
                    if isinstance(value, str):
                        yield reference, value

    def _target_type(self, task_id: object) -> Any:
        for draft in self.drafts:
            if (draft.collection, draft.id) == (_ANNOTATION_TASK, task_id):
                return draft.body.get("targetType")
        with translated():
            row: Raw = (
                self._opened.mongo[_ANNOTATION_TASK].find_one(
                    {"_id": task_id}, {"targetType": 1}, session=self._session
                )
                or {}
            )
        return row.get("targetType")

    def _there(self, target: str, ids: set[str]) -> set[str]:
        mongo, scope, session = self._opened.mongo, self._opened.scope, self._session
        row = COLLECTIONS[target]
        if target == "users":  # those of other workspaces are nobody's business
            here = {"workspaceId": scope.workspace_id, "userId": {"$in": sorted(ids)}}
            with translated():
                return {m["userId"] for m in mongo["memberships"].find(here, {"userId": 1}, session=session)}
        if row.reach is Reach.PARENT:
            documents: Documents[Any] = Documents(mongo, scope, row.document)
            return {id_ for id_ in ids if documents.find_one({"_id": id_}, session=session) is not None}
        filter_ = {"_id": {"$in": sorted(ids)}, **scope.filter(row)}
        with translated():
            return {found["_id"] for found in mongo[target].find(filter_, {"_id": 1}, session=session)}


def values_at(document: Mapping[str, Any], path: str) -> list[Any]:
    """What stands at a dotted path; the items of a list."""
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return list(value) if isinstance(value, list | tuple) else [value]
