"""Sizes, durations and dates as people read them."""

from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int | None) -> str | None:
    """Bytes in binary units.

    >>> size(1536), size(999)
    ('1.5 KiB', '999 B')
    """
    if count is None:
        return None
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - what would be shown as 1024.0
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def duration(milliseconds: float | None) -> str | None:
    """How long something took.

    >>> duration(850), duration(12_340), duration(252_000), duration(7_500_000)
    ('850 ms', '12.3 s', '4 min 12 s', '2 h 05 min')
    """
    if milliseconds is None:
        return None
    if milliseconds < 999.5:  # noqa: PLR2004 - shown as 1.0 s from here on
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:  # noqa: PLR2004 - likewise, a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def age(moment: datetime | None, now: datetime | None = None) -> str | None:
    """How long ago, or how far ahead, in one unit.

    >>> age(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, 5, tzinfo=UTC))
    '2 d ago'
    >>> age(datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC))
    'in 23 h'
    """
    if moment is None:
        return None
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if abs(seconds) >= length:
            return f"{seconds // length} {unit} ago" if seconds > 0 else f"in {-seconds // length} {unit}"
    return "now"


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "version"), counted(3, "version")
    ('1 version', '3 versions')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def moment(value: datetime | None) -> str | None:
    """A date with its zone and its distance from now."""
    return None if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({age(value)})"
