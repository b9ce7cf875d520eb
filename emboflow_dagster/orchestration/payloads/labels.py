"""Column labels as JSON: those that are no unique texts have no place in a table."""

import math
from datetime import datetime
from typing import Any

from emboflow_dagster.errors import shown
from emboflow_dagster.orchestration.payloads.objects import changed

_RESERVED = "__index_level_"


def native(columns: Any) -> bool:
    """Whether a table's own names hold these labels."""
    import pandas as pd

    return (
        columns.nlevels == 1
        and len(columns) > 0
        and all(type(label) is str and not label.startswith(_RESERVED) for label in columns)
        and columns.is_unique
        and pd.Index(list(columns)).dtype == columns.dtype
        and (columns.name is None or type(columns.name) is str)
    )


def texts(columns: Any) -> list[str]:
    """Unique texts that a person recognises the labels by."""
    seen: set[str] = set()
    result = []
    for position, label in enumerate(columns):
        text = ".".join(str(part) for part in label) if isinstance(label, tuple) else str(label)
        text = text.removeprefix("__") if text.startswith(_RESERVED) else text
        while text in seen:
            text = f"{text}#{position}"
        seen.add(text)
        result.append(text)
    return result


def names_of(index: Any) -> list[Any]:
    """The names of an axis.

    Raises:
        InvalidInputError: One is neither a text nor a number.
    """
    for name in index.names:
        if name is not None and type(name) not in (str, int, bool):
            raise changed(f"an axis is named {shown(name)}; names are texts or numbers")
    return list(index.names)


def to_json(columns: Any) -> dict[str, Any]:
    """Labels of any kind that JSON can tell apart.

    Raises:
        InvalidInputError: A label is of another kind.
    """
    import pandas as pd

    result: dict[str, Any] = {"names": names_of(columns)}
    if isinstance(columns, pd.RangeIndex):
        return result | {"range": [columns.start, columns.stop, columns.step]}
    levels = [columns.get_level_values(level) for level in range(columns.nlevels)]
    result["levels"] = [
        {"dtype": _dtype(level.dtype), "values": [_value(label) for label in level]} for level in levels
    ]
    if isinstance(columns, pd.MultiIndex):
        result["multi"] = True
    if getattr(columns, "freq", None) is not None and isinstance(columns, pd.DatetimeIndex):
        result["freq"] = columns.freqstr
    if not same(columns, from_json(result)):
        raise changed(f"column labels of dtype {columns.dtype} would come back as others")
    return result


def from_json(written: dict[str, Any]) -> Any:
    """The labels again."""
    import pandas as pd

    if "range" in written:
        return pd.RangeIndex(*written["range"], name=written["names"][0])
    levels = [_level(level["values"], level["dtype"]) for level in written["levels"]]
    if written.get("multi"):
        return pd.MultiIndex.from_arrays(levels, names=written["names"])
    index = levels[0].rename(written["names"][0])
    if "freq" in written:
        index.freq = written["freq"]
    return index


def same(one: Any, other: Any) -> bool:
    """Whether two axes have the same labels, of the same types."""
    return (
        type(one) is type(other)
        and list(one.names) == list(other.names)
        and all(
            one.get_level_values(n).dtype == other.get_level_values(n).dtype
            and list(map(_value, one.get_level_values(n))) == list(map(_value, other.get_level_values(n)))
            for n in range(one.nlevels)
        )
    )


def _value(label: Any) -> Any:
    if hasattr(label, "item") and callable(label.item):
        label = label.item()
    if label is None or type(label) in (str, int, bool):
        return label
    if type(label) is float:
        return label if math.isfinite(label) else ["float", repr(label)]
    if isinstance(label, datetime):
        return ["time", label.isoformat()]
    raise changed(f"the column label {shown(label)} is no text, number or time")


def _level(values: list[Any], dtype: Any) -> Any:
    import pandas as pd

    plain = [_from(value) for value in values]
    if isinstance(dtype, list):
        na: Any = pd.NA if dtype[1] == "NA" else float("nan")
        return pd.Index(plain, dtype=pd.StringDtype(dtype[0], na_value=na))
    return pd.Index(plain, dtype=dtype)


def _from(value: Any) -> Any:
    import pandas as pd

    if isinstance(value, list):
        return float(value[1]) if value[0] == "float" else pd.Timestamp(value[1])
    return value


def _dtype(dtype: Any) -> Any:
    import pandas as pd

    if isinstance(dtype, pd.StringDtype):
        return [dtype.storage, "NA" if dtype.na_value is pd.NA else "nan"]
    return str(dtype)
