"""The cursor of the sensor that tells about raw inputs: nothing twice, nothing lost to a late commit."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.orchestration.telling import OVERLAP, Cursor, Row

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(name, seconds=0, mark="registered"):
    return Row(name, mark, START + timedelta(seconds=seconds), dg.AssetMaterialization(name))


def ids(news):
    return [one.id for one in news]


def told(cursor, rows, **how):
    """One tick, through the text that Dagster stores between two."""
    news, after = cursor.news(rows, **how)
    return ids(news), Cursor.read(after.write())


def test_everything_is_told_once_oldest_first():
    rows = [row("b", 2), row("a", 1)]

    first, cursor = told(Cursor(), rows)
    second, _ = told(cursor, rows)

    assert first == ["a", "b"]
    assert second == []


def test_a_changed_mark_is_told_again():
    _, cursor = told(Cursor(), [row("a", 1)])

    assert told(cursor, [row("a", 5, mark="probed")])[0] == ["a"]


def test_a_late_commit_with_an_earlier_time_is_not_lost():
    _, cursor = told(Cursor(), [row("a", 100)])

    late = row("b", 100 - OVERLAP.total_seconds() + 1)

    assert told(cursor, [row("a", 100), late])[0] == ["b"]


def test_a_tick_tells_a_bounded_number_and_the_next_goes_on():
    rows = [row(f"a{i:03}", i) for i in range(10)]

    first, cursor = told(Cursor(), rows, limit=4)
    second, cursor = told(cursor, rows, limit=4)
    third, _ = told(cursor, rows, limit=4)

    assert first + second + third == [one.id for one in rows]


@pytest.mark.parametrize("text", [None, "", "null", "[]", "{}", "not json", '{"until": 1, "seen": {}}'])
def test_a_cursor_that_cannot_be_read_starts_over(text):
    assert Cursor.read(text).news([row("a")])[0] != []


@given(st.lists(st.integers(0, 3600), max_size=30), st.integers(1, 7))
def test_nothing_is_lost_or_told_twice_however_it_is_cut(seconds, limit):
    rows = [row(f"a{i}", second) for i, second in enumerate(seconds)]
    cursor, seen = Cursor(), []
    for _ in range(len(rows) + 1):
        news, cursor = told(cursor, rows, limit=limit)
        seen += news

    assert sorted(seen) == sorted(one.id for one in rows)
