"""YAML and JSON text read into plain data, or refused; both give the same data for the same content.

YAML is read by its core schema (1.2): ``on``, ``no``, ``1:30`` and ``2026-01-31`` are texts, as they
would be in JSON. Tags, anchors and aliases, duplicate keys, keys that are not texts and second
documents are refused: a workflow file is what it looks like. The reader works on the parser's events
with a stack of its own, so that neither depth nor size of hostile input reaches Python's recursion.

Source: spec/reliability.md, corpus category "serialised payloads".
"""

import json
import re
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown

MAX_TEXT_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
_INT: Final = re.compile(r"[-+]?[0-9]{1,4000}|0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,4000}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NONFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def refusal(kind: ErrorKind, message: str) -> InvalidInputError:
    """The error for a text that cannot be read at all."""
    return InvalidInputError.of([Problem(kind, "", message)])


def decode(data: bytes) -> str:
    """UTF-8 text of at most 1 MiB; a byte order mark is left out.

    Raises:
        InvalidInputError: ``doc-too-large`` or ``yaml-corrupt``.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise refusal(ErrorKind.DOC_TOO_LARGE, f"more than {MAX_TEXT_BYTES} bytes; a workflow file is small")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(ErrorKind.YAML_CORRUPT, f"not UTF-8 text at byte {error.start}") from None


def read_json(text: str) -> Any:
    """The value of one JSON text.

    Raises:
        InvalidInputError: ``yaml-corrupt``, ``yaml-duplicate-key`` or ``depth``.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise refusal(ErrorKind.YAML_CORRUPT, f"not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise refusal(ErrorKind.DEPTH, f"nested deeper than {MAX_DEPTH} levels") from None
    except InvalidInputError:
        raise
    except ValueError:  # an integer of more digits than Python reads
        raise refusal(ErrorKind.INT_RANGE, "found an integer of thousands of digits") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise refusal(ErrorKind.YAML_DUPLICATE_KEY, f"found the key {shown(key)} twice in one mapping")
        result[key] = value
    return result


def read_yaml(text: str) -> Any:
    """The value of one YAML document; ``None`` for an empty text.

    Raises:
        InvalidInputError: ``yaml-corrupt``, ``yaml-tag``, ``yaml-alias``, ``yaml-duplicate-key``,
            ``key-type`` or ``depth``; the message has line and column.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event, type(event).__name__)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise refusal(ErrorKind.YAML_CORRUPT, f"not YAML: {why}{where}") from None
    except (UnicodeError, RecursionError) as error:
        raise refusal(ErrorKind.YAML_CORRUPT, f"not YAML: {error}") from None
    return builder.root


class _Open:
    """A mapping or list whose end has not come yet."""

    __slots__ = ("key", "needs_key", "value")

    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        self.value = value
        self.key = ""
        self.needs_key = isinstance(value, dict)


class _Builder:
    def __init__(self) -> None:
        self.root: Any = None
        self.stack: list[_Open] = []
        self.documents = 0

    def take(self, event: Any, kind: str) -> None:
        where = f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"
        if kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
            raise refusal(ErrorKind.YAML_ALIAS, f"anchors and aliases are not allowed; found one at {where}")
        if getattr(event, "tag", None) is not None:
            raise refusal(ErrorKind.YAML_TAG, f"tags are not allowed; found {shown(event.tag)} at {where}")
        if kind == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                raise refusal(ErrorKind.YAML_CORRUPT, f"found a second document at {where}; one is allowed")
        elif kind == "ScalarEvent":
            value = _plain(event.value, where) if event.implicit[0] else event.value
            self.put(value, where)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            value = {} if kind == "MappingStartEvent" else []
            self.put(value, where)
            self.stack.append(_Open(value))
            if len(self.stack) > MAX_DEPTH:
                raise refusal(ErrorKind.DEPTH, f"nested deeper than {MAX_DEPTH} levels at {where}")
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()

    def put(self, value: Any, where: str) -> None:
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.needs_key:
            if type(value) is not str:
                raise refusal(
                    ErrorKind.KEY_TYPE, f"found the key {shown(value)} at {where}; keys are texts: quote it"
                )
            if value in top.value:
                raise refusal(ErrorKind.YAML_DUPLICATE_KEY, f"found the key {shown(value)} again at {where}")
            top.key, top.needs_key = value, False
        else:
            top.value[top.key] = value
            top.needs_key = True


def _plain(text: str, where: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        if "." not in text and "e" not in text.lower():
            raise refusal(ErrorKind.INT_RANGE, f"found an integer of thousands of digits at {where}")
        return float(text)
    if _NONFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
