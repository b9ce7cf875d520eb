"""Pictures in HDF5 files: raw arrays, or encoded ones as rows of bytes."""

import io
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical.hdf5_plain import parts
from emboflow_dagster.formats.canonical.names import camera_name
from emboflow_dagster.formats.canonical.schema import Camera
from emboflow_dagster.formats.hdf5_layout import Demo, Field, raw_pictures

if TYPE_CHECKING:
    import h5py
    import numpy as np

#: Pixels of one camera and episode that are still encoded.
MAX_VIDEO_PIXELS = 2_000_000_000
#: Bytes of pictures that are read at once.
BLOCK_BYTES = 4 << 20
#: Bytes of one picture's chunks that stay decompressed until the pictures behind it are read.
MAX_CHUNK_BYTES = 256 << 20


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
        if item.closed or item.shape[0] != length:
            continue
        dataset = _opened(file, item)
        first = picture_at(dataset, item, 0)
        if first is None or first.shape[0] * first.shape[1] * length > MAX_VIDEO_PIXELS:
            continue
        shape = (int(first.shape[0]), int(first.shape[1]), 3)
        found[name] = Camera(shape, lambda d=dataset, i=item: _pictures(d, i), item.path)
    return found


def is_camera(demo: Demo, dataset: str) -> bool:
    """Whether a mapping's dataset holds pictures: raw ones, or encoded ones below ``images``."""
    item = demo.fields.get(parts(dataset)[0])
    if item is None:
        return False
    encoded = "image" in item.path and (
        (item.dtype == "uint8" and len(item.shape) == 2)  # noqa: PLR2004 - frame, bytes
        or (item.dtype == "object" and len(item.shape) == 1)
    )
    return bool(raw_pictures(item)) or encoded


def _opened(file: "h5py.File", item: Field) -> Any:
    """The dataset, with a cache for all chunks that a picture touches.

    By default it is a few MiB: of larger chunks each picture would be decompressed anew, with all the others.
    """
    import h5py
    from h5py import h5d, h5p  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    path = item.path.encode()
    dataset = h5py.Dataset(h5d.open(file.id, path))
    if not dataset.chunks:
        return dataset
    needed = _span(dataset)
    slots, default, _ = dataset.id.get_access_plist().get_chunk_cache()
    if not default < needed <= MAX_CHUNK_BYTES:
        return dataset
    access = h5p.create(h5p.DATASET_ACCESS)
    access.set_chunk_cache(slots, needed, 1.0)
    # The cache is that of the first who opens it.
    dataset.id.close()
    return h5py.Dataset(h5d.open(file.id, path, access))


def _span(dataset: Any) -> int:
    """Bytes of the chunks that hold one picture, decompressed."""
    chunks = dataset.chunks
    count = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape[1:], chunks[1:], strict=True))
    return count * math.prod(chunks) * dataset.dtype.itemsize


def _pictures(dataset: Any, item: Field) -> Iterator["np.ndarray"]:
    """Every picture in order; an undecodable one ends the sequence, and the writer sees that it is short."""
    size = math.prod(item.shape[1:]) * dataset.dtype.itemsize
    # Of rows of any length, as vlen ones are, nobody knows how much a block would be.
    rows = 1 if dataset.dtype.hasobject else max(1, BLOCK_BYTES // max(1, size))
    for start in range(0, item.shape[0], rows):
        try:
            block = dataset[start : start + rows]
        except OSError:  # cut off, or damaged
            return
        for data in block:
            picture = _rgb(data, item)
            if picture is None:
                return
            yield picture


def picture_at(dataset: Any, item: Field, index: int) -> "np.ndarray | None":
    """One picture of a raw or encoded image dataset as uint8 RGB; ``None`` where it cannot be decoded."""
    try:
        data = dataset[index]
    except OSError:  # cut off, or damaged
        return None
    return _rgb(data, item)


def _rgb(data: Any, item: Field) -> "np.ndarray | None":
    import numpy as np

    data = np.asarray(data)
    axes = raw_pictures(item)
    if axes:
        if axes == "chw":
            data = np.moveaxis(data, 0, -1)
        elif axes == "hw":
            data = data[..., None]
        rgb = data[..., :3] if data.shape[-1] >= 3 else np.repeat(data, 3, axis=-1)  # noqa: PLR2004
        return np.ascontiguousarray(rgb)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None
