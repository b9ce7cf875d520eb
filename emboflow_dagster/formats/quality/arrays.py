"""Episodes that a node computed (``emboflow-episodes/1``) as the checks see them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.from_arrays import STAMPS, kind_of, load_arrays, rows
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.video import watch
from emboflow_dagster.formats.quality.view import EpisodeView

#: What cannot be asked of such a folder: it declares no count, and keeps no index, statistics or topic.
NOT_ARRAYS: Final = frozenset(
    ("declared_counts", "timestamp_grid", "index_integrity", "stats_recompute", "empty_topics", "zero_width")
) | {"sync_age", "video_exists"}


def has_videos(path: Path) -> bool:
    """Whether any episode of the folder has pictures."""
    return any(row["videos"] for row in rows(path))


def feed_arrays(path: Path, checks: Mapping[str, Check], fps: float | None, *, decode: bool) -> None:
    """Give every check what each episode of the folder holds for it.

    Args:
        path: The folder.
        checks: By name.
        fps: Rate of episodes that say none.
        decode: Whether videos are decoded.

    Raises:
        InvalidInputError: The list of episodes is damaged, or names what is not there.
    """
    for row in rows(path):
        view = _view(row, fps, decode=decode)
        for check in checks.values():
            check.take(view)


def _view(row: Mapping[str, Any], fps: float | None, *, decode: bool) -> EpisodeView:
    ref = row["ref"]
    try:
        arrays = load_arrays(row["file"])
    except InvalidInputError:
        return EpisodeView(ref=ref, length=0, vectors={}, unresolved=(row["file"].name,))
    stamps = arrays.pop(STAMPS, None)
    found = {name: values for name, values in arrays.items() if values.ndim and values.dtype.kind in "biuf"}
    lengths = Counter(len(values) for values in found.values())
    length = lengths.most_common(1)[0][0] if lengths else 0
    whole = {name: values for name, values in found.items() if len(values) == length and values.size}
    vectors = {name: values.reshape(length, -1) for name, values in whole.items()}
    fits = stamps is not None and stamps.dtype.kind in "iu" and stamps.shape == (length,)
    rate = row.get("fps")
    own = float(rate) if isinstance(rate, int | float) and rate > 0 else fps
    return EpisodeView(
        ref=ref,
        length=length,
        vectors=vectors,
        actions=tuple(name for name in vectors if kind_of(name) == "action"),
        states=tuple(name for name in vectors if kind_of(name) == "state"),
        stamps_ns=stamps.astype("int64") if stamps is not None and fits else None,
        fps=own,
        unresolved=(
            *(name for name in arrays if name not in vectors),
            *((STAMPS,) if stamps is not None and not fits else ()),
        ),
        videos={
            camera: watch(file, file.name, rows=length, fps=own) for camera, file in row["videos"].items()
        }
        if decode
        else {},
    )
