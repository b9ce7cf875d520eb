"""The data tables of a LeRobot dataset, read file by file: counts, lengths, stamps and column types."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_COLUMNS = ("frame_index", "episode_index", "index", "task_index")
REQUIRED = ("timestamp", *INDEX_COLUMNS)


@dataclass(slots=True)
class Tables:
    """What the tables hold."""

    rows: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    first_stamp: dict[int, float] = field(default_factory=dict)
    last_stamp: dict[int, float] = field(default_factory=dict)
    not_increasing: set[int] = field(default_factory=set)
    columns: dict[str, str] = field(default_factory=dict)
    types: dict[str, Any] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    mixed: set[str] = field(default_factory=set)


def read_tables(files: Iterable[tuple[str, Path]]) -> Tables:
    """Read the index columns of every table; memory holds one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = Tables()
    for name, path in files:
        try:
            with pq.ParquetFile(path) as file:
                _read_one(file, tables)
        except (OSError, pa.ArrowException) as error:
            tables.unreadable.append((name, str(error)))
    return tables


def _read_one(file: Any, tables: Tables) -> None:
    import numpy as np

    schema = file.schema_arrow
    for entry in schema:
        known = tables.columns.setdefault(entry.name, str(entry.type))
        tables.types.setdefault(entry.name, entry.type)
        if known != str(entry.type):
            tables.mixed.add(entry.name)
    wanted = [name for name in ("episode_index", "timestamp") if name in schema.names]
    for batch in file.iter_batches(columns=wanted, batch_size=65_536):
        tables.rows += batch.num_rows
        if "episode_index" not in wanted:
            continue
        # Some writers give double columns; real ones are whole numbers all the same.
        episodes = _numbers(batch.column("episode_index")).astype(np.int64)
        stamps = _numbers(batch.column("timestamp")) if "timestamp" in wanted else None
        for episode in np.unique(episodes).tolist():
            chosen = episodes == episode
            tables.lengths[episode] = tables.lengths.get(episode, 0) + int(chosen.sum())
            if stamps is not None:
                _see_stamps(tables, episode, stamps[chosen])


def _see_stamps(tables: Tables, episode: int, stamps: Any) -> None:
    import numpy as np

    tables.first_stamp.setdefault(episode, float(stamps[0]))
    last = tables.last_stamp.get(episode)
    if (np.diff(stamps) <= 0).any() or (last is not None and stamps[0] <= last):
        tables.not_increasing.add(episode)
    tables.last_stamp[episode] = float(stamps[-1])


def _numbers(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    # Columns of one-element lists are scalars in other words.
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return np.nan_to_num(np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False)))


def fits(declared: Any, column: "pa.DataType") -> bool:
    """Whether a column's numbers are of the declared dtype; pictures and unknown names always are."""
    import pyarrow as pa

    kind = column.value_type if pa.types.is_list(column) or pa.types.is_fixed_size_list(column) else column
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    names = {"float32": "float", "float64": "double", "float16": "halffloat"}
    if not isinstance(declared, str) or declared in ("video", "image", "string"):
        return True
    return str(kind) == names.get(declared, declared)
