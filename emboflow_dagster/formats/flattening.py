"""All numbers of a decoded message with their paths, and those of many messages alike without a new search.

A topic's messages are of one class and mostly of the same lengths: a :class:`Flattener` finds out once where
their numbers stand.
"""

import dataclasses
from array import array
from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final, Literal

MAX_VALUES: Final = 1_024
"""A message with more numbers is sensor data (a scan, a map), not a state: the surplus is left out."""

MAX_ARRAY: Final = 256
MAX_DEPTH: Final = 16
#: Messages in a row that are unlike the one before them: of such a topic each is searched.
MAX_MISSES: Final = 8
_NAMES: Final = ("name", "names", "joint_names")
_TIMES: Final = frozenset({"builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration"})
_HEADER: Final = "std_msgs/msg/Header"

_Step = tuple[Literal["number", "numbers", "length", "labels", "time", "messages"], Any]


class Flattener:
    """Flattens the messages of one topic: the results are those of :func:`flatten`."""

    def __init__(self) -> None:
        self._shape: _Shape | None = None
        self._names: tuple[str, ...] = ()
        self._misses = 0

    def __call__(self, message: Any) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The paths of the numbers (the same tuple for messages alike) and the numbers."""
        if self._shape is not None:
            found: list[float] = []
            if self._shape.take(message, found):
                self._misses = 0
                return self._names, tuple(found)
        names, values = flatten(message)
        self._shape, self._names = None, names
        if self._misses < MAX_MISSES and hasattr(message, "__msgtype__"):
            self._misses += 1
            self._shape = _shape_of(message, values)
        return names, values


class _UnshapedError(Exception):
    """The message holds something that only a search understands."""


def _shape_of(message: Any, values: tuple[float, ...]) -> "_Shape | None":
    try:
        shape, found = _Shape(message), []
    except _UnshapedError:
        return None
    # One with too many numbers, or too deep, is cut short by the search.
    same = shape.take(message, found) and array("d", found).tobytes() == array("d", values).tobytes()
    return shape if same else None


class _Shape:
    """Where the numbers of messages like this one stand."""

    __slots__ = ("_get", "_kind", "_single", "_steps")

    def __init__(self, message: Any) -> None:
        self._kind = type(message)
        found: list[tuple[str, _Step]] = []
        _describe(message, "", found)
        self._steps = [step for _, step in found]
        self._single = len(found) == 1
        self._get = attrgetter(*(path for path, _ in found)) if found else None

    def take(self, message: Any, into: list[float]) -> bool:
        """Append the message's numbers; ``False`` where its shape is another: what was appended is void."""
        if type(message) is not self._kind:
            return False
        if self._get is None:
            return True
        leaves: Any = self._get(message)
        for (what, known), leaf in zip(self._steps, (leaves,) if self._single else leaves, strict=True):
            if what == "number":
                into.append(float(leaf))
            elif what == "time":
                into.append(leaf.sec + leaf.nanosec * 1e-9)
            elif what == "labels":
                if leaf != known:
                    return False
            elif what == "messages":
                if len(leaf) != len(known) or not all(map(_Shape.take, known, leaf, [into] * len(known))):
                    return False
            elif len(leaf) != known:
                return False
            elif what == "numbers":
                into.extend(leaf.astype("f8", copy=False).tolist())
        return True


def _describe(message: Any, path: str, found: list[tuple[str, _Step]]) -> None:
    for name, value in _message_fields(message).items():
        inner = f"{path}.{name}" if path else name
        if name in _NAMES and _are_words(value):
            found.append((inner, ("labels", list(value))))
        elif name == "header" or name.endswith("covariance") or isinstance(value, (str, bytes, type(None))):
            continue
        elif isinstance(value, (bool, int, float)):
            found.append((inner, ("number", None)))
        elif hasattr(value, "dtype"):
            if value.dtype.kind == "b" or (value.dtype.kind in "fiu" and value.dtype.itemsize > 1):
                found.append((inner, ("numbers" if len(value) <= MAX_ARRAY else "length", len(value))))
        elif isinstance(value, list):
            found.append((inner, _of_list(value)))
        elif getattr(value, "__msgtype__", None) in _TIMES:
            found.append((inner, ("time", None)))
        elif not hasattr(value, "__msgtype__"):
            raise _UnshapedError
        elif value.__msgtype__ != _HEADER:
            _describe(value, inner, found)


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _of_list(items: list[Any]) -> _Step:
    if len(items) > MAX_ARRAY or not items:
        return "length", len(items)
    if all(isinstance(item, str) for item in items):
        return "length", len(items)
    if any(getattr(item, "__msgtype__", _HEADER) in {_HEADER, *_TIMES} for item in items):
        raise _UnshapedError
    return "messages", [_Shape(item) for item in items]


def flatten(message: Any) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """All numbers of a decoded message with their paths, at most :data:`MAX_VALUES`.

    >>> flatten({"name": ["elbow"], "position": [0.5], "ok": True, "note": "x"})
    (('position.elbow', 'ok'), (0.5, 1.0))
    """
    names: list[str] = []
    values: list[float] = []
    _collect(message, "", names, values, 0)
    return tuple(names[:MAX_VALUES]), tuple(values[:MAX_VALUES])


def _collect(value: Any, path: str, names: list[str], values: list[float], depth: int) -> None:
    if len(names) >= MAX_VALUES or depth > MAX_DEPTH or isinstance(value, (str, bytes)) or value is None:
        return
    if isinstance(value, (bool, int, float)):
        names.append(path or "value")
        try:
            values.append(float(value))
        except OverflowError:
            values.append(float("inf") if value > 0 else float("-inf"))
        return
    if isinstance(value, dict):
        _collect_fields(value, path, names, values, depth)
    elif isinstance(value, (list, tuple)):
        _collect_array(value, path, names, values, depth)
    elif hasattr(value, "dtype"):
        # Arrays of single bytes are blobs, except flags.
        if value.dtype.kind == "b" or (value.dtype.kind in "fiu" and value.dtype.itemsize > 1):
            _collect_array(value.tolist(), path, names, values, depth)
    elif hasattr(value, "__msgtype__"):
        kind = value.__msgtype__
        if kind in _TIMES:
            names.append(path or "value")
            values.append(value.sec + value.nanosec * 1e-9)
        elif kind != _HEADER:
            _collect_fields(_message_fields(value), path, names, values, depth)


def _collect_fields(
    fields: dict[Any, Any], path: str, names: list[str], values: list[float], depth: int
) -> None:
    labels = next((labels for key in _NAMES if (labels := _labels(fields.get(key)))), None)
    for key, value in fields.items():
        field = str(key)
        if field.endswith("covariance") or field == "header":
            continue
        inner = f"{path}.{field}" if path else field
        items = value.tolist() if hasattr(value, "dtype") and value.dtype.itemsize > 1 else value
        if labels and isinstance(items, (list, tuple)) and len(items) == len(labels):
            _collect_array(items, inner, names, values, depth, labels=labels)
        else:
            _collect(value, inner, names, values, depth + 1)


def _message_fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in _field_names(type(message))}


@cache
def _field_names(message_type: type) -> tuple[str, ...]:
    # The generated classes keep a type's constants beside its fields, told apart by their annotation alone.
    # An empty ROS 2 message has a member that only exists because C++ structures need one.
    return tuple(
        field.name
        for field in dataclasses.fields(message_type)
        if not str(field.type).startswith(("ClassVar", "typing.ClassVar"))
        and field.name != "structure_needs_at_least_one_member"
    )


def _collect_array(
    items: Sequence[Any],
    path: str,
    names: list[str],
    values: list[float],
    depth: int,
    *,
    labels: Sequence[str] | None = None,
) -> None:
    if len(items) > MAX_ARRAY:
        return
    for index, item in enumerate(items):
        label = labels[index] if labels else str(index)
        _collect(item, f"{path}.{label}" if path else label, names, values, depth + 1)


def _labels(value: Any) -> list[str] | None:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        return None
    return value if len(set(value)) == len(value) else None
