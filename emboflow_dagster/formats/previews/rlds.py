"""RLDS episodes as previews see them. They hold no time: it is counted in frames."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emboflow_dagster.formats.canonical.from_rlds import episodes
from emboflow_dagster.formats.canonical.schema import Camera, Episode
from emboflow_dagster.formats.previews.arrays import Shown
from emboflow_dagster.formats.previews.scene import Panel, Scene, indexed_shots

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def rlds_shown(path: Path) -> Iterator[Shown]:
    """Every record that holds an episode, in order; memory holds one."""
    for number, episode in enumerate(episodes(path)):
        length = episode.length
        yield _shown(f"record {number} ({episode.task or 'no task'}, {length} frames)", episode, length)


def _shown(title: str, episode: Episode, length: int) -> Shown:
    import numpy as np

    kinds = {name: spec.kind for name, spec in episode.specs.items()}
    order = [name for kind in ("state", "action") for name in episode.features if kinds[name] == kind]
    panels: list[Panel] = [
        (name, np.arange(length, dtype=np.float64), episode.features[name], episode.specs[name].names)
        for name in order or episode.features
    ]
    scene = Scene(title, max(1.0, length), panels=panels, unit="frames")
    for name, camera in episode.cameras.items():
        scene.cameras[name] = indexed_shots(partial(_at, list(_pictures(camera))), length, 1.0)
    return Shown(title, panels, scene)


def _pictures(camera: Camera) -> "Iterator[Picture]":
    from PIL import Image

    return map(Image.fromarray, camera.frames())


def _at(pictures: "list[Picture]", index: int) -> "Picture | None":
    return pictures[index] if index < len(pictures) else None
