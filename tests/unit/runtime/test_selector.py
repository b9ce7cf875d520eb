from datetime import UTC, datetime, timedelta

import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.runtime.selector import is_selector, parse_selector

NOT_ARCHIVED = {"status": {"$ne": "archived"}}


@pytest.mark.parametrize(
    ("text", "filter_"),
    [
        ("type=rosbag", {**NOT_ARCHIVED, "type": {"$in": ["rosbag"]}}),
        ("type=rosbag|hdf5_dataset", {**NOT_ARCHIVED, "type": {"$in": ["rosbag", "hdf5_dataset"]}}),
        ("status=ready, type=rosbag", {"status": {"$in": ["ready"]}, "type": {"$in": ["rosbag"]}}),
        ("format=mcap", {**NOT_ARCHIVED, "detectedFormats": {"$regex": r"^(?:mcap)(?:[^a-z0-9]|\z)"}}),
        ("name=pick-*.b?g", {**NOT_ARCHIVED, "displayName": {"$regex": r"^(?:pick\-.*\.b.g)\z"}}),
        (
            "since=2026-03-01",
            {**NOT_ARCHIVED, "createdAt": {"$gte": datetime(2026, 3, 1, tzinfo=UTC)}},
        ),
        (
            "since=2026-03-01T02:00:00+02:00",
            {**NOT_ARCHIVED, "createdAt": {"$gte": datetime(2026, 3, 1, tzinfo=UTC)}},
        ),
    ],
)
def test_a_selector_becomes_what_stored_assets_must_match(text, filter_):
    assert parse_selector(text).filter == filter_


def test_a_length_of_time_counts_back_from_the_tick():
    tick = datetime(2026, 3, 2, tzinfo=UTC)

    selector = parse_selector("type=rosbag,since=24h")

    assert selector.younger_than == timedelta(days=1)
    assert selector.at(tick)["createdAt"] == {"$gte": datetime(2026, 3, 1, tzinfo=UTC)}


def test_since_the_last_run_is_for_the_schedule_to_know():
    selector = parse_selector("type=rosbag,status=ready,since=last-run")

    assert selector.since_last_run
    assert "createdAt" not in selector.filter
    assert selector.text == "type=rosbag,status=ready,since=last-run"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("typ=rosbag", "did you mean 'type'?"),
        ("colour=red", "known are type, format, status, name, since"),
        ("type=rosbak", "did you mean 'rosbag'?"),
        ("type=", "key=value is needed"),
        ("type", "key=value is needed"),
        ("type=rosbag,", "key=value is needed"),
        ("type=rosbag,type=archive", "write type=A|B"),
        ("type=rosbag||archive", "1 to 20 values"),
        ("status=done", "allowed are registered, probing, ready, failed, archived"),
        ("since=yesterday", "allowed are last-run, a length such as 24h"),
        ("since=0h", "allowed are last-run"),
        ("format=.*", "such as mcap"),
        ("", "key=value with commas"),
        ("type=ros\nbag", "key=value with commas"),
        (5, "key=value with commas"),
        ("name=" + "x" * 1_000, "key=value with commas"),
    ],
)
def test_what_is_no_selector_is_refused_with_what_is_allowed(text, said):
    with pytest.raises(InvalidInputError) as caught:
        parse_selector(text, "assets[0]")

    assert caught.value.kind is ErrorKind.SELECTOR
    assert said in caught.value.message
    assert caught.value.message.startswith("assets[0]: ")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("type=rosbag,status=ready", True),
        ("typ=rosbag", True),  # a slip of the pen, to be refused and not looked up as a name
        ("rows.csv", False),
        ("ast_01M8CF8VA4Y6YEDJCZ06WNA3T6", False),
        ("speed 2 = fast", False),
        ("run 7, x=1", False),
        ("", False),
    ],
)
def test_a_selector_is_told_from_the_name_of_an_asset(text, meant):
    assert is_selector(text) is meant
