"""A LeRobot tree 2.0 or 2.1 written anew as a whole 2.1 tree; videos are linked or copied bit for bit.

Counts, lengths and statistics are those of the data, whatever the source declared; everything else changes
only where it was asked for. A video, and every other file, keeps its bytes.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.canonical.lerobot_columns import cast, declared_of, stats_of, with_column
from emboflow_dagster.formats.canonical.lerobot_rows import episode_indices
from emboflow_dagster.formats.canonical.lerobot_tree import Tree, number_of
from emboflow_dagster.formats.lerobot_folder import the_dataset
from emboflow_dagster.formats.lerobot_info import INFO
from emboflow_dagster.formats.lerobot_meta import read_lines

if TYPE_CHECKING:
    import pyarrow as pa

DATA_PATH: Final = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH: Final = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
STATS: Final = "meta/episodes_stats.jsonl"
_REPLACED: Final = ("meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl", STATS, "meta/stats.json")


@dataclass(frozen=True, slots=True)
class Repair:
    """What is changed.

    Attributes:
        drop: Features that are left out, with their columns and videos.
        data_path: Template of the data files; ``None`` for the source's where it resolves, else the usual.
        video_path: The same of videos.
        add: Columns that are made where they are absent.
        grid_timestamps: Whether every stamp becomes ``frame_index / fps``.
        cast: Feature to dtype.
        rename: Feature to its new name; `drop` and `cast` name features as the source does.
    """

    drop: tuple[str, ...] = ()
    data_path: str | None = None
    video_path: str | None = None
    add: tuple[str, ...] = ()
    grid_timestamps: bool = False
    cast: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)


def repair(source: Path, out: Path, wishes: Repair) -> dict[str, Any]:
    """Write the repaired tree; memory holds one episode.

    Args:
        source: The tree.
        out: Absent or empty; created.
        wishes: What is changed.

    Returns:
        ``episodes``, ``frames``, ``videos``, and ``unknown``: names in `wishes` that the source has not.

    Raises:
        InvalidInputError: No tree of 2.0 or 2.1 or several, a template that cannot be filled, or values that
            a cast would change beyond rounding.
    """
    tree = Tree(the_dataset(source))
    if tree.long_files:
        raise InvalidInputError(
            f"{source.name}: LeRobot {tree.info.version} is not rewritten; 2.0 and 2.1 are",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(tree, out, wishes)
    for index, table in _tables(tree):
        run.add(index, table)
    run.finish()
    return {
        "episodes": len(run.lengths),
        "frames": sum(run.lengths.values()),
        "videos": run.videos,
        "unknown": sorted({*wishes.drop, *wishes.cast, *wishes.rename} - run.names),
    }


class _Run:
    """One tree that is being written."""

    def __init__(self, tree: Tree, out: Path, wishes: Repair) -> None:
        self.tree = tree
        self.out = out
        self.wishes = wishes
        self.lengths: dict[int, int] = {}
        self.videos = 0
        self.names: set[str] = set(tree.info.features)
        self._info = tree.info
        self._fps = tree.info.fps or 0.0
        self._types: dict[str, Any] = {}
        self._tasks = dict(tree.tasks)
        # A statistic that is not computed here, such as that of a video, is the source's own.
        told = {row.get("episode_index"): row.get("stats") for row in read_lines(tree.root / STATS)}
        self._told = {index: stats for index, stats in told.items() if isinstance(stats, dict)}
        self._stats: list[dict[str, Any]] = []
        self._data_path = self._template("data_path", wishes.data_path, DATA_PATH)
        self._video_path = self._template("video_path", wishes.video_path, VIDEO_PATH)

    def add(self, index: int, table: "pa.Table") -> None:
        """Write one episode and its videos."""
        import pyarrow.parquet as pq

        if index in self.lengths:
            raise InvalidInputError(f"{self.tree.root.name}: two files hold episode {index}")
        before = sum(self.lengths.values())
        self.names.update(table.column_names)
        self.lengths[index] = table.num_rows
        for name, dtype in self.wishes.cast.items():
            if name in table.column_names:
                table = cast(table, name, dtype)
        if self.wishes.grid_timestamps and "timestamp" in table.column_names:
            table = table.drop_columns(["timestamp"])
        added = (*self.wishes.add, *(("timestamp",) if self.wishes.grid_timestamps else ()))
        for name in dict.fromkeys(added):
            if name not in table.column_names:
                self._check_rate(name)
                table = with_column(table, name, index, before, self._fps, self._task_of(index))
        table = table.drop_columns([name for name in self.wishes.drop if name in table.column_names])
        table = table.rename_columns([self.wishes.rename.get(name, name) for name in table.column_names])
        self._types = {entry.name: entry.type for entry in table.schema} | self._types
        path = self._place(self._data_path, index)
        pq.write_table(table.replace_schema_metadata(None), path)
        for feature in self._kept_videos():
            clip = self.tree.clip(feature, index)
            if clip is not None:
                link(
                    clip.path, self._place(self._video_path, index, self.wishes.rename.get(feature, feature))
                )
                self.videos += 1
        told = {
            self.wishes.rename.get(name, name): stats
            for name, stats in self._told.get(index, {}).items()
            if name not in self.wishes.drop
        }
        self._stats.append({"episode_index": index, "stats": told | stats_of(table)})

    def finish(self) -> None:
        """Write the metadata, and bring along what is not replaced."""
        episodes = {
            row.get("episode_index"): row for row in read_lines(self.tree.root / "meta/episodes.jsonl")
        }
        rows = []
        for index, length in sorted(self.lengths.items()):
            row = dict(episodes.get(index) or {"episode_index": index, "tasks": [self._task(index)]})
            rows.append(row | {"length": length})
        self._tasks = self._tasks or {0: ""}
        _write_lines(self.out / "meta/episodes.jsonl", rows)
        _write_lines(
            self.out / "meta/tasks.jsonl",
            [{"task_index": index, "task": task} for index, task in sorted(self._tasks.items())],
        )
        _write_lines(self.out / STATS, sorted(self._stats, key=lambda row: row["episode_index"]))
        text = json.dumps(self._document(), indent=4, ensure_ascii=False) + "\n"
        (self.out / INFO).write_text(text, encoding="utf-8")
        for entry in self.tree.source.entries:
            if not entry.path.startswith(("data/", "videos/")) and entry.path not in _REPLACED:
                link(self.tree.source.file(entry), _inside(self.out, entry.path))

    def _document(self) -> dict[str, Any]:
        features = self._info.document.get("features")
        declared = {
            self.wishes.rename.get(name, name): dict(entry)
            for name, entry in (features if isinstance(features, dict) else {}).items()
            if name not in self.wishes.drop and isinstance(entry, dict)
        }
        changed = {self.wishes.rename.get(name, name) for name in self.wishes.cast}
        changed.update(self.wishes.add)
        if self.wishes.grid_timestamps:
            changed.add("timestamp")
        for name, kind in self._types.items():
            if name not in declared:
                declared[name] = declared_of(kind)
            elif name in changed:
                declared[name] |= {"dtype": declared_of(kind)["dtype"]}
        chunk = self._info.chunk_size
        return {
            **self._info.document,
            "codebase_version": "v2.1",
            "total_episodes": len(self.lengths),
            "total_frames": sum(self.lengths.values()),
            "total_tasks": len(self._tasks),
            "total_videos": self.videos,
            "total_chunks": max(self.lengths, default=0) // chunk + 1,
            "chunks_size": chunk,
            "splits": {"train": f"0:{len(self.lengths)}"},
            "data_path": self._data_path,
            "video_path": self._video_path,
            "features": declared,
        }

    def _kept_videos(self) -> list[str]:
        return [name for name in self._info.videos if name not in self.wishes.drop]

    def _template(self, name: str, wanted: str | None, usual: str) -> str:
        if wanted is not None:
            return wanted
        template = self._info.template(name)
        if template is None:
            return usual
        names = {entry.path for entry in self.tree.source.entries}
        numbers = [number for path in self.tree.data if (number := number_of(path)) is not None]
        features = self._kept_videos() if name == "video_path" else [""]
        there = (
            self._info.resolve(template, number, feature) in names
            for number in numbers
            for feature in features
            if not feature or self.tree.clip(feature, number) is not None
        )
        return template if all(there) else usual

    def _place(self, template: str, index: int, feature: str = "") -> Path:
        name = self._info.resolve(template, index, feature)
        if name is None:
            raise InvalidInputError(f"the template {shown(template)} cannot be filled for episode {index}")
        return _inside(self.out, name)

    def _task(self, index: int) -> str:
        meta = self.tree.episodes.get(index)
        return meta.tasks[0] if meta and meta.tasks else ""

    def _task_of(self, index: int) -> int:
        task = self._task(index)
        known = next((number for number, text in self._tasks.items() if text == task), None)
        if known is None:
            known = max(self._tasks, default=-1) + 1
            self._tasks[known] = task
        return known

    def _check_rate(self, name: str) -> None:
        if name == "timestamp" and not self._fps:
            raise InvalidInputError(f"{self.tree.root.name}: {INFO} declares no fps, so there is no grid")


def _tables(tree: Tree) -> Iterator[tuple[int, "pa.Table"]]:
    """Each file as one episode with all of its columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in tree.data:
        try:
            with path.open("rb") as stream:
                table = pq.read_table(stream)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInputError(
                f"{path.name}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT
            ) from error
        indices = np.unique(episode_indices(table, number_of(path)))
        if len(indices) != 1:
            raise InvalidInputError(f"{path.name}: holds {len(indices)} episodes, a file of 2.1 holds one")
        yield int(indices[0]), table


def _inside(root: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise InvalidInputError(f"the path {shown(name)} leads outside", kind=ErrorKind.PATH_TRAVERSAL)
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def link(source: Path, target: Path) -> None:
    """The same bytes at another place: a hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
