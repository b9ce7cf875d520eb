"""The episodes of a LeRobot tree (2.0 to 3.0) as the checks see them: tables, videos, stored statistics."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical.column_numbers import numbers
from emboflow_dagster.formats.canonical.names import dimension_names
from emboflow_dagster.formats.canonical.stats import feature_stats
from emboflow_dagster.formats.detect import Entry, Source, open_source
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.lerobot_folder import datasets, own
from emboflow_dagster.formats.lerobot_info import INFO, Info, read_info
from emboflow_dagster.formats.lerobot_tables import INDEX_COLUMNS
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.episodes import DeclaredCounts, StatsRecompute
from emboflow_dagster.formats.quality.video import watch
from emboflow_dagster.formats.quality.view import EpisodeView, VideoView
from emboflow_dagster.formats.video_file import SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MAX_META_BYTES = 256 * 1024 * 1024
#: Bookkeeping columns: no movement and no command, and constant by design.
_NOT_VECTORS = (*INDEX_COLUMNS, "timestamp", "next.done", "next.reward", "next.success")
MAX_ROWS_HELD = 5_000_000


class LeRobotTree:
    """One dataset folder; `views` reads it once, episode by episode.

    Args:
        path: The folder.
        below: What its episodes are called by, where there are several datasets: its path with a ``/``.
    """

    def __init__(self, path: Path, below: str = "") -> None:
        source = open_source(path)
        self.source: Source = own(source) if source.is_folder else source
        self.below = below
        self.info: Info = read_info(path / INFO) or Info(None, {})
        self.rows = self.episodes = 0
        self.held: dict[str, list[np.ndarray]] = {}
        self._held_rows = 0
        self.meta = {row["episode_index"]: row for row in self._lines("meta/episodes.jsonl")} or {
            row["episode_index"]: row for row in self._episode_tables()
        }

    def views(self, *, decode: bool) -> Iterator[EpisodeView]:
        """Every episode in the order of the files, then videos that belong to no single one.

        Args:
            decode: Read the videos, too.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        per_episode = {
            row["episode_index"]: row.get("stats") or {} for row in self._lines("meta/episodes_stats.jsonl")
        }
        found = [e for e in self.source.with_suffix(".parquet") if e.path.startswith("data/")]
        seen: set[int] = set()
        for entry in sorted(found, key=lambda entry: natural_key(entry.path)):
            try:
                with self.source.file(entry).open("rb") as stream:
                    table = pq.read_table(stream)
            except (OSError, pa.ArrowException):
                number = _number_of(entry)
                yield EpisodeView(
                    ref=f"{self.below}{entry.path}",
                    length=0,
                    vectors={},
                    unresolved=(entry.path,),
                    number=number,
                )
                continue
            for number, rows in _by_episode(table, _number_of(entry)):
                seen.add(number)
                yield self._view(number, rows, per_episode.get(number, {}), decode=decode)
        if decode and self.info.version == "v3.0":
            yield from self._shared_videos(seen)

    def _view(self, number: int, rows: "pa.Table", stats: Mapping[str, Any], *, decode: bool) -> EpisodeView:
        self.rows += rows.num_rows
        self.episodes += 1
        vectors = {}
        for name in rows.column_names:
            if name not in _NOT_VECTORS:
                values = _vector(rows.column(name))
                if values is not None:
                    vectors[name] = values
        if self._held_rows + rows.num_rows <= MAX_ROWS_HELD:
            self._held_rows += rows.num_rows
            for name, values in vectors.items():
                self.held.setdefault(name, []).append(values)
        columns = {
            name: _flat(rows.column(name))
            for name in ("timestamp", "frame_index", "index")
            if name in rows.column_names
        }
        stamps, frame, index = (columns.get(name) for name in ("timestamp", "frame_index", "index"))
        meta = self.meta.get(number, {})
        declared = meta.get("length")
        videos = {}
        if decode and self.info.version != "v3.0":
            videos = {camera: self._video(camera, number, rows.num_rows) for camera in self.info.videos}
        return EpisodeView(
            ref=f"{self.below}episode {number}",
            length=rows.num_rows,
            vectors=vectors,
            actions=tuple(name for name in vectors if name.partition(".")[0] == "action"),
            states=tuple(name for name in vectors if name.startswith("observation.state")),
            stamps_ns=None if stamps is None else _ns(stamps),
            fps=self.info.fps,
            grid_s=stamps,
            frame_index=None if frame is None else _whole(frame),
            number=None if self.below else number,
            index=None if index is None else _whole(index),
            declared_length=declared if isinstance(declared, int) else None,
            stats={name: values for name, values in stats.items() if name not in _NOT_VECTORS},
            videos=videos,
            names={name: self._names(name, values.shape[1]) for name, values in vectors.items()},
        )

    def _names(self, feature: str, width: int) -> tuple[str, ...]:
        declared = (self.info.document.get("features") or {}).get(feature)
        return dimension_names(declared.get("names") if isinstance(declared, dict) else None, width, feature)

    def _video(self, camera: str, number: int, rows: int) -> VideoView:
        """The video of one camera and episode, decoded."""
        entry = self._entry(camera, number)
        name = entry.path if entry else f"{camera}, episode {number}"
        return watch(self.source.file(entry) if entry else None, name, rows=rows, fps=self.info.fps)

    def video_file(self, camera: str, number: int) -> Path | None:
        """Where the video of one camera and episode is, ``None`` where it is not there."""
        entry = self._entry(camera, number)
        return self.source.file(entry) if entry else None

    def _entry(self, camera: str, number: int) -> Entry | None:
        """By its template, else by its number in the camera's folder."""
        template = self.info.template("video_path")
        path = self.info.resolve(template, number, camera) if template else None
        return next((e for e in self.source.entries if e.path == path), None) or next(
            (e for e in self._files_of(camera) if _number_of(e) == number), None
        )

    def _shared_videos(self, seen: set[int]) -> Iterator[EpisodeView]:
        """Files that hold several episodes, each with the rows of all of them."""
        for camera in self.info.videos:
            entries = {entry.path: entry for entry in self._files_of(camera)}
            rows: dict[str, int] = dict.fromkeys(entries, 0)
            for number, meta in self.meta.items():
                chunk, file = (meta.get(f"videos/{camera}/{part}") for part in ("chunk_index", "file_index"))
                if number in seen and isinstance(chunk, int) and isinstance(file, int):
                    name = self._shared_name(camera, chunk, file)
                    rows[name] = rows.get(name, 0) + int(meta.get("length") or 0)
            for name in sorted(rows):
                entry = entries.get(name)
                view = watch(
                    self.source.file(entry) if entry else None,
                    name,
                    rows=rows[name] or None,
                    fps=self.info.fps,
                )
                yield EpisodeView(ref=name, length=-1, vectors={}, fps=self.info.fps, videos={camera: view})
            if not rows:
                yield EpisodeView(ref=camera, length=-1, vectors={}, videos={camera: watch(None, camera)})

    def _shared_name(self, camera: str, chunk: int, file: int) -> str:
        template = self.info.template("video_path") or ""
        known = {
            "{video_key}": camera,
            "{chunk_index:03d}": f"{chunk:03d}",
            "{file_index:03d}": f"{file:03d}",
        }
        for name, value in known.items():
            template = template.replace(name, value)
        return template

    def _files_of(self, camera: str) -> list[Entry]:
        return [entry for entry in self.source.with_suffix(*SUFFIXES) if f"/{camera}/" in f"/{entry.path}"]

    def compare_counts(self, check: DeclaredCounts) -> None:
        """What ``info.json`` and ``meta`` declare, against what was read."""
        check.compare(f"{self.below}episodes", self.info.integer("total_episodes"), self.episodes)
        check.compare(f"{self.below}frames", self.info.integer("total_frames"), self.rows)
        if self.info.videos and self.info.version != "v3.0":
            files = sum(len(self._files_of(camera)) for camera in self.info.videos)
            check.compare(f"{self.below}videos", self.info.integer("total_videos"), files)
        if self.meta:
            check.compare(f"{self.below}listed episodes", len(self.meta), self.episodes)

    def compare_stats(self, check: StatsRecompute) -> None:
        """``meta/stats.json`` against the numbers of the whole dataset."""
        import numpy as np

        path = self.source.path / "meta" / "stats.json"
        try:
            stored = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_META_BYTES else None
        except (OSError, ValueError, RecursionError):
            return
        if not isinstance(stored, dict):
            return
        for feature, stats in stored.items():
            if not isinstance(stats, dict) or feature in _NOT_VECTORS:
                continue
            check.declared += 1
            parts = self.held.get(feature)
            if parts and self._held_rows == self.rows:
                check.resolved += check.compare(None, feature, stats, feature_stats(np.concatenate(parts)))

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        path = self.source.path / name
        if not path.is_file() or path.stat().st_size > MAX_META_BYTES:
            return
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("episode_index"), int):
                yield row

    def _episode_tables(self) -> Iterator[dict[str, Any]]:
        """Version 3: ``meta/episodes/*.parquet`` without its statistics."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for entry in self.source.with_suffix(".parquet"):
            if not entry.path.startswith("meta/episodes/"):
                continue
            try:
                with self.source.file(entry).open("rb") as stream:
                    file = pq.ParquetFile(stream)
                    names = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
                    rows = file.read(columns=names).to_pylist()
            except (OSError, pa.ArrowException):
                continue
            yield from (row for row in rows if isinstance(row.get("episode_index"), int))


def trees(path: Path) -> list[LeRobotTree]:
    """The datasets of an asset: the folder itself, or those that stand in it."""
    found = datasets(path)
    if len(found) == 1:
        return [LeRobotTree(found[0])]
    return [LeRobotTree(folder, f"{folder.relative_to(path).as_posix()}/") for folder in found]


def feed(found: Iterable[LeRobotTree], checks: Mapping[str, Check], *, decode: bool) -> None:
    """Give every check what the trees hold for it."""
    for tree in found:
        _feed(tree, checks, decode=decode)


def _feed(tree: LeRobotTree, checks: Mapping[str, Check], *, decode: bool) -> None:
    from emboflow_dagster.formats.quality.video import VideoCheck

    counts, stats = checks.get(DeclaredCounts.name), checks.get(StatsRecompute.name)
    before = 0 if counts is None else counts.declared
    for view in tree.views(decode=decode):
        shared = view.length < 0  # a video file of several episodes
        for check in checks.values():
            if not shared or isinstance(check, VideoCheck):
                check.take(view)
    if isinstance(counts, DeclaredCounts):
        counts.declared = before  # an episode declares no count: the tree does
        tree.compare_counts(counts)
    if isinstance(stats, StatsRecompute):
        tree.compare_stats(stats)


def _number_of(entry: Entry) -> int:
    digits = "".join(char for char in entry.name.rpartition(".")[0] if char.isdecimal())
    return int(digits) if digits and len(digits) < 16 else -1  # noqa: PLR2004 - an index, not a hash


def _by_episode(table: "pa.Table", number: int) -> "Iterator[tuple[int, pa.Table]]":
    """The rows of each episode of a file, in the order in which they begin."""
    import numpy as np

    if "episode_index" not in table.column_names:
        yield number, table
        return
    values = _vector(table.column("episode_index"))
    found = np.full(table.num_rows, np.nan) if values is None else values[:, 0]
    # Rows that do not say it are of the episode that the file is called by.
    episodes = _whole(np.where(np.abs(found) < 2**62, found, number))
    unique, first = np.unique(episodes, return_index=True)
    for value in unique[np.argsort(first)].tolist():
        chosen = np.flatnonzero(episodes == value)
        yield value, table.take(chosen)


def _flat(column: Any) -> "np.ndarray":
    """A column of numbers, or of lists of one number, as float64; what is null is NaN."""
    values = _vector(column)
    import numpy as np

    return np.zeros(len(column)) if values is None else values[:, 0].astype(np.float64)


def _vector(column: Any) -> "np.ndarray | None":
    """A column of numbers or of equally long lists as ``(rows, dim)``; ``None`` for anything else."""
    import numpy as np
    import pyarrow as pa

    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    rows = len(array)
    if array.null_count:
        found = numbers(array)
        return None if isinstance(found, str) or not found.size else found
    while (
        pa.types.is_list(array.type)
        or pa.types.is_fixed_size_list(array.type)
        or pa.types.is_large_list(array.type)
    ):
        array = array.flatten()
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    if not rows or len(array) % rows or not len(array):
        return None
    values = np.asarray(array.to_numpy(zero_copy_only=False))
    return (values.astype(np.float64) if values.dtype.kind not in "fi" else values).reshape(rows, -1)


def _whole(values: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return np.nan_to_num(values).astype(np.int64)


def _ns(seconds: "np.ndarray") -> "np.ndarray":
    """Seconds as ns; float32 stamps are rounded to what they can say, so that equal steps stay equal."""
    import numpy as np

    return np.round(np.nan_to_num(seconds).astype(np.float64) * 1e6).astype(np.int64) * 1_000
