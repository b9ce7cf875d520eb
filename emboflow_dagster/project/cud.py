"""`ef.cud`: records created, updated and put out of use in one transaction, with the blobs they own.

All or nothing: every violation of the whole request is reported at once and nothing is written, or everything
is, owners and audit rows included.

Source: Voedger "CUD collection" and tuc.HandleBLOBReferences (R-418..R-430); spec/parity.md P-31, P-35, P-36,
P-41, P-45.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from emboflow_dagster.errors import (
    ConflictError,
    EmboflowError,
    ErrorKind,
    ImmutableError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    Problem,
    TransitionError,
    shown,
)
from emboflow_dagster.model.base import Document, new_id
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.mongo import audit, ownership
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.changes import Change, Create, Deactivate, Update
from emboflow_dagster.project.cud_repeat import Repeat
from emboflow_dagster.project.cud_request import Request
from emboflow_dagster.project.opened import Opened

MAX_CHANGES: Final = 100


_CLASSES: Final[Mapping[ErrorKind, type[EmboflowError]]] = {
    ErrorKind.NOT_FOUND: NotFoundError,
    ErrorKind.REF_NOT_FOUND: NotFoundError,
    ErrorKind.STATE: TransitionError,
    ErrorKind.IMMUTABLE: ImmutableError,
    ErrorKind.IMMUTABLE_FIELD: ImmutableError,
    ErrorKind.BLOB_INCOMPLETE: IntegrityError,
    ErrorKind.BLOB_WITHDRAWN: IntegrityError,
    ErrorKind.BLOB_QUARANTINED: IntegrityError,
    ErrorKind.BLOB_OWNER_NOT_EMPTY: ConflictError,
    ErrorKind.BLOB_NOT_CLAIMABLE: ConflictError,
}


def cud(opened: Opened, changes: Sequence[Change], *, request_id: str | None = None) -> list[Document]:
    """Carry out up to 100 changes in one transaction.

    Args:
        opened: The deployment and scope.
        changes: In the order in which their documents are returned; one a record.
        request_id: Repeating a request with the same id, in this project, writes nothing: its records are
            returned as they are by then.

    Returns:
        The document of each change as it is now.

    Raises:
        EmboflowError: Nothing was written. ``problems`` lists every violation of the request; ``kind`` and
            class are the first one's: ``InvalidInputError``, ``NotFoundError`` for records, references and
            blobs that are not there, ``ConflictError`` for blobs that have an owner or are superseded,
            ``IntegrityError`` for blobs without whole bytes, ``ImmutableError``, ``TransitionError``.
        ConflictError: Kind ``request-reused``: another request had that id.
        AlreadyExistsError: A name or another unique key is taken.
    """
    steps = _checked(changes)
    repeat = None if request_id is None else Repeat(opened, request_id, steps)
    # The driver may repeat a transaction: what it makes has the same ids each time.
    ids = [
        new_id(str(getattr(COLLECTIONS[str(step.collection)].document, "prefix", "doc")))
        if isinstance(step, Create) and str(step.collection) in COLLECTIONS
        else ""
        for step in steps
    ]

    def body(session: Session) -> list[Document]:
        done = repeat and repeat.answer(session)
        if done:
            return done
        request = Request(opened, session, steps, ids)
        problems = request.check()
        if problems:
            raise _error(problems)
        _write(opened, session, request)
        if repeat:
            repeat.remember(session, [(draft.collection, draft.id) for draft in request.drafts])
        return [draft.document for draft in request.drafts]

    return opened.mongo.in_transaction(body)


def _checked(changes: Sequence[Change]) -> list[Change]:
    if not isinstance(changes, list | tuple) or not 1 <= len(changes) <= MAX_CHANGES:
        found = f"{len(changes)} changes" if isinstance(changes, list | tuple) else shown(changes)
        raise InvalidInputError(f"cud: found {found}; a list of 1 to {MAX_CHANGES} is needed")
    problems = [
        Problem(ErrorKind.INVALID_INPUT, f"{number}", f"found {shown(change)}; {_NEEDED}")
        for number, change in enumerate(changes)
        if not isinstance(change, Create | Update | Deactivate)
    ]
    if problems:
        raise InvalidInputError.of(problems)
    return list(changes)


_NEEDED: Final = "a Create, Update or Deactivate is needed"


def _error(problems: list[Problem]) -> EmboflowError:
    text = InvalidInputError.of(problems).message
    kind = problems[0].kind
    return _CLASSES.get(kind, InvalidInputError)(
        text,
        kind=kind,
        problems=problems,
        hint="nothing was written; correct the whole request and repeat it",
    )


def _write(opened: Opened, session: Session, request: Request) -> None:
    mongo, scope = opened.mongo, opened.scope
    # The blobs first: where two requests want one, the later finds out before it has written much.
    ownership.claim(mongo, scope, session, request.claims)
    created: dict[str, list[Document]] = {}
    for draft in request.drafts:
        documents: Documents[Any] = Documents(mongo, scope, type(draft.document))
        if draft.stored is None:
            created.setdefault(draft.collection, []).append(draft.document)
        else:
            stored = draft.document.to_mongo()
            values = {name: stored[name] for name in draft.changed}
            documents.change(draft.id, values, session=session)
    for rows in created.values():
        documents = Documents(mongo, scope, type(rows[0]))
        documents.insert(*rows, session=session)
    if request.replaced:
        since = mongo.server_time()
        for mention in request.replaced:
            ownership.let_go(mongo, scope, session, mention, since=since)
    audit.record_all(mongo, scope, session, [draft.entry() for draft in request.drafts])
