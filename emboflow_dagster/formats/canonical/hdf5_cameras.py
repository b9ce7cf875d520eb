"""Pictures in HDF5 files: raw arrays, or encoded ones as rows of bytes."""

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical.hdf5_plain import parts
from emboflow_dagster.formats.canonical.names import camera_name
from emboflow_dagster.formats.canonical.schema import Camera
from emboflow_dagster.formats.hdf5_layout import Demo, Field

if TYPE_CHECKING:
    import h5py
    import numpy as np

#: Pixels of one camera and episode that are still encoded.
MAX_VIDEO_PIXELS = 2_000_000_000


def cameras_of(
    file: "h5py.File", demo: Demo, length: int, mapping: Mapping[str, str] | None
) -> dict[str, Camera]:
    """The demonstration's cameras, or those that a mapping names; one of another length is none."""
    found: dict[str, Camera] = {}
    named = {
        camera_name(feature): demo.fields[parts(dataset)[0]]
        for dataset, feature in (mapping or {}).items()
        if is_camera(demo, dataset)
    }
    for name, item in (named or demo.cameras).items():
        if item.foreign or item.shape[0] != length:
            continue
        dataset = file[item.path]
        first = picture_at(dataset, item, 0)
        if first is None or first.shape[0] * first.shape[1] * length > MAX_VIDEO_PIXELS:
            continue
        shape = (int(first.shape[0]), int(first.shape[1]), 3)
        found[name] = Camera(shape, lambda d=dataset, i=item: _pictures(d, i), item.path)
    return found


def is_camera(demo: Demo, dataset: str) -> bool:
    """Whether a mapping's dataset holds pictures: raw ones, or encoded ones below ``images``."""
    item = demo.fields.get(parts(dataset)[0])
    if item is None or item.dtype != "uint8":
        return False
    raw = len(item.shape) == 4 and item.shape[-1] in (1, 3, 4)  # noqa: PLR2004 - frame, row, column, channel
    return raw or (len(item.shape) == 2 and "image" in item.path)  # noqa: PLR2004 - frame, bytes


def _pictures(dataset: Any, item: Field) -> Iterator["np.ndarray"]:
    """Every picture in order; an undecodable one ends the sequence, and the writer sees that it is short."""
    for index in range(item.shape[0]):
        picture = picture_at(dataset, item, index)
        if picture is None:
            return
        yield picture


def picture_at(dataset: Any, item: Field, index: int) -> "np.ndarray | None":
    """One picture of a raw or encoded image dataset as uint8 RGB; ``None`` where it cannot be decoded."""
    import numpy as np

    data = np.asarray(dataset[index])
    if len(item.shape) == 4:  # noqa: PLR2004 - frame, row, column, channel
        rgb = data[..., :3] if item.shape[-1] >= 3 else np.repeat(data, 3, axis=-1)  # noqa: PLR2004
        return np.ascontiguousarray(rgb)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None
