"""When to run by itself: five-field cron and IANA time zones, checked before they are stored.

The language is what every cron reads the same way: ``*``, numbers, names of months and weekdays,
ranges, lists and steps. What readers disagree on (``@daily``, ``?``, ``L``, ``5/15``, ranges that
wrap) is refused with the way to write it.
"""

import difflib
import functools
import re
import zoneinfo
from typing import Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.model.text import refuse

MAX_CRON_CHARS: Final = 200
_MONTHS: Final = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS: Final = "sun mon tue wed thu fri sat".split()
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# name, lowest, highest, words for numbers
_FIELDS: Final = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {word: i for i, word in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {word: i for i, word in enumerate(_DAYS)}),
)
_PART: Final = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/([0-9]{1,3}))?", re.ASCII)
_SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# Files of the time zone database that are not places.
_NOT_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})


def check_cron(value: object, path: str = "cron") -> str:
    """A five-field cron expression that comes true some day.

    Raises:
        InvalidInputError: ``cron-type``, ``cron-fields``, ``cron`` or ``cron-never``.
    """
    if type(value) is not str:
        raise refuse(ErrorKind.CRON_TYPE, path, f"found {shown(value)}; a cron expression is a text")
    if value.startswith("@"):
        known = _SHORTHANDS.get(value.strip().lower())
        hint = f"write {known!r}" if known else "five fields are needed: minute hour day month weekday"
        raise refuse(ErrorKind.CRON, path, f"found {shown(value)}; {hint}")
    if not value.isascii() or not value.isprintable() or len(value) > MAX_CRON_CHARS:
        raise refuse(ErrorKind.CRON, path, f"found {shown(value)}; one short line of plain ASCII is allowed")
    words = value.split(" ")
    if len(words) != len(_FIELDS) or not all(words):
        raise refuse(
            ErrorKind.CRON_FIELDS,
            path,
            f"found {shown(value)}; five fields with one space between: minute hour day month weekday",
        )
    _, _, days, months, _ = (_field(word, i, path) for i, word in enumerate(words))
    # Also beside a weekday, which would come true: readers disagree on such a day, and nobody means it.
    if not any(min(days) <= _LONGEST[month - 1] for month in months):
        raise refuse(ErrorKind.CRON_NEVER, path, f"found {shown(value)}; no such day is in any calendar")
    return value


def _field(text: str, number: int, path: str) -> set[int]:
    name, low, high, words = _FIELDS[number]

    def wrong(why: str) -> InvalidInputError:
        return refuse(ErrorKind.CRON, path, f"{name}: found {shown(text)}; {why}")

    def value_of(word: str) -> int:
        value = words.get(word.lower(), -1) if not word.isdigit() else int(word[:4])
        if not low <= value <= high:
            names = f" or {', '.join(words)}" if words else ""
            raise wrong(f"{word!r} is not {low}-{high}{names}")
        return value

    result: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise wrong("allowed are *, numbers, names, ranges a-b, lists a,b and steps /n")
        star, first, last, step = match.groups()
        start, end = (low, high) if star else (value_of(first), value_of(last or first))
        if start > end:
            raise wrong(f"the range {part!r} runs backwards")
        if step is not None:
            if not star and last is None:
                raise wrong(f"write {first}-{high}/{step}: a step needs a range")
            if not 1 <= int(step) <= high - low + (low == 0):
                raise wrong(f"the step {step} is not 1-{high - low + (low == 0)}")
        result.update(range(start, end + 1, int(step or 1)))
    return result


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NOT_ZONES | {"UTC"}


def check_timezone(value: object, path: str = "timezone") -> str:
    """The name of an IANA time zone, spelt as the database spells it.

    Raises:
        InvalidInputError: ``tz``; the message names the nearest zone.
    """
    if type(value) is not str or value not in _zones():
        near: list[str] = []
        if isinstance(value, str) and len(value) <= 64:  # noqa: PLR2004 - no zone has a longer name
            by_lower = {zone.lower(): zone for zone in sorted(_zones())}
            near = [by_lower[z] for z in difflib.get_close_matches(value.lower(), by_lower, n=1, cutoff=0.7)]
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else "an IANA name such as 'Europe/Berlin' or 'UTC' is needed"
        )
        raise refuse(ErrorKind.TZ, path, f"found {shown(value)}; {hint}")
    return value
