"""Numeric topics of a recording in memory: their samples in time order, and which fit on one grid."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, LimitError
from emboflow_dagster.formats.canonical.grid import NS
from emboflow_dagster.formats.canonical.splitting import Span
from emboflow_dagster.formats.detect import Recorded
from emboflow_dagster.formats.messages import iter_numeric

if TYPE_CHECKING:
    import numpy as np

LeaveOut = Callable[[str, str], None]
"""Takes a topic and why it is left out."""

MIN_SAMPLES = 2
#: A default topic has at least this share of the samples that the grid has frames ...
MIN_DENSITY = 0.05
#: ... and covers at least this share of the recording.
MIN_COVERAGE = 0.5
MAX_LAYOUTS = 16
MIN_LAYOUT_SHARE = 0.5
#: Numbers that one recording may bring into memory (float32).
MAX_NUMBERS = 100_000_000


@dataclass(slots=True)
class _Samples:
    """Samples of one topic with one set of fields."""

    names: tuple[str, ...]
    stamps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


class Stamped:
    """What has a row for each of its stamps, int64 ``(n,)`` ns, not decreasing."""

    __slots__ = ()

    stamps: "np.ndarray"

    @property
    def first(self) -> int:
        """Stamp of the first row."""
        return int(self.stamps[0])

    @property
    def last(self) -> int:
        """Stamp of the last row."""
        return int(self.stamps[-1])

    def rows(self, span: Span) -> slice:
        """The rows of a span."""
        import numpy as np

        first, end = np.searchsorted(self.stamps, [span.start, span.end], side="left")
        return slice(int(first), int(end))


@dataclass(frozen=True, slots=True)
class Stream(Stamped):
    """One topic in time order: stamps int64 ``(n,)`` ns, values float64 ``(n, dim)``."""

    topic: str
    names: tuple[str, ...]
    stamps: "np.ndarray"
    values: "np.ndarray"

    def within(self, span: Span) -> "Stream | None":
        """The samples of a span, ``None`` where there are none."""
        rows = self.rows(span)
        if rows.start == rows.stop:
            return None
        return Stream(self.topic, self.names, self.stamps[rows], self.values[rows])


def read_streams(
    path: Recorded,
    topics: list[str] | None,
    problems: list[Any],
    leave_out: LeaveOut,
    seen: dict[str, str] | None = None,
) -> list[Stream]:
    """Every sample of the topics, sorted by topic; a topic whose fields change is left out.

    ``problems`` and ``seen`` are filled as by :func:`~emboflow_dagster.formats.messages.iter_numeric`.

    Raises:
        LimitError: More numbers than fit into memory.
        OSError: A file cannot be read.
    """
    import numpy as np

    found: dict[str, dict[tuple[str, ...], _Samples]] = {}
    numbers = 0
    for row in iter_numeric(path, topics, problems=problems, seen=seen):
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
    streams: list[Stream] = []
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
        if (np.diff(stamps) < 0).any():
            order = np.argsort(stamps, kind="stable")
            stamps, values = stamps[order], values[order]
        streams.append(Stream(topic, samples.names, stamps, values))
    return streams


def usable(streams: list[Stream], fps: float, leave_out: LeaveOut) -> list[Stream]:
    """Those that are dense enough for the grid and have data at the same time."""
    if not streams:
        return []
    span = max(s.last for s in streams) - min(s.first for s in streams)
    wanted = max(MIN_SAMPLES, MIN_DENSITY * span / NS * fps)
    kept: list[Stream] = []
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
    together: list[Stream] = []
    for stream in kept:
        trial = [*together, stream]
        if max(s.first for s in trial) < min(s.last for s in trial):
            together.append(stream)
        else:
            leave_out(stream.topic, "no data at the same time as the denser topics")
    return sorted(together, key=lambda s: s.topic)


def numeric_streams(path: Path, leave_out: LeaveOut) -> list[Stream]:
    """Every numeric topic of a recording; ``leave_out`` is also told what of it could not be read.

    Raises:
        LimitError: More numbers than fit into memory.
        OSError: A file cannot be read.
    """
    problems: list[Any] = []
    streams = read_streams(path, None, problems, leave_out)
    for problem in problems:
        if problem.path is not None:
            leave_out(problem.path, f"{problem.code}: {problem.message}")
    return streams
