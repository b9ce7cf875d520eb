"""The episodes of a canonical dataset and of HDF5 files as the checks see them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical.content import content_of
from emboflow_dagster.formats.canonical.episode_files import cut
from emboflow_dagster.formats.canonical.from_hdf5 import hdf5_files, simulation_clock
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import FRAMES_FILE
from emboflow_dagster.formats.canonical.stats import STAT_NAMES
from emboflow_dagster.formats.hdf5_layout import layout_of, open_hdf5
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.episodes import DeclaredCounts, StatsRecompute
from emboflow_dagster.formats.quality.time import SyncAge
from emboflow_dagster.formats.quality.video import watch
from emboflow_dagster.formats.quality.view import EpisodeView

if TYPE_CHECKING:
    import h5py
    import numpy as np

#: Numbers of one dataset and episode that are read for a check.
MAX_NUMBERS = 50_000_000


def feed_canonical(dataset: CanonicalDataset, checks: Mapping[str, Check], *, decode: bool) -> dict[str, str]:
    """Give every check what a canonical dataset holds for it.

    Returns:
        Episode name to the hash of its content, as dataset versions name it.
    """
    import pyarrow.parquet as pq

    from emboflow_dagster.formats.canonical.stats import merge_stats

    lengths = 0
    hashes: dict[str, str] = {}
    merged = None
    sync, stats, counts = (checks.get(check.name) for check in (SyncAge, StatsRecompute, DeclaredCounts))
    number = 0
    raw, frames = dataset.raw_streams(), cut(dataset.path(FRAMES_FILE))
    for row in dataset.episodes():
        index = row["episode_index"]
        lengths += row["length"]
        found, table = next(frames, (None, None))
        if table is None or found != index:  # not in order: looked up
            table = dataset.frames(index)
        view, hashes[f"episode {index}"] = _canonical_view(dataset, row, table, raw, decode=decode)
        number += 1
        for check in checks.values():
            check.take(view)
        if isinstance(sync, SyncAge):
            sync.declared -= 1
            for feature, age in row["sync_max_age_ns"] or []:
                sync.declared += 1
                sync.resolved += 1
                sync.age(view.ref, feature, age / 1e9, 1.0 / dataset.fps)
        merged = {
            name: merge_stats([merged[name], part] if merged else [part])
            for name, part in ((name, view.stats[name]) for name in dataset.features)
        }
    document = dataset.manifest.document
    rows = pq.read_metadata(dataset.path(FRAMES_FILE)).num_rows
    if isinstance(counts, DeclaredCounts):
        counts.declared = 0
        counts.compare("episodes", document["episodes"], number)
        counts.compare("frames", document["frames"], rows)
        counts.compare("frames of all episodes", lengths, rows)
    if isinstance(stats, StatsRecompute) and merged:
        # The episodes' statistics were compared with their numbers; these are made of them.
        for name, part in merged.items():
            stats.declared += 1
            stats.resolved += stats.compare(None, name, dataset.stats().get(name, {}), part)
    return hashes


def _canonical_view(
    dataset: CanonicalDataset, row: Mapping[str, Any], table: Any, raw: Any, *, decode: bool
) -> tuple[EpisodeView, str]:
    import pyarrow.compute

    pc: Any = pyarrow.compute
    index, length = row["episode_index"], row["length"]
    kinds = {name: feature.get("kind") for name, feature in dataset.manifest.features.items()}
    features = dataset.features
    stamps = table.column("source_timestamp_ns")
    suffix = f"/episode_{index:06d}.mp4"
    files = {
        entry["path"].removeprefix("videos/").removesuffix(suffix): entry
        for entry in dataset.manifest.files
        if entry["path"].startswith("videos/") and entry["path"].endswith(suffix)
    }
    declared = [n.removeprefix("observation.images.") for n, k in kinds.items() if k == "image"]
    videos = {}
    if decode:
        for camera in dict.fromkeys((*declared, *files)):
            path = dataset.path(files[camera]["path"]) if camera in files else None
            name = files[camera]["path"] if camera in files else f"videos/{camera}{suffix}"
            videos[camera] = watch(path, name, rows=table.num_rows, fps=dataset.fps)
    streams = None
    if raw is not None:
        streams = raw.filter(pc.equal(raw.column("episode_index"), index)).drop_columns(["episode_index"])
    view = EpisodeView(
        ref=f"episode {index}",
        length=table.num_rows,
        vectors={name: _vectors(table.column(name)) for name in features},
        actions=tuple(name for name in features if name.partition(".")[0] == "action"),
        states=tuple(name for name in features if kinds.get(name) == "state"),
        stamps_ns=None if stamps.null_count else stamps.to_numpy(),
        fps=dataset.fps,
        grid_s=table.column("timestamp").to_numpy(),
        frame_index=table.column("frame_index").to_numpy(),
        number=index,
        index=table.column("index").to_numpy(),
        declared_length=length,
        stats={
            name: {stat: row[f"stats/{name}/{stat}"] for stat in STAT_NAMES if f"stats/{name}/{stat}" in row}
            for name in features
        },
        videos=videos,
        names={name: dataset.manifest.features[name].get("names") or () for name in features},
    )
    return view, content_of(table, streams, {camera: entry["sha256"] for camera, entry in files.items()})


def feed_hdf5(path: Path, checks: Mapping[str, Check], fps: float | None) -> bool:
    """Give every check what the HDF5 files of an input hold for it; whether they declare any count."""
    counts = checks.get(DeclaredCounts.name)
    totals: list[tuple[object, int]] = []
    for file_path in hdf5_files(path):
        with open_hdf5(file_path) as file:
            layout = layout_of(file)
            prefix = "" if not path.is_dir() else f"{file_path.relative_to(path).as_posix()}:"
            for view in _hdf5_views(file, prefix, fps or layout.control_hz):
                for check in checks.values():
                    check.take(view)
            totals.append((layout.attrs.get("total"), sum(demo.length for demo in layout.demos)))
    declared = [total for total, _ in totals]
    whole = sum(total for total in declared if isinstance(total, int))
    known = bool(declared) and all(isinstance(total, int) for total in declared)
    if isinstance(counts, DeclaredCounts):
        counts.declared = 0
        counts.compare("frames", whole if known else None, sum(counted for _, counted in totals))
    return known


def _hdf5_views(file: "h5py.File", prefix: str, fps: float | None) -> Iterator[EpisodeView]:
    import numpy as np

    layout = layout_of(file)
    for demo in layout.demos:
        vectors: dict[str, np.ndarray] = {}
        unread: list[str] = []
        for name, item in demo.fields.items():
            if not item.is_numeric or item.zero_width or not item.shape[0] or name in demo.cameras:
                continue
            if item.closed or item.shape[0] * (item.width or 1) > MAX_NUMBERS:
                unread.append(name)
                continue
            try:
                rows = np.asarray(file[item.path][: item.shape[0]])  # pyright: ignore[reportIndexIssue] - a dataset
            except (OSError, RuntimeError, ValueError):
                unread.append(name)
                continue
            vectors[name] = rows.reshape(item.shape[0], -1)
        clock = vectors.get("states") if layout.format == "hdf5_robosuite_raw" else None
        whole = {name for name, rows in vectors.items() if len(rows) == demo.length}
        yield EpisodeView(
            ref=prefix + (demo.group or "/"),
            length=demo.length,
            vectors=vectors,
            actions=tuple(name for name in ("actions", "action") if name in whole),
            states=tuple(
                n for n in ("observations/qpos", "obs/robot0_proprio-state", "states") if n in whole
            )[:1],
            stamps_ns=None if clock is None else simulation_clock(layout, clock),
            fps=fps,
            zero_width=tuple(name for name, item in demo.fields.items() if item.zero_width),
            unresolved=tuple(unread),
        )


def _vectors(column: Any) -> "np.ndarray":
    import numpy as np

    joined = column.combine_chunks()
    return np.asarray(joined.flatten()).reshape(len(joined), -1)
