"""Writes a canonical dataset version, one episode at a time, as the same bytes for the same input."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.formats.canonical import columns, tables
from emboflow_dagster.formats.canonical.frame_rows import FrameRows
from emboflow_dagster.formats.canonical.schema import (
    EPISODES_FILE,
    FRAMES_FILE,
    INDEX_COLUMNS,
    MANIFEST_FILE,
    RAW_INDEX_FILE,
    SCHEMA_VERSION,
    TASKS_FILE,
    Camera,
    Episode,
    FeatureSpec,
    Manifest,
)
from emboflow_dagster.formats.canonical.stats import episode_stats, merge_stats
from emboflow_dagster.formats.canonical.video_track import write_videos
from emboflow_dagster.formats.report import json_safe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PACKAGE = "emboflow-dagster"
_CHUNK = 1024 * 1024


def write_canonical(
    episodes: Iterable[Episode],
    out_dir: Path,
    *,
    fps: float,
    robot_type: str | None = None,
    dataset_id: str | None = None,
    version_tag: str | None = None,
    source_assets: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
    on_mismatch: Literal["raise", "skip"] = "raise",
    skipped: list[dict[str, Any]] | None = None,
) -> Manifest:
    """Write every episode and the manifest into `out_dir`; memory holds one episode and one row group.

    The first episode fixes the features. Nothing in the files depends on when, where or by whom they are
    written: equal episodes and arguments give equal bytes.

    Args:
        episodes: Read once, in the order in which they are numbered from 0.
        out_dir: Absent or empty; created.
        fps: Frames per second of the grid; ``timestamp = frame_index / fps``.
        robot_type: For the manifest.
        dataset_id: For the manifest.
        version_tag: For the manifest.
        source_assets: ``{"assetId", "sha256"}`` of every source.
        config: What the producer was told; the manifest keeps its hash only.
        quality: A summary for the manifest.
        on_mismatch: What happens to an episode whose features differ from the first one's.
        skipped: Episodes left out so far, as ``{"source", "reason"}``. Readers may fill it while they are
            read; the manifest lists all of it.

    Raises:
        InvalidInputError: No episode, a wrong `fps`, a folder with content, or an episode that does not fit.
    """
    left_out = skipped if skipped is not None else []
    run = Package(out_dir, fps)
    try:
        for episode in episodes:
            problems = run.problems(episode)
            if not problems:
                run.add(episode)
            elif on_mismatch == "skip":
                left_out.append({"source": dict(episode.source), "reason": "; ".join(map(str, problems))})
            else:
                raise InvalidInputError.of(problems)
    finally:
        run.close()
    if run.count == 0:
        reasons = "; ".join(sorted({str(item["reason"]) for item in left_out})[:5])
        raise InvalidInputError(
            f"no episode to write{': ' + reasons if reasons else ''}", kind=ErrorKind.INPUT_MISSING
        )
    return run.finish(
        robot_type=robot_type,
        dataset_id=dataset_id,
        version_tag=version_tag,
        source_assets=source_assets,
        config=config,
        quality=quality,
        skipped=left_out,
    )


class Package:
    """The open files of one dataset and what is known so far.

    Args:
        out_dir: Absent or empty; created.
        fps: Frames per second of the grid.

    Raises:
        InvalidInputError: A wrong `fps`, or a folder with content.
    """

    def __init__(self, out_dir: Path, fps: float) -> None:
        if not 0 < fps <= 1_000_000:  # noqa: PLR2004 - a frame of a microsecond
            raise InvalidInputError(f"fps: expected a number above 0, found {shown(fps)}")
        out_dir.mkdir(parents=True, exist_ok=True)
        if any(out_dir.iterdir()):
            raise InvalidInputError(f"{out_dir.name}: the output folder is not empty")
        self.out_dir = out_dir
        self.fps = fps
        self.count = 0
        self.frames = 0
        self.specs: dict[str, FeatureSpec] = {}
        self.cameras: dict[str, Camera] = {}
        self.tasks: dict[str, int] = {}
        self.stats: dict[str, dict[str, list[Any]]] = {}
        self._open: dict[str, tables.TableFile] = {}
        self._videos: list[tuple[str, int]] = []
        self._rows: list[dict[str, Any]] = []
        self._schema: pa.Schema
        self._waiting: FrameRows

    def problems(self, episode: Episode) -> list[Problem]:
        """Why this episode cannot be written beside the ones before it."""
        where = str(episode.source.get("ref") or episode.source.get("path") or f"episode {self.count}")
        found: list[str] = []
        if episode.length == 0:
            found.append("has no frames")
        if set(episode.features) != set(episode.specs):
            found.append("features and their descriptions differ")
        for name, values in episode.features.items():
            spec = episode.specs.get(name)
            if name in INDEX_COLUMNS or "/" in name or not name:
                found.append(f"feature {shown(name)} has a reserved name")
            if values.ndim != 2 or len(values) != episode.length:  # noqa: PLR2004 - rows and columns
                found.append(f"feature {name}: expected {episode.length} rows, found shape {values.shape}")
            elif spec is not None and values.shape[1] != spec.dim:
                found.append(f"feature {name}: {values.shape[1]} numbers, {spec.dim} names")
        for label, array in (("source_timestamp_ns", episode.source_timestamp_ns), ("valid", episode.valid)):
            if array is not None and len(array) != episode.length:
                found.append(f"{label}: expected {episode.length} values, found {len(array)}")
        if episode.frame_tasks and len(episode.frame_tasks) != episode.length:
            found.append(f"tasks: expected {episode.length} of frames, found {len(episode.frame_tasks)}")
        if self.count:
            ours = {name: spec.dim for name, spec in self.specs.items()}
            theirs = {name: spec.dim for name, spec in episode.specs.items()}
            if ours != theirs:
                found.append(f"features {theirs} differ from the dataset's {ours}")
            if {k: c.shape for k, c in episode.cameras.items()} != {
                k: c.shape for k, c in self.cameras.items()
            }:
                found.append(
                    f"cameras {sorted(episode.cameras)} differ from the dataset's {sorted(self.cameras)}"
                )
        return [Problem(ErrorKind.INVALID_INPUT, where, text) for text in found]

    def add(self, episode: Episode) -> None:
        """Append one episode that fits.

        Raises:
            EmboflowError: Its pictures cannot be written; the package is as it was before.
        """
        self._write_videos(episode)
        if self.count == 0:
            self.specs = dict(episode.specs)
            self.cameras = dict(episode.cameras)
            self._schema = tables.episodes_schema(self.specs)
            file = self._table(FRAMES_FILE, tables.frames_schema(self.specs))
            self._waiting = FrameRows(file, list(self.specs), self.fps)
        self._waiting.add(episode, self.count, self.frames, self._task_of(episode))
        stats = episode_stats({name: episode.features[name] for name in self.specs})
        self._rows.append(self._episode_row(episode, stats))
        if len(self._rows) >= tables.TABLES_WAITING:
            self._flush_rows()
        self._write_raw(episode)
        for name, part in stats.items():
            self.stats[name] = merge_stats([self.stats[name], part] if name in self.stats else [part])
        self.count += 1
        self.frames += episode.length

    def close(self) -> None:
        """Finish every table; the tasks are known only now."""
        import pyarrow as pa

        if self.count:
            self._waiting.flush()
            self._flush_rows()
            schema = tables.tasks_schema()
            said = (list(self.tasks.values()), list(self.tasks))
            made = [columns.of_values(field.type, values) for field, values in zip(schema, said, strict=True)]
            rows = pa.table(made, schema=schema)
            self._table(TASKS_FILE, schema).add(rows)
        for table in self._open.values():
            table.close()

    def finish(
        self,
        *,
        robot_type: str | None = None,
        dataset_id: str | None = None,
        version_tag: str | None = None,
        source_assets: Sequence[Mapping[str, Any]] = (),
        config: Mapping[str, Any] | None = None,
        quality: Mapping[str, Any] | None = None,
        skipped: Sequence[Mapping[str, Any]] = (),
    ) -> Manifest:
        """Write the manifest of the closed package; the arguments are those of :func:`write_canonical`."""
        document = {
            "schemaVersion": SCHEMA_VERSION,
            "datasetId": dataset_id,
            "versionTag": version_tag,
            "sourceAssets": [dict(asset) for asset in source_assets],
            "fps": self.fps,
            "robotType": robot_type,
            "features": self.features(),
            "episodes": self.count,
            "frames": self.frames,
            "tasks": len(self.tasks),
            "stats": {name: merge_stats([stats]) for name, stats in self.stats.items()},
            "skipped": list(skipped),
            "files": self.files(),
            "producer": producer(config or {}),
            "quality": quality,
        }
        text = (
            json.dumps(json_safe(document), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
            + "\n"
        )
        payload = text.encode()
        (self.out_dir / MANIFEST_FILE).write_bytes(payload)
        return Manifest(document=json.loads(text), sha256=hashlib.sha256(payload).hexdigest())

    def features(self) -> dict[str, Any]:
        """The manifest's features: vectors, then cameras."""
        out = {name: spec.as_manifest() for name, spec in self.specs.items()}
        for name, camera in self.cameras.items():
            out[f"observation.images.{name}"] = {
                "dtype": "video",
                "shape": list(camera.shape),
                "names": ["height", "width", "channels"],
                "kind": "image",
                "unit": None,
                "sourceTopic": camera.source_topic,
            }
        return out

    def files(self) -> list[dict[str, Any]]:
        """Path, sha256, size and rows of every file but the manifest, sorted by path."""
        rows = [(name, table.rows) for name, table in self._open.items()] + self._videos
        out = []
        for name, count in sorted(rows):
            path = self.out_dir / name
            out.append(
                {"path": name, "sha256": file_sha256(path), "size": path.stat().st_size, "rows": count}
            )
        return out

    def _table(self, name: str, schema: "pa.Schema") -> tables.TableFile:
        if name not in self._open:
            self._open[name] = tables.TableFile(self.out_dir / name, schema)
        return self._open[name]

    def _flush_rows(self) -> None:
        import pyarrow as pa

        schema = self._schema
        if self._rows:
            rows = self._rows
            made = [columns.of_values(field.type, [row[field.name] for row in rows]) for field in schema]
            self._table(EPISODES_FILE, schema).add(pa.table(made, schema=schema))
        self._rows = []

    def _task_of(self, episode: Episode) -> "int | np.ndarray":
        import numpy as np

        for task in episode.tasks:
            self.tasks.setdefault(task, len(self.tasks))
        if episode.frame_tasks:
            return np.array([self.tasks[task] for task in episode.frame_tasks], dtype=np.int64)
        return self.tasks[episode.task]

    def _episode_row(self, episode: Episode, stats: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": self.count,
            "length": episode.length,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + episode.length,
            "tasks": list(episode.tasks),
            "source_asset_id": episode.source.get("assetId"),
            "source_path": episode.source.get("path"),
            "source_ref": episode.source.get("ref"),
            "t0_ns": episode.t0_ns,
            "success": episode.success,
            "flags": list(episode.flags),
            "sync_max_age_ns": [(name, int(sync["maxAgeNs"])) for name, sync in episode.sync.items()],
            "sync_mean_age_ns": [(name, float(sync["meanAgeNs"])) for name, sync in episode.sync.items()],
        }
        for feature, parts in stats.items():
            for name, values in parts.items():
                row[f"stats/{feature}/{name}"] = values
        return row

    def _write_raw(self, episode: Episode) -> None:
        import numpy as np
        import pyarrow as pa

        for stream in episode.raw_streams:
            n = len(stream.stamps_ns)
            schema = tables.raw_index_schema()
            made = [
                columns.numbers(np.full(n, self.count, dtype=np.int64)),
                columns.repeated(stream.source_topic, n),
                columns.numbers(np.arange(n, dtype=np.int64)),
                columns.numbers(np.asarray(stream.stamps_ns, dtype=np.int64)),
                columns.vectors(np.asarray(stream.values, np.float32)),
            ]
            self._table(RAW_INDEX_FILE, schema).add(pa.table(made, schema=schema))

    def _write_videos(self, episode: Episode) -> None:
        before = len(self._videos)
        try:
            self._write_cameras(episode)
        except EmboflowError:
            # The episode may be left out: nothing of it stays.
            for name in episode.cameras:
                (self.out_dir / f"videos/{name}/episode_{self.count:06d}.mp4").unlink(missing_ok=True)
            del self._videos[before:]
            raise

    def _write_cameras(self, episode: Episode) -> None:
        paths = {name: f"videos/{name}/episode_{self.count:06d}.mp4" for name in episode.cameras}
        encoded = {name: camera for name, camera in episode.cameras.items() if camera.video is None}
        wanted = [(self.out_dir / paths[name], camera.frames) for name, camera in encoded.items()]
        counts = dict(zip(encoded, write_videos(wanted, fps=self.fps), strict=True))
        for name, camera in episode.cameras.items():
            path = paths[name]
            if camera.video is not None:
                # Who gives the file has counted its frames: it is of exactly this episode.
                (self.out_dir / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(camera.video, self.out_dir / path)
            elif counts[name] != episode.length:
                text = f"camera {name}: {counts[name]} pictures for {episode.length} frames"
                raise InvalidInputError(text)
            self._videos.append((path, episode.length))


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def producer(config: Mapping[str, Any]) -> dict[str, str]:
    """Who made a dataset: this package, its version, the hash of what it was told."""
    return {"package": PACKAGE, "version": _version(), "configHash": _digest_of(config)}


def _digest_of(config: Mapping[str, Any]) -> str:
    text = json.dumps(json_safe(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "source"
