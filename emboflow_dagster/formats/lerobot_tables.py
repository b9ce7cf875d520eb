"""The data tables of a LeRobot dataset, read file by file: counts, lengths, stamps and column types."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.lerobot_stamps import NS, Clock

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

INDEX_COLUMNS = ("frame_index", "episode_index", "index", "task_index")
REQUIRED = ("timestamp", *INDEX_COLUMNS)
#: Different tasks that are remembered.
MAX_TASKS = 100_000


@dataclass(slots=True)
class Tables:
    """What the tables hold.

    Attributes:
        rows: All of them; those without an episode are counted in `unnumbered`.
        scattered: Episodes whose rows are not together.
        values: Column of lists of numbers to how many numbers it holds in all.
        tasks: Every ``task_index``, at most 100,000.
        steps_s: Seconds between the first two rows of each episode.
        last: The episode of the last row.
        unit: Of the stamps: ``s``, ``ms``, ``us`` or ``ns``.
    """

    rows: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    first_stamp: dict[int, float] = field(default_factory=dict)
    last_stamp: dict[int, int] = field(default_factory=dict)
    not_increasing: set[int] = field(default_factory=set)
    columns: dict[str, str] = field(default_factory=dict)
    types: dict[str, Any] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    mixed: set[str] = field(default_factory=set)
    unnumbered: int = 0
    scattered: set[int] = field(default_factory=set)
    values: dict[str, int] = field(default_factory=dict)
    tasks: set[int] = field(default_factory=set)
    steps_s: dict[int, float] = field(default_factory=dict)
    unit: str = "s"
    unreadable_stamps: int = 0
    last: int | None = None


def read_tables(
    files: Iterable[tuple[str, Path]], *, fps: float | None = None, one_episode: bool = False
) -> Tables:
    """Read the index columns of every table; memory holds one row group.

    Args:
        files: Name and place of each.
        fps: The declared rate, by which the unit of the stamps is told.
        one_episode: Whether a file holds one episode: then its name numbers the rows that have no index.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = Tables()
    clock = Clock(fps)
    for name, path in files:
        named = number_in(name) if one_episode else None
        try:
            with pq.ParquetFile(path) as file:
                _read_one(file, tables, clock, named)
        except (OSError, pa.ArrowException) as error:
            tables.unreadable.append((name, str(error)))
    tables.unit = clock.unit
    return tables


def number_in(name: str) -> int | None:
    """The number that a file's name holds, ``None`` where it has none or one of more than 15 digits."""
    digits = "".join(char for char in PurePosixPath(name).stem if char.isdecimal())
    return int(digits) if digits and len(digits) < 16 else None  # noqa: PLR2004 - an index, not a hash


def _read_one(file: Any, tables: Tables, clock: Clock, named: int | None) -> None:
    import numpy as np

    schema = file.schema_arrow
    for entry in schema:
        known = tables.columns.setdefault(entry.name, str(entry.type))
        tables.types.setdefault(entry.name, entry.type)
        if known != str(entry.type):
            tables.mixed.add(entry.name)
    _count_values(file, tables)
    once = {name for name in schema.names if schema.names.count(name) == 1}
    wanted = [name for name in ("episode_index", "timestamp", "task_index") if name in once]
    for batch in file.iter_batches(columns=wanted, batch_size=65_536):
        tables.rows += batch.num_rows
        if "episode_index" not in wanted and named is None:
            continue
        column = batch.column("episode_index") if "episode_index" in wanted else None
        there, episodes = _episodes(column, batch.num_rows, named)
        tables.unnumbered += batch.num_rows - int(there.sum())
        edges = [0, *(np.flatnonzero(np.diff(episodes)) + 1).tolist(), len(episodes)]
        rows = batch.filter(_mask(there)) if not there.all() else batch
        if "task_index" in wanted and len(tables.tasks) < MAX_TASKS:
            _see_tasks(tables, rows.column("task_index"))
        for start, end in pairwise(edges):
            if start == end:
                continue
            episode = int(episodes[start])
            if episode != tables.last and episode in tables.lengths:
                tables.scattered.add(episode)
            tables.last = episode
            tables.lengths[episode] = tables.lengths.get(episode, 0) + end - start
            if "timestamp" in wanted:
                _see_stamps(tables, episode, clock.ns(rows.column("timestamp").slice(start, end - start)))


def _episodes(column: Any, rows: int, named: int | None) -> "tuple[np.ndarray, np.ndarray]":
    """Which rows have an episode, and that of each of those as int64."""
    import numpy as np

    from emboflow_dagster.formats.canonical.column_numbers import numbers

    values = numbers(column) if column is not None else "absent"
    if isinstance(values, str) or not values.shape[1]:
        values = np.full((rows, 1), np.nan)
    found = values[:, 0]
    # Some writers give double columns; real ones are whole numbers all the same.
    found = np.where(np.abs(found) < 2**62, found, np.nan if named is None else named)
    there = np.isfinite(found)
    return there, found[there].astype(np.int64)


def _mask(there: "np.ndarray") -> "pa.Array":
    from emboflow_dagster.formats.canonical import columns

    return columns.numbers(there)


def _see_tasks(tables: Tables, column: Any) -> None:
    import numpy as np

    from emboflow_dagster.formats.canonical.column_numbers import numbers

    values = numbers(column)
    if not isinstance(values, str) and values.size:
        found = np.unique(values[:, 0])
        tables.tasks.update(int(task) for task in found.tolist() if abs(task) < 2**62)


def _see_stamps(tables: Tables, episode: int, stamps: "np.ndarray | None") -> None:
    import numpy as np

    if stamps is None:
        tables.unreadable_stamps += 1
        return
    tables.first_stamp.setdefault(episode, float(stamps[0]) / NS)
    last = tables.last_stamp.get(episode)
    if (np.diff(stamps) <= 0).any() or (last is not None and stamps[0] <= last):
        tables.not_increasing.add(episode)
    if len(stamps) > 1:
        tables.steps_s.setdefault(episode, float(np.median(np.diff(stamps))) / NS)
    tables.last_stamp[episode] = int(stamps[-1])


def _count_values(file: Any, tables: Tables) -> None:
    """Add up how many numbers the columns of lists hold: it stands in the file's footer."""
    leaf = 0
    groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    for entry in file.schema_arrow:
        leaves = _leaves(entry.type)
        if leaves == 1 and _inner(entry.type) is not entry.type:
            count = sum(group.column(leaf).num_values for group in groups)
            tables.values[entry.name] = tables.values.get(entry.name, 0) + count
        leaf += leaves


def _leaves(kind: "pa.DataType") -> int:
    import pyarrow as pa

    kind = _inner(kind)
    if pa.types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    if pa.types.is_struct(kind):
        return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields))
    return 1


def _inner(kind: "pa.DataType") -> "pa.DataType":
    """What the lists hold."""
    import pyarrow as pa

    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def fits(declared: Any, column: "pa.DataType") -> bool:
    """Whether a column's numbers are of the declared dtype; pictures and unknown names always are."""
    names = {"float32": "float", "float64": "double", "float16": "halffloat"}
    if not isinstance(declared, str) or declared in ("video", "image", "string"):
        return True
    return str(_inner(column)) == names.get(declared, declared)
