"""A canonical dataset as a LeRobot v3.0 tree: pyarrow, pandas, PyAV and numpy, nothing of LeRobot itself.

::

    data/chunk-000/file-000.parquet            frames of whole episodes, about 100 MB a file
    meta/info.json, stats.json, tasks.parquet
    meta/episodes/chunk-000/file-000.parquet   where each episode is, and its statistics
    videos/<camera>/chunk-000/file-000.mp4     one episode a file, copied bit for bit where it can be

Source: lerobot 0.4.4, `lerobot/datasets/utils.py` and `lerobot_dataset.py`; what its readers refuse is in
`spec/formats.md` and held by :mod:`emboflow_dagster.formats.exports.lerobot_check`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.canonical.episode_files import cut
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import FRAMES_FILE
from emboflow_dagster.formats.canonical.split import video_place
from emboflow_dagster.formats.exports.lerobot_stats import PictureStats, episode_stats, vector_stats
from emboflow_dagster.formats.exports.lerobot_video import deliver, whole

if TYPE_CHECKING:
    import pyarrow as pa

VERSION: Final = "v3.0"
CHUNK_FILES: Final = 1_000
DATA_FILE_MB: Final = 100
VIDEO_FILE_MB: Final = 200
DATA_PATH: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH: Final = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
#: A float32 stamp is within LeRobot's 0.1 ms up to 2,048 s; later pictures would not be found.
MAX_SECONDS: Final = 2_000
#: Episodes whose rows may wait for their row group.
ROWS_WAITING: Final = 256
ENVIRONMENT_STATE: Final = "observation.environment_state"
INDEX_FEATURES: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")
#: The bytes of tables and statistics depend on them.
LIBRARIES: Final = ("av", "numpy", "pandas", "pyarrow")


def write_lerobot(
    dataset: CanonicalDataset,
    out: Path,
    *,
    environment_state: str | None = None,
    tick: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Write the tree into ``out``; memory holds one episode and one picture.

    Args:
        dataset: The version.
        out: Absent or empty.
        environment_state: A feature that is delivered as ``observation.environment_state`` too: what ACT
            needs of a set without pictures.
        tick: Called with episodes done and in all.

    Returns:
        ``features`` as `info.json` has them, ``leftOut`` [{feature, reason}], ``reencoded`` [{camera,
        episode, reason}], ``videos`` (how many files).

    Raises:
        InvalidInputError: A feature that LeRobot cannot have, or a video that has not one picture a frame.
    """
    plan = _Plan(dataset, environment_state)
    run = _Run(dataset, plan, out)
    total = dataset.manifest.episodes
    rows = dataset.episodes()
    try:
        for number, frames in cut(dataset.path(FRAMES_FILE)):
            run.add(number, next(rows), frames)
            tick(number + 1, total)
    finally:
        run.close()
    _write_tasks(out, dataset.tasks())
    features = {**plan.vectors(), **run.cameras(), **_index_features()}
    info = {
        "codebase_version": VERSION,
        "robot_type": dataset.manifest.document.get("robotType"),
        "total_episodes": dataset.manifest.episodes,
        "total_frames": dataset.manifest.frames,
        "total_tasks": len(dataset.tasks()),
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": whole(dataset.fps),
        "splits": {"train": f"0:{dataset.manifest.episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if plan.cameras else None,
        "features": features,
    }
    stats = {name: vector_stats(dataset, source) for name, source in plan.columns.items()}
    stats |= {camera: found.to_json() for camera, found in run.pictures.items()}
    _write_json(out / "meta" / "info.json", info)
    _write_json(out / "meta" / "stats.json", stats)
    return {
        "features": features,
        "leftOut": plan.left_out,
        "reencoded": run.reencoded,
        "videos": run.videos,
    }


class _Plan:
    """Which columns and cameras are delivered, under which names."""

    def __init__(self, dataset: CanonicalDataset, environment_state: str | None) -> None:
        self.described = dataset.manifest.features
        self.columns: dict[str, str] = {}
        """Delivered name to the version's name."""
        self.left_out: list[dict[str, str]] = []
        for name in dataset.features:
            if not self.described[name]["shape"][0]:
                self.left_out.append({"feature": name, "reason": "has no dimension"})
            else:
                self._take(name.replace("/", "_"), name)
        if environment_state is not None and environment_state != ENVIRONMENT_STATE:
            if environment_state not in self.columns.values():
                there = ", ".join(sorted(self.columns.values()))
                raise InvalidInputError(
                    f"environmentState: there is no feature {shown(environment_state)}; there are {there}",
                    kind=ErrorKind.INPUT_MISSING,
                )
            self._take(ENVIRONMENT_STATE, environment_state)
        self.cameras = {
            name.replace("/", "_"): name.removeprefix("observation.images.")
            for name, spec in self.described.items()
            if spec["dtype"] == "video"
        }
        self.videos: dict[tuple[str, int], str] = {
            at: file["path"]
            for file in dataset.manifest.files
            if (at := video_place(file["path"])) is not None
        }

    def _take(self, name: str, source: str) -> None:
        if name in self.columns or name in INDEX_FEATURES:
            raise InvalidInputError(
                f"the feature {shown(source)} would be delivered as {name}, which is taken",
                kind=ErrorKind.DUPLICATE,
            )
        self.columns[name] = source

    def vectors(self) -> dict[str, Any]:
        """The features that are no pictures, as `info.json` has them."""
        return {
            name: {
                "dtype": "float32",
                "shape": self.described[source]["shape"],
                "names": self.described[source]["names"],
            }
            for name, source in self.columns.items()
        }

    def schema(self) -> "pa.Schema":
        """Columns of the data files. One dimension is a scalar: LeRobot's reader refuses a list for it."""
        import pyarrow as pa

        fields = [
            pa.field(name, pa.float32() if dim == 1 else pa.list_(pa.float32(), dim))
            for name, source in self.columns.items()
            for dim in (int(self.described[source]["shape"][0]),)
        ]
        whole_numbers = [pa.field(name, pa.int64()) for name in INDEX_FEATURES[1:]]
        return pa.schema([*fields, pa.field("timestamp", pa.float32()), *whole_numbers])


class _Run:
    """The open files and what is known so far."""

    def __init__(self, dataset: CanonicalDataset, plan: _Plan, out: Path) -> None:
        self.pictures = {camera: PictureStats() for camera in plan.cameras}
        self.reencoded: list[dict[str, Any]] = []
        self.videos = 0
        self._dataset, self._plan, self._out = dataset, plan, out
        self._tracks: dict[str, Any] = {}
        self._frames = 0
        self._data = _Files(out, DATA_PATH, plan.schema())
        self._episodes: _Files | None = None

    def add(self, number: int, row: Mapping[str, Any], frames: "pa.Table") -> None:
        """Write one episode: its frames, its videos, its row."""
        if row["episode_index"] != number or row["length"] != frames.num_rows:
            raise InvalidInputError(f"episode {number}: frames.parquet and episodes.parquet differ")
        at = self._data.add(self._table(number, frames))
        length = int(row["length"])
        told: dict[str, Any] = {
            "episode_index": number,
            "tasks": list(row["tasks"]),
            "length": length,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + length,
            "data/chunk_index": at[0],
            "data/file_index": at[1],
        }
        stats = {
            name: episode_stats(row, source, length) for name, source in self._plan.columns.items()
        } | self._add_videos(number, length, told)
        told |= {f"stats/{f}/{name}": value for f, found in stats.items() for name, value in found.items()}
        self._add_row(told)
        self._frames += length

    def cameras(self) -> dict[str, Any]:
        """The pictures, as `info.json` has them."""
        return {
            camera: {
                "dtype": "video",
                "shape": list(track.shape),
                "names": ["height", "width", "channels"],
                "info": track.info,
            }
            for camera, track in self._tracks.items()
        }

    def close(self) -> None:
        """Finish every file."""
        self._data.close()
        if self._episodes is not None:
            self._episodes.close()

    def _add_videos(self, number: int, length: int, told: dict[str, Any]) -> dict[str, Any]:
        stats: dict[str, Any] = {}
        chunk, file = divmod(number, CHUNK_FILES)
        fps = self._dataset.fps
        if self._plan.cameras and length > MAX_SECONDS * fps:
            raise InvalidInputError(
                f"episode {number} lasts {length / fps:.0f} s; LeRobot finds pictures up to {MAX_SECONDS} s",
                hint="split it: emboflow dataset edit split DATASET EPISODE --at FRAME",
            )
        for camera, folder in self._plan.cameras.items():
            source = self._plan.videos.get((folder, number))
            if source is None:
                raise InvalidInputError(
                    f"episode {number} has no video of {folder}", kind=ErrorKind.INPUT_MISSING
                )
            target = self._out / VIDEO_PATH.format(video_key=camera, chunk_index=chunk, file_index=file)
            seen = PictureStats()
            track = deliver(self._dataset.path(source), target, length=length, fps=fps, stats=seen)
            first = self._tracks.setdefault(camera, track)
            if first.shape != track.shape:
                raise InvalidInputError(
                    f"{folder}: episode {number} has pictures of {track.shape[1]}x{track.shape[0]}, "
                    f"the first one of {first.shape[1]}x{first.shape[0]}"
                )
            if track.reason is not None:
                self.reencoded.append({"camera": camera, "episode": number, "reason": track.reason})
            self.videos += 1
            self.pictures[camera].merge(seen)
            stats[camera] = seen.to_json()
            told |= {
                f"videos/{camera}/chunk_index": chunk,
                f"videos/{camera}/file_index": file,
                f"videos/{camera}/from_timestamp": 0.0,
                f"videos/{camera}/to_timestamp": length / fps,
            }
        return stats

    def _table(self, number: int, frames: "pa.Table") -> "pa.Table":
        import numpy as np
        import pyarrow as pa

        rows = frames.num_rows
        within = np.arange(rows, dtype=np.int64)
        columns: list[pa.Array] = []
        for source in self._plan.columns.values():
            dim = int(self._plan.described[source]["shape"][0])
            flat = _flat(frames, source, dim)
            columns.append(flat if dim == 1 else pa.FixedSizeListArray.from_arrays(flat, dim))
        # Types are made here, whatever the source had: real LeRobot raises for an index of DOUBLE.
        stamps = (within / self._dataset.fps).astype(np.float32)
        tasks = np.asarray(frames.column("task_index").combine_chunks()).astype(np.int64)
        told = [stamps, within, np.full(rows, number, np.int64), within + self._frames, tasks]
        return pa.table([*columns, *map(pa.array, told)], schema=self._plan.schema())

    def _add_row(self, told: dict[str, Any]) -> None:
        import pyarrow as pa

        if self._episodes is None:
            place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            types = {name: _type_of(name, value) for name, value in (told | place).items()}
            self._episodes = _Files(self._out, EPISODES_PATH, pa.schema(list(types.items())), ROWS_WAITING)
        chunk, file = self._episodes.place
        row = told | {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self._episodes.add(pa.Table.from_pylist([row], schema=self._episodes.schema))


class _Files:
    """Parquet files of one kind, a new one when about 100 MB are in it; a row group an episode of frames."""

    def __init__(self, out: Path, template: str, schema: "pa.Schema", waiting: int = 1) -> None:
        self.schema = schema
        self.place = (0, 0)
        self._out, self._template, self._most = out, template, waiting
        self._writer: Any = None
        self._bytes = 0
        self._waiting: list[pa.Table] = []

    def add(self, table: "pa.Table") -> tuple[int, int]:
        """Write rows; the chunk and the file they are in."""
        self._waiting.append(table)
        self._bytes += table.nbytes
        place = self.place
        if len(self._waiting) >= self._most:
            self._flush()
        if self._bytes >= DATA_FILE_MB << 20:
            self.close()
            chunk, file = self.place
            self.place = (chunk, file + 1) if file + 1 < CHUNK_FILES else (chunk + 1, 0)
        return place

    def close(self) -> None:
        """Finish the file that is open."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        if self._writer is None:
            chunk, file = self.place
            path = self._out / self._template.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            # All that changes bytes is pinned; `snappy` is what every reader of LeRobot's has.
            self._writer = pq.ParquetWriter(
                path, self.schema, version="2.6", compression="snappy", data_page_version="1.0"
            )
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting = []


def _flat(frames: "pa.Table", source: str, dim: int) -> "pa.Array":
    """The numbers of a vector column one after the other, checked to be ``dim`` a row."""
    import numpy as np
    import pyarrow as pa

    column = frames.column(source).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    flat = column.flatten().cast(pa.float32())
    lengths = np.asarray(column.value_lengths()) if column.null_count == 0 else np.zeros(0)
    if len(lengths) != len(column) or not (lengths == dim).all():
        raise InvalidInputError(
            f"feature {shown(source)}: not every frame has {dim} numbers", kind=ErrorKind.INPUT_MISSING
        )
    return flat


def _type_of(name: str, value: Any) -> "pa.DataType":
    import pyarrow as pa

    if name == "tasks":
        return pa.list_(pa.string())
    if isinstance(value, list):
        return pa.list_(_type_of(name, value[0]))
    return pa.float64() if isinstance(value, float) else pa.int64()


def _write_tasks(out: Path, tasks: list[str]) -> None:
    """`tasks.parquet` as LeRobot reads it: the task is the index of the frame, its number the column."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = pd.DataFrame({"task_index": pd.Series(range(len(tasks)), dtype="int64").to_numpy()}, index=tasks)
    path = out / "meta" / "tasks.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame), path, version="2.6", compression="snappy")


def _index_features() -> dict[str, Any]:
    kinds = {"timestamp": "float32"}
    return {n: {"dtype": kinds.get(n, "int64"), "shape": [1], "names": None} for n in INDEX_FEATURES}


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # LeRobot's own form. A dimension without a finite number is NaN here, as in its own files.
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def read_info(folder: Path) -> dict[str, Any]:
    """`meta/info.json` of a tree."""
    return json.loads((folder / "meta" / "info.json").read_bytes())


def features_of(info: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The features of a tree that are no indices."""
    yield from ((name, spec) for name, spec in info["features"].items() if name not in INDEX_FEATURES)
