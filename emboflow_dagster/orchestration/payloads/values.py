"""Dicts, lists and numbers as JSON, and models and dataclasses, which are loaded only into what is annotated.

The payload says of which type it was made; that is for people. What it is loaded into is the reader's
decision: an annotated model, or plain data. Nothing is imported because a payload names it.
"""

import collections.abc
import dataclasses
import json
import types
from datetime import date
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError, shown
from emboflow_dagster.model.storage import MANIFEST_TYPE
from emboflow_dagster.orchestration.payloads.handler import (
    JSON,
    Column,
    Draft,
    Facts,
    Handler,
    Payload,
    Stored,
)
from emboflow_dagster.orchestration.payloads.preview import block, records_table

_PLAIN: Final = (dict, list, tuple, set, frozenset, str, int, float, bool, bytes, date, type(None), Any)
_UNIONS: Final = (Union, types.UnionType)
_NAMED_ROWS: Final = 100


class JsonHandler(Handler):
    """``dict``, ``list``, ``tuple``, numbers, ``bool``; models and dataclasses inside of them."""

    name = "json"
    reads = frozenset({JSON, MANIFEST_TYPE})

    def stores(self, value: object) -> bool:
        """Whether it is one of them, or a number of numpy's."""
        return isinstance(value, dict | list | tuple | int | float) or value is None or _is_scalar(value)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants JSON: a built-in type or a model, also inside of lists, dicts and unions."""
        kind = get_origin(annotation) or annotation
        if kind in (dict, list, tuple, set, frozenset, int, float, bool, collections.abc.Mapping):
            return True
        if kind in (collections.abc.Sequence, *_UNIONS):
            return True
        return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The value as JSON with sorted keys.

        Raises:
            InvalidInputError: JSON has no such value (NaN), or no such key.
        """
        content = _json(value)
        return Payload(content, JSON, self.name, _facts(value, content, draft))

    def load(self, stored: Stored) -> Any:
        """Plain data, or what is annotated, validated.

        Raises:
            InvalidInputError: The payload is not what is annotated.
            IntegrityError: It is no JSON.
        """
        return _load(stored)


class ModelHandler(Handler):
    """A pydantic model or a dataclass, as JSON; ``serializer`` names its type for people."""

    name = "model"

    def stores(self, value: object) -> bool:
        """Whether it is an instance of one."""
        return isinstance(value, BaseModel) or (
            dataclasses.is_dataclass(value) and not isinstance(value, type)
        )

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The value as JSON.

        Raises:
            InvalidInputError: It would not come back as it is.
        """
        kind = type(value)
        content = _json(value)
        try:
            same = _equal(_validated(content, kind), value)
        except ValidationError as error:
            same, why = False, _first(error)
        else:
            why = "it would come back as another value"
        if not same:
            raise InvalidInputError(
                f"{kind.__name__} cannot be stored unchanged as JSON: {why}",
                kind=ErrorKind.VALUE_TYPE,
                hint="excluded, computed or private fields are not in the JSON; register a handler for it",
            )
        facts = Facts(extra={"type": f"{kind.__module__}.{kind.__qualname__}"}, columns=columns_of(kind))
        if draft.preview_rows:
            facts.preview = block(json.dumps(json.loads(content), indent=2, ensure_ascii=False))
        return Payload(content, JSON, f"{self.name}:{kind.__module__}.{kind.__qualname__}", facts)

    def load(self, stored: Stored) -> Any:
        """Plain data: without an annotation nobody says which class to trust."""
        return _load(stored)


def plain_of(annotation: Any) -> Any:
    """An annotation without ``Optional``: ``DataFrame | None`` is loaded as a DataFrame."""
    if get_origin(annotation) in _UNIONS:
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return annotation


def admits_none(annotation: Any) -> bool:
    """Whether an annotation says that there may be nothing."""
    return get_origin(annotation) in _UNIONS and type(None) in get_args(annotation)


def _load(stored: Stored) -> Any:
    content = stored.read()
    if stored.annotation in (None, dict, list):
        found = _parsed(content)
        if stored.annotation is not None and not isinstance(found, stored.annotation):
            raise _mismatch(stored, f"found {shown(found)}")
        return found
    try:
        return _validated(content, stored.annotation)
    except ValidationError as error:
        raise _mismatch(stored, _first(error)) from None


def _validated(content: bytes, kind: Any) -> Any:
    # Plain types take nothing for another: a stored "7" is no int. A model has rules of its own.
    strict = True if _all_plain(kind) else None
    return TypeAdapter(kind).validate_json(content, strict=strict, by_alias=True, by_name=True)


def _all_plain(kind: Any) -> bool:
    arguments = get_args(kind)
    if arguments:
        return all(_all_plain(inner) for inner in arguments if inner is not ...)
    return kind in _PLAIN


def _mismatch(stored: Stored, why: str) -> InvalidInputError:
    name = getattr(stored.annotation, "__name__", None) or str(stored.annotation)
    made = f" (stored as {stored.serializer})" if stored.serializer else ""
    return InvalidInputError(f"the payload{made} is no {name}: {why}", kind=ErrorKind.CONTRACT)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"the payload is no JSON: {error}", kind=ErrorKind.FILE_CORRUPT) from None


def _json(value: Any) -> bytes:
    try:
        plain = _plain(value)
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            "the value cannot be written as JSON: a text in it has a lone surrogate",
            kind=ErrorKind.TEXT_SURROGATE,
        ) from None
    except RecursionError:
        raise InvalidInputError("the value is nested too deep for JSON", kind=ErrorKind.DEPTH) from None
    except (TypeError, ValueError, PydanticSerializationError) as error:
        if isinstance(error, InvalidInputError):
            raise
        finite = "NaN and infinity have no JSON" if "JSON compliant" in str(error) else str(error)
        kind = ErrorKind.FLOAT_NONFINITE if "JSON compliant" in str(error) else ErrorKind.VALUE_TYPE
        raise InvalidInputError(f"the value cannot be written as JSON: {finite}", kind=kind) from None


def _plain(value: Any) -> Any:
    """The value as JSON has it; dates as ISO text, tuples as lists, numpy's numbers as Python's."""
    kind: Any = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return TypeAdapter(kind).dump_python(value, mode="json", by_alias=True, warnings="error")
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                raise InvalidInputError(
                    f"the value cannot be written as JSON: found the key {shown(key)}; keys are texts",
                    kind=ErrorKind.KEY_TYPE,
                )
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | int | float):
        return value
    if _is_scalar(value):
        scalar: Any = value
        return scalar.item()
    raise InvalidInputError(
        f"the value cannot be written as JSON: {kind.__name__} has no JSON", kind=ErrorKind.VALUE_TYPE
    )


def _is_scalar(value: object) -> bool:
    return any(kind.__name__ == "generic" and kind.__module__ == "numpy" for kind in type(value).__mro__)


def _equal(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except (TypeError, ValueError):  # a field that cannot be compared, such as an array
        return False


def columns_of(kind: type) -> list[Column] | None:
    """The fields of a model as columns, with the descriptions that it gives them."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return None
    return [
        Column(
            info.alias or name,
            _type_name(info.annotation),
            nullable=admits_none(info.annotation),
            description=info.description,
        )
        for name, info in kind.model_fields.items()
    ]


def _type_name(annotation: Any) -> str:
    return (
        getattr(annotation, "__name__", None)
        if not get_args(annotation)
        else str(annotation).replace("typing.", "")
    )  # pyright: ignore[reportReturnType]


def _facts(value: Any, content: bytes, draft: Draft) -> Facts:
    facts = Facts()
    if isinstance(value, list):
        facts.row_count = len(value)
        kinds = {type(item) for item in value[:_NAMED_ROWS]}
        if len(kinds) == 1:
            facts.columns = columns_of(kinds.pop())
    if not draft.preview_rows:
        return facts
    if isinstance(value, list) and value and all(isinstance(row, dict | BaseModel) for row in value):
        rows = [row if isinstance(row, dict) else _plain(row) for row in value[: draft.preview_rows]]
        facts.preview = records_table(rows, total=len(value))
    elif isinstance(value, dict | list):
        facts.preview = block(json.dumps(json.loads(content), indent=2, ensure_ascii=False))
    else:
        facts.preview = block(content.decode())
    return facts
