"""Per-feature statistics, exact over one episode and mergeable over many.

Only finite numbers count: one NaN must not erase what the others say; how many were not finite is the quality
report's business. Quantiles of single episodes are exact; merging gives none, because quantiles of parts do
not make the quantile of the whole.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STAT_NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)


def feature_stats(values: "np.ndarray") -> dict[str, list[Any]]:
    """Statistics of each dimension of a ``(frames, dim)`` array.

    Returns:
        ``min max mean std q01 q10 q50 q90 q99`` as lists of float (population std; ``None`` for a dimension
        without a finite number) and ``count``, the finite numbers per dimension.
    """
    import numpy as np

    columns = np.asarray(values, dtype=np.float64)
    if columns.size and np.isfinite(columns).all():
        return _all_finite(columns, np.asarray(values))
    out: dict[str, list[Any]] = {name: [] for name in STAT_NAMES}
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


def _all_finite(columns: "np.ndarray", values: "np.ndarray") -> dict[str, list[Any]]:
    """All dimensions at once: a call of numpy costs more than the numbers of a short episode."""
    import numpy as np

    rows = np.ascontiguousarray(columns.T)
    mean = rows.mean(axis=1, keepdims=True)
    quantiles = _quantiles(np.ascontiguousarray(values.T) if values.dtype == np.float32 else rows)
    return {
        "min": rows.min(axis=1).tolist(),
        "max": rows.max(axis=1).tolist(),
        "mean": mean[:, 0].tolist(),
        "std": rows.std(axis=1, mean=mean).tolist(),
        "count": [columns.shape[0]] * columns.shape[1],
        **{name: quantiles[place].tolist() for place, name in enumerate(QUANTILES)},
    }


def _quantiles(rows: "np.ndarray") -> "np.ndarray":
    """Those of `QUANTILES` of each row, as ``np.quantile`` gives them: float64 ``(quantiles, rows)``.

    Sorted as float32, what was float32 takes a ninth of the time.
    """
    import numpy as np

    ranked = np.sort(rows, axis=1)
    places = (rows.shape[1] - 1) * np.array(list(QUANTILES.values()))
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, rows.shape[1] - 1)
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
        for dim, count in enumerate(part["count"]):
            if count:
                _merge_dim(total, part, dim, count)
    return total


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
