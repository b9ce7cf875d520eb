"""Python values as bytes and back; nothing is pickled."""

import io
import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.orchestration import payloads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def back(value, expected=None, tmp="unused"):
    payload = payloads.dump(value)
    handler = payloads.loader(payload.content_type, expected)
    return handler.load(io.BytesIO(payload.source), tmp)


@given(st.dictionaries(st.text(), JSON))
def test_json_comes_back_as_it_was(value):
    assert back(value) == value


@given(st.text().filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_text_comes_back_as_it_was(value):
    assert back(value) == value


@given(st.binary())
def test_bytes_come_back_as_they_were(value):
    assert back(value) == value


def test_equal_dicts_are_equal_bytes_whatever_their_order():
    assert payloads.dump({"a": 1, "b": 2}).source == payloads.dump({"b": 2, "a": 1}).source


def test_a_frame_knows_its_rows_and_columns(tmp_path):
    import pandas as pd

    payload = payloads.dump(pd.DataFrame({"a": [1, 2, 3]}))
    loaded = payloads.loader(payload.content_type, None).load(io.BytesIO(payload.source), tmp_path / "x")

    assert payload.facts == {"row_count": 3, "columns": {"a": "int64"}}
    assert list(loaded["a"]) == [1, 2, 3]


def test_an_annotation_wins_over_the_stored_type(tmp_path):
    payload = payloads.dump({"n": 1})

    as_bytes = payloads.loader(payload.content_type, bytes).load(io.BytesIO(payload.source), tmp_path / "x")
    as_path = payloads.loader(payload.content_type, type(tmp_path)).load(
        io.BytesIO(payload.source), tmp_path / "y"
    )

    assert as_bytes == b'{"n": 1}'
    assert as_path.read_bytes() == b'{"n": 1}'


def test_an_unknown_stored_type_is_bytes():
    assert payloads.loader("model/gltf-binary", None).name == "bytes"


@pytest.mark.parametrize("value", [object(), {"x": object()}, {"x": math.nan}, {1, 2}])
def test_what_cannot_be_written_is_refused(value):
    with pytest.raises(InvalidInputError):
        payloads.dump(value)


def test_dates_in_json_are_iso():
    assert back({"day": date(2026, 1, 2)}) == {"day": "2026-01-02"}


def test_a_path_must_be_a_file(tmp_path):
    with pytest.raises(InvalidInputError, match="is not a file"):
        payloads.dump(tmp_path)
