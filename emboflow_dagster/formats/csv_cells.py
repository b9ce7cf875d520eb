"""What the cells of a column are: whole numbers, numbers, moments or text."""

from typing import Any


def kind_of(column: Any, known: str, decimal: str) -> str:
    """What a column holds, by what it held before and by a block of its cells."""
    if known == "text" or column.null_count == len(column):
        return known
    # What was a number is none that is whole; what was a moment is no number.
    for kind in {"number": ("number",), "moment": ("moment",)}.get(known, ("integer", "number", "moment")):
        if (kind != "moment" or known in ("empty", "moment")) and numbers(column, kind, decimal) is not None:
            return kind
    return "text"


def numbers(column: Any, kind: str, decimal: str) -> Any:
    """The cells as int64, float64 or int64 ns since 1970; ``None`` where one is none of those."""
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute

    wanted = pa.int64() if kind == "integer" else pa.float64()
    if decimal == "," and kind == "number":
        column = pc.replace_substring(column, ",", ".")
    for trim in (False, True):
        try:
            cells = pc.utf8_trim_whitespace(column) if trim else column
            return _moments(cells) if kind == "moment" else pc.cast(cells, wanted)
        except pa.ArrowInvalid:
            continue
    return None


def _moments(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute

    try:
        found = pc.cast(column, pa.timestamp("ns"))
    except pa.ArrowInvalid:
        found = pc.cast(column, pa.timestamp("ns", "UTC"))
    return pc.cast(found, pa.int64())
