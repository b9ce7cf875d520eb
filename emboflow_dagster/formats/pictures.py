"""Pictures out of a recording's image topics, as PNG or JPEG bytes for previews."""

from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.decoding import UndecodableError
from emboflow_dagster.formats.detect import signature
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.messages import decoded_messages, short_name
from emboflow_dagster.formats.report import ProbeWarning
from emboflow_dagster.formats.video_messages import VIDEO_TYPE, Reel, is_video_type, png

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PictureFile

#: Pillow's modes of depth pictures; as RGB everything above 255 would be white.
DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})

IMAGE_TYPES = frozenset({"CompressedImage", "Image", "RawImage", VIDEO_TYPE})

# ROS encoding: bytes per pixel, Pillow's mode, Pillow's raw mode
_LAYOUTS: dict[str, tuple[int, str, str]] = {
    "rgb8": (3, "RGB", "RGB"),
    "bgr8": (3, "RGB", "BGR"),
    "8UC3": (3, "RGB", "BGR"),
    "rgba8": (4, "RGBA", "RGBA"),
    "bgra8": (4, "RGBA", "BGRA"),
    "mono8": (1, "L", "L"),
    "8UC1": (1, "L", "L"),
    "mono16": (2, "I;16", "I;16"),
    "16UC1": (2, "I;16", "I;16"),
}
_DEPTH_HEADER_BYTES = 12
MAX_PIXELS = 64 * 1024 * 1024


def is_image_type(type_name: str) -> bool:
    """Whether messages of this type are pictures that :func:`iter_images` reads."""
    return short_name(type_name) in IMAGE_TYPES


def iter_images(
    path: Path,
    topic: str,
    limit: int,
    *,
    every: int = 1,
    problems: list[ProbeWarning] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """(stamp in ns, PNG or JPEG bytes) of the first ``limit`` pictures of a topic.

    JPEG and PNG are given as recorded; raw pictures (rgb8, bgr8, rgba8, bgra8, mono8, mono16) and those of a
    video become PNG.

    Args:
        path: A recording's file or folder.
        topic: A topic of a type of :data:`IMAGE_TYPES`.
        limit: At most so many.
        every: Take each n-th picture only.
        problems: Gets a warning when pictures cannot be decoded; nothing is raised for them.

    Raises:
        OSError: A file cannot be read.
    """
    if limit <= 0:
        return
    given = 0
    reel: Reel | None = None
    for index, (message, decoded) in enumerate(
        decoded_messages(path, frozenset({topic}), frozenset(), problems)
    ):
        film = is_video_type(message.connection.type)
        if index % every and not film:
            continue
        try:
            if film:
                reel = reel or Reel()
                frame = reel.add(decoded, packet_of(decoded))
                if index % every or frame is None:
                    continue
                picture = png(frame)
            else:
                picture = _picture(decoded)
        except UndecodableError as error:
            if problems is not None:
                problems.append(ProbeWarning("undecodable_topics", error.message, topic))
            return
        yield message.stamp_ns, picture
        given += 1
        if given >= limit:
            return


def rgb_of(message: Any) -> "np.ndarray":
    """A decoded image message as uint8 RGB ``(height, width, 3)``.

    Raises:
        UndecodableError: It is no picture, or one of more than 8 bits (depth), which no video holds.
    """
    import numpy as np

    with needs_extra("plots"):
        from PIL import Image, UnidentifiedImageError

    fields = message if isinstance(message, dict) else vars(message)
    try:
        if "encoding" in fields and fields.get("data") is not None:
            image = _raw(fields, _bytes_of(fields["data"]))
        else:
            image = Image.open(BytesIO(_picture(message)))
        if image.mode in DEEP:
            what = fields.get("encoding") or fields.get("format")
            raise UndecodableError(f"its pictures have more than 8 bits ({what}): depth is no video")
        return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise UndecodableError(f"a picture is damaged: {error}") from error


def packet_of(message: Any) -> bytes:
    """The coded picture of a decoded ``CompressedVideo``.

    Raises:
        UndecodableError: It has none.
    """
    fields = message if isinstance(message, dict) else vars(message)
    if fields.get("data") is None:
        raise UndecodableError("the message has no picture data")
    return _bytes_of(fields["data"])


def _bytes_of(data: Any) -> bytes:
    if not isinstance(data, str):
        return bytes(data)
    try:
        return b64decode(data, validate=True)  # JSON messages carry base64
    except ValueError as error:
        raise UndecodableError(f"the picture's base64 is damaged: {error}") from error


def _picture(message: Any) -> bytes:
    fields = message if isinstance(message, dict) else vars(message)
    data = fields.get("data")
    if data is None:
        raise UndecodableError("the message has no picture data")
    raw = _bytes_of(data)
    if "encoding" in fields:
        return _png(fields, raw)
    for start in (0, _DEPTH_HEADER_BYTES):  # compressedDepth puts a header before its PNG
        if signature(raw[start : start + 16]) in {"png", "jpeg"}:
            return raw[start:]
    raise UndecodableError(f"the picture is {fields.get('format')!r}; read are jpeg and png")


def _png(fields: dict[str, Any], raw: bytes) -> bytes:
    target = BytesIO()
    _raw(fields, raw).save(target, "PNG")
    return target.getvalue()


def _raw(fields: dict[str, Any], raw: bytes) -> "PictureFile":
    with needs_extra("plots"):
        from PIL import Image

    layout = _LAYOUTS.get(str(fields["encoding"]))
    if layout is None:
        raise UndecodableError(f"the picture encoding {fields['encoding']!r} is not read")
    pixel, mode, raw_mode = layout
    width, height = int(fields.get("width", 0)), int(fields.get("height", 0))
    step = int(fields.get("step", 0)) or width * pixel
    if not 0 < width * height <= MAX_PIXELS or step < width * pixel or len(raw) < step * height:
        raise UndecodableError(f"{len(raw)} bytes are no {width}x{height} {fields['encoding']} picture")
    if mode == "I;16" and fields.get("is_bigendian"):
        raw_mode = "I;16B"
    return Image.frombytes(mode, (width, height), raw[: step * height], "raw", raw_mode, step, 1)
