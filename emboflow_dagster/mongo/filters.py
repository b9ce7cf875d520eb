"""Filters that callers write: comparisons and logic, nothing that runs code or leaves the scope.

An allow-list, because MongoDB's operators grow and some of them (``$where``, ``$expr``, ``$function``)
execute what they are given. The scope's own fields are refused in any spelling: the scope adds them
itself, and a filter that names them could only try to widen it.

Source: spec/reliability.md, finding 6; corpus category "query filters".
"""

import unicodedata
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.text import refuse

MAX_DEPTH: Final = 7
MAX_ITEMS: Final = 1_000
_LOGIC: Final = frozenset({"$and", "$or", "$nor"})
_LISTS: Final = frozenset({"$in", "$nin"})
_PLAIN: Final = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"})
ALLOWED: Final = _LOGIC | _LISTS | _PLAIN | {"$exists", "$not"}
_SCOPE: Final = frozenset({"workspaceid", "projectid"})


def check_filter(value: object) -> dict[str, Any]:
    """The filter unchanged, if it only compares fields with plain values.

    Args:
        value: Stored field names (dots reach into documents) to values or to ``{operator: value}``; ``$and``,
            ``$or`` and ``$nor`` over lists of filters.

    Raises:
        InvalidInputError: Its code says what is not allowed.
    """
    if type(value) is not dict:
        raise refuse(ErrorKind.FILTER_TYPE, "", f"found {shown(value)}; a filter is a mapping")
    _filter(value, "", 1)
    return value


def _filter(filter_: dict[Any, Any], path: str, depth: int) -> None:
    _refuse_deep(depth, path)
    for key, value in filter_.items():
        _refuse_key(key, path)
        here = f"{path}.{key}" if path else key
        if key.startswith("$"):
            if key not in _LOGIC:
                raise _operator(key, here)
            for number, row in enumerate(_list(value, here)):
                if type(row) is not dict:
                    raise refuse(
                        ErrorKind.FILTER_LIST, here, f"found {shown(row)}; a list of filters is needed"
                    )
                _filter(row, f"{here}.{number}", depth + 1)
        else:
            _condition(value, here, depth + 1)


def _condition(value: object, path: str, depth: int) -> None:
    if type(value) is not dict or not any(_is_operator(key) for key in value):
        _plain(value, path)
        return
    _refuse_deep(depth, path)
    for key, operand in value.items():
        here = f"{path}.{key}"
        if key in _LISTS:
            for item in _list(operand, here):
                _plain(item, here)
        elif key in _PLAIN:
            _plain(operand, here)
        elif key == "$exists":
            if type(operand) is not bool:
                raise refuse(ErrorKind.FILTER_TYPE, here, f"found {shown(operand)}; true or false is needed")
        elif key == "$not" and type(operand) is dict and any(_is_operator(k) for k in operand):
            _condition(operand, here, depth + 1)
        elif key == "$not":
            raise refuse(ErrorKind.FILTER_TYPE, here, f"found {shown(operand)}; an operator is needed")
        else:
            raise _operator(key, here)


def _plain(value: object, path: str) -> None:
    try:
        check_freeform({"value": value}, path, max_items=MAX_ITEMS)
    except InvalidInputError as error:
        # Regular expressions and code are operators in the shape of a value.
        kinds = {
            ErrorKind.VALUE_TYPE: ErrorKind.OPERATOR_NOT_ALLOWED,
            ErrorKind.KEY_OPERATOR: ErrorKind.OPERATOR_NOT_ALLOWED,
        }
        raise InvalidInputError.of(
            [Problem(kinds.get(p.kind, p.kind), p.path, p.message) for p in error.problems]
        ) from None


def _list(value: object, path: str) -> list[Any]:
    if type(value) is not list or not value or len(value) > MAX_ITEMS:
        raise refuse(
            ErrorKind.FILTER_LIST, path, f"found {shown(value)}; a list of 1 to {MAX_ITEMS} is needed"
        )
    return value


def _is_operator(key: object) -> bool:
    return isinstance(key, str) and unicodedata.normalize("NFKC", key).startswith("$")


def _refuse_key(key: object, path: str) -> None:
    if type(key) is not str:
        raise refuse(ErrorKind.KEY_TYPE, path, f"found the key {shown(key)}; keys are strings")
    if not key:
        raise refuse(ErrorKind.KEY_EMPTY, path, "keys are not empty")
    if "\0" in key:
        raise refuse(ErrorKind.KEY_NUL, path, "a NUL character is not allowed")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise refuse(ErrorKind.TEXT_SURROGATE, path, "a lone surrogate is not valid Unicode") from None
    if _is_operator(key) and key not in ALLOWED:
        raise _operator(key, path)
    plain = unicodedata.normalize("NFKC", key).casefold()
    if any("".join(c for c in part if c.isalnum()) in _SCOPE for part in plain.split(".")):
        raise refuse(
            ErrorKind.FILTER_SCOPE_FIELD, path, f"found {shown(key)}; the scope is set by the handle"
        )


def _refuse_deep(depth: int, path: str) -> None:
    if depth > MAX_DEPTH:
        raise refuse(ErrorKind.DEPTH, path, f"nested deeper than {MAX_DEPTH} mappings")


def _operator(key: str, path: str) -> InvalidInputError:
    names = ", ".join(sorted(ALLOWED))
    return refuse(ErrorKind.OPERATOR_NOT_ALLOWED, path, f"found {shown(key)}; allowed are {names}")
