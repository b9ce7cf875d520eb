"""Columns that Arrow alone would not bring back: what is noted of them, and how they are made again."""

import base64
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown

#: Kinds of objects that Arrow holds without changing a value; others are compared one by one.
_SURE: Final = frozenset({"string", "boolean", "integer", "bytes", "empty", "date"})


def changed(what: str) -> InvalidInputError:
    """The error for a frame that would not come back as it is."""
    return InvalidInputError(
        f"the DataFrame cannot be stored unchanged: {what}",
        kind=ErrorKind.VALUE_TYPE,
        hint="convert it first (astype, reset_index), or register a handler for it",
    )


def as_codes(dtype: Any) -> bool:
    """Whether a column is written as the numbers of its categories: Arrow has no dictionary of these."""
    import pandas as pd

    return isinstance(dtype, pd.CategoricalDtype) and isinstance(
        dtype.categories.dtype, pd.IntervalDtype | pd.PeriodDtype
    )


def note_of(values: Any, column: Any, name: str) -> dict[str, Any] | None:
    """What has to be known to make a column again; ``None`` when Arrow knows it all.

    Args:
        values: A Series or an Index.
        column: The same as Arrow holds it.
        name: What to call it in a message.

    Raises:
        InvalidInputError: It would come back as another.
    """
    import numpy as np
    import pandas as pd

    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        note = {"categories": _categories(dtype.categories, name), "ordered": dtype.ordered}
        return note | {"codes": True} if as_codes(dtype) else note
    if isinstance(dtype, pd.StringDtype):
        return {"string": [dtype.storage, "NA" if dtype.na_value is pd.NA else "nan"]}
    if isinstance(dtype, pd.Float64Dtype | pd.Float32Dtype):
        plain = values.array.to_numpy(dtype="float64", na_value=0.0)
        if np.isnan(plain).any():
            raise changed(f"{name} holds NaN beside NA")
    return _object_note(values, column, name) if dtype.kind == "O" and isinstance(dtype, np.dtype) else None


def restored(values: Any, column: Any, note: dict[str, Any]) -> Any:
    """The values of a column or index level with what was noted put right."""
    import pandas as pd

    if "categories" in note:
        dtype = pd.CategoricalDtype(_categories_of(note["categories"]), ordered=note["ordered"])
        if note.get("codes"):
            return pd.Categorical.from_codes(column.fill_null(-1).to_numpy(), dtype=dtype)
        if values.dtype == dtype and values.dtype.categories.equals(dtype.categories):
            return values.array
        return pd.Categorical(values.astype(object), dtype=dtype)
    if "string" in note:
        storage, na = note["string"]
        wanted = pd.StringDtype(storage, na_value=pd.NA if na == "NA" else float("nan"))
        return values.array if values.dtype == wanted else values.astype(wanted).array
    return _objects(column, note)


def _object_note(values: Any, column: Any, name: str) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    objects = np.asarray(values, dtype=object)
    missing = pd.isna(objects)
    note = {"missing": _missing(objects[missing], name)}
    present = objects[~missing]
    if pd.api.types.infer_dtype(present, skipna=False) in _SURE:
        return note
    if len(present) and all(isinstance(value, np.ndarray) and value.ndim == 1 for value in present):
        note["array"] = present[0].dtype.str
        if any(value.dtype.str != note["array"] or value.dtype.hasobject for value in present):
            raise changed(f"{name} holds arrays of several types, or of objects")
        return note
    for value, back in zip(present, column.drop_null().to_pylist(), strict=True):
        if type(value) is not type(back) or value != back:
            raise changed(f"{name} holds {shown(value)}, which would come back as {shown(back)}")
    return note


def _objects(column: Any, note: dict[str, Any]) -> Any:
    import numpy as np

    values = column.to_pylist()
    result = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        if value is None:
            result[index] = float("nan") if note["missing"] == "nan" else None
        else:
            result[index] = np.asarray(value, dtype=note["array"]) if "array" in note else value
    return result


def _missing(values: Any, name: str) -> str:
    if all(value is None for value in values):
        return "none"
    if all(isinstance(value, float) for value in values):
        return "nan"
    kinds = ", ".join(sorted({str(value) for value in values}))
    raise changed(f"{name} holds several kinds of missing values ({kinds})")


def _categories(categories: Any, name: str) -> dict[str, Any]:
    """Categories as the text of an Arrow stream: Parquet keeps only those that are used."""
    import pandas as pd
    import pyarrow as pa

    try:
        table = pa.Table.from_pandas(pd.DataFrame({"c": categories}))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        written = {"arrow": base64.b64encode(sink.getvalue()).decode(), "objects": categories.dtype == object}
        back = _categories_of(written)
        same = back.dtype == categories.dtype and back.equals(categories)
        same = same and list(map(type, back)) == list(map(type, categories))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        same, written = False, {}
    if not same:
        raise changed(f"{name} has categories of dtype {categories.dtype} that would come back as others")
    return written


def _categories_of(written: dict[str, Any]) -> Any:
    import pandas as pd
    import pyarrow as pa

    column = pa.ipc.open_stream(base64.b64decode(written["arrow"])).read_all().to_pandas()["c"]
    return pd.Index(column.array, dtype=object if written["objects"] else column.dtype)
