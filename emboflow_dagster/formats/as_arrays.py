"""Recordings as named arrays, for code that knows nothing of their formats: demonstrations, or streams.

A demonstration is a mapping of dataset names to arrays, as the file has them; an episode of LeRobot or RLDS
one of the features that `normalize` would make of it, without pictures; a recording of messages one of its
numeric topics, each with its stamps and its numbers. Memory holds the one that was asked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical import from_arrays
from emboflow_dagster.formats.canonical.bag_streams import numeric_streams
from emboflow_dagster.formats.canonical.from_hdf5 import MAX_FEATURE_NUMBERS, hdf5_files, simulation_clock
from emboflow_dagster.formats.hdf5_layout import Demo, Layout, layout_of, open_hdf5

if TYPE_CHECKING:
    import h5py
    import numpy as np

Kind = Literal["episode", "streams"]
BAGS: Final = ("rosbag", "mcap")
ROWS: Final = ("lerobot", "rlds", "csv", "np")
NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """One demonstration, or one recording of messages.

    Attributes:
        ref: What it is called in its file.
        arrays: Dataset or topic to its numbers: rows of a dataset; a topic's values ``(n, dim)`` float64.
        stamps: Topic to its stamps in ns, int64 ``(n,)``; of a demonstration those of its frames under an
            empty name, where it has some.
        names: Topic or dataset to the names of its columns.
        told: ``task``, ``success``, ``fps`` where the file says so.
    """

    ref: str
    arrays: "Mapping[str, np.ndarray]"
    stamps: "Mapping[str, np.ndarray]" = field(default_factory=dict)
    names: Mapping[str, list[str]] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


def parts(path: Path, form: str, kind: Kind, reasons: list[str]) -> Iterator[Part]:
    """What is in one recording.

    Args:
        path: The recording.
        form: Its format, as a probe names it.
        kind: What is wanted of it.
        reasons: Gets what was left out and why.

    Raises:
        InvalidInputError: There is nothing of that kind in this format, or the file cannot be read.
        OSError: A file cannot be read.
    """
    if kind == "streams" and form.startswith(BAGS):
        return _recording(path, reasons)
    if kind == "episode" and form.startswith("hdf5"):
        return _demonstrations(path, reasons)
    if kind == "episode" and form.startswith(ROWS):
        return _rows(path, form, reasons)
    if kind == "episode" and form == from_arrays.FORMAT:
        return _computed(path)
    what = "numeric topics" if kind == "streams" else "demonstrations as arrays"
    raise InvalidInputError(f"format {form} has no {what}", kind=ErrorKind.FORMAT_UNSUPPORTED)


def _recording(path: Path, reasons: list[str]) -> Iterator[Part]:
    streams = numeric_streams(path, lambda topic, reason: reasons.append(f"{topic}: {reason}"))
    if streams:
        yield Part(
            path.name,
            {stream.topic: stream.values for stream in streams},
            {stream.topic: stream.stamps for stream in streams},
            {stream.topic: list(stream.names) for stream in streams},
        )


def _demonstrations(path: Path, reasons: list[str]) -> Iterator[Part]:
    files = hdf5_files(path)
    for file_path in files:
        try:
            file = open_hdf5(file_path)
        except OSError as error:
            text = f"{file_path.name}: not readable: {error}"
            raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from error
        with file:
            layout = layout_of(file)
            for demo in layout.demos:
                ref = demo.group or "/"
                name = ref if len(files) == 1 else f"{file_path.name}:{ref}"
                try:
                    yield _demonstration(file, layout, demo, name, reasons)
                except (OSError, RuntimeError, ValueError) as error:
                    reasons.append(f"{name}: not readable: {error}")


def _demonstration(file: "h5py.File", layout: Layout, demo: Demo, name: str, reasons: list[str]) -> Part:
    import numpy as np

    arrays: dict[str, np.ndarray] = {}
    left = MAX_FEATURE_NUMBERS
    for dataset, item in demo.fields.items():
        size = int(np.prod(item.shape, dtype=np.int64))
        if item.missing:
            reasons.append(f"{name}: {dataset}: packed with {item.missing}, which is not installed")
        if item.closed or not item.is_numeric or not size:
            continue
        left -= size
        if left < 0:
            reasons.append(f"{name}: {dataset} and what follows: more than {MAX_FEATURE_NUMBERS} numbers")
            break
        arrays[dataset] = np.asarray(file[item.path][: item.shape[0]])  # pyright: ignore[reportIndexIssue] - it is a dataset
    states = arrays.get("states") if layout.format == "hdf5_robosuite_raw" else None
    clock = None if states is None else simulation_clock(layout, states)
    task = layout.attrs.get("language_instruction") or layout.attrs.get("task") or layout.env
    told = {"task": task if isinstance(task, str) else None, "fps": layout.control_hz}
    return Part(name, arrays, {} if clock is None else {"": clock}, told=told)


def _rows(path: Path, form: str, reasons: list[str]) -> Iterator[Part]:
    """Episodes whose rows are frames: numbers alone, no video is opened."""
    from emboflow_dagster.formats.canonical import from_csv, from_lerobot, from_npy, from_rlds

    left_out: list[dict[str, Any]] = []
    if form.startswith("lerobot"):
        rate = from_lerobot.suggested_fps(path)
        episodes = from_lerobot.episodes(path, fps=rate or 1.0, videos=False, skipped=left_out)
    elif form == "csv":
        rate = from_csv.suggested_fps(path)
        episodes = from_csv.episodes(path, skipped=left_out)
    elif form.startswith("np"):
        rate = from_npy.suggested_fps(path)
        episodes = from_npy.episodes(path, videos=False, skipped=left_out)
    else:
        rate = None  # RLDS has none
        episodes = from_rlds.episodes(path, videos=False, skipped=left_out)
    for episode in episodes:
        _say(left_out, reasons)
        where = episode.source
        # Records are counted anew in each shard.
        ref = f"{where['path']}:{where['ref']}" if form.startswith("rlds") else str(where["ref"])
        stamps = {} if episode.source_timestamp_ns is None else {"": episode.source_timestamp_ns}
        names = {name: list(spec.names) for name, spec in episode.specs.items()}
        told = {"task": episode.task or None, "success": episode.success, "fps": rate}
        yield Part(ref, dict(episode.features), stamps, names, told)
    _say(left_out, reasons)


def _say(left_out: list[dict[str, Any]], reasons: list[str]) -> None:
    reasons += [f"{row['source'].get('ref')}: {row['reason']}" for row in left_out]
    left_out.clear()


def _computed(path: Path) -> Iterator[Part]:
    for row in from_arrays.rows(path):
        arrays = from_arrays.load_arrays(row["file"])
        stamps = arrays.pop(from_arrays.STAMPS, None)
        told = {name: row.get(name) for name in ("task", "success", "fps")}
        clock = {} if stamps is None else {"": stamps}
        yield Part(str(row["ref"]), arrays, clock, row.get("names") or {}, told)
