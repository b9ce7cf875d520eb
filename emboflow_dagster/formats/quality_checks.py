"""Measurements over vectors: each check is fed one episode after the other and keeps only numbers.

What practitioners look at, with the thresholds of the formats specification. A check says how much it could
look at (declared / resolved / unresolved); one that resolved nothing is a warning, never a pass.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

GAP_FACTOR = 1.5
JUMP_STD = 8.0
RANGE_WARN, RANGE_FAIL = 0.5, 0.99
FROZEN_WARN, FROZEN_FAIL = 0.5, 0.99
MIN_SECONDS, MIN_FRAMES = 1.0, 5
LENGTH_STD = 3.0
JITTER_WARN = 0.5
RATE_WARN = 0.1
MAX_NAMED = 20
#: A dimension with so few different values is a switch (gripper open/closed), not a saturated axis.
SWITCH_VALUES = 2


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """What the checks see of one episode: vectors ``(n, dim)`` by name, stamps in ns or ``None``."""

    ref: str
    length: int
    vectors: "Mapping[str, np.ndarray]"
    actions: tuple[str, ...] = ()
    stamps_ns: "np.ndarray | None" = None
    fps: float | None = None
    zero_width: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclass(slots=True)
class Check(ABC):
    """One measurement under way: subclasses say what ``_see`` counts and how ``_verdict`` judges it."""

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    threshold: ClassVar[dict[str, Any]] = {}

    declared: int = 0
    resolved: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    @abstractmethod
    def _see(self, episode: EpisodeView) -> bool:
        """Measure one episode; False where it holds nothing for this check."""

    @abstractmethod
    def _verdict(self) -> tuple[str, str]:
        """Severity (``pass``, ``warn``, ``fail``) and a sentence."""

    def take(self, episode: EpisodeView) -> None:
        """Measure one episode and count whether it could be."""
        self.declared += 1
        self.resolved += bool(self._see(episode))

    def result(self) -> dict[str, Any]:
        """The measurement as it is stored."""
        severity, message = self._verdict() if self.resolved else ("warn", "nothing could be measured")
        return {
            "check": self.name,
            "version": self.version,
            "severity": severity,
            "values": self.values,
            "threshold": dict(self.threshold),
            "message": message,
            "places": self.places,
            "coverage": {
                "declared": self.declared,
                "resolved": self.resolved,
                "unresolved": self.declared - self.resolved,
            },
        }

    def place(self, text: str) -> None:
        """Remember where; the first twenty."""
        if len(self.places) < MAX_NAMED:
            self.places.append(text)

    def add(self, name: str, count: float) -> None:
        """Add to a counter."""
        self.values[name] = self.values.get(name, 0) + count


class TimeMonotonic(Check):
    """Stamps strictly increase within an episode."""

    name = "time_monotonic"
    threshold: ClassVar[dict[str, Any]] = {"backwards": 0, "duplicates": 0}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if episode.stamps_ns is None or len(episode.stamps_ns) < 2:  # noqa: PLR2004 - a step needs two
            return False
        steps = np.diff(episode.stamps_ns)
        backwards, same = int((steps < 0).sum()), int((steps == 0).sum())
        self.add("backwards", backwards)
        self.add("duplicates", same)
        if backwards or same:
            self.place(f"{episode.ref}: {backwards} backwards, {same} duplicate stamps")
        return True

    def _verdict(self) -> tuple[str, str]:
        if self.values["backwards"]:
            return "fail", f"{self.values['backwards']} stamps lie before the one before them"
        if self.values["duplicates"]:
            return "warn", f"{self.values['duplicates']} stamps repeat the one before them"
        return "pass", "stamps strictly increase"


class Gaps(Check):
    """No step is longer than 1.5 frames: a longer one is a dropped frame."""

    name = "gaps"
    threshold: ClassVar[dict[str, Any]] = {"frames": GAP_FACTOR}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if episode.stamps_ns is None or len(episode.stamps_ns) < 3:  # noqa: PLR2004 - a median of steps
            return False
        steps = np.diff(episode.stamps_ns) / 1e9
        frame = 1.0 / episode.fps if episode.fps else float(np.median(steps))
        if frame <= 0:
            return False
        gaps = steps > GAP_FACTOR * frame
        self.add("gaps", int(gaps.sum()))
        self.add("steps", int(gaps.size))
        self.values["maxGapS"] = max(self.values.get("maxGapS", 0.0), float(steps.max()))
        if gaps.any():
            self.place(f"{episode.ref}: {int(gaps.sum())} gaps, the longest {float(steps.max()):.3f} s")
        return True

    def _verdict(self) -> tuple[str, str]:
        if self.values["gaps"]:
            return "warn", f"{self.values['gaps']} gaps, the longest {self.values['maxGapS']:.3f} s"
        return "pass", "no dropped frames"


class RateJitter(Check):
    """The measured rate is the declared one, and steps are alike."""

    name = "rate_jitter"
    threshold: ClassVar[dict[str, Any]] = {"jitter": JITTER_WARN, "rateDeviation": RATE_WARN}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if episode.stamps_ns is None or len(episode.stamps_ns) < 3:  # noqa: PLR2004 - a spread of steps
            return False
        steps = np.diff(episode.stamps_ns) / 1e9
        median = float(np.median(steps))
        if median <= 0:
            return False
        jitter = float(np.quantile(np.abs(steps - median), 0.95)) / median
        rate = 1.0 / median
        self.values["jitterP95"] = max(self.values.get("jitterP95", 0.0), jitter)
        self.values["minHz"] = min(self.values.get("minHz", rate), rate)
        self.values["maxHz"] = max(self.values.get("maxHz", rate), rate)
        off = abs(rate - episode.fps) / episode.fps if episode.fps else 0.0
        self.values["rateDeviation"] = max(self.values.get("rateDeviation", 0.0), off)
        if jitter > JITTER_WARN or off > RATE_WARN:
            self.place(f"{episode.ref}: {rate:.3f} Hz, jitter {jitter:.2f} of a step")
        return True

    def _verdict(self) -> tuple[str, str]:
        low, high = self.values["minHz"], self.values["maxHz"]
        spread = self.values["jitterP95"]
        text = f"{low:.3f} to {high:.3f} Hz, 95 % of the steps within {spread:.2f} of the median"
        bad = self.values["jitterP95"] > JITTER_WARN or self.values["rateDeviation"] > RATE_WARN
        return ("warn" if bad else "pass"), text


class NanInf(Check):
    """Every number is finite."""

    name = "nan_inf"
    threshold: ClassVar[dict[str, Any]] = {"notFinite": 0}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if not episode.vectors:
            return False
        for name, values in episode.vectors.items():
            bad = int(values.size - np.isfinite(values).sum())
            self.add("notFinite", bad)
            self.add("numbers", int(values.size))
            if bad:
                self.place(f"{episode.ref}: {name} has {bad}")
        return True

    def _verdict(self) -> tuple[str, str]:
        bad = self.values["notFinite"]
        return ("fail", f"{bad} numbers are NaN or infinite") if bad else ("pass", "all numbers are finite")


@dataclass(slots=True)
class _Axis:
    """One dimension over all episodes: extremes, how often they occur, moments."""

    low: float = float("inf")
    high: float = float("-inf")
    at_low: int = 0
    at_high: int = 0
    count: int = 0
    distinct: set[float] = field(default_factory=set)

    def see(self, column: "np.ndarray") -> None:
        import numpy as np

        column = column[np.isfinite(column)]
        if not column.size:
            return
        low, high = float(column.min()), float(column.max())
        if low < self.low:
            self.low, self.at_low = low, 0
        if high > self.high:
            self.high, self.at_high = high, 0
        self.at_low += int((column == self.low).sum())
        self.at_high += int((column == self.high).sum())
        self.count += int(column.size)
        if len(self.distinct) <= SWITCH_VALUES:
            self.distinct.update(np.unique(column)[: SWITCH_VALUES + 1].tolist())

    @property
    def constant(self) -> bool:
        return self.count > 0 and self.low == self.high

    @property
    def saturation(self) -> float:
        return (self.at_low + self.at_high) / self.count if self.count else 0.0


class ActionRange(Check):
    """Actions do not sit at their extremes. Switches and constant dimensions are not judged here."""

    name = "action_range"
    threshold: ClassVar[dict[str, Any]] = {"warn": RANGE_WARN, "fail": RANGE_FAIL}

    def __init__(self) -> None:
        super().__init__()
        self._axes: dict[str, _Axis] = {}

    def _see(self, episode: EpisodeView) -> bool:
        for name in episode.actions:
            for dim, column in enumerate(episode.vectors[name].T):
                self._axes.setdefault(f"{name}[{dim}]", _Axis()).see(column)
        return bool(episode.actions)

    def _verdict(self) -> tuple[str, str]:
        judged = {
            name: axis.saturation
            for name, axis in self._axes.items()
            if len(axis.distinct) > SWITCH_VALUES and not axis.constant
        }
        worst = max(judged.values(), default=0.0)
        self.values = {
            "saturation": {name: round(value, 6) for name, value in list(judged.items())[:200]},
            "min": min((axis.low for axis in self._axes.values() if axis.count), default=None),
            "max": max((axis.high for axis in self._axes.values() if axis.count), default=None),
            "switches": len(self._axes) - len(judged),
        }
        for name, value in judged.items():
            if value > RANGE_WARN:
                self.place(f"{name}: {value:.1%} of the samples at the minimum or maximum")
        severity = "fail" if worst > RANGE_FAIL else "warn" if worst > RANGE_WARN else "pass"
        return severity, f"at most {worst:.1%} of a dimension's samples are at its minimum or maximum"


class FrozenAction(Check):
    """Actions change from frame to frame; a long run of equal ones is a pause or a frozen recorder."""

    name = "frozen_action"
    threshold: ClassVar[dict[str, Any]] = {"warn": FROZEN_WARN, "fail": FROZEN_FAIL}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if not episode.actions or episode.length < 2:  # noqa: PLR2004 - a change needs two
            return False
        joined = np.concatenate([episode.vectors[name] for name in episode.actions], axis=1)
        moved = (np.diff(joined, axis=0) != 0).any(axis=1)
        edges = np.flatnonzero(np.concatenate([[True], moved, [True]]))
        longest = int(np.diff(edges).max())
        share = longest / episode.length
        self.values["idleRatio"] = max(self.values.get("idleRatio", 0.0), float(1 - moved.mean()))
        self.values["longestRun"] = max(self.values.get("longestRun", 0), longest)
        self.values["longestShare"] = max(self.values.get("longestShare", 0.0), share)
        if share > FROZEN_WARN:
            self.place(f"{episode.ref}: {longest} of {episode.length} frames repeat one action")
        return True

    def _verdict(self) -> tuple[str, str]:
        share = self.values["longestShare"]
        severity = "fail" if share > FROZEN_FAIL else "warn" if share > FROZEN_WARN else "pass"
        return severity, f"the longest run of one action is {self.values['longestRun']} frames ({share:.1%})"


class Jumps(Check):
    """No action steps further than 8 standard deviations of its own steps."""

    name = "jumps"
    threshold: ClassVar[dict[str, Any]] = {"std": JUMP_STD}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if not episode.actions or episode.length < 3:  # noqa: PLR2004 - a spread of steps
            return False
        for name in episode.actions:
            steps = np.diff(np.nan_to_num(episode.vectors[name].astype(np.float64)), axis=0)
            spread = steps.std(axis=0)
            far = (np.abs(steps - steps.mean(axis=0)) > JUMP_STD * spread) & (spread > 0)
            self.add("jumps", int(far.any(axis=1).sum()))
            if far.any():
                self.place(f"{episode.ref}: {name} at frame {int(far.any(axis=1).argmax()) + 1}")
        return True

    def _verdict(self) -> tuple[str, str]:
        jumps = self.values["jumps"]
        return (
            ("warn", f"{jumps} frames jump by more than {JUMP_STD:g} std") if jumps else ("pass", "no jumps")
        )


class ZeroVariance(Check):
    """Every dimension varies; a constant one makes a normalised value NaN."""

    name = "zero_variance"
    threshold: ClassVar[dict[str, Any]] = {"std": 0}

    def __init__(self) -> None:
        super().__init__()
        self._axes: dict[str, _Axis] = {}

    def _see(self, episode: EpisodeView) -> bool:
        for name, values in episode.vectors.items():
            for dim, column in enumerate(values.T):
                self._axes.setdefault(f"{name}[{dim}]", _Axis()).see(column)
        return bool(episode.vectors)

    def _verdict(self) -> tuple[str, str]:
        constant = [name for name, axis in self._axes.items() if axis.constant and axis.count > 1]
        self.values = {"constant": len(constant), "dimensions": len(self._axes)}
        for name in constant:
            self.place(f"{name} is always {self._axes[name].low:g}")
        if constant:
            return "warn", f"{len(constant)} of {len(self._axes)} dimensions never change"
        return "pass", f"all {len(self._axes)} dimensions vary"


class LengthOutlier(Check):
    """No episode is under 1 s or 5 frames, or further than 3 std from the mean length."""

    name = "length_outlier"
    threshold: ClassVar[dict[str, Any]] = {"seconds": MIN_SECONDS, "frames": MIN_FRAMES, "std": LENGTH_STD}

    def __init__(self) -> None:
        super().__init__()
        self._lengths: list[tuple[str, int, float | None]] = []

    def _see(self, episode: EpisodeView) -> bool:
        self._lengths.append((episode.ref, episode.length, episode.fps))
        return True

    def _verdict(self) -> tuple[str, str]:
        import numpy as np

        frames = np.array([length for _, length, _ in self._lengths], dtype=np.float64)
        mean, std = float(frames.mean()), float(frames.std())
        short = far = 0
        for ref, length, fps in self._lengths:
            if length < MIN_FRAMES or (fps and length / fps < MIN_SECONDS):
                short += 1
                self.place(f"{ref}: {length} frames")
            elif std > 0 and abs(length - mean) > LENGTH_STD * std:
                far += 1
                self.place(f"{ref}: {length} frames, the mean is {mean:.1f}")
        self.values = {
            "episodes": len(frames), "min": int(frames.min()), "max": int(frames.max()),
            "mean": mean, "std": std, "short": short, "far": far,
        }  # fmt: skip
        if short or far:
            return "warn", f"{short} episodes are too short, {far} are far from the mean of {mean:.1f} frames"
        return "pass", f"{len(frames)} episodes of {int(frames.min())} to {int(frames.max())} frames"


class ZeroWidth(Check):
    """No dataset has rows without numbers."""

    name = "zero_width"
    threshold: ClassVar[dict[str, Any]] = {"datasets": 0}

    def _see(self, episode: EpisodeView) -> bool:
        self.add("datasets", len(episode.zero_width))
        for name in episode.zero_width:
            self.place(f"{episode.ref}: {name}")
        return True

    def _verdict(self) -> tuple[str, str]:
        count = self.values["datasets"]
        return (
            ("warn", f"{count} datasets hold no number") if count else ("pass", "every dataset holds numbers")
        )


class Duplicates(Check):
    """No two episodes hold the same numbers."""

    name = "duplicates"
    threshold: ClassVar[dict[str, Any]] = {"episodes": 0}

    def __init__(self) -> None:
        super().__init__()
        self._digests: dict[bytes, str] = {}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if not episode.vectors:
            return False
        digest = hashlib.sha256()
        for name in sorted(episode.vectors):
            values = episode.vectors[name]
            digest.update(f"{name}{values.shape}{values.dtype}".encode())
            digest.update(np.ascontiguousarray(values).view(np.uint8).data)
        first = self._digests.setdefault(digest.digest(), episode.ref)
        self.add("duplicates", int(first != episode.ref))
        if first != episode.ref:
            self.place(f"{episode.ref} equals {first}")
        return True

    def _verdict(self) -> tuple[str, str]:
        count = self.values["duplicates"]
        return (
            ("warn", f"{count} episodes repeat another") if count else ("pass", "no episode repeats another")
        )


VECTOR_CHECKS: dict[str, type[Check]] = {
    check.name: check
    for check in (
        TimeMonotonic, Gaps, RateJitter, NanInf, ActionRange, FrozenAction, Jumps, ZeroVariance,
        LengthOutlier, ZeroWidth, Duplicates,
    )
}  # fmt: skip
