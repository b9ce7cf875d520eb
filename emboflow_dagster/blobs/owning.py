"""Ownership that moves after the claim: transferred to another record, or let go."""

from typing import TYPE_CHECKING, Any

from emboflow_dagster.blobs.owner import Owner, owner_of
from emboflow_dagster.errors import (
    ConflictError,
    ErrorKind,
    ImmutableError,
    InvalidInputError,
    NotFoundError,
    TransitionError,
    shown,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.blob_fields import check_field, stored_ref, values_of
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.records import RECORDS, is_out_of_use
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import BlobRef
from emboflow_dagster.model.text import check_id, check_object_id, check_version
from emboflow_dagster.mongo import audit, marks, objects, ownership
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.mongo.ownership import Mention


class Owning:
    """Transfer and release, as verbs of the blobs of one workspace."""

    if TYPE_CHECKING:
        _mongo: Mongo
        _scope: Scope

    def owner(self, object_id: str, version: int | None = None) -> Owner:
        """Who owns a version of a blob, is meant to, or let it go.

        Args:
            object_id: Which blob.
            version: By default its newest.

        Raises:
            NotFoundError: There is no such version in this workspace.
        """
        check_object_id(object_id)
        number = None if version is None else check_version(version)
        return owner_of(self._mongo, self._scope, object_id, number)

    def transfer(
        self, object_id: str, *, to: tuple[str, str, str], replacement: BlobRef | None = None
    ) -> BlobObject:
        """Make another record the owner of a blob's newest version; both records change in one transaction.

        Args:
            object_id: Which blob; a record of this project owns its newest version.
            to: Collection, id and field of the record that gets it. What the field named before is let go.
            replacement: What the old owner's field names from then on: a blob without owner. Needed where the
                field cannot be empty (``assets.storageRef``); ``annotations.payload`` is emptied without.

        Returns:
            The version with its new owner.

        Raises:
            NotFoundError: There is no such blob or record in this project.
            InvalidInputError: ``to`` is no blob field, or a replacement is needed (kind ``blob-field``).
            ImmutableError: One of the records never changes once written.
            TransitionError: The blob has no owner, or the new owner is out of use.
            ConflictError: The replacement has an owner, or somebody else was first.
        """
        check_object_id(object_id)
        if not isinstance(to, tuple | list) or len(to) != 3:  # noqa: PLR2004 - a record and its field
            raise InvalidInputError(f"to: found {shown(to)}; (collection, id, field) is needed")
        record, record_id, field = to
        check_field(record, field)
        check_id(record_id)
        mongo, scope = self._mongo, self._scope

        def body(session: Session) -> BlobObject:
            blob = objects.head(mongo, scope.workspace_id, object_id, session=session)
            blob.require_completed()
            ref = BlobRef(object_id=object_id, version=blob.version)
            before = _owner(blob, ref)
            after = Mention(ref, record, record_id, field)
            old, new = self._record(before, session), self._record(after, session)
            if before.owner == after.owner:
                raise TransitionError(f"{_said(blob)} is {_place(after)}'s already")
            _refuse_frozen(before)
            _refuse_frozen(after)
            if is_out_of_use(record, new):
                raise TransitionError(f"document {record} with ID {record_id} is {new['status']}")
            values = self._leave(before, replacement, session)
            let_go = stored_ref(new.get(field))
            if let_go is not None:
                self._let_go(Mention(let_go, record, record_id, field), session)
            ownership.move(mongo, scope, session, before, after)
            self._change(before, old, values, session)
            self._change(after, new, values_of(record, field, blob), session)
            told = {"version": blob.version}
            audit.record(
                mongo,
                scope,
                session,
                "blob.transfer",
                "objects",
                object_id,
                before={**told, **before.owner},
                after={**told, **after.owner},
            )
            return blob.model_copy(update=after.owner)

        return mongo.in_transaction(body)

    def release(self, object_id: str, version: int | None = None) -> BlobObject:
        """Let a version of a record that is out of use go; until gc collects it, others may claim it.

        Args:
            object_id: Which blob.
            version: By default its newest.

        Returns:
            The version, without owner when it is the newest.

        Raises:
            NotFoundError: There is no such version, or its owner is not of this project.
            TransitionError: It has no owner, or its owner is in use and names it.
        """
        check_object_id(object_id)
        number = None if version is None else check_version(version)
        mongo, scope = self._mongo, self._scope

        def body(session: Session) -> BlobObject:
            head = objects.head(mongo, scope.workspace_id, object_id, session=session)
            ref = BlobRef(object_id=object_id, version=head.version if number is None else number)
            found = ownership.versions(mongo, scope, session, [ref]).get(ref)
            if found is None:
                raise NotFoundError(f"Object not found for object_id={object_id}, version={ref.version}.")
            owner = _owner(found.blob, ref)
            if marks.read(mongo, Mark.RELEASE, name_of(object_id, ref.version), session) is not None:
                raise TransitionError(f"{_said(found.blob)} was let go already")
            self._refuse_in_use(owner, session)
            self._let_go(owner, session)
            told = {"version": ref.version, **owner.owner}
            audit.record(mongo, scope, session, "blob.release", "objects", object_id, before=told)
            return found.blob.model_copy(update=dict(ownership.NOBODY)) if found.newest else found.blob

        return mongo.in_transaction(body)

    def _record(self, mention: Mention, session: Session) -> Raw:
        found = self._find(mention, session, self._scope.filter(COLLECTIONS[mention.record]))
        if found is None:
            raise NotFoundError(f"document {mention.record} with ID {mention.record_id} not found")
        return found

    def _find(self, mention: Mention, session: Session, limits: dict[str, Any]) -> Raw | None:
        with translated():
            return self._mongo[mention.record].find_one({"_id": mention.record_id, **limits}, session=session)

    def _refuse_in_use(self, owner: Mention, session: Session) -> None:
        record = self._find(owner, session, {})
        if record is None or stored_ref(record.get(owner.field)) != owner.ref:
            return  # nobody names it any more
        self._record(owner, session)
        if is_out_of_use(owner.record, record):
            return
        rule = RECORDS.get(owner.record)
        ends = rule is not None and rule.inactive is not None
        raise TransitionError(
            f"blob {owner.ref.object_id} version {owner.ref.version} is in use: {_place(owner)} names it",
            hint="put the record out of use with ef.cud([Deactivate(...)]), or give the field another value"
            if ends
            else f"{owner.record} are never put out of use: their bytes stay",
        )

    def _leave(self, before: Mention, replacement: BlobRef | None, session: Session) -> dict[str, Any]:
        """What the old owner keeps instead."""
        if replacement is None:
            emptied = RECORDS[before.record].emptied
            if before.field not in emptied:
                raise InvalidInputError(
                    f"{before.record}.{before.field} cannot be empty: a replacement is needed",
                    kind=ErrorKind.BLOB_FIELD,
                    hint="replacement=BlobRef(object_id, version) of a blob without owner",
                )
            return {before.field: emptied[before.field]}
        mention = before._replace(ref=replacement, path="replacement")
        checked = ownership.check(self._mongo, self._scope, session, [mention])
        blob = checked.blobs[0]
        if blob is None:
            problems = checked.problems[0]
            raise ConflictError(
                "; ".join(str(problem) for problem in problems), kind=problems[0].kind, problems=problems
            )
        ownership.claim(self._mongo, self._scope, session, checked.claims)
        return values_of(before.record, before.field, blob)

    def _let_go(self, mention: Mention, session: Session) -> None:
        found = ownership.versions(self._mongo, self._scope, session, [mention.ref]).get(mention.ref)
        if found is not None and mention.owns(found.blob):
            since = self._mongo.server_time()
            ownership.let_go(self._mongo, self._scope, session, mention, since=since)

    def _change(self, mention: Mention, old: Raw, values: dict[str, Any], session: Session) -> None:
        with translated():
            self._mongo[mention.record].update_one(
                {"_id": old["_id"]}, {"$set": {**values, "updatedAt": utc_now()}}, session=session
            )


def _owner(blob: BlobObject, ref: BlobRef) -> Mention:
    if not (blob.owner_record in COLLECTIONS and blob.owner_record_field and blob.owner_record_id):
        raise TransitionError(
            f"{_said(blob)} has no owner",
            hint="a record becomes its owner when ef.cud names it in a blob field",
        )
    return Mention(ref, blob.owner_record, blob.owner_record_id, blob.owner_record_field)


def _refuse_frozen(mention: Mention) -> None:
    row, rule = COLLECTIONS[mention.record], RECORDS.get(mention.record)
    if rule is None or rule.update is None or "*" in row.immutable:
        raise ImmutableError(
            f"{mention.record}.{mention.field} never changes once written: its blob stays where it is",
            hint="put the same bytes as a blob of their own: they are stored once",
        )


def _said(blob: BlobObject) -> str:
    return f"blob {blob.object_id} version {blob.version}"


def _place(mention: Mention) -> str:
    return f"{mention.record}.{mention.record_id}.{mention.field}"
