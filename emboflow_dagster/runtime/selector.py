"""Asset selectors: ``type=rosbag,status=ready,since=last-run``, checked before they are stored.

Conditions stand with commas between, all of them hold; ``|`` between values means either. Written wherever
the name of an asset is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from emboflow_dagster.blobs.durations import duration
from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.model.asset import AssetStatus, AssetType
from emboflow_dagster.model.text import refuse
from emboflow_dagster.runtime.registry import nearest

#: Values and where they stand, to what stored assets must match.
Read = Callable[[list[str], str], dict[str, Any]]
LAST_RUN: Final = "last-run"
MAX_CHARS: Final = 1_000
MAX_VALUES: Final = 20
_LONGEST: Final = timedelta(days=3_650)
_KEYS: Final = ("type", "format", "status", "name", "since")
# Also what a slip of the pen looks like: nobody names an asset `typ=rosbag,status=ready`.
_SHAPE: Final = re.compile(r"[A-Za-z_]{1,20}=[^,]*(,\s*[A-Za-z_]{1,20}=[^,]*)*")


@dataclass(frozen=True, slots=True)
class Selector:
    """A checked selector: its text, and the filter that the stored assets must match."""

    text: str
    filter: dict[str, Any]
    since_last_run: bool = False
    younger_than: timedelta | None = None

    def at(self, moment: datetime) -> dict[str, Any]:
        """The filter as it is for a tick at ``moment``."""
        if self.younger_than is None:
            return self.filter
        return {**self.filter, "createdAt": {"$gte": moment - self.younger_than}}


def is_selector(text: str) -> bool:
    """Whether a text is meant as a selector, not as the name or id of an asset."""
    return _SHAPE.fullmatch(text.strip()) is not None


def is_key(word: str) -> bool:
    """Whether selectors have a condition of that name."""
    return word in _KEYS


def parse_selector(text: object, path: str = "select") -> Selector:
    """A selector, checked.

    Args:
        text: ``key=value`` with commas between. Keys: ``type`` and ``status`` (words of the asset model),
            ``format`` (what a probe found; ``rosbag2`` also takes ``rosbag2_mcap``), ``name`` (a name, or a
            pattern with ``*`` and ``?``), ``since`` (``last-run``, a length such as ``24h``, or a date).
        path: Where it stands, for messages.

    Raises:
        InvalidInputError: Kind ``selector``; says what was found and what is allowed.
    """
    if type(text) is not str or not text.strip() or len(text) > MAX_CHARS or not text.isprintable():
        raise refuse(
            ErrorKind.SELECTOR, path, f"found {shown(text)}; key=value with commas between is needed"
        )
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or not value.strip():
            raise refuse(ErrorKind.SELECTOR, path, f"found {shown(part.strip())}; key=value is needed")
        if key not in _KEYS:
            near = nearest(key, _KEYS)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(_KEYS)}"
            raise refuse(ErrorKind.SELECTOR, path, f"unknown key {shown(key)}; {hint}")
        if key in found:
            raise refuse(ErrorKind.SELECTOR, path, f"{key} is named twice; write {key}=A|B for either")
        found[key] = value.strip()
    filter_: dict[str, Any] = {"status": {"$ne": AssetStatus.ARCHIVED.value}}
    for key, read in _READERS.items():
        if key in found:
            filter_ |= read(_values(found[key], key, path), path)
    plain = ",".join(f"{key}={found[key]}" for key in found)
    if "since" not in found:
        return Selector(plain, filter_)
    if found["since"] == LAST_RUN:
        return Selector(plain, filter_, since_last_run=True)
    younger, after = _since(found["since"], path)
    return Selector(plain, {**filter_, **after}, younger_than=younger)


def _values(text: str, key: str, path: str) -> list[str]:
    values = [value.strip() for value in text.split("|")]
    if not all(values) or len(values) > MAX_VALUES:
        raise refuse(
            ErrorKind.SELECTOR, path, f"{key}: found {shown(text)}; 1 to {MAX_VALUES} values with | between"
        )
    return values


def _words(field: str, words: list[str]) -> Read:
    def read(values: list[str], path: str) -> dict[str, Any]:
        for value in values:
            if value not in words:
                near = nearest(value, words)
                hint = f"did you mean {near!r}?" if near else f"allowed are {', '.join(words)}"
                raise refuse(ErrorKind.SELECTOR, path, f"{field}: found {shown(value)}; {hint}")
        return {field: {"$in": values}}

    return read


def _formats(values: list[str], path: str) -> dict[str, Any]:
    for value in values:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._/-]{0,63}", value):
            raise refuse(ErrorKind.SELECTOR, path, f"format: found {shown(value)}; such as mcap or hdf5")
    either = "|".join(re.escape(value) for value in values)
    return {"detectedFormats": {"$regex": rf"^(?:{either})(?:[^a-z0-9]|\z)"}}


def _names(values: list[str], _path: str) -> dict[str, Any]:
    either = "|".join(_pattern(value) for value in values)
    return {"displayName": {"$regex": rf"^(?:{either})\z"}}


def _pattern(name: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in name)


def _since(text: str, path: str) -> tuple[timedelta | None, dict[str, Any]]:
    try:
        return duration(text, "since", most=_LONGEST), {}
    except InvalidInputError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise refuse(
            ErrorKind.SELECTOR,
            path,
            f"since: found {shown(text)}; allowed are {LAST_RUN}, a length such as 24h or 7d, "
            "a date such as 2026-03-01",
        ) from None
    return None, {
        "createdAt": {"$gte": moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)}
    }


_READERS: Final[dict[str, Read]] = {
    "type": _words("type", [word.value for word in AssetType]),
    "status": _words("status", [word.value for word in AssetStatus]),
    "format": _formats,
    "name": _names,
}
