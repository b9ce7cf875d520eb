"""What our validator accepts is what the server gives back: not one value changes on the way."""

import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.freeform import RESERVED_ANYWHERE, RESERVED_KEYS, check_freeform
from emboflow_dagster.mongo.client import Mongo, connect

WORD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")), min_size=1, max_size=20)
PLAIN_KEYS = WORD.filter(
    lambda k: (
        not unicodedata.normalize("NFKC", k).startswith("$")
        and "." not in unicodedata.normalize("NFKC", k)
        and not k.startswith("__")
        and k not in RESERVED_KEYS | RESERVED_ANYWHERE
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
    | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000, fold=0)
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(PLAIN_KEYS, inner, max_size=5),
    max_leaves=25,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def mongo(mongo_uri: str) -> Iterator[Mongo]:
    opened = connect(mongo_uri, f"test_{uuid4().hex[:12]}")
    yield opened
    opened.client.drop_database(opened.db.name)
    opened.close()


def there_and_back(mongo: Mongo, value: dict[str, Any]) -> Any:
    mongo["free"].replace_one({"_id": 1}, {"value": value}, upsert=True)
    row = mongo["free"].find_one({"_id": 1})
    assert row is not None
    return row["value"]


def same(one: Any, other: Any) -> bool:
    """Equal in value and type, dicts in order too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@QUICK
@given(value=st.dictionaries(PLAIN_KEYS, VALUES, max_size=8))
def test_plain_json_is_accepted_and_comes_back_unchanged(mongo: Mongo, value: dict[str, Any]) -> None:
    assert check_freeform(value) is value
    assert same(there_and_back(mongo, value), value)


@QUICK
@given(value=st.dictionaries(st.text(max_size=12), st.dictionaries(st.text(max_size=12), VALUES), max_size=5))
def test_keys_of_recordings_come_back_unchanged_dots_and_all(mongo: Mongo, value: dict[str, Any]) -> None:
    try:
        check_freeform(value, map_keys=True)
    except InvalidInputError:
        return
    assert same(there_and_back(mongo, value), value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"ref": "x", "id": 1, "db": "y"}},
        {"a": "$HOME", "b": {"c": "$$ROOT"}},
        {"big": 2**53 + 1, "least": -(2**63), "zero": -0.0},
        {"at": datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC)},
        {"/arm.left/joint": {"x.y.z": [1, {"a.b": None}]}},
    ],
)
def test_values_that_databases_like_to_change(mongo: Mongo, value: dict[str, Any]) -> None:
    check_freeform(value, map_keys=True)
    assert same(there_and_back(mongo, value), value)
