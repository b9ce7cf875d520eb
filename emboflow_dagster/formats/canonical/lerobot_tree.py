"""Where the parts of a LeRobot tree 2.0, 2.1 or 3.0 are: found by looking, its path templates come second.

Templates of public datasets do not always resolve, and files are what can be read: data is every Parquet file
below ``data/``, a video belongs to the episode or file whose number its name ends with.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.detect import Source, open_source, signature
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.lerobot_info import INFO, Info, read_info
from emboflow_dagster.formats.video_file import SIGNATURES, SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBER = re.compile(r"\d+")
MAX_DIGITS = 15


class Clip(NamedTuple):
    """Pictures of one episode: a file, or a part of one (seconds of the file)."""

    path: Path
    from_s: float = 0.0
    whole: bool = True


@dataclass(slots=True)
class EpisodeMeta:
    """What the metadata say of an episode: tasks, success, and where its videos are in long files."""

    tasks: list[str] = field(default_factory=list)
    success: bool | None = None
    clips: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Feature to chunk, file and first second (3.0)."""


class Tree:
    """One dataset on disk.

    Raises:
        InvalidInputError: There is no ``meta/info.json`` of a known version, or no data.
    """

    def __init__(self, root: Path) -> None:
        self.source: Source = open_source(root)
        info = read_info(root / INFO) if self.source.is_folder else None
        if info is None or info.version is None:
            raise InvalidInputError(
                f"{root.name}: no {INFO} of a known LeRobot version", kind=ErrorKind.FORMAT_UNSUPPORTED
            )
        self.root = root
        self.info: Info = info
        self.data: list[Path] = [
            self.source.file(entry)
            for entry in sorted(self.source.with_suffix(".parquet"), key=lambda e: natural_key(e.path))
            if entry.path.startswith("data/")
        ]
        if not self.data:
            raise InvalidInputError(f"{root.name}: no parquet file below data/", kind=ErrorKind.INPUT_MISSING)

    @property
    def long_files(self) -> bool:
        """Whether a file holds several episodes (3.0)."""
        return self.info.version == "v3.0"

    @cached_property
    def tasks(self) -> dict[int, str]:
        """Task by its index."""
        found: dict[int, str] = {}
        for row in read_lines(self.root / "meta/tasks.jsonl"):
            index, task = row.get("task_index"), row.get("task")
            if isinstance(index, (int, float)) and isinstance(task, str):
                found[int(index)] = task
        if not found and (self.root / "meta/tasks.parquet").is_file():
            for row in _table(self.root / "meta/tasks.parquet").to_pylist():
                # pandas writes the task as its index, under a name of its own.
                task = next((value for value in row.values() if isinstance(value, str)), None)
                if task is not None and row.get("task_index") is not None:
                    found[int(row["task_index"])] = task
        return found

    @cached_property
    def episodes(self) -> dict[int, EpisodeMeta]:
        """Episode by its index; those that the metadata do not name are absent."""
        rows = self._episode_tables() if self.long_files else read_lines(self.root / "meta/episodes.jsonl")
        found: dict[int, EpisodeMeta] = {}
        for row in rows:
            index = row.get("episode_index")
            if not isinstance(index, (int, float)):
                continue
            tasks = row.get("tasks")
            meta = found[int(index)] = EpisodeMeta(
                [task for task in tasks if isinstance(task, str)] if isinstance(tasks, list) else [],
                row["success"] if isinstance(row.get("success"), bool) else None,
            )
            for feature in self.info.videos:
                place = [row.get(f"videos/{feature}/{name}") for name in _PLACE]
                if all(isinstance(number, (int, float)) for number in place):
                    meta.clips[feature] = (int(place[0]), int(place[1]), float(place[2]))  # pyright: ignore[reportArgumentType]
        return found

    def clip(self, feature: str, episode: int) -> Clip | None:
        """Where an episode's video is, ``None`` where there is none."""
        files = self._videos.get(feature, {})
        if self.long_files:
            meta = self.episodes.get(episode)
            place = meta.clips.get(feature) if meta else None
            path = files.get(place[:2]) if place else None
            return Clip(path, place[2], whole=False) if path is not None and place else None
        template = self.info.template("video_path")
        name = self.info.resolve(template, episode, feature) if template else None
        if name is not None and (path := self._by_name.get(name)) is not None:
            return Clip(path)
        found = [path for key, path in files.items() if key[-1] == episode]
        return Clip(found[0]) if len(found) == 1 else None

    def has_videos(self, feature: str) -> bool:
        """Whether any file is of this feature."""
        return bool(self._videos.get(feature))

    @cached_property
    def _videos(self) -> dict[str, dict[tuple[int, ...], Path]]:
        """Feature to the last two numbers of a path (chunk, file or episode) to the file."""
        found: dict[str, dict[tuple[int, ...], Path]] = {}
        for name, path in self._by_name.items():
            feature = next((f for f in self.info.videos if f"/{f}/" in f"/{name}"), None)
            if feature is not None:
                inside = name.replace(f"{feature}/", "", 1)
                numbers = [int(n) for n in _NUMBER.findall(inside.rpartition(".")[0]) if len(n) <= MAX_DIGITS]
                found.setdefault(feature, {}).setdefault(tuple(numbers[-2:]), path)
        return found

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        entries = sorted(self.source.with_suffix(*SUFFIXES), key=lambda entry: natural_key(entry.path))
        return {
            entry.path: self.source.file(entry)
            for entry in entries
            if signature(self.source.head_of(entry)) in SIGNATURES
        }

    def _episode_tables(self) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for entry in sorted(self.source.with_suffix(".parquet"), key=lambda e: natural_key(e.path)):
            if not entry.path.startswith("meta/episodes/"):
                continue
            path = self.source.file(entry)
            try:
                with pq.ParquetFile(path) as file:
                    # The statistics of each episode stand beside it and are many times as long.
                    wanted = [n for n in file.schema_arrow.names if not n.startswith(("stats/", "data/"))]
                    for batch in file.iter_batches(columns=wanted, batch_size=4_096):
                        yield from batch.to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise InvalidInputError(
                    f"{entry.path}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT
                ) from error


_PLACE = ("chunk_index", "file_index", "from_timestamp")


def number_of(path: Path) -> int | None:
    """The number that a file's name ends with."""
    found = _NUMBER.findall(PurePosixPath(path.name).stem)
    return int(found[-1]) if found and len(found[-1]) <= MAX_DIGITS else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; lines that are none are passed over."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


def _table(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            return pq.read_table(stream)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path.name}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT) from error
