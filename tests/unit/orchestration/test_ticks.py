"""When a schedule ticks where clocks change: at real dates, in winter, summer and the hours between."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboflow_dagster.orchestration.ticks import MAX_DUE, coming, due


def local(cron, zone, first, last):
    """The ticks of some days as clocks on the wall of the zone show them, with their offset."""
    place = ZoneInfo(zone)
    after = datetime.fromisoformat(first).replace(tzinfo=place).astimezone(UTC)
    until = datetime.fromisoformat(last).replace(tzinfo=place).astimezone(UTC)
    return [f"{tick.astimezone(place):%d %H:%M %z}" for tick in due(cron, zone, after=after, until=until)]


def test_a_time_that_does_not_exist_is_the_end_of_the_hour_left_out():
    ticks = local("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31")

    assert ticks == ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]


def test_a_time_that_exists_twice_is_the_second():
    ticks = local("30 2 * * *", "Europe/Berlin", "2026-10-24", "2026-10-27")

    assert ticks == ["24 02:30 +0200", "25 02:30 +0100", "26 02:30 +0100"]


def test_several_times_in_an_hour_left_out_are_one_tick():
    assert local("*/15 2 * * *", "Europe/Berlin", "2026-03-29", "2026-03-29T12:00") == ["29 03:00 +0200"]


def test_each_real_hour_has_its_tick():
    spring = local("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", "2026-03-29T04:00")
    autumn = local("30 * * * *", "Europe/Berlin", "2026-10-25T01:00", "2026-10-25T04:00")

    assert spring == ["29 01:30 +0100", "29 03:30 +0200"]
    assert autumn == ["25 01:30 +0200", "25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100"]


@pytest.mark.parametrize(
    ("cron", "zone", "first", "ticks"),
    [
        (
            "0 2 * * *",
            "America/New_York",
            "2026-03-07",
            ["07 02:00 -0500", "08 03:00 -0400", "09 02:00 -0400"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31",
            ["31 01:30 -0400", "01 01:30 -0500", "02 01:30 -0500"],
        ),
        # The clocks of Havana and Cairo change at midnight.
        (
            "0 0 * * *",
            "America/Havana",
            "2026-03-06T12:00",
            ["07 00:00 -0500", "08 01:00 -0400", "09 00:00 -0400"],
        ),
        (
            "0 0 * * *",
            "Africa/Cairo",
            "2026-04-22T12:00",
            ["23 00:00 +0200", "24 01:00 +0300", "25 00:00 +0300"],
        ),
        # Lord Howe moves its clocks by half an hour.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-02T12:00",
            ["03 02:15 +1030", "04 02:30 +1100", "05 02:15 +1100"],
        ),
        ("30 2 * * *", "Asia/Kolkata", "2026-03-28", ["28 02:30 +0530", "29 02:30 +0530", "30 02:30 +0530"]),
    ],
)
def test_a_daily_schedule_ticks_once_a_day_everywhere(cron, zone, first, ticks):
    last = (datetime.fromisoformat(first) + timedelta(days=3)).isoformat()

    assert local(cron, zone, first, last)[:3] == ticks


@settings(max_examples=60, deadline=None)
@given(
    cron=st.sampled_from(
        [
            "30 2 * * *",
            "*/15 2 * * *",
            "30 * * * *",
            "*/7 * * * *",
            "0 0 * * *",
            "*/30 1-3 * * 0",
            "0 2 25 10 *",
        ]
    ),
    change=st.sampled_from(
        [("Europe/Berlin", 2026, 3, 29), ("Europe/Berlin", 2026, 10, 25), ("America/Havana", 2026, 11, 1)]
    ),
    minutes=st.integers(-200, 500),
)
def test_ticks_do_not_depend_on_when_one_looks(cron, change, minutes):
    zone, *day = change
    midnight = datetime(*day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    first, between, last = (midnight + timedelta(minutes=m) for m in (-480, minutes, 1_800))

    before = due(cron, zone, after=first, until=between)
    after = due(cron, zone, after=between, until=last)

    assert [*before, *after] == due(cron, zone, after=first, until=last)
    assert len({*before, *after}) == len(before) + len(after)


def test_the_next_ticks_are_after_the_moment():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    assert coming("0 12 * * *", "UTC", after=noon, count=2) == [
        noon + timedelta(days=1),
        noon + timedelta(days=2),
    ]


def test_a_year_of_minutes_is_counted_no_further_than_it_takes():
    year = due(
        "* * * * *", "UTC", after=datetime(2025, 1, 1, tzinfo=UTC), until=datetime(2026, 1, 1, tzinfo=UTC)
    )

    assert len(year) <= MAX_DUE
    assert year[-1] == datetime(2026, 1, 1, tzinfo=UTC)
