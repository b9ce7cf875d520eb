"""Statistics of a LeRobot dataset: what a policy's inputs are normalised with.

Vectors: the version's own numbers, and quantiles over all frames, which are exact. Pictures: histograms of
whole numbers over sampled frames and pixels, as LeRobot samples them; no sum of floats is in them, so every
machine gets the same bytes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import FRAMES_FILE
from emboflow_dagster.formats.canonical.stats import QUANTILES

if TYPE_CHECKING:
    import numpy as np

LEVELS: Final = 256
#: Frames of one episode that are looked at: at least so many, then ``n ** 0.75``.
MIN_FRAMES: Final = 100
#: Pictures larger than this are thinned out to about 150 pixels.
LARGE: Final = 300
THINNED: Final = 150
#: Numbers that are held at once for quantiles.
BLOCK_NUMBERS: Final = 32_000_000


def vector_stats(dataset: CanonicalDataset, feature: str) -> dict[str, list[Any]]:
    """``min max mean std count q01 ... q99`` of a feature over the whole dataset, one number a dimension."""
    told = dataset.stats()[feature]
    out: dict[str, list[Any]] = {name: numbers(told[name]) for name in ("min", "max", "mean", "std")}
    out["count"] = [dataset.manifest.frames]
    dims = len(told["min"])
    step = max(1, BLOCK_NUMBERS // max(1, dataset.manifest.frames))
    found: list[list[float]] = []
    for start in range(0, dims, step):
        found += _quantiles(dataset, feature, range(start, min(dims, start + step)))
    for place, name in enumerate(QUANTILES):
        out[name] = [values[place] for values in found]
    return out


def numbers(values: Iterable[Any]) -> list[float]:
    """Floats; a dimension without a finite number has NaN."""
    return [math.nan if value is None else float(value) for value in values]


def _quantiles(dataset: CanonicalDataset, feature: str, dims: range) -> list[list[float]]:
    import numpy as np
    import pyarrow.parquet as pq

    parts: list[np.ndarray] = []
    with dataset.path(FRAMES_FILE).open("rb") as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=[feature], batch_size=16_384):
            column = batch.column(0)
            rows = np.asarray(column.flatten()).reshape(len(column), -1)
            parts.append(rows[:, dims.start : dims.stop].copy())
    columns = np.concatenate(parts).astype(np.float64)
    out: list[list[float]] = []
    for place in range(columns.shape[1]):
        finite = columns[:, place][np.isfinite(columns[:, place])]
        values = np.quantile(finite, list(QUANTILES.values())) if finite.size else [math.nan] * len(QUANTILES)
        out.append([float(value) for value in values])
    return out


@dataclass(slots=True)
class PictureStats:
    """Counts of every level of every channel; adds up over episodes."""

    counts: "list[np.ndarray]" = field(default_factory=list)
    frames: int = 0

    def add(self, picture: "np.ndarray") -> None:
        """Count one picture, uint8 ``(height, width, 3)``."""
        import numpy as np

        height, width = picture.shape[:2]
        if max(width, height) >= LARGE:
            factor = max(width, height) // THINNED
            picture = picture[::factor, ::factor]
        if not self.counts:
            self.counts = [np.zeros(LEVELS, np.int64) for _ in range(picture.shape[2])]
        for channel in range(picture.shape[2]):
            self.counts[channel] += np.bincount(picture[:, :, channel].reshape(-1), minlength=LEVELS)
        self.frames += 1

    def merge(self, other: "PictureStats") -> None:
        """Count what another one counted."""
        if not self.counts:
            self.counts = [counts.copy() for counts in other.counts]
        else:
            self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.frames += other.frames

    def to_json(self) -> dict[str, Any]:
        """LeRobot's form: levels from 0 to 1, each statistic as ``(3, 1, 1)``, ``count`` in frames."""
        found = [_of_histogram([int(n) for n in counts]) for counts in self.counts]
        out: dict[str, Any] = {name: [[[values[name]]] for values in found] for name in found[0]}
        return {**out, "count": [self.frames]}


def _of_histogram(counts: list[int]) -> dict[str, float]:
    total = sum(counts)
    first = sum(level * n for level, n in enumerate(counts))
    second = sum(level * level * n for level, n in enumerate(counts))
    there = [level for level, n in enumerate(counts) if n]
    top = LEVELS - 1
    return {
        "min": there[0] / top,
        "max": there[-1] / top,
        "mean": first / (total * top),
        # Whole numbers up to the root: no digit is lost to a difference of large floats.
        "std": math.sqrt((total * second - first * first) / (total * total)) / top,
        **{name: _quantile(counts, total, share) / top for name, share in QUANTILES.items()},
    }


def _quantile(counts: list[int], total: int, share: float) -> float:
    """As ``np.quantile`` of the levels themselves."""
    at = share * (total - 1)
    low = math.floor(at)
    below, above = _level(counts, low), _level(counts, min(low + 1, total - 1))
    return below + (above - below) * (at - low)


def _level(counts: list[int], place: int) -> int:
    seen = 0
    for level, n in enumerate(counts):
        seen += n
        if place < seen:
            return level
    return LEVELS - 1


def sampled(length: int) -> frozenset[int]:
    """The frames of an episode that are looked at."""
    if length <= MIN_FRAMES:
        return frozenset(range(length))
    many = max(MIN_FRAMES, math.isqrt(math.isqrt(length**3)))
    return frozenset((place * (length - 1) + (many - 1) // 2) // (many - 1) for place in range(many))


def episode_stats(row: Mapping[str, Any], feature: str, length: int) -> dict[str, list[Any]]:
    """The statistics of a feature over one episode, as `episodes.parquet` has them; ``count`` in frames."""
    names = ("min", "max", "mean", "std", *QUANTILES)
    return {name: numbers(row[f"stats/{feature}/{name}"]) for name in names} | {"count": [length]}
