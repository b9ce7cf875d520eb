"""A name is accepted wherever an id is."""

from collections.abc import Mapping
from typing import Any, TypeVar

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError, shown
from emboflow_dagster.model.base import Document
from emboflow_dagster.mongo.documents import Documents

D = TypeVar("D", bound=Document)
_SHOWN = 5


def by_id_or_name(
    documents: Documents[D], name: str, field: str, *, what: str, also: Mapping[str, Any] | None = None
) -> D:
    """The document with that id, else the only one with that name.

    Args:
        documents: Where to look.
        name: An id or a name.
        field: The stored field that holds the name.
        what: The word for it in messages, for example ``asset``.
        also: Further conditions on a match by name.

    Raises:
        NotFoundError: Neither id nor name; the hint names the nearest.
        InvalidInputError: Several have that name (kind ``ambiguous``).
    """
    found = documents.find_one({"_id": name})
    if found is not None:
        return found
    rows = documents.find({field: name, **(also or {})}, limit=2)
    if len(rows) == 1:
        return rows[0]
    if rows:
        raise InvalidInputError(
            f"{what} {shown(name)}: several have that name", kind=ErrorKind.AMBIGUOUS, hint="use the id"
        )
    raise NotFoundError(
        f"{what} {shown(name)}: there is none in this project", hint=_nearest(documents, name, field, what)
    )


def _nearest(documents: Documents[Any], name: str, field: str, what: str) -> str:
    import difflib

    names = [
        row[field]
        for row in documents.raw.find(documents.scope.filter(documents.row), {field: 1}).limit(1000)
    ]
    near = difflib.get_close_matches(name, names, n=_SHOWN, cutoff=0.4)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"there is no {what} here yet" if not names else f"there are: {', '.join(sorted(names)[:_SHOWN])}"
