"""Arrow columns made of their buffers are those that Arrow makes itself, and are read back the same."""

import subprocess
import sys

import numpy as np  # noqa: TID253 - this module is about what these libraries write
import pyarrow as pa  # noqa: TID253
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboflow_dagster.formats.canonical import columns
from emboflow_dagster.formats.canonical.stats import QUANTILES, feature_stats

INTS = st.none() | st.integers(-(2**62), 2**62)
FLOATS = st.none() | st.floats(allow_nan=False)
TEXTS = st.sampled_from([None, "", "a", "ü", "two words"])
PAIRS = st.tuples(st.sampled_from("ab"), INTS)
KINDS = {
    pa.int64(): INTS,
    pa.float64(): FLOATS,
    pa.bool_(): st.none() | st.booleans(),
    pa.string(): TEXTS,
    pa.list_(pa.string()): st.none() | st.lists(TEXTS, max_size=4),
    pa.list_(pa.float64()): st.none() | st.lists(FLOATS, max_size=4),
    pa.map_(pa.string(), pa.int64()): st.none()
    | st.lists(st.tuples(st.sampled_from("ab"), INTS), max_size=3),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_values_of_python_become_the_column_that_arrow_makes_of_them(kind, data):
    values = data.draw(st.lists(KINDS[kind], max_size=20))

    made = columns.of_values(kind, values)

    made.validate(full=True)
    assert made.type == kind
    assert made.equals(pa.array(values, kind))
    assert made.null_count == values.count(None)


@pytest.mark.parametrize("dtype", ["int64", "float32", "float64", "bool", "uint8"])
@pytest.mark.parametrize("rows", [0, 1, 9])
def test_arrays_of_numpy_become_columns_and_are_read_back(dtype, rows):
    values = (np.arange(rows) % 2).astype(dtype)

    made = columns.numbers(values)

    made.validate(full=True)
    assert made.equals(pa.array(values))
    assert columns.to_numpy(made).tolist() == values.tolist()
    assert columns.to_numpy(made.slice(1)).tolist() == values[1:].tolist()


def test_absent_numbers_are_nan_and_rows_of_vectors_stay_together():
    assert np.isnan(columns.to_numpy(pa.array([None, 1, None])[1:])).tolist() == [False, True]
    assert np.isnan(columns.to_numpy(pa.array([True, None]))).tolist() == [False, True]
    assert columns.absent(pa.int64(), 3).equals(pa.nulls(3, pa.int64()))
    assert columns.repeated("ü", 3).equals(pa.array(["ü"] * 3))
    assert columns.vectors(np.arange(6, dtype=np.float32).reshape(3, 2)).to_pylist() == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    assert len(columns.vectors(np.zeros((4, 0), np.float32))) == 4


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.int64(), 2)])
def test_lists_are_taken_apart_where_they_stand(kind):
    column = pa.array([[1, 2], [3, 4], [5, 6]], kind)

    for part in (column, column.slice(1), column.slice(1, 1), column.slice(3)):
        values, lengths = columns.inside(part)
        assert values.equals(part.flatten())
        assert lengths.tolist() == [2] * len(part)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), rows=st.integers(1, 60), dtype=st.sampled_from(["float32", "float64"]))
def test_quantiles_are_those_of_numpy(data, rows, dtype):
    numbers = st.floats(-1e6, 1e6, width=32)
    values = np.array(data.draw(st.lists(st.tuples(numbers, numbers), min_size=rows, max_size=rows)), dtype)

    found = feature_stats(values)

    wide = values.astype(np.float64)
    for name, share in QUANTILES.items():
        assert found[name] == np.quantile(wide, share, axis=0).tolist()
    assert found["std"] == np.ascontiguousarray(wide.T).std(axis=1).tolist()


def test_a_package_is_written_without_pandas():
    code = """
import sys
import numpy as np
from pathlib import Path
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import write_canonical
values = np.zeros((5, 2), np.float32)
episode = Episode({"ref": "a"}, {"action": values}, {"action": FeatureSpec(("x", "y"))}, sync={})
write_canonical([episode], Path(sys.argv[1]) / "out", fps=10)
assert "pandas" not in sys.modules
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", code, folder], check=True)
