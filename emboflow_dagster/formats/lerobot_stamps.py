"""The time column of a LeRobot dataset in ns, whatever the writer gave it.

Seconds are what lerobot writes. Converters write ns of an epoch, or Arrow's own times as well; which of them
a number is follows from the rate: its steps are a power of 1,000 longer than an interval.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

NS: Final = 1_000_000_000
#: Units by how many of them a second has.
UNITS: Final = {1: "s", 1_000: "ms", 1_000_000: "us", NS: "ns"}
#: A step may be so far from an interval of the rate, as a factor.
_CLOSE: Final = 2.0
#: Seconds that fit into ns of 64 bits.
_MAX_S: Final = 9.2e9


class Clock:
    """Reads the time columns of one dataset; episodes of one row have the unit of those before.

    Args:
        fps: The declared rate; without one every number is seconds.
    """

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self.per_second = 1

    @property
    def unit(self) -> str:
        """``s``, ``ms``, ``us`` or ``ns``."""
        return UNITS[self.per_second]

    def ns(self, column: Any) -> "np.ndarray | None":
        """The stamps of consecutive rows as int64 ``(rows,)`` in ns.

        ``None`` where they are no times: words, absent ones, not finite, or beyond 64 bits.
        """
        import numpy as np

        values = self._values(column)
        if values is None or not len(values):
            return None
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return None
        if len(values) > 1:
            self.per_second = self._scale(values)
        times = NS // self.per_second
        if np.abs(values.astype(np.float64)).max() > _MAX_S * self.per_second:
            return None
        if values.dtype.kind in "iu":
            return values.astype(np.int64) * times
        # Stamps of days since some epoch lose their ns in float64 as they did when they were written.
        return np.round(values.astype(np.float64) * times).astype(np.int64)

    def _values(self, column: Any) -> "np.ndarray | None":
        """Integers as they are, other numbers as float64, Arrow's times as integers of ns."""
        import pyarrow as pa

        from emboflow_dagster.formats.canonical import columns
        from emboflow_dagster.formats.canonical.column_numbers import numbers

        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        kind = array.type
        if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
            per_second = next(count for count, name in UNITS.items() if name == kind.unit)
            self.per_second = NS
            if array.null_count:
                return None
            return columns.to_numpy(array.view(pa.int64())) * (NS // per_second)
        if pa.types.is_integer(kind) and not array.null_count:
            return columns.to_numpy(array)
        values = numbers(array)
        return None if isinstance(values, str) or values.shape[1:] != (1,) else values[:, 0]

    def _scale(self, values: "np.ndarray") -> int:
        import numpy as np

        if not self.fps:
            return self.per_second
        step = float(np.median(np.abs(np.diff(values.astype(np.float64)))))
        close = [count for count in UNITS if step and 1 / _CLOSE <= step * self.fps / count <= _CLOSE]
        # Steps of no unit, such as those of another rate: seconds, unless the dataset had a unit before.
        return close[0] if close else self.per_second
