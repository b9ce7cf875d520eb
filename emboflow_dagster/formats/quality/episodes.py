"""Checks of episodes as a whole: lengths, indices, counts, repetitions, stored statistics."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from emboflow_dagster.formats.canonical.stats import feature_stats
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.evidence import Rule, Thresholds
from emboflow_dagster.formats.quality.view import EpisodeView

if TYPE_CHECKING:
    import numpy as np

MIN_SECONDS, MIN_FRAMES = 1.0, 5
LENGTH_STD = 3.0
#: Two episodes are nearly the same below this root mean square distance, in standard deviations.
NEAR = 0.02
#: Points that an episode is drawn with to be compared, whatever its length.
POINTS = 32
#: Episodes that are compared with each other.
MAX_COMPARED = 4_000
STATS_WARN, STATS_FAIL = 0.01, 0.1


class LengthOutlier(Check):
    """No episode is under 1 s or 5 frames, or further than 3 std from the mean length."""

    name = "length_outlier"
    title = "no episode under 1 s or 5 frames, or further than 3 std from the mean length"
    rules: ClassVar[dict[str, Rule]] = {
        "seconds": Rule(warn=MIN_SECONDS, below=True),
        "frames": Rule(warn=MIN_FRAMES, below=True),
        "lengthStd": Rule(warn=LENGTH_STD),
    }

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        super().__init__(thresholds)
        self._lengths: list[tuple[str, int, float | None]] = []

    def _see(self, episode: EpisodeView) -> bool:
        self._lengths.append((episode.ref, episode.length, episode.fps))
        return True

    def finish(self) -> None:
        """Compare every length with the mean."""
        import numpy as np

        frames = np.array([length for _, length, _ in self._lengths], dtype=np.float64)
        mean, std = float(frames.mean()), float(frames.std())
        short = far = 0
        for ref, length, fps in self._lengths:
            seconds = f", {length / fps:.2f} s" if fps else ""
            say = f"{ref}: {length} frames{seconds}"
            found = [self.measure("frames", length, "frames", episode=ref, say=say)]
            if fps:
                found.append(self.measure("seconds", length / fps, "s", episode=ref, say=say))
            away = abs(length - mean) / std if std > 0 else 0.0
            say = f"{ref}: {length} frames, the mean is {mean:.1f}"
            short += any(verdict != "pass" for verdict in found)
            far += self.measure("lengthStd", away, "std", episode=ref, n=len(frames), say=say) != "pass"
        self.values = {"episodes": len(frames), "mean": mean, "std": std, "short": short, "far": far}

    def _message(self) -> str:
        low, high, episodes = self.least("frames"), self.most("frames"), self.values["episodes"]
        text = f"{episodes} episodes of {low:.0f} to {high:.0f} frames"
        text = text if episodes != 1 else f"one episode of {low:.0f} frames"
        short, far = self.values["short"], self.values["far"]
        return f"{text}; {short} too short, {far} far from the mean" if short or far else text


class IndexIntegrity(Check):
    """Episode, frame and dataset-wide indices count up from 0 without a hole or a repetition."""

    name = "index_integrity"
    title = "episode, frame and dataset indices count up without a hole or a repetition"
    rules: ClassVar[dict[str, Rule]] = {"missing": Rule(fail=0), "duplicate": Rule(fail=0)}

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        super().__init__(thresholds)
        self._seen: Counter[int] = Counter()
        self._next = 0
        self._index: list[np.ndarray] = []

    def _see(self, episode: EpisodeView) -> bool:
        if episode.number is None:
            return False
        self._seen[episode.number] += 1
        if episode.frame_index is not None:
            self._compare("frame_index", episode.ref, episode.frame_index, 0, episode.length)
        if episode.index is not None:
            self._index.append(episode.index)
        return True

    def finish(self) -> None:
        """The episodes among each other."""
        import numpy as np

        numbers = np.array(list(self._seen.elements()), dtype=np.int64)
        self._compare("episode_index", None, numbers, 0, int(numbers.max(initial=-1)) + 1)
        if self._index:
            index = np.concatenate(self._index)
            self._compare("index", None, index, 0, len(index))

    def _compare(self, what: str, ref: str | None, found: "np.ndarray", start: int, count: int) -> None:
        import numpy as np

        unique, times = np.unique(found, return_counts=True)
        inside = unique[(unique >= start) & (unique < start + count)]
        missing, duplicate = count - len(inside), int((times - 1).sum())
        names: dict[str, Any] = {"episode": ref, "feature": what, "n": len(found)}
        where = f"{ref}: {what}" if ref else what
        first = f", the first is {self._first(inside, start, count)}" if missing else ""
        self.measure("missing", missing, "indices", say=f"{where}: {missing} are missing{first}", **names)
        self.measure("duplicate", duplicate, "indices", say=f"{where}: {duplicate} occur again", **names)

    @staticmethod
    def _first(inside: "np.ndarray", start: int, count: int) -> int:
        import numpy as np

        return int(np.setdiff1d(np.arange(start, start + count), inside, assume_unique=True)[0])

    def _message(self) -> str:
        missing, again = self.total("missing"), self.total("duplicate")
        if missing or again:
            return f"{missing} indices are missing, {again} occur again"
        count = len(self._seen)
        return f"{count} episode{'' if count == 1 else 's'}, every index there and once"


class DeclaredCounts(Check):
    """What the input says of itself is what was counted."""

    name = "declared_counts"
    title = "declared counts equal counted ones"
    rules: ClassVar[dict[str, Rule]] = {"difference": Rule(fail=0)}

    def compare(self, what: str, declared: object, counted: int) -> None:
        """One declared number against the counted one; no number was declared where it is ``None``."""
        self.declared += 1
        if not isinstance(declared, int) or isinstance(declared, bool):
            return
        self.resolved += 1
        say = f"{what}: {declared} declared, {counted} found"
        self.values.setdefault("counts", {})[what] = {"declared": declared, "counted": counted}
        self.measure("difference", abs(declared - counted), feature=what, n=counted, say=say)

    def _message(self) -> str:
        counts = self.values.get("counts", {})
        wrong = [what for what, pair in counts.items() if pair["declared"] != pair["counted"]]
        if wrong:
            return f"declared and counted {', '.join(wrong)} differ"
        return f"declared and counted {', '.join(counts)} agree"


class ZeroWidth(Check):
    """No dataset has rows without numbers."""

    name = "zero_width"
    title = "no dataset has rows without numbers"
    rules: ClassVar[dict[str, Rule]] = {"datasets": Rule(warn=0)}

    def _see(self, episode: EpisodeView) -> bool:
        self.measure("datasets", len(episode.zero_width), "datasets", episode=episode.ref,
                     say=f"{episode.ref}: {', '.join(episode.zero_width)}")  # fmt: skip
        return True

    def _message(self) -> str:
        count = self.total("datasets")
        return f"{count} datasets hold no number" if count else "every dataset holds numbers"


class Duplicates(Check):
    """No two episodes hold the same numbers."""

    name = "duplicates"
    title = "no two episodes hold the same numbers"
    rules: ClassVar[dict[str, Rule]] = {"repeats": Rule(warn=0)}

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        super().__init__(thresholds)
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
        repeats = first != episode.ref
        self.measure("repeats", int(repeats), episode=episode.ref, say=f"{episode.ref} equals {first}")
        return True

    def _message(self) -> str:
        count = self.total("repeats")
        return f"{count} episodes repeat another" if count else "no episode repeats another"


class NearDuplicates(Check):
    """No two episodes are nearly the same movement: drawn with 32 points, in standard deviations."""

    name = "near_duplicates"
    title = "no two episodes are nearly the same movement"
    rules: ClassVar[dict[str, Rule]] = {"nearestRms": Rule(warn=NEAR, below=True)}

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        super().__init__(thresholds)
        self._drawn: list[tuple[str, np.ndarray]] = []

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        chosen = dict.fromkeys((*episode.actions, *episode.states)) or dict.fromkeys(episode.vectors)
        if not chosen or episode.length < 2 or len(self._drawn) >= MAX_COMPARED:  # noqa: PLR2004 - a movement
            return False
        joined = np.concatenate([episode.vectors[name] for name in chosen], axis=1)
        at = np.linspace(0, episode.length - 1, POINTS).round().astype(np.int64)
        self._drawn.append((episode.ref, np.nan_to_num(joined[at].astype(np.float32))))
        return True

    def finish(self) -> None:
        """The nearest other episode of each; distances are root mean squares over points and dimensions."""
        import numpy as np

        shapes = {drawn.shape for _, drawn in self._drawn}
        if len(self._drawn) < 2 or len(shapes) != 1:  # noqa: PLR2004 - a pair
            return
        names = [ref for ref, _ in self._drawn]
        stack = np.stack([drawn for _, drawn in self._drawn])
        spread = stack.std(axis=(0, 1))
        points = (stack[:, :, spread > 0] / spread[spread > 0]).reshape(len(stack), -1)
        if not points.shape[1]:
            return
        for start in range(0, len(points), 256):
            block = points[start : start + 256]
            # Differences, not products of the wholes: near zero those have nothing but rounding left.
            for offset, one in enumerate(block):
                place = start + offset
                square = ((points - one) ** 2).mean(axis=1)
                square[place] = np.inf
                other = int(square.argmin())
                distance = float(np.sqrt(square[other]))
                say = f"{names[place]} is nearly {names[other]} (distance {distance:.4f} std)"
                self.measure("nearestRms", distance, "std", episode=names[place], n=len(points), say=say)

    def _message(self) -> str:
        near = sum(row.value < NEAR for row in self.kept.rows)
        if not self.kept.rows:
            return "one episode, or episodes that cannot be compared"
        closest = self.least("nearestRms")
        return f"{near} episodes are nearly another; the nearest two are {closest:.3f} std apart"


class StatsRecompute(Check):
    """Stored statistics are those of the numbers, and the quantiles that normalisation needs are there."""

    name = "stats_recompute"
    title = "stored min, max, mean, std, q01 and q99 are those of the numbers"
    rules: ClassVar[dict[str, Rule]] = {
        "relativeError": Rule(warn=STATS_WARN, fail=STATS_FAIL),
        "missingQuantiles": Rule(),
        "countDifference": Rule(fail=0),
    }

    def compare(
        self, ref: str | None, feature: str, stored: Mapping[str, Any], found: Mapping[str, Any]
    ) -> bool:
        """One feature's stored statistics against the recomputed ones (lists, one number per dimension)."""
        import numpy as np

        low, high = _numbers(found["min"]), _numbers(found["max"])
        scale = np.where(high > low, high - low, np.maximum(np.abs(high), 1e-6))
        worst, worst_name, compared = 0.0, "", 0
        for name in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"):
            said, real = stored.get(name), found.get(name)
            if said is None or real is None:
                continue
            numbers, ours = _numbers(said), _numbers(real)
            if numbers.shape != ours.shape:
                worst, worst_name, compared = float("inf"), f"{name} has {numbers.size} numbers", compared + 1
                continue
            both = np.isfinite(ours)
            error = np.abs(numbers - ours)[both] / scale[both]
            compared += 1
            if error.size and not float(error.max()) <= worst:
                worst, worst_name = float(error.max()), name
        if not compared:
            return False
        names: dict[str, Any] = {
            "episode": ref,
            "feature": feature,
            "n": int(_numbers(found["count"]).max(initial=0)),
        }
        where = f"{ref}: {feature}" if ref else feature
        say = f"{where}: {worst_name} differs by {worst:.3g} of the range"
        self.measure("relativeError", worst, say=say, **names)
        missing = sum(stored.get(name) is None for name in ("q01", "q99"))
        self.measure("missingQuantiles", missing, say=f"{where}: {missing} of q01 and q99 missing", **names)
        count = stored.get("count")
        if count is not None:
            off = abs(int(np.max(_numbers(count), initial=0)) - names["n"])
            self.measure("countDifference", off, "rows", say=f"{where}: count is off by {off}", **names)
        return True

    def take(self, episode: EpisodeView) -> None:
        """One episode's stored statistics; features that are no vectors stay unresolved."""
        self.declared += len(episode.stats)
        for feature, stored in episode.stats.items():
            if feature in episode.vectors:
                found = feature_stats(episode.vectors[feature])
                self.resolved += self.compare(episode.ref, feature, stored, found)

    def _message(self) -> str:
        missing = self.most("missingQuantiles")
        text = f"stored statistics are within {self.most('relativeError'):.2g} of the range"
        return f"{text}; q01 or q99 is missing" if missing else text


def _numbers(values: Any) -> "np.ndarray":
    """Numbers as a flat float64 array; ``None`` becomes NaN."""
    import numpy as np

    flat = values if isinstance(values, (list, tuple)) else [values]
    while flat and isinstance(flat[0], (list, tuple)):
        flat = [item for part in flat for item in part]
    return np.array([np.nan if value is None else float(value) for value in flat], dtype=np.float64)


EPISODE_CHECKS: tuple[type[Check], ...] = (
    IndexIntegrity, LengthOutlier, ZeroWidth, Duplicates, NearDuplicates, StatsRecompute,
)  # fmt: skip
