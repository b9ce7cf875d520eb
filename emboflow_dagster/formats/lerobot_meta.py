"""What the metadata of a LeRobot dataset say of its episodes and tasks (``meta/episodes*``, ``meta/tasks*``).

Numbers of strangers: a whole number may come as a double, as NaN, as text or beyond 64 bits.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.detect import Source
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.lerobot_info import Info

if TYPE_CHECKING:
    import pyarrow as pa

EPISODES = "meta/episodes.jsonl"
EPISODE_TABLES = "meta/episodes/"
TASKS = ("meta/tasks.jsonl", "meta/tasks.parquet")
MAX_LINE_BYTES = 64 * 1024 * 1024
_ENDS = ("from_timestamp", "to_timestamp")


@dataclass(slots=True)
class EpisodeMeta:
    """What the metadata say of an episode: tasks, success, length, and where its videos are in long files."""

    tasks: list[str] = field(default_factory=list)
    success: bool | None = None
    clips: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Feature to chunk, file and first second (3.0)."""
    length: int | None = None
    ends: dict[str, float] = field(default_factory=dict)
    """Feature to the second of its file at which the episode ends (3.0)."""
    first_row: int | None = None
    """``dataset_from_index`` (3.0)."""


@dataclass(slots=True)
class Listed:
    """Every episode that is listed, by its index, and those that are listed more than once."""

    episodes: dict[int, EpisodeMeta] = field(default_factory=dict)
    twice: set[int] = field(default_factory=set)
    rows: int = 0
    """Lines or rows with an index."""


def whole(value: Any) -> int | None:
    """A whole number of 64 bits, also where it is written as a double; ``None`` for anything else.

    >>> whole(3.0), whole(3.5), whole(float("nan")), whole("3"), whole(True)
    (3, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if -(2**63) <= value < 2**63 and value == int(value) else None


def read_episodes(source: Source, info: Info) -> Listed:
    """The episodes as ``meta/episodes.jsonl`` (2.x) or the tables below ``meta/episodes`` (3.0) list them.

    Raises:
        InvalidInputError: A table cannot be read.
    """
    rows = _episode_tables(source) if info.version == "v3.0" else read_lines(source.path / EPISODES)
    listed = Listed()
    for row in rows:
        index = whole(row.get("episode_index"))
        if index is None:
            continue
        listed.rows += 1
        if index in listed.episodes:
            listed.twice.add(index)
        listed.episodes[index] = _episode(row, info)
    return listed


def _episode(row: dict[str, Any], info: Info) -> EpisodeMeta:
    tasks = row.get("tasks")
    meta = EpisodeMeta(
        [task for task in tasks if isinstance(task, str)] if isinstance(tasks, list) else [],
        row["success"] if isinstance(row.get("success"), bool) else None,
        length=whole(row.get("length")),
        first_row=whole(row.get("dataset_from_index")),
    )
    for feature in info.videos:
        chunk, file = (whole(row.get(f"videos/{feature}/{name}")) for name in ("chunk_index", "file_index"))
        start, end = (_time(row.get(f"videos/{feature}/{name}")) for name in _ENDS)
        if chunk is not None and file is not None and start is not None:
            meta.clips[feature] = (chunk, file, start)
            if end is not None:
                meta.ends[feature] = end
    return meta


def _time(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 2**53 else None


def read_tasks(root: Path, info: Info) -> dict[int, str]:
    """Task by its index: that of the version's own file, else that of the other versions'.

    Raises:
        InvalidInputError: The table cannot be read.
    """
    found = [read_task_lines, read_task_table]
    for read in reversed(found) if info.version == "v3.0" else found:
        if tasks := read(root):
            return tasks
    return {}


def read_task_lines(root: Path) -> dict[int, str]:
    """Those of ``meta/tasks.jsonl``."""
    rows = ((whole(row.get("task_index")), row.get("task")) for row in read_lines(root / TASKS[0]))
    return {index: task for index, task in rows if index is not None and isinstance(task, str)}


def read_task_table(root: Path) -> dict[int, str]:
    """Those of ``meta/tasks.parquet``; pandas writes the task as its index, under a name of its own.

    Raises:
        InvalidInputError: It cannot be read.
    """
    path = root / TASKS[1]
    found: dict[int, str] = {}
    for row in _table(path).to_pylist() if path.is_file() else ():
        index = whole(row.get("task_index"))
        said = [value for name, value in row.items() if isinstance(value, str) and name != "task_index"]
        task = row["task"] if isinstance(row.get("task"), str) else next(iter(said), None)
        if index is not None and task is not None:
            found[index] = task
    return found


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; lines that are none are passed over."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


def _episode_tables(source: Source) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for entry in sorted(source.with_suffix(".parquet"), key=lambda e: natural_key(e.path)):
        if not entry.path.startswith(EPISODE_TABLES):
            continue
        try:
            with pq.ParquetFile(source.file(entry)) as file:
                # The statistics of each episode stand beside it and are many times as long.
                wanted = [n for n in file.schema_arrow.names if not n.startswith(("stats/", "data/"))]
                for batch in file.iter_batches(columns=wanted, batch_size=4_096):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise InvalidInputError(
                f"{entry.path}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT
            ) from error


def _table(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            return pq.read_table(stream)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path.name}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT) from error
