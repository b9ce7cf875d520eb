"""One picture of a sequence: which kind it is, whether it is whole, and what a pixel of it is."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.formats.detect import signature

#: Suffix to how such a file begins, in the words of :func:`picture_kind`.
KINDS: Final = {
    ".bmp": "bmp",
    ".exr": "exr",
    ".jpeg": "jpeg",
    ".jpg": "jpeg",
    ".pbm": "pnm",
    ".pgm": "pnm",
    ".png": "png",
    ".pnm": "pnm",
    ".ppm": "pnm",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
}
SUFFIXES: Final = tuple(KINDS)
BYTE_BITS: Final = 8
MAX_PAGES: Final = 100_000

_SIGNED: Final = frozenset({"exr", "jpeg", "png", "tiff", "webp"})
_MODE_BITS: Final = {"1": 1, "I": 32, "F": 32}
_BITS_PER_SAMPLE: Final = 258
_TAIL: Final = 64
_PNG_END: Final = b"IEND\xaeB`\x82"


class UnreadPictureError(ValueError):
    """A picture of a kind that nothing here decodes."""


class CutPictureError(ValueError):
    """A picture whose end is missing."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture is.

    Attributes:
        kind: As :func:`picture_kind` says.
        width: Pixels, as stored.
        height: Pixels, as stored.
        mode: Pillow's word for the colours of a pixel: ``RGB``, ``L``, ``I;16``, ``P``, ...
        bit_depth: Bits of a colour in the file.
        pages: Pictures in the file.
    """

    kind: str
    width: int
    height: int
    mode: str
    bit_depth: int
    pages: int = 1


def picture_kind(head: bytes) -> str | None:
    """``jpeg png tiff webp exr bmp pnm`` by the first bytes, ``None`` for another file."""
    found = signature(head)
    if found is not None:
        return found if found in _SIGNED else None
    if head[:2] == b"BM":
        return "bmp"
    return "pnm" if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() else None


def measure_picture(path: Path, head: bytes, *, decode: bool) -> PictureFacts:
    """Look at a picture; decoding finds what is damaged or missing of it.

    Raises:
        CutPictureError: Its end is missing.
        UnreadPictureError: It is whole as far as is known, and Pillow does not read it.
        ValueError: It is damaged or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    kind = picture_kind(head)
    if kind is None:
        raise ValueError("it does not begin as a picture does")
    if kind == "exr":
        raise UnreadPictureError("Pillow reads no OpenEXR: convert the pictures, for instance to 16-bit PNG")
    cut = ends_early(path, kind)
    if kind == "png" and head[12:16] != b"IHDR":
        raise ValueError("it begins as a PNG does and goes on otherwise")
    try:
        with Image.open(path) as image:
            facts = _facts(image, kind, head)
            if decode and not cut:
                _decode(image, facts)
    except UnidentifiedImageError as error:
        if cut:
            raise CutPictureError(cut) from error
        if kind in ("png", "jpeg"):  # every one of these is read: what is not is damaged
            raise ValueError(f"Pillow does not know it for a {kind}") from error
        raise UnreadPictureError(f"Pillow does not read this kind of {kind}") from error
    except Exception as error:  # Pillow's decoders raise whatever the bytes lead them to
        if isinstance(error, MemoryError):
            raise
        text = f"{type(error).__name__}: {error}"
        if cut or "truncated" in str(error) or isinstance(error, EOFError):
            raise CutPictureError(cut or text) from error
        raise ValueError(text) from error
    if cut:
        raise CutPictureError(cut)
    return facts


def _facts(image: Any, kind: str, head: bytes) -> PictureFacts:
    pages = getattr(image, "n_frames", 1) if kind == "tiff" else 1
    return PictureFacts(kind, image.width, image.height, image.mode, _bits(image, kind, head), pages)


def _decode(image: Any, facts: PictureFacts) -> None:
    if facts.kind == "jpeg":
        # An eighth of the size in a fraction of the time: every coded byte is still read.
        image.draft("L", (facts.width // 8, facts.height // 8))
    for page in range(min(facts.pages, MAX_PAGES)):
        if page:
            image.seek(page)
        image.load()


def _bits(image: Any, kind: str, head: bytes) -> int:
    if kind == "png" and len(head) > 24:  # noqa: PLR2004 - after signature, length, name, width, height
        return head[24]
    if kind == "tiff":
        found = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))
        return max(found) if isinstance(found, tuple) else int(found)
    if kind == "pnm":
        return _pnm_bits(head)
    return _MODE_BITS.get(image.mode, 16 if "16" in image.mode else BYTE_BITS)


def _pnm_bits(head: bytes) -> int:
    """From the largest value that the header declares; bitmaps have none."""
    if head[1:2] in b"14":
        return 1
    words = b" ".join(line.partition(b"#")[0] for line in head[: _TAIL * 8].split(b"\n")).split()
    largest = int(words[3]) if len(words) > 3 and words[3].isdigit() else 255  # noqa: PLR2004 - P5 w h max
    return max(1, largest.bit_length())


def ends_early(path: Path, kind: str) -> str | None:
    """Why a file is known to be cut, by its last bytes; ``None`` where they say nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if kind in ("webp", "bmp"):
            head = file.read(12)
            declared = struct.unpack_from("<I", head, 4 if kind == "webp" else 2)[0] if len(head) >= 8 else 0  # noqa: PLR2004
            declared += 8 if kind == "webp" else 0
            return f"{size} bytes of {declared} declared" if declared > size else None
        if kind not in ("jpeg", "png"):
            return None
        file.seek(max(0, size - _TAIL))
        tail = file.read().rstrip(b"\0\n\r")
    # Cameras put more behind the end of a JPEG: what is not at the end may stand before it.
    if kind == "png":
        return None if _PNG_END in tail else "it does not end as a PNG does"
    return None if tail.endswith(b"\xff\xd9") or _end_inside(path) else "it does not end as a JPEG does"


def _end_inside(path: Path) -> bool:
    """Whether an end marker stands in the last 64 KiB: in coded pictures every FF has a 0 behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 65_536))
        return b"\xff\xd9" in file.read()
