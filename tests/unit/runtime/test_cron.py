from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.runtime.cron import check_cron, check_timezone


def kind_of(check, value) -> ErrorKind | None:
    try:
        result = check(value)
    except InvalidInputError as error:
        return error.kind
    assert result == value
    return None


@pytest.mark.parametrize(
    "text",
    [
        "0 3 * * *",
        "*/15 8-18 * * mon-fri",
        "0 0 1,15 * *",
        "0 0 29 2 *",
        "59 23 31 12 7",
        "0 0 * JAN,jul SUN",
        "0-30/10 * * * *",
    ],
)
def test_what_every_cron_reads(text):
    assert kind_of(check_cron, text) is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("* * * *", ErrorKind.CRON_FIELDS),
        ("* * * * * *", ErrorKind.CRON_FIELDS),
        ("*  * * * *", ErrorKind.CRON_FIELDS),
        ("* * * * * ", ErrorKind.CRON_FIELDS),
        ("@daily", ErrorKind.CRON),
        ("0 0 L * *", ErrorKind.CRON),
        ("0 0 ? * *", ErrorKind.CRON),
        ("0 0 * * 1#2", ErrorKind.CRON),
        ("5/15 * * * *", ErrorKind.CRON),
        ("0 0 * * fri-mon", ErrorKind.CRON),
        ("*/61 * * * *", ErrorKind.CRON),
        ("-1 * * * *", ErrorKind.CRON),
        ("1- * * * *", ErrorKind.CRON),
        ("00000000000000000005 * * * *", None),
        ("99999999999999999999 * * * *", ErrorKind.CRON),
        ("* * 32 * *", ErrorKind.CRON),
        ("* * * 13 *", ErrorKind.CRON),
        ("* * * * 8", ErrorKind.CRON),
        ("٣ * * * *", ErrorKind.CRON),
        ("0 0 30,31 feb *", ErrorKind.CRON_NEVER),
        ("0 0 31 2,4,6,9,11 */2", ErrorKind.CRON_NEVER),
        ("0 0 31 4 0-6", ErrorKind.CRON_NEVER),
        ("0 0 30 2 0", ErrorKind.CRON_NEVER),  # Dagster refuses it, though Sundays come
        (None, ErrorKind.CRON_TYPE),
        (b"* * * * *", ErrorKind.CRON_TYPE),
        ("*" * 300, ErrorKind.CRON),
    ],
)
def test_what_is_refused(value, kind):
    assert kind_of(check_cron, value) is kind


def test_a_shorthand_is_answered_with_the_five_fields():
    with pytest.raises(InvalidInputError, match=r"write '0 0 \* \* \*'"):
        check_cron("@daily")


FIELDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


@st.composite
def expressions(draw):
    words = []
    for low, high in FIELDS:
        number = st.integers(low - 1, high + 1)
        start, end, step = draw(number), draw(number), draw(st.integers(0, high + 2))
        form = draw(st.sampled_from(["*", "{a}", "{a}-{b}", "*/{s}", "{a}-{b}/{s}", "{a},{b}"]))
        words.append(form.format(a=start, b=end, s=step))
    return " ".join(words)


@settings(max_examples=300, deadline=None)
@given(expressions())
def test_what_is_accepted_the_scheduler_reads_and_finds_a_tick_for(text):
    from dagster._utils.schedules import get_next_cron_tick, is_valid_cron_string

    if kind_of(check_cron, text) is None:
        assert is_valid_cron_string(text)
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        assert get_next_cron_tick(text, moment, "UTC") >= moment


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+12"])
def test_iana_zones(zone):
    assert kind_of(check_timezone, zone) is None


@pytest.mark.parametrize(
    "value",
    ["europe/berlin", "Europe", "../UTC", "UTC\n", " UTC", "localtime", "right/UTC", 0, ["UTC"], "x" * 999],
)
def test_what_is_no_zone(value):
    assert kind_of(check_timezone, value) is ErrorKind.TZ


def test_the_nearest_zone_is_named():
    with pytest.raises(InvalidInputError, match="did you mean 'Europe/Berlin'"):
        check_timezone("europe/berlin")
