"""Which column of a table is time, in which unit, and how regular it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.formats.csv_cells import numbers

#: Seconds of one of the unit.
UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
#: A step that many times the usual one is a gap: one record at least is missing.
GAP: Final = 1.5
_NAMES: Final = (
    re.compile(r"(header[._ ])?(time_?stamps?|stamps?|datetime)"),
    re.compile(r"(time|zeit|t|ts|elapsed|clock|sim_?time|ros_?time|epoch|unix_?time)(_?time)?"),
    re.compile(r"(sec|secs|seconds|msec|usec|nsec|milliseconds|microseconds|nanoseconds|nanosec)"),
)
_UNIT_WORDS: Final = (
    ("ns", ("ns", "nsec", "nsecs", "nanosec", "nanosecs", "nanosecond", "nanoseconds", "nanos")),
    ("us", ("us", "usec", "usecs", "µs", "micros", "microsecond", "microseconds", "microsec")),
    ("ms", ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds", "millisec")),
    ("s", ("s", "sec", "secs", "second", "seconds")),
)
_ALL_UNITS: Final = frozenset(word for _, words in _UNIT_WORDS for word in words)
_SINCE_1970: Final = (("s", 1e9, 1e10), ("ms", 1e12, 1e13), ("us", 1e15, 1e16), ("ns", 1e18, 1e19))
_LOOKED_AT: Final = 4_096


def words(name: str) -> list[str]:
    """The words of a column's name.

    >>> words("Time (ms)"), words("timestampNs")
    (['time', 'ms'], ['timestamp', 'ns'])
    """
    split = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)
    return [word for word in re.split(r"[^a-zµ0-9]+", split.lower()) if word]


def is_time_name(name: str) -> int | None:
    """How much a name speaks for time: 0 most, ``None`` not at all.

    >>> is_time_name("header.stamp"), is_time_name("t"), is_time_name("force_t"), is_time_name("time_ms")
    (0, 1, None, 1)
    """
    plain = "_".join(word for word in words(name) if word not in _ALL_UNITS)
    for rank, pattern in enumerate(_NAMES):
        if pattern.fullmatch(plain or "_".join(words(name))):
            return rank
    return None


def unit_by_name(name: str) -> str | None:
    """The unit that a name says, if it says one besides being time."""
    found = words(name)
    for unit, known in _UNIT_WORDS:
        if any(word in known for word in found):
            return unit
    return None


def unit_of(name: str, first: float, step: float, *, whole: bool) -> tuple[str, str]:
    """The unit of stamps, and why.

    Args:
        name: Of the column.
        first: The first stamp.
        step: The usual step between two.
        whole: Whether all stamps are whole numbers.

    >>> unit_of("time", 1.7e9, 0.1, whole=False)
    ('s', 'its values are seconds since 1970')
    >>> unit_of("t", 0, 10, whole=True)
    ('ms', 'whole numbers with a step of 10: 100 Hz in ms')
    """
    said = unit_by_name(name)
    if said:
        return said, f"its name says {said}"
    spoken = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
    for unit, low, high in _SINCE_1970:
        if low <= first < high:
            return unit, f"its values are {spoken[unit]} since 1970"
    if not whole or step <= 0:
        return "s", f"fractions with a step of {step:g}"
    unit = "ms" if step < 1_000 else "us" if step < 1_000_000 else "ns"  # noqa: PLR2004 - 1 Hz and more
    return unit, f"whole numbers with a step of {step:g}: {1 / (step * UNITS[unit]):g} Hz in {unit}"


@dataclass(slots=True)
class Clock:
    """A time column while its table is read.

    Attributes:
        index: Which column.
        column: Its name.
        kind: ``integer``, ``number`` or ``moment``.
        unit: ``s``, ``ms``, ``us`` or ``ns``.
        reason: Why it is taken for time, and its unit for that.
        step: The usual step, in the unit.
        broken: Why it is no time after all, empty while it is.
    """

    index: int
    column: str
    kind: str
    unit: str
    reason: str
    step: float
    count: int = 0
    start: float | int | None = None
    end: float | int | None = None
    backwards: int = 0
    repeated: int = 0
    first_wrong: int = 0
    gaps: int = 0
    largest: float = 0.0
    missing: int = 0
    broken: str = ""
    _last: Any = field(default=None, repr=False)

    def see(self, column: Any, decimal: str) -> None:
        """Take in the next block of the column."""
        import numpy as np

        self.missing += column.null_count
        column = column.drop_null()
        found = numbers(column, self.kind, decimal)
        if found is None and self.kind == "integer":
            self.kind = "number"
            found = numbers(column, self.kind, decimal)
        if found is None:
            self.broken = "not every cell is a time"
        if found is None or self.broken or not len(column):
            return
        values = found.to_numpy(zero_copy_only=False)
        if self.start is None:
            self.start = values[0].item()
        joined = values if self._last is None else np.concatenate([[self._last], values]).astype(values.dtype)
        steps = np.diff(joined)
        wrong = steps <= 0
        if wrong.any() and not (self.backwards or self.repeated):
            self.first_wrong = self.count + int(np.argmax(wrong)) + (0 if self._last is not None else 1)
        self.backwards += int((steps < 0).sum())
        self.repeated += int((steps == 0).sum())
        self.gaps += int((steps > GAP * self.step).sum()) if self.step > 0 else 0
        self.largest = max(self.largest, float(steps.max(initial=0)))
        self.count += len(values)
        self._last = values[-1]
        self.end = values[-1].item()

    @property
    def rate(self) -> float | None:
        """Records per second."""
        return round(1 / (self.step * UNITS[self.unit]), 3) if self.step > 0 else None

    def to_json(self) -> dict[str, Any]:
        """As a report has it; durations in seconds."""
        size = UNITS[self.unit]
        span = None if self.start is None or self.end is None else (self.end - self.start) * size
        return {
            "column": self.column,
            "unit": self.unit,
            "reason": self.reason,
            "start": self.start,
            "end": self.end,
            "durationS": None if span is None else round(span, 9),
            "rateHz": self.rate,
            "backwards": self.backwards,
            "repeated": self.repeated,
            "missing": self.missing,
            "gaps": self.gaps,
            "largestGapS": round(self.largest * size, 9),
        }


def clock_of(names: Sequence[str], batch: Any, decimal: str = ".") -> Clock | None:
    """The time column of a table by names and by its first block; ``None`` where none looks like time."""
    ranked = sorted(
        (rank, index) for index, name in enumerate(names) if (rank := is_time_name(name)) is not None
    )
    for _, index in ranked:
        if found := _as_clock(index, names[index], batch, decimal, "its name"):
            return found
    # A first column without such a name: only what grows in fractions, or since 1970, is no mere number.
    if not ranked and names and (found := _as_clock(0, names[0], batch, decimal, "")):
        return found
    return None


def _as_clock(index: int, name: str, batch: Any, decimal: str, why: str) -> Clock | None:
    import numpy as np

    column = batch.column(index)[:_LOOKED_AT].drop_null()
    for kind in ("integer", "number", "moment"):
        found = numbers(column, kind, decimal)
        if found is not None:
            break
    else:
        return None
    values: Any = found.to_numpy(zero_copy_only=False)
    if not len(values) or (kind == "number" and not np.isfinite(values).all()):
        return None
    steps = np.diff(values)
    forward = steps[steps > 0]
    step = float(np.median(forward)) if len(forward) else 0.0
    if kind == "moment":
        return Clock(index, name, kind, "ns", f"{why or 'its values'}: moments with their date", step)
    whole = bool((values == np.round(values)).all())
    if not why:
        regular = len(steps) > 8 and (steps > 0).all() and steps.max() < 20 * step  # noqa: PLR2004
        epoch = any(low <= float(values[0]) < high for _, low, high in _SINCE_1970)
        if not regular or (whole and not epoch):
            return None
        why = "the first column grows with every record"
    elif len(steps) and len(forward) < len(steps) / 2:
        return None  # so it is called, and does not pass
    unit, reason = unit_of(name, float(values[0]), step, whole=whole)
    return Clock(index, name, kind, unit, f"{why}; {reason}", step)
