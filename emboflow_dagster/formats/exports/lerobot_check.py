"""Whether a folder is a LeRobot v3.0 tree as we deliver it: every rule that it breaks.

Real LeRobot reads more than this (several episodes a video, lists of any length); it reads all of this. "It
loads" is no check: LeRobot looks at most of it only when a frame is asked for. A rule is called what a
probe's warning is called. Videos are looked at packet by packet, none is decoded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.formats.exports.lerobot_v3 import (
    DATA_PATH,
    EPISODES_PATH,
    INDEX_FEATURES,
    VERSION,
    VIDEO_PATH,
    features_of,
    read_info,
)
from emboflow_dagster.formats.exports.lerobot_video import CODECS, TOLERANCE_S, off_grid

STATS: Final = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
MAX_PROBLEMS: Final = 100
_PLACE: Final = ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index", "length")


@dataclass(slots=True)
class _Found:
    folder: Path
    info: dict[str, Any]
    problems: list[dict[str, str]] = field(default_factory=list)

    def add(self, code: str, where: str, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append({"code": code, "path": where, "message": message})


def check_lerobot(folder: Path) -> list[dict[str, str]]:
    """What is wrong with a tree, as ``{code, path, message}``; empty where nothing is.

    Raises:
        OSError: A table or `info.json` cannot be read at all.
    """
    found = _Found(folder, read_info(folder))
    _check_info(found)
    tasks = _check_tasks(found)
    episodes = list(_episodes(found))
    _check_data(found, episodes, tasks)
    _check_videos(found, episodes)
    _check_stats(found)
    return found.problems


def _check_info(found: _Found) -> None:
    info = found.info
    expected = {"codebase_version": VERSION, "data_path": DATA_PATH}
    for name, value in expected.items():
        if info.get(name) != value:
            found.add(
                "path_template_mismatch", "meta/info.json", f"{name} is {info.get(name)!r}, not {value!r}"
            )
    if _cameras(info) and info.get("video_path") != VIDEO_PATH:
        found.add("path_template_mismatch", "meta/info.json", f"video_path is {info.get('video_path')!r}")
    for name in info["features"]:
        if "/" in name:
            found.add("unrecognised_schema", name, "a feature name has a slash")
    for name in INDEX_FEATURES:
        dtype = "float32" if name == "timestamp" else "int64"
        if info["features"].get(name, {}).get("dtype") != dtype:
            found.add("dtype_mismatch", name, f"is declared as another type than {dtype}")


def _check_tasks(found: _Found) -> int:
    import pandas as pd

    tasks = pd.read_parquet(found.folder / "meta" / "tasks.parquet")
    if list(tasks.columns) != ["task_index"] or not all(isinstance(task, str) for task in tasks.index):
        text = f"the index of the pandas frame is not the task; columns are {list(tasks.columns)}"
        found.add("unrecognised_schema", "meta/tasks.parquet", text)
        return len(tasks)
    if str(tasks["task_index"].dtype) != "int64" or tasks["task_index"].tolist() != list(range(len(tasks))):
        found.add("dtype_mismatch", "meta/tasks.parquet", "task_index does not count from 0 as int64")
    if not tasks.index.is_unique:
        found.add("unrecognised_schema", "meta/tasks.parquet", "a task stands there twice")
    if found.info["total_tasks"] != len(tasks):
        text = f"total_tasks says {found.info['total_tasks']}, there are {len(tasks)}"
        found.add("declared_count_mismatch", "meta/info.json", text)
    return len(tasks)


def _episodes(found: _Found) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    needed = {name: pa.int64() for name in ("episode_index", *_PLACE)}
    for camera in _cameras(found.info):
        needed |= {f"videos/{camera}/{name}": pa.int64() for name in ("chunk_index", "file_index")}
        needed |= {f"videos/{camera}/{name}": pa.float64() for name in ("from_timestamp", "to_timestamp")}
    needed |= {f"meta/episodes/{name}": pa.int64() for name in ("chunk_index", "file_index")}
    paths = sorted((found.folder / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        found.add("missing_episode_meta", "meta/episodes", "there is no file")
    total = start = 0
    for path in paths:
        table = _read(path)
        where = path.relative_to(found.folder).as_posix()
        absent = False
        for name, kind in needed.items():
            if name not in table.column_names:
                absent = True
                found.add("missing_column", where, f"there is no column {name}")
            elif table.schema.field(name).type != kind:
                absent = True
                found.add("dtype_mismatch", where, f"{name} is {table.schema.field(name).type}, not {kind}")
        for name in (f"stats/{feature}/{stat}" for feature, _ in features_of(found.info) for stat in STATS):
            if name not in table.column_names:
                found.add("missing_stats", where, f"there is no column {name}")
        if absent:
            continue
        for row in table.select([*needed, "tasks"]).to_pylist():
            place = EPISODES_PATH.format(
                chunk_index=row["meta/episodes/chunk_index"], file_index=row["meta/episodes/file_index"]
            )
            stop = start + row["length"]
            spans = (row["dataset_from_index"], row["dataset_to_index"]) == (start, stop)
            if row["episode_index"] != total or not spans or place != where or not row["tasks"]:
                span = f"frames {row['dataset_from_index']} to {row['dataset_to_index']}"
                text = f"row {total} is of episode {row['episode_index']}, {span}, in {place}"
                found.add("declared_count_mismatch", where, text)
            total, start = total + 1, stop
            yield row
    for name, count in (("total_episodes", total), ("total_frames", start)):
        if found.info[name] != count:
            text = f"{name} says {found.info[name]}, there are {count}"
            found.add("declared_count_mismatch", "meta/info.json", text)
    if found.info.get("splits") != {"train": f"0:{total}"}:
        found.add("declared_count_mismatch", "meta/info.json", f"splits are {found.info.get('splits')}")


def _check_data(found: _Found, episodes: list[dict[str, Any]], tasks: int) -> None:
    in_file = Counter(_data_path(row) for row in episodes)
    waiting = iter(episodes)
    start = 0
    for path in sorted((found.folder / "data").glob("*/*.parquet")):
        where = path.relative_to(found.folder).as_posix()
        table = _read(path)
        if not _check_columns(found, where, table.schema):
            return
        for _ in range(in_file.pop(where, 0)):
            row = next(waiting)
            length = row["length"]
            part = table.slice(0, length)
            table = table.slice(length)
            _check_rows(found, where, part, row, start, tasks)
            start += length
        if table.num_rows:
            found.add("declared_frames_mismatch", where, f"{table.num_rows} rows are of no episode")
    for where in in_file:
        found.add("missing_data", where, "meta/episodes names it, and it is not there")


def _check_columns(found: _Found, where: str, schema: Any) -> bool:
    import pyarrow as pa

    wanted: dict[str, Any] = {n: pa.float32() if n == "timestamp" else pa.int64() for n in INDEX_FEATURES}
    for name, spec in features_of(found.info):
        if spec["dtype"] != "video":
            dim, kind = spec["shape"][0], pa.type_for_alias(spec["dtype"])
            wanted[name] = kind if dim == 1 else pa.list_(kind, dim)
    good = True
    for name, kind in wanted.items():
        if name not in schema.names:
            good = False
            found.add("missing_column", where, f"there is no column {name}")
        elif schema.field(name).type != kind:
            found.add("dtype_mismatch", where, f"{name} is {schema.field(name).type}, not {kind}")
    for name in set(schema.names) - set(wanted):
        found.add("unrecognised_schema", where, f"the column {name} is no feature")
    return good


def _check_rows(found: _Found, where: str, part: Any, row: Mapping[str, Any], start: int, tasks: int) -> None:
    import numpy as np

    number, length = row["episode_index"], row["length"]
    columns = {name: np.asarray(part.column(name).combine_chunks()) for name in INDEX_FEATURES}
    within = np.arange(part.num_rows)
    if part.num_rows != length:
        found.add("declared_frames_mismatch", where, f"episode {number}: {part.num_rows} of {length} rows")
    for name, wanted in (("frame_index", within), ("index", within + start), ("episode_index", number)):
        if not np.array_equal(columns[name], np.broadcast_to(wanted, part.num_rows)):
            found.add("declared_count_mismatch", where, f"episode {number}: {name} does not count")
    if not part.num_rows:
        return
    stamps = columns["timestamp"].astype(np.float64)
    if abs(stamps[0]) > TOLERANCE_S:
        found.add("timestamps_not_from_zero", where, f"episode {number} starts at {stamps[0]:g} s")
        return
    # Late stamps are as near as float32 comes; LeRobot minds that only where there are pictures.
    seconds = within / found.info["fps"]
    if (np.abs(stamps - seconds) > TOLERANCE_S + seconds * np.finfo(np.float32).eps).any():
        found.add("time_not_monotonic", where, f"episode {number}: stamps are not frame_index / fps")
    if columns["task_index"].min() < 0 or columns["task_index"].max() >= tasks:
        found.add("missing_references", where, f"episode {number}: a task_index that tasks.parquet has not")


def _check_videos(found: _Found, episodes: list[dict[str, Any]]) -> None:
    import av
    from av.error import FFmpegError

    fps = found.info["fps"]
    for camera in _cameras(found.info):
        for row in episodes:
            number, length = row["episode_index"], row["length"]
            where = VIDEO_PATH.format(
                video_key=camera,
                chunk_index=row[f"videos/{camera}/chunk_index"],
                file_index=row[f"videos/{camera}/file_index"],
            )
            path = found.folder / where
            if not path.is_file():
                found.add("missing_videos", where, f"episode {number} is not there")
                continue
            span = (row[f"videos/{camera}/from_timestamp"], row[f"videos/{camera}/to_timestamp"])
            if span[0] != 0 or abs(span[1] - length / fps) > TOLERANCE_S:
                found.add(
                    "declared_frames_mismatch", where, f"episode {number} is from {span[0]} to {span[1]} s"
                )
            try:
                with av.open(str(path), metadata_errors="replace") as container:
                    stream = container.streams.video[0]
                    codec, shape = stream.codec.canonical_name, [stream.height, stream.width, 3]
                reason = off_grid(path, length, fps)
            except (FFmpegError, IndexError) as error:
                found.add("corrupt_video", where, f"not readable: {error}")
                continue
            if codec not in CODECS:
                found.add("mixed_codecs", where, f"codec {codec} is none that LeRobot merges")
            if shape != found.info["features"][camera]["shape"]:
                found.add("metadata_mismatch", where, f"pictures are {shape}")
            if reason is not None:
                found.add("declared_frames_mismatch", where, reason)


def _check_stats(found: _Found) -> None:
    import json

    path = found.folder / "meta" / "stats.json"
    stats = json.loads(path.read_bytes()) if path.is_file() else {}
    for name, spec in features_of(found.info):
        told = stats.get(name, {})
        size = 3 if spec["dtype"] == "video" else spec["shape"][0]
        for stat in STATS:
            values = told.get(stat)
            if not isinstance(values, list) or len(values) != (1 if stat == "count" else size):
                found.add("missing_stats", "meta/stats.json", f"{name}: {stat} is not {size} numbers")


def _read(path: Path) -> Any:
    """A table; opened by us, so that no part of the path becomes a column."""
    import pyarrow.parquet as pq

    with path.open("rb") as stream:
        return pq.read_table(stream)


def _cameras(info: Mapping[str, Any]) -> list[str]:
    return [name for name, spec in info["features"].items() if spec["dtype"] == "video"]


def _data_path(row: Mapping[str, Any]) -> str:
    return DATA_PATH.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
