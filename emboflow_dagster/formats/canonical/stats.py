"""Per-feature statistics, exact over one episode and mergeable over many.

Only finite numbers count: one NaN must not erase what the others say; how many were not finite is the quality
report's business. Quantiles of single episodes are exact; merging gives none, because quantiles of parts do
not make the quantile of the whole.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STAT_NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)

Stats = dict[str, list[Any]]


def feature_stats(values: "np.ndarray") -> Stats:
    """Statistics of each dimension of a ``(frames, dim)`` array.

    Returns:
        ``min max mean std q01 q10 q50 q90 q99`` as lists of float (population std; ``None`` for a dimension
        without a finite number) and ``count``, the finite numbers per dimension.
    """
    return episode_stats({"": values})[""]


def episode_stats(features: "Mapping[str, np.ndarray]") -> dict[str, Stats]:
    """Those of every feature of an episode, each as :func:`feature_stats` gives them.

    All dimensions at once: a call of numpy costs more than the numbers of a short episode.
    """
    import numpy as np

    alike: dict[Any, list[str]] = {}
    for name, values in features.items():
        alike.setdefault((len(values), np.asarray(values).dtype), []).append(name)
    found: dict[str, Stats] = {}
    for (frames, kind), names in alike.items():
        widths = [features[name].shape[1] for name in names]
        rows = np.empty((sum(widths), frames), kind)
        edges = [0, *accumulate(widths)]
        for name, (start, end) in zip(names, pairwise(edges), strict=True):
            rows[start:end] = features[name].T
        made = _of_rows(rows) if rows.size else None
        for name, (start, end) in zip(names, pairwise(edges), strict=True):
            part = None if made is None else {key: numbers[start:end] for key, numbers in made.items()}
            if part is None or not all(map(isfinite, part["min"])) or not all(map(isfinite, part["max"])):
                part = _of_finite(features[name])
            found[name] = part
    return {name: found[name] for name in features}


def _of_finite(values: "np.ndarray") -> Stats:
    """One dimension after the other, of the finite numbers only."""
    import numpy as np

    columns = np.asarray(values, dtype=np.float64)
    out: Stats = {name: [] for name in STAT_NAMES}
    for dim in range(columns.shape[1]):
        column = columns[:, dim]
        finite = column[np.isfinite(column)]
        out["count"].append(int(finite.size))
        if finite.size == 0:
            for name in STAT_NAMES:
                if name != "count":
                    out[name].append(None)
            continue
        out["min"].append(float(finite.min()))
        out["max"].append(float(finite.max()))
        out["mean"].append(float(finite.mean()))
        out["std"].append(float(finite.std()))
        for (name, _), quantile in zip(
            QUANTILES.items(), np.quantile(finite, list(QUANTILES.values())), strict=True
        ):
            out[name].append(float(quantile))
    return out


def _of_rows(ranked: "np.ndarray") -> Stats:
    """Of a ``(dim, frames)`` array, which is sorted in place; of what is not finite a bound is not.

    Sorted as float32, what was float32 takes a ninth of the time.
    """
    import numpy as np

    rows = ranked.astype(np.float64)
    with np.errstate(invalid="ignore"):
        low, high = np.minimum.reduce(rows, axis=1), np.maximum.reduce(rows, axis=1)
        mean = np.add.reduce(rows, axis=1) / rows.shape[1]
        rows -= mean[:, np.newaxis]
        np.multiply(rows, rows, out=rows)
        # numpy's own steps of a standard deviation, without its second array.
        std = np.sqrt(np.add.reduce(rows, axis=1) / rows.shape[1])
        ranked.sort(axis=1)
        quantiles = _quantiles(ranked)
    return {
        "min": low.tolist(),
        "max": high.tolist(),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "count": [rows.shape[1]] * rows.shape[0],
        **{name: quantiles[place].tolist() for place, name in enumerate(QUANTILES)},
    }


def _quantiles(ranked: "np.ndarray") -> "np.ndarray":
    """`QUANTILES` of each sorted row, as ``np.quantile`` gives them: float64 ``(quantiles, rows)``."""
    import numpy as np

    frames = ranked.shape[1]
    places = (frames - 1) * np.array(list(QUANTILES.values()))
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, frames - 1)
    low, high = (ranked[:, place].T.astype(np.float64) for place in (below, above))
    part = (places - below)[:, np.newaxis]
    step = high - low
    # From the nearer of the two, so that rounding never goes beyond it.
    return np.where(part < 0.5, low + step * part, high - step * (1 - part))  # noqa: PLR2004


def merge_stats(parts: Iterable[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """``min max mean std count`` of the union of several parts (Chan's parallel variance)."""
    total: dict[str, list[Any]] = {}
    for part in parts:
        if not total:
            total = {name: list(part[name]) for name in ("min", "max", "mean", "std", "count")}
            continue
        if all(total["count"]) and all(part["count"]):
            _merge_all(total, part)
            continue
        for dim, count in enumerate(part["count"]):
            if count:
                _merge_dim(total, part, dim, count)
    return total


def _merge_all(total: dict[str, list[Any]], part: Mapping[str, list[Any]]) -> None:
    """:func:`_merge_dim` of every dimension where each has numbers on both sides: the same steps in one pass.

    With Python's numbers: numpy's powers may differ from them in the last bit, and that is in packages.
    """
    means, stds, counts = [], [], []
    have_and_new = [total[name] for name in ("count", "mean", "std")] + [
        part[name] for name in ("count", "mean", "std")
    ]
    for have, mean, std, count, other, spread in zip(*have_and_new, strict=True):
        both = have + count
        delta = other - mean
        squares = std**2 * have + spread**2 * count
        stds.append(((squares + delta**2 * have * count / both) / both) ** 0.5)
        means.append(mean + delta * count / both)
        counts.append(both)
    low, high = map(min, total["min"], part["min"]), map(max, total["max"], part["max"])
    total |= {"min": list(low), "max": list(high), "mean": means, "std": stds, "count": counts}


def _merge_dim(total: dict[str, list[Any]], part: Mapping[str, list[Any]], dim: int, count: int) -> None:
    have = total["count"][dim]
    if have == 0:
        for name in ("min", "max", "mean", "std", "count"):
            total[name][dim] = part[name][dim]
        return
    both = have + count
    mean, std = total["mean"][dim], total["std"][dim]
    delta = part["mean"][dim] - mean
    squares = std**2 * have + part["std"][dim] ** 2 * count
    total["std"][dim] = ((squares + delta**2 * have * count / both) / both) ** 0.5
    total["mean"][dim] = mean + delta * count / both
    total["min"][dim] = min(total["min"][dim], part["min"][dim])
    total["max"][dim] = max(total["max"][dim], part["max"][dim])
    total["count"][dim] = both
