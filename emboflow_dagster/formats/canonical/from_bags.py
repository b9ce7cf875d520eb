"""One episode out of a recording's numeric topics, on a grid of ``1 / fps`` by holding the last sample.

The grid spans the time in which every chosen topic has data, so no frame is made of values that had not been
recorded yet. How old the held samples are is kept per feature, and frames with stale ones are marked.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError, LimitError, shown
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec, RawStream
from emboflow_dagster.formats.messages import iter_numeric

if TYPE_CHECKING:
    import numpy as np

RatePolicy = Literal["hold", "keep"]

NS = 1_000_000_000
MIN_SAMPLES = 2
#: A default topic has at least this share of the samples that the grid has frames ...
MIN_DENSITY = 0.05
#: ... and covers at least this share of the recording.
MIN_COVERAGE = 0.5
MAX_LAYOUTS = 16
MIN_LAYOUT_SHARE = 0.5
#: Numbers that one recording may bring into memory (float32).
MAX_NUMBERS = 100_000_000
#: A held sample older than so many of its topic's median intervals makes the frame invalid.
STALE_INTERVALS = 10
MAX_FRAMES = 20_000_000

_JOINT_PARTS = {
    "position": "observation.state",
    "velocity": "observation.velocity",
    "effort": "observation.effort",
}
_COMMAND_WORDS = ("cmd", "command", "action", "setpoint", "target")


@dataclass(slots=True)
class _Samples:
    """Samples of one topic with one set of fields."""

    names: tuple[str, ...]
    stamps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(frozen=True, slots=True)
class _Stream:
    """One topic in time order: stamps int64 ``(n,)`` ns, values float64 ``(n, dim)``."""

    topic: str
    names: tuple[str, ...]
    stamps: "np.ndarray"
    values: "np.ndarray"

    @property
    def first(self) -> int:
        return int(self.stamps[0])

    @property
    def last(self) -> int:
        return int(self.stamps[-1])


def episodes(
    path: Path,
    *,
    fps: float,
    topics: Sequence[str] | Mapping[str, str] | None = None,
    rate_policy: RatePolicy = "hold",
    task: str = "",
    asset_id: str | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """The recording as one episode; nothing where no topic can be used (the reasons are in `skipped`).

    By default every numeric topic is taken that has two samples or more, at least 5 % of the grid's rate, and
    covers at least half of the recording. A joint state becomes ``observation.state``, ``.velocity`` and
    ``.effort``, a single command topic ``action``, any other topic ``observation.<its name>``.

    Args:
        path: A bag, MCAP file or recording folder.
        fps: Frames per second of the grid.
        topics: Exactly these topics; a mapping also names their features.
        rate_policy: ``keep`` also keeps every sample at its own rate, in `raw_index.parquet`.
        task: What was asked of the robot.
        asset_id: For the source reference.
        skipped: Gets ``{"source", "reason"}`` of each topic left out.

    Raises:
        InvalidInputError: A topic that was asked for has no numbers, or the topics never overlap in time.
        LimitError: More numbers than fit into memory; choose topics.
        OSError: A file cannot be read.
    """
    if not fps > 0:
        raise InvalidInputError(f"fps: expected a number above 0, found {shown(fps)}")
    left_out = skipped if skipped is not None else []
    source = {"assetId": asset_id, "path": path.name}

    def leave_out(topic: str, reason: str) -> None:
        left_out.append({"source": {**source, "ref": topic}, "reason": reason})

    chosen = None if topics is None else list(topics)
    problems: list[Any] = []
    streams = _read_streams(path, chosen, problems, leave_out)
    for problem in problems:
        if problem.path is not None:
            leave_out(problem.path, f"{problem.code}: {problem.message}")
    if chosen is None:
        streams = _usable(streams, fps, leave_out)
    else:
        missing = [topic for topic in chosen if topic not in {stream.topic for stream in streams}]
        if missing:
            raise InvalidInputError(
                f"no numbers in {', '.join(map(shown, missing))}", kind=ErrorKind.INPUT_MISSING
            )
    if not streams:
        return
    start, end = max(s.first for s in streams), min(s.last for s in streams)
    if end <= start:
        raise InvalidInputError("the topics never have data at the same time", kind=ErrorKind.INPUT_MISSING)
    if (end - start) * fps < NS:
        for stream in streams:
            leave_out(stream.topic, f"the topics share {(end - start) / NS:.3f} s, less than one frame")
        return
    names = dict(topics) if isinstance(topics, Mapping) else {}
    yield _episode(
        streams, names, fps=fps, span=(start, end), source=source, rate_policy=rate_policy, task=task
    )


def _read_streams(path: Path, topics: list[str] | None, problems: list[Any], leave_out: Any) -> list[_Stream]:
    import numpy as np

    found: dict[str, dict[tuple[str, ...], _Samples]] = {}
    numbers = 0
    for row in iter_numeric(path, topics, problems=problems):
        layouts = found.setdefault(row.topic, {})
        samples = layouts.get(row.names)
        if samples is None:
            if len(layouts) >= MAX_LAYOUTS:
                continue
            samples = layouts[row.names] = _Samples(row.names)
        samples.stamps.append(row.stamp_ns)
        samples.values.extend(row.values)
        numbers += len(row.values)
        if numbers > MAX_NUMBERS:
            raise LimitError(
                f"more than {MAX_NUMBERS} numbers in the recording",
                kind=ErrorKind.LIMIT_SIZE,
                hint="choose fewer topics",
            )
    streams: list[_Stream] = []
    for topic in sorted(found):
        layouts = found[topic]
        samples = max(layouts.values(), key=lambda item: len(item.stamps))
        total = sum(len(item.stamps) for item in layouts.values())
        if len(samples.stamps) < MIN_LAYOUT_SHARE * total or len(layouts) >= MAX_LAYOUTS:
            leave_out(topic, f"its fields change: {len(layouts)} different sets in {total} messages")
            continue
        if len(layouts) > 1:
            leave_out(topic, f"{total - len(samples.stamps)} of {total} messages have other fields than most")
        stamps = np.frombuffer(samples.stamps, dtype=np.int64)
        values = np.frombuffer(samples.values, dtype=np.float64).reshape(len(stamps), -1)
        order = np.argsort(stamps, kind="stable")
        streams.append(_Stream(topic, samples.names, stamps[order], values[order]))
    return streams


def _usable(streams: list[_Stream], fps: float, leave_out: Any) -> list[_Stream]:
    if not streams:
        return []
    span = max(s.last for s in streams) - min(s.first for s in streams)
    wanted = max(MIN_SAMPLES, MIN_DENSITY * span / NS * fps)
    kept: list[_Stream] = []
    for stream in streams:
        count = len(stream.stamps)
        covered = (stream.last - stream.first) / span if span else 0.0
        if count < MIN_SAMPLES:
            leave_out(stream.topic, "a single sample")
        elif all(name.startswith("transforms.") for name in stream.names):
            # Holding the last one would mix the frames that take turns in it.
            leave_out(stream.topic, "transforms of several frames share the topic")
        elif count < wanted:
            leave_out(stream.topic, f"too sparse: {count} samples, at least {wanted:.0f} for {fps:g} fps")
        elif covered < MIN_COVERAGE:
            leave_out(stream.topic, f"covers {covered:.0%} of the recording, at least {MIN_COVERAGE:.0%}")
        else:
            kept.append(stream)
    # Two halves may each cover enough and still miss one another: the densest stay.
    kept.sort(key=lambda s: (-len(s.stamps), s.topic))
    together: list[_Stream] = []
    for stream in kept:
        trial = [*together, stream]
        if max(s.first for s in trial) < min(s.last for s in trial):
            together.append(stream)
        else:
            leave_out(stream.topic, "no data at the same time as the denser topics")
    return sorted(together, key=lambda s: s.topic)


def _episode(
    streams: list[_Stream],
    names: Mapping[str, str],
    *,
    fps: float,
    span: tuple[int, int],
    source: Mapping[str, Any],
    rate_policy: RatePolicy,
    task: str,
) -> Episode:
    import numpy as np

    start, end = span
    frames = int((end - start) * fps / NS + 1e-6) + 1
    if frames > MAX_FRAMES:
        raise LimitError(
            f"{frames} frames, at most {MAX_FRAMES}", kind=ErrorKind.LIMIT_SIZE, hint="lower fps"
        )
    grid = start + np.round(np.arange(frames) * (NS / fps)).astype(np.int64)
    newest = np.full(frames, np.iinfo(np.int64).min, dtype=np.int64)
    valid = np.ones(frames, dtype=bool)
    features: dict[str, np.ndarray] = {}
    specs: dict[str, FeatureSpec] = {}
    sync: dict[str, dict[str, float]] = {}
    for stream in streams:
        index = np.searchsorted(stream.stamps, grid, side="right") - 1
        held = stream.stamps[index]
        age = grid - held
        newest = np.maximum(newest, held)
        median = float(np.median(np.diff(stream.stamps))) if len(stream.stamps) > 1 else 0.0
        if median > 0:
            valid &= age <= STALE_INTERVALS * median
        for feature, columns in _features(stream, streams, names).items():
            with np.errstate(over="ignore"):
                features[feature] = stream.values[index][:, columns].astype(np.float32)
            specs[feature] = FeatureSpec(
                tuple(stream.names[c] for c in columns), _kind(feature), None, stream.topic
            )
            sync[feature] = {"maxAgeNs": int(age.max()), "meanAgeNs": float(age.mean())}
    raw = (
        tuple(RawStream(s.stamps, s.values.astype(np.float32), s.topic) for s in streams)
        if rate_policy == "keep"
        else ()
    )
    return Episode(
        source={**source, "ref": ",".join(stream.topic for stream in streams)[:1_000]},
        features=features,
        specs=specs,
        source_timestamp_ns=newest,
        t0_ns=start,
        task=task,
        flags=("resampled",) if valid.all() else ("resampled", "stale_frames"),
        valid=valid,
        raw_streams=raw,
        sync=sync,
    )


def _features(stream: _Stream, streams: list[_Stream], names: Mapping[str, str]) -> dict[str, list[int]]:
    """Feature name to the columns of the topic that it takes."""
    everything = list(range(len(stream.names)))
    if stream.topic in names:
        return {names[stream.topic]: everything}
    slug = ".".join(part for part in stream.topic.split("/") if part) or "topic"
    joints = [s for s in streams if _is_joint_state(s)]
    if _is_joint_state(stream):
        found: dict[str, list[int]] = {}
        for column, name in enumerate(stream.names):
            part = name.partition(".")[0]
            plain = _JOINT_PARTS[part]
            # A second arm must not overwrite the first: with several joint states each keeps its name.
            feature = plain if len(joints) == 1 else f"observation.{slug}.{part}"
            found.setdefault(feature, []).append(column)
        return found
    commands = [s for s in streams if not _is_joint_state(s) and _is_command(s.topic)]
    if _is_command(stream.topic):
        return {"action" if len(commands) == 1 else f"action.{slug}": everything}
    return {f"observation.{slug}": everything}


def _is_joint_state(stream: _Stream) -> bool:
    parts = {name.partition(".")[0] for name in stream.names}
    return "position" in parts and parts <= set(_JOINT_PARTS)


def _is_command(topic: str) -> bool:
    return any(word in topic.lower() for word in _COMMAND_WORDS)


def _kind(feature: str) -> str:
    if feature.partition(".")[0] == "action":
        return "action"
    return {
        "observation.state": "state",
        "observation.velocity": "velocity",
        "observation.effort": "effort",
    }.get(feature, "observation")


def numeric_streams(path: Path, leave_out: Callable[[str, str], None]) -> Sequence[_Stream]:
    """Every numeric topic of a recording in time order; ``leave_out`` is told of topic and reason.

    Raises:
        LimitError: More numbers than fit into memory.
        OSError: A file cannot be read.
    """
    problems: list[Any] = []
    streams = _read_streams(path, None, problems, leave_out)
    for problem in problems:
        if problem.path is not None:
            leave_out(problem.path, f"{problem.code}: {problem.message}")
    return streams
