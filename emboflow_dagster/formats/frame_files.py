"""DataFrames to and from the files that artifacts are."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.report import json_safe

if TYPE_CHECKING:
    import pandas as pd

READABLE = (".parquet", ".csv", ".json")


def read_frame(path: Path) -> "pd.DataFrame":
    """The table in a parquet, CSV or JSON (list of objects) file.

    Raises:
        ValueError: The file is none of these.
    """
    import pandas as pd

    with path.open("rb") as stream:
        head = stream.read(4)
    if head == b"PAR1":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".json" or head[:1] in (b"[", b"{"):
        return pd.read_json(path)
    raise ValueError(f"{path.name} is no table: {', '.join(READABLE)} files are")


def is_frame(value: Any) -> bool:
    """Whether a value is a pandas DataFrame; pandas is not imported for the answer."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def write_frame(frame: "pd.DataFrame", path: Path) -> dict[str, Any]:
    """Write a frame as parquet.

    Returns:
        ``rows``, ``columns`` (the first 200 names), ``columnCount``, and ``head`` (ten rows, 50 columns).
    """
    frame.to_parquet(path)
    return {
        "rows": len(frame),
        "columns": [str(name) for name in frame.columns[:200]],
        "columnCount": len(frame.columns),
        "head": json_safe(frame.iloc[:10, :50].to_dict("records")),
    }
