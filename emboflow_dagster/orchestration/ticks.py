"""When a cron expression comes true: as Dagster's own scheduler reckons it, so that both mean the same ticks.

Wall-clock times that do not exist, or exist twice, when the clocks change (decision 18): an expression with a
fixed hour runs at the end of the hour that was left out, and in the second of two equal hours; one for every
hour runs at each real hour, whatever it is called. Dagster's function for it is not public: it is called here
alone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Final
from zoneinfo import ZoneInfo

from dagster._utils.schedules import schedule_execution_time_iterator

#: Ticks that passed unseen are counted up to so many: a week of one each minute.
MAX_DUE: Final = 10_080
_LAST_OF_MANY: Final = timedelta(days=1)


def due(cron: str, timezone: str, *, after: datetime, until: datetime) -> list[datetime]:
    """The ticks after one moment and not after another, oldest first; of very many those of the last day."""
    found = list(islice(takewhile(lambda tick: tick <= until, _after(cron, timezone, after)), MAX_DUE + 1))
    if len(found) <= MAX_DUE:
        return found
    return list(takewhile(lambda tick: tick <= until, _after(cron, timezone, until - _LAST_OF_MANY)))


def coming(cron: str, timezone: str, *, after: datetime, count: int = 1) -> list[datetime]:
    """The next ticks after a moment, in UTC."""
    return list(islice(_after(cron, timezone, after), count))


def _after(cron: str, timezone: str, moment: datetime) -> Iterator[datetime]:
    # From a noon, where no clock changes: begun in an hour that exists twice, Dagster's iterator may fail or
    # give a tick twice. Forwards, as the scheduler goes.
    noon = moment.astimezone(ZoneInfo(timezone)).replace(hour=12, minute=0, second=0, microsecond=0)
    begin = noon - timedelta(days=2)
    newest = moment
    for tick in schedule_execution_time_iterator(begin.timestamp(), cron, timezone):
        instant = tick.astimezone(UTC)
        if instant > newest:
            yield instant
            newest = instant
