"""polars, where it is installed: it is no dependency."""

from datetime import UTC, date, datetime

import pytest

from emboflow_dagster.errors import InvalidInputError
from tests.unit.orchestration.roundtrip import back, dumped


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_frames_come_back_as_they_were(format):  # noqa: A002
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {
            "n": [1, None, 3],
            "f": [1.5, float("nan"), None],
            "t": ["a", "ü", None],
            "d": [date(2026, 1, 1), None, date(2026, 1, 2)],
            "z": [datetime(2026, 1, 1, tzinfo=UTC), None, datetime(2026, 1, 2, tzinfo=UTC)],
            "l": [[1], None, []],
            "s": [{"a": 1}, {"a": None}, None],
            "c": polars.Series(["x", "y", None], dtype=polars.Categorical),
            "e": polars.Series(["x", "y", None], dtype=polars.Enum(["y", "x", "z"])),
            "u": polars.Series([1, 2, 3], dtype=polars.UInt8),
        }
    )

    assert back(frame, format=format).equals(frame)
    assert back(frame, format=format).schema == frame.schema
    assert back(frame, polars.DataFrame, format=format).equals(frame)
    assert back(frame.lazy(), polars.LazyFrame, format=format).collect().equals(frame)
    assert back(frame.head(0), format=format).schema == frame.schema
    assert dumped(frame, format=format)[0] == dumped(frame.clone(), format=format)[0]


def test_what_arrow_has_not_is_refused():
    polars = pytest.importorskip("polars")

    with pytest.raises(InvalidInputError, match="polars frame cannot"):
        dumped(polars.DataFrame({"o": polars.Series([object()], dtype=polars.Object)}))
