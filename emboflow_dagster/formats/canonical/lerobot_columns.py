"""Columns of a LeRobot 2.1 data file: made, cast, described, and their statistics for its metadata."""

from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import InvalidInputError, shown
from emboflow_dagster.formats.canonical.column_numbers import numbers
from emboflow_dagster.formats.canonical.stats import feature_stats

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns that follow from an episode's place, its tasks and its rate.
COLUMNS: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_STATS: Final = ("min", "max", "mean", "std")


def with_column(table: "pa.Table", name: str, index: int, before: int, fps: float, task: int) -> "pa.Table":
    """The table with one column of :data:`COLUMNS` more.

    Args:
        table: The episode.
        name: The column.
        index: The episode's number.
        before: Frames of the episodes before it.
        fps: Frames per second.
        task: The number of its task.
    """
    import numpy as np
    import pyarrow as pa

    frame = np.arange(table.num_rows, dtype=np.int64)
    made = {
        "timestamp": lambda: pa.array((frame / fps).astype(np.float32)),
        "frame_index": lambda: pa.array(frame),
        "episode_index": lambda: pa.array(np.full(len(frame), index, dtype=np.int64)),
        "index": lambda: pa.array(frame + before),
        "task_index": lambda: pa.array(np.full(len(frame), task, dtype=np.int64)),
    }
    return table.append_column(name, made[name]())


def cast(table: "pa.Table", name: str, dtype: str) -> "pa.Table":
    """The table with a column of numbers, or of lists of numbers, in another type.

    Raises:
        InvalidInputError: Whole numbers are wanted of values that are none, or the column holds no numbers.
    """
    import pyarrow as pa

    place = table.column_names.index(name)
    column = table.column(place)
    try:
        made = column.cast(_retyped(column.type, dtype), safe=not dtype.startswith("float"))
    except pa.ArrowException as error:
        raise InvalidInputError(f"{shown(name)} cannot become {dtype}: {error}") from error
    return table.set_column(place, name, made)


def _retyped(kind: "pa.DataType", dtype: str) -> "pa.DataType":
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_retyped(kind.value_type, dtype), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_retyped(kind.value_type, dtype))
    return pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)


def declared_of(kind: "pa.DataType") -> dict[str, Any]:
    """The entry of ``features`` for a column of this type; -1 for lists of no fixed length."""
    import pyarrow as pa

    shape: list[int] = []
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size if pa.types.is_fixed_size_list(kind) else -1)
        kind = kind.value_type
    names = {"float": "float32", "double": "float64", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind)), "shape": shape or [1], "names": None}


def stats_of(table: "pa.Table") -> dict[str, Any]:
    """``min max mean std count`` of each column of numbers, as ``episodes_stats.jsonl`` has them."""
    found: dict[str, Any] = {}
    for name in table.column_names:
        values = numbers(table.column(name))
        if isinstance(values, str) or not values.size:
            continue
        stats = feature_stats(values)
        if all(value is not None for part in _STATS for value in stats[part]):
            found[name] = {part: stats[part] for part in _STATS} | {"count": [len(values)]}
    return found
