"""Checks of time: order, dropped frames, the grid, the rate, and how old a sample is beside the others."""

from typing import TYPE_CHECKING, Any, ClassVar

from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.evidence import Rule
from emboflow_dagster.formats.quality.view import EpisodeView

if TYPE_CHECKING:
    import numpy as np

GAP_FACTOR = 1.5
JITTER_WARN = 0.5
RATE_WARN = 0.1
GRID_S = 1e-4
#: Gaps of one episode or topic that have a row each, the longest first.
MAX_INTERVALS = 50
#: Slack of the comparison with the grid: float32 stamps of an hour are 2e-4 s apart, of ten minutes 6e-5 s.
_FLOAT32 = 2.0**-24


class TimeMonotonic(Check):
    """Stamps strictly increase within an episode."""

    name = "time_monotonic"
    asks = "stamps of the recorder's own"
    title = "stamps strictly increase within each episode or topic"
    rules: ClassVar[dict[str, Rule]] = {"backwards": Rule(fail=0), "duplicates": Rule(warn=0)}

    def see(self, ref: str | None, feature: str | None, stamps: "np.ndarray") -> bool:
        """Measure one series of stamps in ns."""
        import numpy as np

        if len(stamps) < 2:  # noqa: PLR2004 - a step needs two
            return False
        steps = np.diff(stamps)
        backwards, same = int((steps < 0).sum()), int((steps == 0).sum())
        say = f"{_place(ref, feature)}: {backwards} backwards, {same} duplicate stamps"
        for metric, bad in (("backwards", steps < 0), ("duplicates", steps == 0)):
            count = int(bad.sum())
            first = int(bad.argmax()) if count else 0
            self.measure(
                metric, count, "stamps", episode=ref, feature=feature, n=len(steps), say=say,
                frames=(first, first + 1) if count else None,
                ns=_ordered(stamps[first], stamps[first + 1]) if count else None,
            )  # fmt: skip
        return True

    def _see(self, episode: EpisodeView) -> bool:
        return episode.stamps_ns is not None and self.see(episode.ref, None, episode.stamps_ns)

    def _message(self) -> str:
        backwards, same = self.total("backwards"), self.total("duplicates")
        if not backwards and not same:
            return "stamps strictly increase"
        return f"{backwards} stamps lie before the one before them, {same} repeat it"


class Gaps(Check):
    """No step is longer than 1.5 frames: a longer one is a dropped frame."""

    name = "gaps"
    asks = "stamps of the recorder's own"
    title = "no step is longer than 1.5 frames (episodes) or 10 usual intervals (topics)"
    rules: ClassVar[dict[str, Rule]] = {
        "gaps": Rule(warn=0),
        "gapRatio": Rule(),
        "gapS": Rule(),
        "maxStepS": Rule(),
    }

    def see(self, ref: str | None, feature: str | None, stamps: "np.ndarray", limit_s: float) -> None:
        """Measure one series of stamps in ns; a gap is longer than `limit_s`."""
        import numpy as np

        steps = np.diff(stamps) / 1e9
        found = np.flatnonzero(steps > limit_s)
        longest = float(steps.max())
        say = f"{_place(ref, feature)}: {len(found)} gaps, the longest {longest:.3f} s"
        names: dict[str, Any] = {"episode": ref, "feature": feature}
        self.measure("gaps", len(found), "steps", n=len(steps), say=say, **names)
        ratio = f"{_place(ref, feature)}: {len(found) / len(steps):.2%} of the steps are gaps"
        self.measure("gapRatio", len(found) / len(steps), n=len(steps), say=ratio, **names)
        self.measure("maxStepS", longest, "s", n=len(steps), **names)
        for at in sorted(found[np.argsort(-steps[found], kind="stable")][:MAX_INTERVALS].tolist()):
            self.measure(
                "gapS", float(steps[at]), "s", frames=(at, at + 1),
                ns=(int(stamps[at]), int(stamps[at + 1])), **names,
            )  # fmt: skip
        self.values["steps"] = self.values.get("steps", 0) + len(steps)

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if episode.stamps_ns is None or len(episode.stamps_ns) < 3:  # noqa: PLR2004 - a median of steps
            return False
        frame = 1.0 / episode.fps if episode.fps else float(np.median(np.diff(episode.stamps_ns)) / 1e9)
        if frame <= 0:
            return False
        self.see(episode.ref, None, episode.stamps_ns, GAP_FACTOR * frame)
        return True

    def _message(self) -> str:
        gaps, steps = self.total("gaps"), self.values["steps"]
        self.values["gaps"] = gaps
        share = f"{gaps / steps:.2%} of all steps" if steps else ""
        return (
            f"{gaps} gaps ({share}), the longest step is {self.most('maxStepS'):.3f} s" if gaps else "no gaps"
        )


class TimestampGrid(Check):
    """Stamps are ``frame_index / fps`` within 1e-4 s, which loaders assert when they decode a frame."""

    name = "timestamp_grid"
    asks = "grid stamps"
    title = "timestamp equals frame_index / fps within 1e-4 s"
    rules: ClassVar[dict[str, Rule]] = {"offGridS": Rule(fail=GRID_S)}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        grid, fps = episode.grid_s, episode.fps
        if grid is None or not fps or not len(grid):
            return False
        index = np.arange(len(grid)) if episode.frame_index is None else episode.frame_index
        off = np.abs(grid - index / fps)
        # What a float32 column cannot hold is not the recording's fault.
        slack = np.where(grid == grid.astype(np.float32), np.abs(grid) * _FLOAT32, 0.0)
        off = np.maximum(off - slack, 0.0)
        bad = off > GRID_S
        first = int(bad.argmax()) if bad.any() else 0
        worst = float(off.max())
        self.measure(
            "offGridS", worst, "s", episode=episode.ref, n=len(grid),
            frames=(first, len(grid) - 1) if bad.any() else None,
            say=f"{episode.ref}: {int(bad.sum())} stamps are off the grid, by up to {worst:.4g} s",
        )  # fmt: skip
        return True

    def _message(self) -> str:
        return f"stamps are at most {self.most('offGridS'):.2g} s off frame_index / fps"


class RateJitter(Check):
    """The measured rate is the declared one, and steps are alike."""

    name = "rate_jitter"
    asks = "stamps of the recorder's own"
    title = "the rate is the declared one, and steps are alike"
    rules: ClassVar[dict[str, Rule]] = {
        "jitterP95": Rule(warn=JITTER_WARN),
        "rateDeviation": Rule(warn=RATE_WARN),
        "hz": Rule(),
    }

    def see(
        self, ref: str | None, feature: str | None, steps: "np.ndarray", usual: float, fps: float | None
    ) -> None:
        """Measure one series: its steps in s and the usual one."""
        import numpy as np

        names: dict[str, Any] = {"episode": ref, "feature": feature}
        jitter = float(np.quantile(np.abs(steps - usual), 0.95)) / usual
        say = f"{_place(ref, feature)}: {1 / usual:.3f} Hz, jitter {jitter:.2f} of a step"
        self.measure("hz", 1 / usual, "Hz", n=len(steps), **names)
        self.measure("jitterP95", jitter, "steps", n=len(steps), say=say, **names)
        if fps:
            off = abs(1 / usual - fps) / fps
            say = f"{_place(ref, feature)}: {1 / usual:.3f} Hz, {fps:g} are declared"
            self.measure("rateDeviation", off, n=len(steps), say=say, **names)

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        if episode.stamps_ns is None or len(episode.stamps_ns) < 3:  # noqa: PLR2004 - a spread of steps
            return False
        steps = np.diff(episode.stamps_ns) / 1e9
        median = float(np.median(steps))
        if median <= 0:
            return False
        self.see(episode.ref, None, steps, median, episode.fps)
        return True

    def _message(self) -> str:
        low, high = self.least("hz"), self.most("hz")
        spread = self.most("jitterP95")
        return f"{low:.3f} to {high:.3f} Hz, 95 % of the steps within {spread:.2f} of the usual one"


class SyncAge(Check):
    """Samples beside a frame are not old: of held features two frames, of state beside a camera one."""

    name = "sync_age"
    title = "state and camera samples lie close together"
    optional = True
    rules: ClassVar[dict[str, Rule]] = {
        "maxAgeFrames": Rule(warn=2),
        "medianAgeFrames": Rule(warn=1),
        "maxAgeMs": Rule(),
    }

    def age(self, ref: str | None, feature: str, age_s: float, frame_s: float) -> None:
        """The oldest held sample of a feature in an episode."""
        say = f"{ref}: {feature} is up to {age_s * 1e3:.1f} ms old"
        names: dict[str, Any] = {"episode": ref, "feature": feature}
        self.measure("maxAgeFrames", age_s / frame_s, "frames", say=say, **names)
        self.measure("maxAgeMs", age_s * 1e3, "ms", **names)

    def beside(
        self, ref: str | None, camera: str, state: str, pictures: "np.ndarray", samples: "np.ndarray"
    ) -> None:
        """How far the nearest sample of a state is from each picture; stamps in ns, sorted."""
        import numpy as np

        after = np.clip(np.searchsorted(samples, pictures), 1, len(samples) - 1)
        nearest = np.minimum(np.abs(pictures - samples[after - 1]), np.abs(samples[after] - pictures))
        frame = float(np.median(np.diff(pictures))) or 1.0
        worst, usual = int(nearest.argmax()), float(np.median(nearest))
        names: dict[str, Any] = {"episode": ref, "feature": f"{camera} and {state}", "n": len(pictures)}
        stamp = int(pictures[worst])
        text = f"{_place(ref, camera)}: the nearest sample of {state} is"
        self.measure(
            "medianAgeFrames",
            usual / frame,
            "frames",
            say=f"{text} usually {usual / 1e6:.1f} ms away",
            **names,
        )
        self.measure(
            "maxAgeFrames", float(nearest[worst]) / frame, "frames", ns=(stamp, stamp),
            say=f"{text} up to {nearest[worst] / 1e6:.1f} ms away", **names,
        )  # fmt: skip
        self.measure("maxAgeMs", float(nearest[worst]) / 1e6, "ms", **names)

    def _message(self) -> str:
        return f"samples are at most {self.most('maxAgeMs'):.1f} ms away"


def _ordered(one: "np.integer", other: "np.integer") -> tuple[int, int]:
    return min(int(one), int(other)), max(int(one), int(other))


TIME_CHECKS: tuple[type[Check], ...] = (TimeMonotonic, Gaps, TimestampGrid, RateJitter)


def _place(ref: str | None, feature: str | None) -> str:
    return ": ".join(part for part in (ref, feature) if part)
