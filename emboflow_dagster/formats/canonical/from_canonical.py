"""Episodes out of a canonical folder, such as an export of ours: all that is in it as it is."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical.episode_files import cut
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, open_canonical, read_manifest
from emboflow_dagster.formats.canonical.schema import (
    FRAMES_FILE,
    MANIFEST_FILE,
    RAW_INDEX_FILE,
    Camera,
    Episode,
    FeatureSpec,
    RawStream,
)
from emboflow_dagster.formats.canonical.source_video import Videos, pictures

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_CAMERA = "observation.images."


def suggested_fps(path: Path) -> float:
    """The rate of its grid."""
    return float(read_manifest(path / MANIFEST_FILE).document["fps"])


def episodes(
    path: Path, *, task: str | None = None, asset_id: str | None = None, videos: Videos = True, **_: Any
) -> Iterator[Episode]:
    """Every episode, in its order; its data has the hash that it had.

    Args:
        path: The folder.
        task: What was asked of the robot; ``None`` for what the folder says.
        asset_id: For the source reference.
        videos: ``encode`` encodes the pictures anew, ``False`` leaves them out; else files are copied.

    Raises:
        IntegrityError: A file of it is missing or damaged.
        InvalidInputError: It is of another schema, or its tables do not agree.
    """
    dataset = open_canonical(path)
    names = dataset.tasks()
    streams = cut(dataset.path(RAW_INDEX_FILE)) if dataset.raw_streams() is not None else iter(())
    waiting = next(streams, None)
    for (number, frames), row in zip(cut(dataset.path(FRAMES_FILE)), dataset.episodes(), strict=True):
        raw: pa.Table | None = None
        if waiting is not None and waiting[0] == number:
            raw, waiting = waiting[1], next(streams, None)
        said = tuple(names[place] for place in _numbers(frames, "task_index").tolist())
        features = {name: _vectors(frames, name) for name in dataset.features}
        stamps = frames.column("source_timestamp_ns")
        yield Episode(
            source={"assetId": asset_id, "path": FRAMES_FILE, "ref": f"episode {number}"},
            features=features,
            specs={name: _spec(dataset.manifest.features[name]) for name in features},
            source_timestamp_ns=None if stamps.null_count else _numbers(frames, "source_timestamp_ns"),
            t0_ns=row["t0_ns"],
            task=said[0] if task is None else task,
            success=row["success"],
            flags=tuple(row["flags"]),
            valid=_numbers(frames, "valid"),
            cameras={} if videos is False else dict(_cameras(dataset, number, videos)),
            raw_streams=() if raw is None else tuple(_streams(raw)),
            sync=_sync(row),
            frames=frames.num_rows,
            frame_tasks=said if task is None and len(set(said)) > 1 else (),
        )


def _numbers(table: "pa.Table", column: str) -> "np.ndarray":
    import numpy as np

    return np.asarray(table.column(column).combine_chunks())


def _vectors(table: "pa.Table", column: str) -> "np.ndarray":
    import numpy as np

    return np.asarray(table.column(column).combine_chunks().flatten()).reshape(table.num_rows, -1)


def _spec(told: Mapping[str, Any]) -> FeatureSpec:
    return FeatureSpec(tuple(told["names"]), told["kind"], told.get("unit"), told.get("sourceTopic"))


def _cameras(dataset: CanonicalDataset, number: int, videos: Videos) -> Iterator[tuple[str, Camera]]:
    for feature, spec in dataset.manifest.features.items():
        if spec["dtype"] == "video":
            name = feature.removeprefix(_CAMERA)
            file = dataset.path(f"videos/{name}/episode_{number:06d}.mp4")
            height, width, _ = spec["shape"]
            copied = None if videos == "encode" else file
            yield name, Camera((height, width, 3), partial(pictures, file), spec.get("sourceTopic"), copied)


def _streams(raw: "pa.Table") -> Iterator[RawStream]:
    """The streams of an episode, in the order in which they stand."""
    import numpy as np

    topics = raw.column("topic").to_pylist()
    for topic in dict.fromkeys(topics):
        rows = raw.take(np.flatnonzero(np.array([one == topic for one in topics])))
        yield RawStream(_numbers(rows, "source_timestamp_ns"), _vectors(rows, "values"), topic)


def _sync(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    most, mean = (dict(row.get(f"sync_{key}_age_ns") or ()) for key in ("max", "mean"))
    return {name: {"maxAgeNs": most[name], "meanAgeNs": mean[name]} for name in most}
