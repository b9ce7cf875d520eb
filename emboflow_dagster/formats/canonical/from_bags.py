"""Episodes out of a recording's numeric topics, on a grid of ``1 / fps`` by holding the last sample.

A recording is one episode unless it is told how to be split; a folder may hold several recordings. The grid
spans the time in which every chosen topic has data, so no frame is made of values that had not been recorded
yet. How old the held samples are is kept per feature, and frames with stale ones are marked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.bag_recordings import Division, recordings_in
from emboflow_dagster.formats.canonical.bag_cameras import TAKE_IT, Track, image_topics, tracks_of
from emboflow_dagster.formats.canonical.bag_streams import Stream, read_streams, usable
from emboflow_dagster.formats.canonical.grid import NS, grid_of, held
from emboflow_dagster.formats.canonical.names import camera_name, kind_of
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec, RawStream
from emboflow_dagster.formats.canonical.splitting import Split, spans_of
from emboflow_dagster.formats.detect import Recorded
from emboflow_dagster.formats.nearest import instead

RatePolicy = Literal["hold", "keep"]

#: A held sample older than so many of its topic's median intervals makes the frame invalid.
STALE_INTERVALS = 10

#: Names of several files side by side; beyond it the asset's own stands for them.
MAX_NAME = 1_000

_JOINT_PARTS = {
    "position": "observation.state",
    "velocity": "observation.velocity",
    "acceleration": "observation.acceleration",
    "effort": "observation.effort",
}
_COMMAND_WORDS = ("cmd", "command", "action", "setpoint", "target")


def episodes(
    path: Path,
    *,
    fps: float,
    topics: Sequence[str] | Mapping[str, str] | None = None,
    rate_policy: RatePolicy = "hold",
    task: str = "",
    asset_id: str | None = None,
    split: Split | None = None,
    videos: bool = True,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Each recording as one episode, or those that it is split into; what gives none is in `skipped`.

    By default every numeric topic is taken that has two samples or more, at least 5 % of the grid's rate, and
    covers at least half of the recording. A joint state becomes ``observation.state``, ``.velocity`` and
    ``.effort``, a single command topic ``action``, any other topic ``observation.<its name>``.

    Args:
        path: A bag, MCAP file or recording folder.
        fps: Frames per second of the grid.
        topics: Exactly these topics; a mapping also names their features. Image topics become cameras.
        rate_policy: ``keep`` also keeps every sample at its own rate, in `raw_index.parquet`.
        task: What was asked of the robot.
        asset_id: For the source reference.
        split: Where one episode ends and the next begins; each is made of its own samples alone, as if it had
            been recorded by itself. Which files of a folder are one recording, see
            :mod:`~emboflow_dagster.formats.bag_recordings`.
        videos: Whether the image topics among `topics` become cameras.
        skipped: Gets ``{"source", "reason"}`` of each topic left out.

    Raises:
        InvalidInputError: A topic that was asked for has no numbers, or the topics never overlap in time; of
            several recordings it is a reason to leave one out.
        LimitError: More numbers than fit into memory; choose topics.
        OSError: A file cannot be read.
    """
    if not fps > 0:
        raise InvalidInputError(f"fps: expected a number above 0, found {shown(fps)}")
    left_out = skipped if skipped is not None else []
    by: Division = split.by if split is not None and split.by in ("file", "name", "one") else "recording"
    found = recordings_in(path, by, split.pattern if split is not None else None)

    def reader(name: str) -> _Reader:
        source = {"assetId": asset_id, "path": name}
        return _Reader(fps, topics, rate_policy, task, source, left_out, videos=videos)

    if len(found) < 2 and by in ("recording", "one"):  # noqa: PLR2004 - the asset is one recording
        yield from reader(path.name).episodes(path, split)
        return
    for recording in found:
        whole = recording.name == "." or len(recording.name) > MAX_NAME
        one = reader(path.name if whole else recording.name)
        try:
            yield from one.episodes(recording.parts, split)
        except InvalidInputError as error:  # a reason, not an end: there are others
            one.leave_out(recording.name[:MAX_NAME], error.message)


class _Reader:
    """What is asked of every episode of a recording."""

    def __init__(
        self,
        fps: float,
        topics: Sequence[str] | Mapping[str, str] | None,
        rate_policy: RatePolicy,
        task: str,
        source: Mapping[str, Any],
        left_out: list[dict[str, Any]],
        *,
        videos: bool,
    ) -> None:
        self.videos = videos
        self.fps = fps
        self.chosen = None if topics is None else list(topics)
        self.names = dict(topics) if isinstance(topics, Mapping) else {}
        self.rate_policy: RatePolicy = rate_policy
        self.task = task
        self.source = source
        self.left_out = left_out

    def leave_out(self, topic: str, reason: str) -> None:
        """Note a topic that is not taken."""
        self.left_out.append({"source": {**self.source, "ref": topic}, "reason": reason})

    def episodes(self, recorded: Recorded, split: Split | None) -> Iterator[Episode]:
        """One recording as one episode, or what it is cut into."""
        if split is None or split.by not in ("gap", "topic"):
            found = self.episode(self.streams(recorded))
            if found is not None:
                yield found
            return
        streams = self.streams(recorded, boundary=split.topic)
        for number, span in enumerate(spans_of(split, recorded, (stream.stamps for stream in streams))):
            inside = [part for stream in streams if (part := stream.within(span)) is not None]
            yield from self.numbered(number, lambda inside=inside: self.episode(inside))

    def streams(self, path: Recorded, *, boundary: str | None = None) -> "list[Stream | Track]":
        """Every topic that was asked for, or all but the one that only says where episodes begin."""
        problems: list[Any] = []
        declared: dict[str, str] = {}
        streams: list[Stream | Track] = [*read_streams(path, self.chosen, problems, self.leave_out, declared)]
        declared = dict(sorted(declared.items()))
        streams += self._tracks(path, {stream.topic for stream in streams}, declared)
        for problem in problems:
            if problem.path is not None:
                self.leave_out(problem.path, f"{problem.code}: {problem.message}")
        if self.chosen is None:
            return [stream for stream in streams if stream.topic != boundary]
        self._require(streams, declared)
        return streams

    def _tracks(self, path: Recorded, there: set[str], declared: Mapping[str, str]) -> list[Track]:
        """The image topics that were asked for by name; others are left out with a reason."""
        if self.chosen is not None and there >= set(self.chosen):
            return []
        pictures = [topic for topic in image_topics(declared) if topic not in there]
        if self.chosen is not None and self.videos:
            return tracks_of(path, [topic for topic in pictures if topic in self.chosen], self.leave_out)
        for topic in pictures:
            if self.chosen is None or topic in self.chosen:
                why = "holds pictures, and `videos` is false" if self.chosen else TAKE_IT
                self.leave_out(topic, f"{topic} {why}")
        return []

    def _require(
        self, streams: "Sequence[Stream | Track]", declared: Mapping[str, str] | None = None
    ) -> None:
        there = {stream.topic for stream in streams}
        missing = [topic for topic in self.chosen or () if topic not in there]
        if missing:
            text = "; ".join(
                f"no numbers in {shown(topic)}{_why(topic, declared or {})}" for topic in missing
            )
            raise InvalidInputError(text, kind=ErrorKind.INPUT_MISSING)

    def numbered(self, number: int, make: "Callable[[], Episode | None]") -> Iterator[Episode]:
        """One of several episodes of a recording; what keeps it from being one is a reason, not an end."""
        try:
            found = make()
        except InvalidInputError as error:
            self.leave_out(f"part {number}", error.message)
            return
        if found is not None:
            yield replace(found, source={**found.source, "ref": f"part {number}: {found.source['ref']}"})

    def episode(self, streams: "list[Stream | Track]") -> Episode | None:
        """The topics on one grid; ``None`` where none can be used."""
        if self.chosen is None:
            numbers = [stream for stream in streams if isinstance(stream, Stream)]
            streams = [*usable(numbers, self.fps, self.leave_out)]
        else:
            self._require(streams)
        if not streams:
            return None
        start, end = max(s.first for s in streams), min(s.last for s in streams)
        if end <= start:
            raise InvalidInputError(
                "the topics never have data at the same time", kind=ErrorKind.INPUT_MISSING
            )
        if (end - start) * self.fps < NS:
            for stream in streams:
                self.leave_out(
                    stream.topic, f"the topics share {(end - start) / NS:.3f} s, less than one frame"
                )
            return None
        return _episode(
            streams,
            self.names,
            fps=self.fps,
            span=(start, end),
            source=self.source,
            rate_policy=self.rate_policy,
            task=self.task,
        )


def _why(topic: str, there: Mapping[str, str]) -> str:
    """Why a topic of a recording (its topics and their types) has no numbers."""
    if topic in there:
        return f": they are {there[topic]}" if there[topic] else ""
    return f": no such topic{instead(topic, there)}" if there else ""


def _episode(
    streams: "Sequence[Stream | Track]",
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
    grid = grid_of(start, end, fps)
    frames = len(grid)
    newest = np.full(frames, np.iinfo(np.int64).min, dtype=np.int64)
    valid = np.ones(frames, dtype=bool)
    features: dict[str, np.ndarray] = {}
    specs: dict[str, FeatureSpec] = {}
    sync: dict[str, dict[str, float]] = {}
    cameras: dict[str, Camera] = {}
    numbers = [stream for stream in streams if isinstance(stream, Stream)]
    for stream in streams:
        index, age = held(stream.stamps, grid)
        newest = np.maximum(newest, stream.stamps[index])
        median = float(np.median(np.diff(stream.stamps))) if len(stream.stamps) > 1 else 0.0
        if median > 0:
            valid &= age <= STALE_INTERVALS * median
        ages = {"maxAgeNs": int(age.max()), "meanAgeNs": float(age.mean())}
        if isinstance(stream, Track):
            name = camera_name(names.get(stream.topic, stream.topic.strip("/")), taken=cameras)
            cameras[name] = stream.camera(index)
            sync[f"observation.images.{name}"] = ages
            continue
        for feature, columns in _features(stream, numbers, names).items():
            with np.errstate(over="ignore"):
                features[feature] = stream.values[index][:, columns].astype(np.float32)
            specs[feature] = FeatureSpec(
                tuple(stream.names[c] for c in columns), kind_of(feature), None, stream.topic
            )
            sync[feature] = ages
    raw = (
        tuple(RawStream(s.stamps, s.values.astype(np.float32), s.topic) for s in numbers)
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
        cameras=cameras,
        raw_streams=raw,
        frames=frames,
        sync=sync,
    )


def _features(stream: Stream, streams: list[Stream], names: Mapping[str, str]) -> dict[str, list[int]]:
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


def _is_joint_state(stream: Stream) -> bool:
    parts = {name.partition(".")[0] for name in stream.names}
    return "position" in parts and parts <= set(_JOINT_PARTS)


def _is_command(topic: str) -> bool:
    return any(word in topic.lower() for word in _COMMAND_WORDS)
