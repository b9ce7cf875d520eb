"""A piece of an episode as an episode of its own: frames, streams and videos from one frame to another."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.formats.canonical.compose import Fetch
from emboflow_dagster.formats.canonical.content import content_of
from emboflow_dagster.formats.canonical.episode_files import OBJECTS, TASK_PLACE, put_table, read_table
from emboflow_dagster.formats.canonical.stats import feature_stats
from emboflow_dagster.formats.canonical.video_track import write_video
from emboflow_dagster.formats.canonical.writer import file_sha256

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: Flag of an episode whose pictures were decoded and encoded once more.
REENCODED: Final = "video_reencoded"
_NS: Final = 1_000_000_000


def piece(
    entry: Mapping[str, Any], start: int, stop: int, *, fps: float, fetch: Fetch, out: Path
) -> dict[str, Any]:
    """The frames from ``start`` up to (not with) ``stop`` of an episode.

    Samples at their own rate stay from the first frame's stamp up to that of the frame behind the last one;
    of an episode without stamps they cannot be cut. Videos are encoded anew (their frames rarely begin at a
    key frame), which the flag ``video_reencoded`` says. How old held samples were is not known of a piece.

    Args:
        entry: The episode; its id stays.
        start: First frame.
        stop: The frame behind the last one; at most the episode's length.
        fps: Frames per second.
        fetch: Brings payloads.
        out: Folder for new payloads (``objects`` in it).

    Returns:
        The piece's entry, with content, files and statistics of its own.

    Raises:
        InvalidInputError: The frames are none of the episode, or its streams cannot be cut.
    """
    import numpy as np

    if not 0 <= start < stop <= entry["length"]:
        raise InvalidInputError(
            f"episode {entry['id']}: found frames {start} to {stop}; it has {entry['length']}"
        )
    whole = _table(entry["files"]["frames"], fetch, out)
    frames = whole.slice(start, stop - start).combine_chunks()
    made: dict[str, Any] = {**entry, "length": stop - start, "sync": {}, "flags": list(entry["flags"])}
    if entry["t0Ns"] is not None:
        made["t0Ns"] = entry["t0Ns"] + round(start * _NS / fps)
    made["stats"] = {
        name: feature_stats(_vectors(frames, name, np)) if name in frames.column_names else parts
        for name, parts in entry["stats"].items()
    }
    files: dict[str, Any] = {"frames": put_table(out, frames)}
    streams = _streams(entry, whole, start, stop, fetch, out)
    if streams is not None and streams.num_rows:
        files["raw"] = put_table(out, streams)
    for kind, file in entry["files"].items():
        if kind.startswith("videos/"):
            files[kind] = _video(file, start, stop, fps, fetch, out)
            if REENCODED not in made["flags"]:
                made["flags"].append(REENCODED)
    made["files"] = files
    made["content"] = content_of(frames, streams, _cameras(files))
    return made


def of_one_task(entry: Mapping[str, Any], *, fetch: Fetch, out: Path) -> dict[str, Any]:
    """An episode of several tasks without the note of which frame is of which: it is to have one task."""
    frames = _table(entry["files"]["frames"], fetch, out)
    if TASK_PLACE not in frames.column_names:
        return dict(entry)
    frames = frames.drop_columns([TASK_PLACE])
    streams = _table(entry["files"]["raw"], fetch, out) if "raw" in entry["files"] else None
    files = {**entry["files"], "frames": put_table(out, frames)}
    return {**entry, "files": files, "content": content_of(frames, streams, _cameras(files))}


def _cameras(files: Mapping[str, Any]) -> dict[str, str]:
    return {k.removeprefix("videos/"): f["sha256"] for k, f in files.items() if k.startswith("videos/")}


def _table(file: Mapping[str, Any], fetch: Fetch, out: Path) -> "pa.Table":
    path = fetch(file, out / f".{file['sha256']}")
    try:
        return read_table(path)
    finally:
        path.unlink()


def _vectors(frames: "pa.Table", name: str, np: Any) -> "np.ndarray":
    column = frames.column(name).combine_chunks()
    return np.asarray(column.flatten()).reshape(len(column), -1)


def _streams(
    entry: Mapping[str, Any], frames: "pa.Table", start: int, stop: int, fetch: Fetch, out: Path
) -> "pa.Table | None":
    import numpy as np
    import pyarrow as pa

    if "raw" not in entry["files"]:
        return None
    raw = _table(entry["files"]["raw"], fetch, out)
    stamps = frames.column("source_timestamp_ns").combine_chunks()
    if stamps.null_count:
        raise InvalidInputError(
            f"episode {entry['id']}: its frames have no stamps, so its streams cannot be cut",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
    times = np.asarray(raw.column("source_timestamp_ns").combine_chunks())
    kept = np.ones(len(times), dtype=bool)
    if start:
        kept &= times >= stamps[start].as_py()
    if stop < len(stamps):
        kept &= times < stamps[stop].as_py()
    rows = raw.filter(pa.array(kept)).combine_chunks()
    # Samples count from 0 in each topic.
    topics = rows.column("topic").to_pylist()
    seen: dict[str, int] = {}
    numbers = []
    for topic in topics:
        numbers.append(seen.get(topic, 0))
        seen[topic] = numbers[-1] + 1
    place = rows.column_names.index("sample_index")
    return rows.set_column(place, "sample_index", pa.array(numbers, pa.int64()))


def _video(
    file: Mapping[str, Any], start: int, stop: int, fps: float, fetch: Fetch, out: Path
) -> dict[str, Any]:
    source = fetch(file, out / f".{file['sha256']}.mp4")
    target = out / f".{file['sha256']}.cut.mp4"
    try:
        count = write_video(target, _pictures(source, start, stop), fps=fps)
        if count != stop - start:
            raise IntegrityError(
                f"a video has {start + count} pictures, {stop} are needed", kind=ErrorKind.FILE_TRUNCATED
            )
        sha256, size = file_sha256(target), target.stat().st_size
        target.replace(out / OBJECTS / sha256)
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    return {"sha256": sha256, "size": size, "rows": stop - start}


def _pictures(path: Path, start: int, stop: int) -> "Iterator[np.ndarray]":
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= stop:
                return
            if number >= start:
                yield frame.to_ndarray(format="rgb24")
