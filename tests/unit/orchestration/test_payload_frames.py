"""A frame comes back as the very same frame, in both formats, or is refused with the column's name."""

from datetime import date, time
from decimal import Decimal

import hypothesis.extra.pandas as hp
import numpy as np  # noqa: TID253 - the subject
import pandas as pd  # noqa: TID253
import pyarrow as pa  # noqa: TID253
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.orchestration.payloads.handler import Draft
from emboflow_dagster.orchestration.payloads.routing import Handlers
from tests.unit.orchestration.roundtrip import back, dumped, loaded

FORMATS = ["parquet", "arrow"]
INDEXED = {
    "range": pd.RangeIndex(5, 11, 2, name="n"),
    "dates": pd.date_range("2026-01-01", periods=3, freq="D", tz="Europe/Berlin"),
    "months": pd.period_range("2026-01", periods=3, freq="M", name="month"),
    "texts": pd.Index(["a", "b", "b"], name="who"),
    "number as name": pd.Index([3, 1, 2], name=7),
    "levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", None]),
    "intervals": pd.interval_range(0, 3),
    "categories": pd.CategoricalIndex(["x", "y", "x"], categories=["y", "x"]),
    "objects": pd.Index(["a", None, "b"], dtype=object),
    "levels of objects": pd.MultiIndex.from_arrays([pd.Index(["a", "b", "b"], dtype=object), [1, 1, 2]]),
    "deltas": pd.timedelta_range("1h", periods=3, freq="h"),
}
COLUMNS = {
    "bool": pd.Series([True, False, True]),
    "int8": pd.Series([1, -2, 3], dtype="int8"),
    "uint64": pd.Series([2**64 - 1, 0, 1], dtype="uint64"),
    "float16": pd.Series([1.5, np.nan, 2], dtype="float16"),
    "float32": pd.Series([np.inf, np.nan, -0.0], dtype="float32"),
    "seconds": pd.Series(pd.to_datetime(["2026-01-01", None, "1900-01-01"]).astype("datetime64[s]")),
    "nanoseconds": pd.Series(pd.to_datetime([1, 2, 3], unit="ns")),
    "zone": pd.Series(
        pd.to_datetime(["2026-03-29 00:30", None, "2026-10-25 00:00"]).tz_localize("Europe/Berlin")
    ),
    "zone in seconds": pd.Series(
        pd.to_datetime(["2026-01-01", None, "2026-02-01"]).astype("datetime64[s]").tz_localize("UTC")
    ),
    "delta": pd.Series(pd.to_timedelta([1, None, 3], unit="h")),
    "delta in seconds": pd.Series(np.array([1, 2, 3], dtype="timedelta64[s]")),
    "text": pd.Series(["a", None, "ü"], dtype="str"),
    "string": pd.Series(["a", None, "ü"], dtype="string"),
    "string in python": pd.Series(["a", None, "ü"], dtype=pd.StringDtype("python")),
    "Int64": pd.Series([1, None, 3], dtype="Int64"),
    "UInt8": pd.Series([1, None, 3], dtype="UInt8"),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "Float64": pd.Series([1.5, None, 3], dtype="Float64"),
    "arrow": pd.Series([1, None, 3], dtype="int64[pyarrow]"),
    "categories": pd.Series(pd.Categorical(["x", None, "x"], categories=["z", "x", "y"], ordered=True)),
    "numbered categories": pd.Series(pd.Categorical([3, 1, 3], categories=[3, 2, 1])),
    "categories of times": pd.Series(pd.Categorical(pd.to_datetime(["2026-01-02", "2026-01-01", None]))),
    "cut": pd.cut(pd.Series([1, 5, 9]), [0, 2, 6, 8, 10]),
    "objects as categories": pd.Series(
        pd.Categorical(["b", "a", "b"], categories=pd.Index(["b", "a"], dtype=object))
    ),
    "period": pd.Series(pd.period_range("2026", periods=3, freq="Q")),
    "interval": pd.Series(pd.arrays.IntervalArray.from_breaks([0.0, 1.0, 2.5, 3.0])),
    "objects: texts": pd.Series(["a", None, "b"], dtype=object),
    "objects: texts and nan": pd.Series(["a", np.nan, "b"], dtype=object),
    "objects: ints": pd.Series([1, None, 3], dtype=object),
    "objects: bools": pd.Series([True, None, False], dtype=object),
    "objects: bytes": pd.Series([b"a", None, b"\x00"], dtype=object),
    "objects: dates": pd.Series([date(2026, 1, 1), None, date(1, 1, 1)], dtype=object),
    "objects: times": pd.Series([time(1, 2, 3), None, time(23)], dtype=object),
    "objects: decimals": pd.Series([Decimal("1.10"), None, Decimal("2.25")], dtype=object),
    "objects: lists": pd.Series([[1, 2], None, []], dtype=object),
    "objects: dicts": pd.Series([{"a": 1}, None, {"a": 2}], dtype=object),
    "objects: arrays": pd.Series([np.array([1.5]), None, np.array([])], dtype=object),
    "objects: nothing": pd.Series([None, None, None], dtype=object),
}
LABELS = {
    "twice": ["a", "a", "b"],
    "numbers": [0, 1, 2],
    "mixed": [1, "1", "one"],
    "of pandas itself": ["__index_level_0__", "x", "y"],
    "range": pd.RangeIndex(3),
    "levels": pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")], names=["one", None]),
    "dates": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-02"]),
    "named": pd.Index(["a", "b", "c"], name="joint"),
    "objects": pd.Index(["a", "b", "c"], dtype=object),
    "nothing": ["", " ", "\n"],
}


def same(found, frame):
    pd.testing.assert_frame_equal(found, frame, check_index_type="exact", check_column_type="exact")
    for position, dtype in enumerate(frame.dtypes):
        if dtype.kind == "O":
            values = zip(found.iloc[:, position], frame.iloc[:, position], strict=True)
            assert all(type(a) is type(b) for a, b in values)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_comes_back(name, format):  # noqa: A002
    frame = pd.DataFrame({"first": [1, 2, 3], name: COLUMNS[name]})

    same(back(frame, format=format), frame)
    same(back(frame, pd.DataFrame, format=format), frame)
    same(back(frame.iloc[:0], format=format), frame.iloc[:0])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", INDEXED)
def test_an_index_comes_back(name, format):  # noqa: A002
    frame = pd.DataFrame({"value": [1.5, 2.5, 3.5]}, index=INDEXED[name])

    same(back(frame, format=format), frame)
    same(back(frame[[]], format=format), frame[[]])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back(name, format):  # noqa: A002
    frame = pd.DataFrame([[1, 2.5, "x"], [4, 5.5, None]])
    frame.columns = LABELS[name]

    same(back(frame, format=format), frame)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "frame",
    [pd.DataFrame(), pd.DataFrame(index=range(3)), pd.DataFrame(columns=["a"]), pd.DataFrame(index=["x"])],
)
def test_frames_without_rows_or_columns_come_back(frame, format):  # noqa: A002
    same(back(frame, format=format), frame)


def test_attrs_come_back():
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["unit"] = {"a": "m"}

    assert back(frame).attrs == {"unit": {"a": "m"}}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, "a", None], dtype=object),
        pd.Series([None, np.nan, "a"], dtype=object),
        pd.Series([{"a": 1}, {"b": 2}], dtype=object),
        pd.Series([(1, 2), (3, 4)], dtype=object),
        pd.Series([pd.Timestamp("2026-01-01"), None], dtype=object),
        pd.Series([2**70, 1], dtype=object),
        pd.Series([1j, 2j]),
        pd.Series([1.5, pd.NA], dtype=object),
        pd.Series(pd.arrays.SparseArray([0, 0, 1])),
        pd.Series(pd.arrays.FloatingArray(np.array([np.nan, 1.0]), np.array([False, True]))),
        pd.Series([object()], dtype=object),
    ],
    ids=lambda series: f"{series.dtype}: {series.iloc[0]!r:.20}",
)
def test_what_would_change_is_refused_with_the_column(values, format):  # noqa: A002
    with pytest.raises(InvalidInputError) as caught:
        dumped(pd.DataFrame({"fine": range(len(values)), "odd": values}), format=format)

    assert "odd" in caught.value.message
    assert caught.value.kind == "value-type"


def test_subclasses_and_other_classes_of_that_name_are_refused():
    class DataFrame:
        pass

    class Special(pd.DataFrame):
        pass

    for value in (DataFrame(), Special({"a": [1]})):
        with pytest.raises(InvalidInputError, match="cannot be stored"):
            dumped(value)


CELLS = hp.data_frames(
    [
        hp.column("i", dtype="int64"),
        hp.column("f", dtype="float64"),
        hp.column("b", dtype="bool"),
        hp.column("t", elements=st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
        hp.column("d", dtype="datetime64[ns]"),
    ]
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CELLS, st.sampled_from(FORMATS))
def test_any_frame_comes_back_and_equal_frames_are_equal_bytes(frame, format):  # noqa: A002
    content, payload = dumped(frame, format=format)

    same(loaded(content, payload), frame)
    assert dumped(frame.copy(deep=True), format=format)[0] == content


@pytest.mark.parametrize("format", FORMATS)
def test_a_loaded_frame_can_be_changed(format):  # noqa: A002
    found = back(pd.DataFrame({"a": np.arange(1 << 20)}), format=format)
    found.iloc[0, 0] = 7
    found["b"] = found["a"] + 1

    assert list(found.iloc[0]) == [7, 8]


@pytest.mark.parametrize("format", FORMATS)
def test_how_a_table_is_chunked_does_not_show_in_its_bytes(format):  # noqa: A002
    whole = pa.table({"n": range(3000), "t": [str(n % 7) for n in range(3000)]})
    pieces = pa.concat_tables([whole.slice(0, 10), whole.slice(10, 1), whole.slice(11)])
    reader = pa.RecordBatchReader.from_batches(whole.schema, pieces.to_batches())

    assert len({dumped(value, format=format)[0] for value in (whole, pieces, reader)}) == 1


@pytest.mark.parametrize("format", FORMATS)
def test_arrow_tables_come_back_as_what_is_annotated(format):  # noqa: A002
    table = pa.table({"n": pa.array([1, None], pa.int16()), "l": [[1.5], []]})
    table = table.replace_schema_metadata({"unit": "m"})
    content, payload = dumped(table, format=format)

    assert loaded(content, payload).equals(table, check_metadata=True)
    assert loaded(content, payload, pa.RecordBatch).equals(table.to_batches()[0])
    assert loaded(content, payload, pa.RecordBatchReader).read_all().equals(table)
    assert loaded(content, payload, pd.DataFrame)["n"].iloc[0] == 1
    assert back(table.to_batches()[0], format=format).equals(table)
    assert back(table.slice(0, 0), pa.RecordBatch, format=format).num_rows == 0


def test_rows_columns_and_a_preview_are_known():
    _, payload = dumped(pd.DataFrame({"a|b": [1, 2, 3, 4], "t": ["<b>x</b>", None, "*y*", "z\nw"]}))

    assert payload.facts.row_count == 4
    assert [(c.name, c.type, c.nullable) for c in payload.facts.columns] == [
        ("a|b", "int64", False),
        ("t", "str", True),
    ]
    assert payload.facts.preview.splitlines() == [
        "| a&#124;b | t |",
        "| --- | --- |",
        "| 1 | &lt;b&gt;x&lt;/b&gt; |",
        "| 2 |  |",
        "| 3 | \\*y\\* |",
        "",
        "3 of 4 rows",
    ]
    assert dumped(pd.DataFrame({"a": [1]}), preview_rows=0)[1].facts.preview is None


def test_a_reader_that_fails_in_the_middle_fails_the_put():
    def batches():
        yield pa.record_batch({"n": [1]})
        raise InvalidInputError("the camera was unplugged")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), batches())

    with pytest.raises(InvalidInputError, match="unplugged"):
        dumped(reader)


def test_another_format_is_refused():
    with pytest.raises(InvalidInputError, match="allowed are parquet, arrow"):
        dumped(pd.DataFrame({"a": [1]}), format="feather")


@pytest.mark.parametrize("format", FORMATS)
def test_a_table_of_any_length_is_streamed(format):  # noqa: A002
    """192 MiB go by; Arrow never holds more than a few windows of them."""
    schema = pa.schema([(f"joint_{n}", pa.float64()) for n in range(8)])
    numbers = np.random.default_rng(0).random(16384)

    def batches():
        for turn in range(192):
            yield pa.record_batch([pa.array(numbers + turn) for _ in range(8)], schema=schema)

    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        with Draft(format=format) as draft:
            payload = Handlers().dump(pa.RecordBatchReader.from_batches(schema, batches()), draft)
            written = sum(len(chunk) for chunk in payload.source)
        peak = pool.max_memory()
    finally:
        pa.set_memory_pool(before)

    assert payload.facts.row_count == 192 * 16384
    assert written > 100 << 20
    assert 0 < peak < 100 << 20
