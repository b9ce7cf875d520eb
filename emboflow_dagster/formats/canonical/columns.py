"""Columns of Arrow made of their buffers.

``pyarrow.array`` looks whether a value is one of pandas', which imports pandas: a quarter of a second, more
than a small recording takes.
"""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def numbers(values: "np.ndarray", present: "np.ndarray | None" = None) -> "pa.Array":
    """A one-dimensional array of numbers (not copied) or bools as a column; ``present``: which are there."""
    import numpy as np
    import pyarrow as pa

    if values.dtype == np.bool_:
        return _column(pa.bool_(), len(values), np.packbits(values, bitorder="little"), present=present)
    kind = pa.type_for_alias(values.dtype.name)
    return _column(kind, len(values), np.ascontiguousarray(values), present=present)


def absent(kind: "pa.DataType", rows: int) -> "pa.Array":
    """A column of numbers that are all absent."""
    import numpy as np

    nothing = np.zeros(rows * kind.bit_width // 8, np.uint8)
    return _column(kind, rows, nothing, present=np.zeros(rows, np.bool_))


def vectors(values: "np.ndarray") -> "pa.Array":
    """A ``(rows, dim)`` array of numbers as a column of lists; the numbers are not copied."""
    import numpy as np
    import pyarrow as pa

    rows, dim = values.shape
    offsets = np.arange(0, (rows + 1) * dim, dim, dtype=np.int32) if dim else np.zeros(rows + 1, np.int32)
    inner = numbers(values.reshape(-1))
    return _column(pa.list_(inner.type), rows, offsets, children=[inner])


def repeated(text: str, rows: int) -> "pa.Array":
    """The same text in every row."""
    import numpy as np
    import pyarrow as pa

    data = text.encode()
    if len(data) * rows >= 2**31:  # more than one array of text may hold
        return pa.array([text] * rows, pa.string())
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(len(data))
    return _column(pa.string(), rows, offsets, data * rows)


def to_numpy(column: "pa.Array") -> "np.ndarray":
    """The other way: a column of numbers or bools as an array; NaN, in float64, where one is absent."""
    import numpy as np
    import pyarrow as pa

    present, data = column.buffers()
    end = column.offset + len(column)
    if pa.types.is_boolean(column.type):
        values = _bits(data, end)[column.offset :]
    else:
        values = (
            np.frombuffer(data, column.type.to_pandas_dtype(), end)[column.offset :] if data else np.zeros(0)
        )
    if not column.null_count:
        return values
    return np.where(_bits(present, end)[column.offset :], values.astype(np.float64), np.nan)


def present(column: "pa.Array") -> "np.ndarray":
    """Which rows of a column have a value, as bools ``(rows,)``."""
    import numpy as np

    if not column.null_count:
        return np.ones(len(column), np.bool_)
    return _bits(column.buffers()[0], column.offset + len(column))[column.offset :]


def inside(column: "pa.Array") -> tuple["pa.Array", "np.ndarray"]:
    """What the lists of a column hold one after the other, and how many each has; none of them is absent."""
    import numpy as np
    import pyarrow as pa

    if not len(column):
        return column.values.slice(0, 0), np.zeros(0, np.int64)
    if pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
        return column.values.slice(column.offset * size, len(column) * size), np.full(len(column), size)
    kind = np.int64 if pa.types.is_large_list(column.type) else np.int32
    offsets = np.frombuffer(column.buffers()[1], kind, column.offset + len(column) + 1)[column.offset :]
    return column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])), np.diff(offsets)


def _bits(data: "pa.Buffer", count: int) -> "np.ndarray":
    import numpy as np

    return np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little").astype(np.bool_)


def of_values(kind: "pa.DataType", values: Sequence[Any]) -> "pa.Array":
    """Python's values, ``None`` where one is absent, as a column: int64, float64, bool, text, list or map."""
    import numpy as np
    import pyarrow as pa

    rows = len(values)
    present = None
    if None in values:
        present = np.fromiter((value is not None for value in values), np.bool_, rows)
    if pa.types.is_map(kind):
        pairs: list[tuple[Any, Any]] = list(chain.from_iterable(value or () for value in values))
        struct = pa.struct([kind.key_field, kind.item_field])
        inner = _column(
            struct,
            len(pairs),
            None,
            children=[
                of_values(kind.key_type, [key for key, _ in pairs]),
                of_values(kind.item_type, [item for _, item in pairs]),
            ],
        )
        return _column(kind, rows, _offsets(values), present=present, children=[inner])
    if pa.types.is_list(kind):
        inner = of_values(kind.value_type, list(chain.from_iterable(value or () for value in values)))
        return _column(kind, rows, _offsets(values), present=present, children=[inner])
    if pa.types.is_string(kind):
        texts = [(value or "").encode() for value in values]
        return _column(kind, rows, _offsets(texts), b"".join(texts), present=present)
    if present is not None:
        values = [0 if value is None else value for value in values]
    if pa.types.is_boolean(kind):
        bits = np.packbits(np.array(values, np.bool_), bitorder="little")
        return _column(kind, rows, bits, present=present)
    return _column(kind, rows, np.array(values, kind.to_pandas_dtype()), present=present)


def _offsets(values: Sequence[Any]) -> "np.ndarray":
    import numpy as np

    found = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value or ()) for value in values], out=found[1:])
    return found


def _column(
    kind: "pa.DataType",
    rows: int,
    *buffers: Any,
    present: "np.ndarray | None" = None,
    children: "Sequence[pa.Array] | None" = None,
) -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    bits = None if present is None else pa.py_buffer(np.packbits(present, bitorder="little"))
    made = [None if data is None else pa.py_buffer(data) for data in buffers]
    # A struct has no buffer but the bits of what is present.
    made = [bits, *(buffer for buffer in made if buffer is not None)]
    return pa.Array.from_buffers(kind, rows, made, children=list(children) if children else None)
