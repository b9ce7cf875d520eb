"""Topic statistics of a recording: counted, not declared; constant memory per topic."""

from dataclasses import dataclass, field
from typing import Any

from emboflow_dagster.formats.report import Probe

MAX_STAMP = 2**63 - 1
"""Stamps from here on are no time: an empty rosbag2 "starts" at INT64_MAX."""

SPARSE_RATIO = 0.5
SPARSE_MIN_MESSAGES = 5
_IMAGE_TYPES = frozenset({"Image", "CompressedImage", "CompressedVideo"})


@dataclass(slots=True)
class Topic:
    """One topic's counts. Stamps are ns of the recording's own clock."""

    name: str
    types: list[str] = field(default_factory=list)
    count: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    backwards: int = 0
    invalid: int = 0
    max_gap_ns: int = 0
    _previous: int | None = None

    def seen(self, stamp_ns: int) -> None:
        """Count one message."""
        self.count += 1
        if not 0 <= stamp_ns < MAX_STAMP:
            self.invalid += 1
            return
        previous = self._previous
        self._previous = stamp_ns
        if previous is None:
            self.first_ns = stamp_ns if self.first_ns is None else min(self.first_ns, stamp_ns)
            self.last_ns = stamp_ns if self.last_ns is None else max(self.last_ns, stamp_ns)
            return
        if stamp_ns < previous:
            self.backwards += 1
            if self.first_ns is None or stamp_ns < self.first_ns:
                self.first_ns = stamp_ns
            return
        self.max_gap_ns = max(self.max_gap_ns, stamp_ns - previous)
        if self.last_ns is None or stamp_ns > self.last_ns:
            self.last_ns = stamp_ns

    def absorb(self, other: "Topic") -> None:
        """Add what was counted of it in another file: order and gaps are judged within a file."""
        self.types += [name for name in other.types if name not in self.types]
        self.count += other.count
        self.first_ns = min((t for t in (self.first_ns, other.first_ns) if t is not None), default=None)
        self.last_ns = max((t for t in (self.last_ns, other.last_ns) if t is not None), default=None)
        self.backwards += other.backwards
        self.invalid += other.invalid
        self.max_gap_ns = max(self.max_gap_ns, other.max_gap_ns)


class TopicTable:
    """All topics of a recording, over all of its files."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}

    def topic(self, name: str, type_name: str) -> Topic:
        """The topic's row, made where it is new; several connections of one topic share it."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name)
        if type_name not in topic.types:
            topic.types.append(type_name)
        return topic

    def absorb(self, other: "TopicTable") -> None:
        """Add what was counted in another file."""
        for name, topic in other.topics.items():
            self.topics.setdefault(name, Topic(name)).absorb(topic)

    @property
    def count(self) -> int:
        """Messages of all topics."""
        return sum(topic.count for topic in self.topics.values())

    @property
    def start_ns(self) -> int | None:
        """The earliest stamp of all messages."""
        return min((t.first_ns for t in self.topics.values() if t.first_ns is not None), default=None)

    @property
    def end_ns(self) -> int | None:
        """The latest stamp of all messages."""
        return max((t.last_ns for t in self.topics.values() if t.last_ns is not None), default=None)

    def structure(self) -> dict[str, Any]:
        """``messageCount startNs endNs durationNs topics streams``; stamps are null without a message.

        ``topics`` is {name: {type, count}}, ``streams`` {name: {firstNs, lastNs, meanHz, maxGapNs}}.
        """
        start, end = self.start_ns, self.end_ns
        return {
            "messageCount": self.count,
            "startNs": start,
            "endNs": end,
            "durationNs": None if start is None or end is None else end - start,
            "topics": {
                t.name: {"type": t.types[0] if t.types else "", "count": t.count}
                for t in sorted(self.topics.values(), key=lambda t: t.name)
            },
            "streams": {
                t.name: {
                    "firstNs": t.first_ns,
                    "lastNs": t.last_ns,
                    "meanHz": _rate(t),
                    "maxGapNs": t.max_gap_ns if t.count > 1 else None,
                }
                for t in sorted(self.topics.values(), key=lambda t: t.name)
                if t.count
            },
        }

    def warn(self, probe: Probe) -> None:
        """Warnings that follow from the counts and stamps alone."""
        count = self.count
        if count == 0 and "compressed_files" not in probe.codes:
            probe.warn("no_messages", "the recording holds no message")
        elif count == 1:
            probe.warn("single_message", "the recording holds one message")
        for topic in self.topics.values():
            if len(topic.types) > 1:
                probe.warn(
                    "mixed_types", f"recorded with several types: {', '.join(topic.types)}", topic.name
                )
            if topic.backwards:
                text = f"{topic.backwards} of {topic.count} stamps are before the one recorded before them"
                probe.warn("time_not_monotonic", text, topic.name)
            if topic.invalid:
                text = f"{topic.invalid} of {topic.count} stamps are outside 0..2^63-1 ns and were left out"
                probe.warn("invalid_stamp", text, topic.name)
        self._warn_sparse(probe)

    def _warn_sparse(self, probe: Probe) -> None:
        """A camera sends one CameraInfo with every picture; fewer than half the pictures means lost ones.

        Pictures are looked for next to the CameraInfo or one level below it (``image/compressed``). Where
        several picture streams belong to it, each is judged alone.
        """
        infos = [t for t in self.topics.values() if _is(t, "CameraInfo") and t.count >= SPARSE_MIN_MESSAGES]
        for info in infos:
            camera = info.name.rpartition("/")[0] + "/"
            for topic in self.topics.values():
                if not any(_is(topic, name) for name in _IMAGE_TYPES) or not topic.name.startswith(camera):
                    continue
                if topic.name[len(camera) :].count("/") <= 1 and topic.count < SPARSE_RATIO * info.count:
                    text = f"{topic.count} pictures for {info.count} messages of {info.name}"
                    probe.warn("stream_too_sparse", text, topic.name)


def _is(topic: Topic, short_type: str) -> bool:
    return any(name.rpartition("/")[2] == short_type for name in topic.types)


def _rate(topic: Topic) -> float | None:
    if topic.count < 2 or topic.first_ns is None or topic.last_ns is None:  # noqa: PLR2004 - a rate needs two
        return None
    span = topic.last_ns - topic.first_ns
    return round((topic.count - 1) * 1e9 / span, 6) if span > 0 else None
