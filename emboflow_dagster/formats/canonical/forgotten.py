"""Whether arrays that were just read are a forgotten episode, by their numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from emboflow_dagster.blobs.forgotten_trace import Trace, trace_of, traced
from emboflow_dagster.formats.canonical.stats import episode_stats

if TYPE_CHECKING:
    import numpy as np

_MATRIX: Final = 2


def looks_forgotten(length: int, features: "Mapping[str, np.ndarray]", traces: Sequence[Trace]) -> bool:
    """Whether ``(length, dim)`` arrays have the numbers of one of the traces.

    Statistics are taken of those alone that are as long as one of the traces.
    """
    known = [trace for trace in traces if trace.length == length]
    if not known or not features:
        return False
    import numpy as np

    # Features are kept in 32 bits, and numbers beyond those are infinite there.
    with np.errstate(over="ignore"):
        rows = {name: np.asarray(values).astype(np.float32) for name, values in features.items()}
    return traced(trace_of(length, episode_stats(rows)), known)


def arrays_forgotten(arrays: "Mapping[str, np.ndarray]", traces: Sequence[Trace]) -> bool:
    """Whether the arrays of a demonstration are: the ``(frames, dim)`` ones of numbers are compared."""
    if not traces:
        return False
    rows = {name: a for name, a in arrays.items() if a.ndim == _MATRIX and a.dtype.kind in "fiu"}
    lengths = {len(values) for values in rows.values()}
    return len(lengths) == 1 and looks_forgotten(lengths.pop(), rows, traces)
