"""Episodes that a node computed (``emboflow-episodes/1``) as previews see them: vectors and cameras."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.from_arrays import STAMPS, load_arrays, rows
from emboflow_dagster.formats.previews.scene import Panel, Scene, video_shots

if TYPE_CHECKING:
    import numpy as np

_NS = 1e9


@dataclass(slots=True)
class Shown:
    """One episode.

    Attributes:
        title: What it is called.
        panels: Its vectors, those first that tell most of where the robot is.
        scene: Cameras and vectors over the same stretch of time.
        videos: Camera to its file.
        note: Why there is nothing to see.
    """

    title: str
    panels: list[Panel] = field(default_factory=list)
    scene: Scene | None = None
    videos: dict[str, Path] = field(default_factory=dict)
    note: str | None = None


def shown(path: Path) -> Iterator[Shown]:
    """Every episode of the folder in order; arrays that cannot be read become a note.

    Time is that of the episode's stamps, else of its rate; where it has neither it is counted in frames.

    Raises:
        InvalidInputError: The list of episodes is damaged, or names what is not there.
    """
    for row in rows(path):
        try:
            arrays = load_arrays(row["file"])
        except InvalidInputError as error:
            yield Shown(row["ref"], note=error.message)
            continue
        stamps = arrays.pop(STAMPS, None)
        vectors = {
            name: values.reshape(len(values), -1)
            for name, values in arrays.items()
            if values.ndim and values.size and values.dtype.kind in "biuf"
        }
        length = max(map(len, vectors.values()), default=0)
        seconds, unit = _time(length, row.get("fps"), stamps)
        panels: list[Panel] = [
            (name, seconds[: len(values)], values, _names(row, name, values.shape[1]))
            for name, values in sorted(vectors.items(), key=lambda item: _place(item[0]))
        ]
        task = f"{row['task']}, " if row.get("task") else ""
        title = f"{row['ref']} ({task}{length} frames)"
        duration = float(seconds[-1] - seconds[0]) if length else 1.0
        scene = Scene(row["ref"], max(duration, 1e-3), panels=panels, unit=unit)
        scene.cameras = {camera: video_shots(file) for camera, file in row["videos"].items()}
        yield Shown(title, panels, scene, dict(row["videos"]), None if length else "holds no numbers")


def _time(length: int, fps: Any, stamps: "np.ndarray | None") -> "tuple[np.ndarray, str]":
    import numpy as np

    if stamps is not None and stamps.dtype.kind in "iu" and stamps.shape == (length,) and length:
        whole = stamps.astype(np.int64)
        return (whole - whole[0]) / _NS, "s"
    rate = float(fps) if isinstance(fps, int | float) and fps > 0 else None
    return np.arange(length) / (rate or 1.0), "s" if rate else "frames"


def _place(name: str) -> tuple[bool, bool, str]:
    return ("state" not in name, not name.startswith("action"), name)


def _names(row: Mapping[str, Any], feature: str, width: int) -> list[str]:
    given = (row.get("names") or {}).get(feature)
    if isinstance(given, list) and len(given) == width:
        return [str(name) for name in given]
    return [str(number) for number in range(width)]
