"""How long something lasts, as people write it."""

import re
from datetime import timedelta
from typing import Final

from emboflow_dagster.errors import InvalidInputError, shown

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(value: timedelta | str, path: str, *, most: timedelta) -> timedelta:
    """A length of time from one second up.

    >>> duration("1d", "ttl", most=timedelta(days=30))
    datetime.timedelta(days=1)

    Raises:
        InvalidInputError: It is none, or longer than ``most``.
    """
    found = value
    if isinstance(value, str):
        match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", value, re.ASCII)
        found = timedelta(seconds=int(match[1]) * _SECONDS[match[2]]) if match else None
    if not isinstance(found, timedelta) or not timedelta(seconds=1) <= found <= most:
        raise InvalidInputError(
            f"{path}: found {shown(value)}; allowed are '1s' to '{most.days}d': a number and s, m, h or d"
        )
    return found
