"""The grid that streams are sampled on: the last sample at or before each grid time, never one from later."""

from typing import TYPE_CHECKING, Final

from emboflow_dagster.errors import ErrorKind, LimitError

if TYPE_CHECKING:
    import numpy as np

NS: Final = 1_000_000_000
MAX_FRAMES: Final = 20_000_000


def grid_of(start: int, end: int, fps: float) -> "np.ndarray":
    """int64 times in ns, ``1 / fps`` s apart, from `start` to at most `end` (both in ns).

    Raises:
        LimitError: More than 20 million frames.
    """
    import numpy as np

    # Of a span that is a whole number of frames, to the nearest ns, rounding must not lose the last one.
    frames = int((end - start + 0.5) * fps / NS) + 1
    if frames > MAX_FRAMES:
        raise LimitError(
            f"{frames} frames, at most {MAX_FRAMES}", kind=ErrorKind.LIMIT_SIZE, hint="lower fps"
        )
    return start + np.minimum(np.round(np.arange(frames) * (NS / fps)).astype(np.int64), end - start)


def held(stamps: "np.ndarray", grid: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
    """Which sample each grid time holds, and how old it is.

    Args:
        stamps: int64 ``(n,)`` ns, not decreasing, the first not after the grid's first.
        grid: int64 ``(frames,)`` ns.

    Returns:
        Index into `stamps` (of equal stamps the last) and age in ns, both int64 ``(frames,)``.
    """
    import numpy as np

    index = np.searchsorted(stamps, grid, side="right") - 1
    return index, grid - stamps[index]
