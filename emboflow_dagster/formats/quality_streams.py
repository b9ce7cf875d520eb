"""Measurements over the streams of a recording: stamps of every topic, without decoding a message."""

import math
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.detect import recording_parts
from emboflow_dagster.formats.messages import iter_numeric
from emboflow_dagster.formats.quality_checks import JITTER_WARN, MAX_NAMED
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

STREAM_CHECKS = ("time_monotonic", "gaps", "rate_jitter", "nan_inf", "empty_topics")


def read_stamps(path: Path) -> tuple[dict[str, "array[int]"], list[str], dict[str, int]]:
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


def stream_results(path: Path, wanted: list[str]) -> list[dict[str, Any]]:
    """The stream checks of one recording, as stored."""
    import numpy as np

    stamps, empty, cut = read_stamps(path)
    streams = {t: np.frombuffer(v, dtype=np.int64) for t, v in sorted(stamps.items()) if t not in cut}
    checks = {
        "time_monotonic": lambda: _monotonic(streams, len(stamps) + len(empty)),
        "gaps": lambda: _gaps(streams, len(stamps) + len(empty)),
        "rate_jitter": lambda: _jitter(streams, len(stamps) + len(empty)),
        "nan_inf": lambda: _not_finite(path),
        "empty_topics": lambda: _empty(streams, empty),
    }
    return [checks[name]() for name in STREAM_CHECKS if name in wanted]


def measured(
    name: str,
    *,
    severity: str,
    values: dict[str, Any],
    threshold: dict[str, Any],
    message: str,
    places: list[str],
    declared: int,
    resolved: int,
) -> dict[str, Any]:
    """A measurement as stored; nothing resolved is never a pass."""
    if not resolved:
        severity, message = "warn", "nothing could be measured"
    return {
        "check": name,
        "version": 1,
        "severity": severity,
        "values": values,
        "threshold": threshold,
        "message": message,
        "places": places[:MAX_NAMED],
        "coverage": {"declared": declared, "resolved": resolved, "unresolved": max(0, declared - resolved)},
    }


def _monotonic(streams: dict[str, "np.ndarray"], declared: int) -> dict[str, Any]:
    import numpy as np

    backwards = duplicates = resolved = 0
    places = []
    for topic, stamps in streams.items():
        if len(stamps) < 2:  # noqa: PLR2004 - a step needs two
            continue
        resolved += 1
        steps = np.diff(stamps)
        back, same = int((steps < 0).sum()), int((steps == 0).sum())
        backwards += back
        duplicates += same
        if back or same:
            places.append(f"{topic}: {back} backwards, {same} duplicate stamps")
    # Equal stamps are real (odometry from two sources); a stamp that runs backwards is not.
    severity = "fail" if backwards else "warn" if duplicates else "pass"
    return measured(
        "time_monotonic",
        severity=severity,
        values={"backwards": backwards, "duplicates": duplicates},
        threshold={"backwards": 0, "duplicates": 0},
        message=f"{backwards} stamps run backwards, {duplicates} repeat the one before them",
        places=places,
        declared=declared,
        resolved=resolved,
    )


def _periodic(stamps: "np.ndarray") -> "tuple[np.ndarray, float] | None":
    """Steps in seconds and the usual one, of a topic that is a stream and no series of events."""
    import numpy as np

    if len(stamps) < MIN_STREAM_MESSAGES:
        return None
    steps = np.diff(np.sort(stamps)) / 1e9
    median, mean = float(np.median(steps)), float(steps.mean())
    # Messages that come in bursts have a median far below what a burst takes: their mean is the interval.
    interval = median if mean <= BURST * median else mean
    return (steps, interval) if 0 < interval <= 1 / MIN_STREAM_HZ else None


def _gaps(streams: dict[str, "np.ndarray"], declared: int) -> dict[str, Any]:
    gaps = total = resolved = 0
    longest = 0.0
    places = []
    for topic, stamps in streams.items():
        found = _periodic(stamps)
        if found is None:
            continue
        steps, median = found
        resolved += 1
        count = int((steps > GAP_INTERVALS * median).sum())
        gaps += count
        total += len(steps)
        longest = max(longest, float(steps.max()))
        if count:
            places.append(
                f"{topic}: {count} gaps, the longest {float(steps.max()):.3f} s at {1 / median:.1f} Hz"
            )
    return measured(
        "gaps",
        severity="warn" if gaps else "pass",
        values={"gaps": gaps, "steps": total, "maxGapS": longest},
        threshold={"medianIntervals": GAP_INTERVALS},
        message=f"{gaps} gaps over {GAP_INTERVALS} intervals, the longest {longest:.3f} s",
        places=places,
        declared=declared,
        resolved=resolved,
    )


def _jitter(streams: dict[str, "np.ndarray"], declared: int) -> dict[str, Any]:
    import numpy as np

    resolved = 0
    worst = 0.0
    places = []
    rates: dict[str, float] = {}
    for topic, stamps in streams.items():
        found = _periodic(stamps)
        if found is None:
            continue
        steps, median = found
        resolved += 1
        jitter = float(np.quantile(np.abs(steps - median), 0.95)) / median
        worst = max(worst, jitter)
        if len(rates) < 200:  # noqa: PLR2004 - a report, not the data
            rates[topic] = round(1 / median, 3)
        if jitter > JITTER_WARN:
            places.append(f"{topic}: {1 / median:.1f} Hz, jitter {jitter:.2f} of a step")
    return measured(
        "rate_jitter",
        severity="warn" if worst > JITTER_WARN else "pass",
        values={"jitterP95": worst, "medianHz": rates},
        threshold={"jitter": JITTER_WARN},
        message=f"95 % of the steps of every stream within {worst:.2f} of its median",
        places=places,
        declared=declared,
        resolved=resolved,
    )


def _not_finite(path: Path) -> dict[str, Any]:
    problems: list[ProbeWarning] = []
    numbers: dict[str, int] = {}
    bad: dict[str, int] = {}
    for row in iter_numeric(path, problems=problems):
        numbers[row.topic] = numbers.get(row.topic, 0) + len(row.values)
        wrong = sum(not math.isfinite(value) for value in row.values)
        if wrong:
            bad[row.topic] = bad.get(row.topic, 0) + wrong
    undecoded = {problem.path for problem in problems if problem.code == "undecodable_topics"}
    total = sum(bad.values())
    return measured(
        "nan_inf",
        severity="fail" if total else "pass",
        values={"notFinite": total, "numbers": sum(numbers.values())},
        threshold={"notFinite": 0},
        message=f"{total} of {sum(numbers.values())} numbers are NaN or infinite",
        places=[f"{topic} has {count}" for topic, count in sorted(bad.items())],
        declared=len(numbers) + len(undecoded),
        resolved=len(numbers),
    )


def _empty(streams: dict[str, "np.ndarray"], empty: list[str]) -> dict[str, Any]:
    return measured(
        "empty_topics",
        severity="warn" if empty else "pass",
        values={"empty": len(empty), "topics": len(streams) + len(empty)},
        threshold={"empty": 0},
        message=f"{len(empty)} of {len(streams) + len(empty)} declared topics have no message",
        places=empty,
        declared=len(streams) + len(empty),
        resolved=len(streams) + len(empty),
    )
