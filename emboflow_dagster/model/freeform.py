"""The check that every free-form dict passes before MongoDB sees it.

MongoDB stores ``$where`` as a key, evaluates ``"$HOME"`` in pipelines, takes NaN and turns
``{"$ref": ...}`` into a DBRef when read. So dicts that callers may fill as they like (config,
metadata, settings, payloads) hold plain JSON values under plain keys, or are refused.

Source: spec/reliability.md, finding 6; corpus category "free-form dicts".
"""

import math
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown

MAX_DEPTH: Final = 32
MAX_KEYS: Final = 2_000
MAX_KEY_BYTES: Final = 256
MAX_INT: Final = 2**63 - 1
RESERVED_KEYS: Final = frozenset({"_id", "workspaceId", "projectId", "workspace_id", "project_id"})
RESERVED_ANYWHERE: Final = frozenset({"constructor", "prototype"})


class _Checker:
    def __init__(self, *, max_bytes: int, max_items: int, map_keys: bool) -> None:
        self.left_bytes = max_bytes
        self.max_bytes = max_bytes
        self.left_items = max_items
        self.max_items = max_items
        self.map_keys = map_keys
        self.problems: list[Problem] = []

    def add(self, kind: ErrorKind, path: str, message: str) -> None:
        self.problems.append(Problem(kind, path, message))

    def key(self, key: object, path: str, depth: int) -> bool:
        if type(key) is not str:
            self.add(ErrorKind.KEY_TYPE, path, f"found the key {shown(key)}; keys are strings")
            return False
        kind, why = _key_problem(key, top=depth == 1, map_keys=self.map_keys)
        if kind is not None:
            self.add(kind, path, f"found the key {shown(key)}; {why}")
            return False
        self.left_bytes -= len(key.encode())
        return True

    def value(self, value: Any, path: str, depth: int) -> None:
        kind = type(value)
        if kind is dict or kind is list:
            if depth > MAX_DEPTH:
                self.add(ErrorKind.DEPTH, path, f"nested deeper than {MAX_DEPTH} levels")
                return
            self.left_items -= len(value)
            if self.left_items < 0:
                self.add(ErrorKind.TOO_MANY_KEYS, path, f"more than {self.max_items} keys and items")
                return
            pairs = value.items() if kind is dict else enumerate(value)
            for key, item in pairs:
                if self.stop():
                    return
                if kind is list or self.key(key, path, depth):
                    self.value(item, f"{path}.{key}" if path else str(key), depth + 1)
        elif kind is str:
            self.text(value, path)
        elif kind is bool or value is None:
            self.left_bytes -= 1
        elif kind is int:
            self.left_bytes -= 8
            if not -MAX_INT - 1 <= value <= MAX_INT:
                self.add(ErrorKind.INT_RANGE, path, f"found {shown(value)}; integers have 64 bits")
        elif kind is float:
            self.left_bytes -= 8
            if not math.isfinite(value):
                self.add(ErrorKind.FLOAT_NONFINITE, path, f"found {value}; use null for a missing number")
        elif kind is datetime:
            if value.tzinfo is None:
                self.add(ErrorKind.DATETIME_NAIVE, path, "a date needs a time zone")
        else:
            self.add(
                ErrorKind.VALUE_TYPE,
                path,
                f"found a {kind.__name__}; allowed are dict, list, str, int, float, bool, null, datetime",
            )

    def text(self, value: str, path: str) -> None:
        try:
            self.left_bytes -= len(value.encode())
        except UnicodeEncodeError:
            self.add(ErrorKind.TEXT_SURROGATE, path, "a lone surrogate is not valid Unicode")
        if "\0" in value:
            self.add(ErrorKind.TEXT_NUL, path, "a NUL character is not allowed")

    def stop(self) -> bool:
        if self.left_bytes < 0 and not self.problems:
            self.add(ErrorKind.DOC_TOO_LARGE, "", f"more than {self.max_bytes} bytes")
        return self.left_bytes < 0 or len(self.problems) >= 50  # noqa: PLR2004 - enough to act on


def _key_problem(key: str, *, top: bool, map_keys: bool) -> tuple[ErrorKind | None, str]:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return ErrorKind.TEXT_SURROGATE, "a lone surrogate is not valid Unicode"
    if not key:
        return ErrorKind.KEY_EMPTY, "keys are not empty"
    if "\0" in key:
        return ErrorKind.KEY_NUL, "a NUL character is not allowed"
    normal = unicodedata.normalize("NFKC", key)
    if normal.startswith("$"):
        return ErrorKind.KEY_OPERATOR, "keys do not start with '$'"
    if size > MAX_KEY_BYTES and not map_keys:
        return ErrorKind.KEY_TOO_LONG, f"keys have at most {MAX_KEY_BYTES} bytes"
    if map_keys:
        return None, ""
    if "." in normal:
        return ErrorKind.KEY_DOTTED, "keys have no '.'"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in key):
        return ErrorKind.KEY_CONTROL, "control and invisible characters are not allowed"
    if (top and key in RESERVED_KEYS) or key in RESERVED_ANYWHERE or key.startswith("__"):
        return ErrorKind.KEY_RESERVED, "the key is reserved"
    return None, ""


def check_freeform(
    value: object,
    path: str = "",
    *,
    max_bytes: int = 64 << 10,
    max_items: int = MAX_KEYS,
    map_keys: bool = False,
) -> dict[str, Any]:
    """The dict unchanged, if MongoDB can hold it without changing its meaning.

    Args:
        value: What the caller gave.
        path: Where it stands, for the messages.
        max_bytes: Limit of keys and values together.
        max_items: Limit of keys and list items together.
        map_keys: Keys name things of a recording (topics, HDF5 paths, file names) and may hold dots.

    Raises:
        InvalidInputError: With every problem found, up to 50.
    """
    if not isinstance(value, Mapping) or type(value) is not dict:
        raise InvalidInputError.of(
            [Problem(ErrorKind.NOT_A_DICT, path, f"found {shown(value)}; a mapping is needed")]
        )
    checker = _Checker(max_bytes=max_bytes, max_items=max_items, map_keys=map_keys)
    checker.value(value, path, 1)
    checker.stop()
    if checker.problems:
        raise InvalidInputError.of(checker.problems)
    return value
