"""Columns of tables that others wrote, as numbers or words: whatever type the writer gave them."""

from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical import columns

if TYPE_CHECKING:
    import numpy as np


def numbers(column: Any) -> "np.ndarray | str":
    """A column as float64 ``(rows, dim)``, nested lists flattened, absent values NaN; else why it is none."""
    import numpy as np
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    rows = len(array)
    if _is_list(array.type) and array.null_count:
        # A row without a value is a row of NaN: the feature stays one of the dataset.
        there = columns.present(array)
        found = numbers(array.filter(columns.numbers(there))) if there.any() else "all rows are empty"
        if isinstance(found, str):
            return found
        values = np.full((rows, found.shape[1]), np.nan)
        values[there] = found
        return values
    while _is_list(array.type):
        if array.null_count:
            return "some of its lists are empty"
        array, lengths = columns.inside(array)
        if len(lengths) and (lengths != lengths[0]).any():
            return "its rows are of different lengths"
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return f"values of type {kind} are no numbers"
    values = columns.to_numpy(array).astype(np.float64)
    return values.reshape(rows, -1) if rows else values.reshape(0, 0)


def words(column: Any) -> list[str] | None:
    """A column of words, ``""`` where one is absent; ``None`` where it holds anything else."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    return [(value or "").strip() for value in column.to_pylist()]


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
