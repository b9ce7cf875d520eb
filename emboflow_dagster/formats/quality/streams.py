"""Measurements over the streams of a recording: stamps of every topic, without decoding a message."""

import math
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from emboflow_dagster.formats.bag_recordings import Recording, recordings_in
from emboflow_dagster.formats.detect import Recorded, recording_parts
from emboflow_dagster.formats.messages import UNDECODED, iter_numeric
from emboflow_dagster.formats.pictures import is_image_type
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.evidence import Rule
from emboflow_dagster.formats.quality.time import Gaps, RateJitter, SyncAge, TimeMonotonic
from emboflow_dagster.formats.quality.values import NanInf
from emboflow_dagster.formats.recording import Connection, Facts
from emboflow_dagster.formats.report import ProbeWarning

if TYPE_CHECKING:
    import numpy as np

#: A gap is longer than so many median intervals ...
GAP_INTERVALS = 10
#: ... and a topic with fewer messages or a lower rate is a series of events, not a stream.
MIN_STREAM_MESSAGES = 10
MIN_STREAM_HZ = 1.0
#: A mean step of so many median steps means bursts.
BURST = 3
#: Stamps kept per recording (8 bytes each); topics beyond it are unresolved.
MAX_STAMPS = 20_000_000
#: Message types that say where the robot is; a camera is held against the first such topics.
STATE_TYPES = ("JointState", "Odometry", "PoseStamped", "TwistStamped", "Imu", "Pose")
MAX_PAIRS = 16
#: Message types that are written when something happens: no rate is to be kept.
EVENT_TYPES = ("Log", "ParameterEvent", "TFMessage", "tfMessage")


class EmptyTopics(Check):
    """Every declared topic has a message."""

    name = "empty_topics"
    title = "every declared topic has a message"
    rules: ClassVar[dict[str, Rule]] = {"empty": Rule(warn=0)}

    def topic(self, name: str, *, empty: bool) -> None:
        """One declared topic."""
        self.declared += 1
        self.resolved += 1
        self.measure("empty", int(empty), "topics", feature=name, say=name)

    def _message(self) -> str:
        return f"{self.total('empty')} of {self.declared} declared topics have no message"


def read_stamps(path: Recorded) -> tuple[dict[str, "array[int]"], list[str], dict[str, int]]:
    """Stamps in ns of each topic in recorded order, the topics without one, and topics that were cut short.

    Raises:
        OSError: A file cannot be read.
    """
    stamps: dict[str, array[int]] = {}
    cut: dict[str, int] = {}
    declared: set[str] = set()
    kept = 0
    for part, _, reader in recording_parts(path):
        facts = Facts()
        for message in reader(part, facts, _no_data):
            topic = message.connection.topic
            if kept >= MAX_STAMPS:
                cut[topic] = cut.get(topic, 0) + 1
                continue
            kept += 1
            if 0 <= message.stamp_ns < 2**63 - 1:
                stamps.setdefault(topic, array("q")).append(message.stamp_ns)
        declared |= {connection.topic for connection in facts.connections}
    return stamps, sorted(declared - set(stamps) - set(cut)), cut


def _no_data(_: Connection) -> bool:
    return False


def measure_streams(path: Path, topics: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Feed the checks that are there with the streams of a recording, or of each that a folder holds.

    Args:
        path: The recording.
        topics: Topic to ``{"type", "count"}``, as the probe gives it.
        checks: Check name to the check.
    """
    recordings = recordings_in(path)
    silent: set[str] = set()
    heard: set[str] = set()
    for recording in recordings:
        name = recording.name if len(recordings) > 1 else None
        streams, empty = _measure(recording, name, topics, checks)
        heard |= streams
        silent |= empty
    found = checks.get(EmptyTopics.name)
    if isinstance(found, EmptyTopics):
        for topic in sorted(heard | silent):
            found.topic(topic, empty=topic not in heard)
    finite = checks.get(NanInf.name)
    if isinstance(finite, NanInf):
        _measure_finite(path, finite)


def _measure(
    recording: Recording, name: str | None, topics: Mapping[str, Any], checks: Mapping[str, Check]
) -> tuple[set[str], set[str]]:
    """One recording: a pause between two is no gap. Topics with messages and those without."""
    import numpy as np

    stamps, empty, cut = read_stamps(recording.parts)
    streams = {t: np.frombuffer(v, dtype=np.int64) for t, v in sorted(stamps.items()) if t not in cut}
    events = {topic for topic in (*stamps, *empty) if _leaf(topics, topic) in EVENT_TYPES}
    for check in checks.values():
        if isinstance(check, (TimeMonotonic, Gaps, RateJitter)):
            check.declared += len(stamps) + len(empty)
            check.declared -= 0 if isinstance(check, TimeMonotonic) else len(events)
    for topic, series in streams.items():
        _measure_one(name, topic, series, checks, event=topic in events)
    sync = checks.get(SyncAge.name)
    if isinstance(sync, SyncAge):
        _measure_sync(name, streams, topics, sync)
    return set(streams), set(empty)


def _leaf(topics: Mapping[str, Any], topic: str) -> str:
    """The name of a topic's message type without its package."""
    return str((topics.get(topic) or {}).get("type") or "").replace(".", "/").rpartition("/")[2]


def _measure_one(
    name: str | None, topic: str, stamps: "np.ndarray", checks: Mapping[str, Check], *, event: bool
) -> None:
    import numpy as np

    order, gaps, jitter = (checks.get(check.name) for check in (TimeMonotonic, Gaps, RateJitter))
    if isinstance(order, TimeMonotonic):
        order.resolved += order.see(name, topic, stamps)
    usual = None if event else _usual(stamps)
    if usual is None:
        return
    stamps = np.sort(stamps)
    if isinstance(gaps, Gaps):
        gaps.resolved += 1
        gaps.see(name, topic, stamps, GAP_INTERVALS * usual)
    if isinstance(jitter, RateJitter):
        jitter.resolved += 1
        jitter.see(name, topic, np.diff(stamps) / 1e9, usual, None)


def _usual(stamps: "np.ndarray") -> float | None:
    """The usual step in seconds of a topic that is a stream and no series of events."""
    import numpy as np

    if len(stamps) < MIN_STREAM_MESSAGES:
        return None
    steps = np.diff(np.sort(stamps)) / 1e9
    median, mean = float(np.median(steps)), float(steps.mean())
    # Messages that come in bursts have a median far below what a burst takes: their mean is the interval.
    interval = median if mean <= BURST * median else mean
    return interval if 0 < interval <= 1 / MIN_STREAM_HZ else None


def _measure_sync(
    name: str | None, streams: "Mapping[str, np.ndarray]", topics: Mapping[str, Any], sync: SyncAge
) -> None:
    import numpy as np

    cameras = [topic for topic in streams if is_image_type(_leaf(topics, topic))]
    states = [topic for wanted in STATE_TYPES for topic in streams if _leaf(topics, topic) == wanted]
    pairs = [(camera, state) for camera in cameras for state in states]
    sync.declared += len(pairs)
    for camera, state in pairs[:MAX_PAIRS]:
        if len(streams[camera]) >= MIN_STREAM_MESSAGES and len(streams[state]) >= MIN_STREAM_MESSAGES:
            sync.resolved += 1
            sync.beside(name, camera, state, np.sort(streams[camera]), np.sort(streams[state]))


def _measure_finite(path: Path, check: NanInf) -> None:
    problems: list[ProbeWarning] = []
    numbers: dict[str, int] = {}
    bad: dict[str, int] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for row in iter_numeric(path, problems=problems):
        numbers[row.topic] = numbers.get(row.topic, 0) + len(row.values)
        wrong = sum(not math.isfinite(value) for value in row.values)
        if wrong:
            bad[row.topic] = bad.get(row.topic, 0) + wrong
            first.setdefault(row.topic, row.stamp_ns)
            last[row.topic] = row.stamp_ns
    undecoded = {problem.path for problem in problems if problem.code in UNDECODED}
    check.declared += len(numbers) + len(undecoded)
    check.resolved += len(numbers)
    check.values["numbers"] = sum(numbers.values())
    for topic, count in sorted(numbers.items()):
        wrong = bad.get(topic, 0)
        interval = (first[topic], last[topic]) if wrong else None
        check.measure(
            "notFinite", wrong, "numbers", feature=topic, n=count, ns=interval, say=f"{topic} has {wrong}"
        )
