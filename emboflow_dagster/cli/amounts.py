"""Amounts on the command line: bytes with a unit, moments as dates."""

import re
from datetime import UTC, datetime
from typing import Final

import typer

_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def size_of(text: str | None, option: str) -> int | None:
    """Bytes: a number, with a binary unit where one is given.

    >>> size_of("10GiB", "--max-bytes"), size_of("512", "--max-bytes")
    (10737418240, 512)

    Raises:
        typer.BadParameter: It is no size above zero.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    count = int(float(found[1]) * (1 << _UNITS[found[2].lower()])) if found else 0
    if count <= 0:
        raise typer.BadParameter(
            f"found {text!r}; allowed is a size such as 500MiB or 10GiB", param_hint=f"'{option}'"
        )
    return count


def moment_of(text: str | None, option: str) -> datetime | None:
    """A date or a date with a time, in UTC where it names no zone.

    >>> moment_of("2026-03-01", "--since").isoformat()
    '2026-03-01T00:00:00+00:00'

    Raises:
        typer.BadParameter: It is no date.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"found {text!r}; allowed is a date such as 2026-03-01 or 2026-03-01T12:00",
            param_hint=f"'{option}'",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
