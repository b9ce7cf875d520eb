"""Pictures of RLDS steps: PNG and JPEG, raw bytes (also packed with zlib), or one number a byte."""

import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.formats.canonical.schema import Camera
from emboflow_dagster.formats.pictures import DEEP

if TYPE_CHECKING:
    import numpy as np

_ENCODED = (b"\x89PNG", b"\xff\xd8\xff")
DEPTH: Final = "pictures of more than 8 bits are depth and no video"
Shape = tuple[int, int, int]


def pictures_of(
    kind: str | None,
    values: Sequence[Any],
    length: int,
    described: Mapping[str, Any] | None,
    path: str,
    *,
    wanted: bool,
) -> list[Camera] | str | None:
    """The pictures of an episode.

    Args:
        kind: ``bytes_list``, ``int64_list``, ``float_list``.
        values: All of them.
        length: Steps.
        described: The feature's ``dtype`` and ``shape``.
        path: Where it stands in the record.
        wanted: Whether a camera is made of pictures.

    Returns:
        One camera, none where they are not wanted; ``None`` where these are no pictures; :data:`DEPTH`, or
        why they cannot be read.
    """
    shape = _shape(described)
    if kind == "int64_list" and shape is not None and len(values) == length * math.prod(shape):
        return [_of_numbers(values, shape, path)] if wanted else []
    if kind != "bytes_list" or len(values) != length:
        return None
    if shape is None and not values[0].startswith(_ENCODED):
        return None
    if not wanted:
        return []
    first = _picture(values[0], shape)
    if isinstance(first, str):
        return first
    return [Camera(_rgb(first), partial(_pictures, tuple(values), shape), path)]


def _shape(described: Mapping[str, Any] | None) -> Shape | None:
    """Height, width and channels of a feature that is described as pictures of bytes; ``None`` for others."""
    if described is None or described.get("dtype") != "uint8":
        return None
    shape = described.get("shape") or ()
    if len(shape) != 3 or shape[2] not in (1, 3, 4):  # noqa: PLR2004 - height, width, channels
        return None
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _of_numbers(values: Sequence[int], shape: Shape, path: str) -> Camera:
    """A camera of pictures that stand as one number a byte, step after step."""
    import numpy as np

    size = math.prod(shape)
    pixels = np.asarray(values, dtype=np.int64).astype(np.uint8)
    steps = [pixels[start : start + size].tobytes() for start in range(0, len(pixels), size)]
    return Camera((shape[0], shape[1], 3), partial(_pictures, tuple(steps), shape), path)


def _rgb(picture: "np.ndarray") -> Shape:
    return (int(picture.shape[0]), int(picture.shape[1]), 3)


def _pictures(values: Sequence[bytes], shape: Shape | None) -> Iterator["np.ndarray"]:
    """Every picture in order; an undecodable one ends the sequence, and the writer sees that it is short."""
    for data in values:
        picture = _picture(data, shape)
        if isinstance(picture, str):
            return
        yield picture


def _picture(data: bytes, shape: Shape | None) -> "np.ndarray | str":
    """uint8 RGB ``(height, width, 3)``, or why there is none."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    if shape is not None and not data.startswith(_ENCODED):
        size = math.prod(shape)
        if len(data) != size:
            with suppress(zlib.error):
                data = zlib.decompressobj().decompress(data, size + 1)
        if len(data) == size:
            return _raw(data, shape)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return DEPTH if image.mode in DEEP else np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return "its first picture cannot be decoded"


def _raw(data: bytes, shape: Shape) -> "np.ndarray":
    import numpy as np

    pixels = np.frombuffer(data, np.uint8).reshape(shape)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if shape[2] == 1 else pixels[:, :, :3])
