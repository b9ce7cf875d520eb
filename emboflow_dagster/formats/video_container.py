"""What a video's container says before a frame is decoded: which it is, and whether its end is missing."""

import struct
from pathlib import Path
from typing import BinaryIO, Final

from emboflow_dagster.formats.detect import read_head, signature

#: Elements that are walked over; a file of more is taken as whole.
MAX_ELEMENTS: Final = 200_000

_RAW: Final = {
    ".264": "h264",
    ".h264": "h264",
    ".avc": "h264",
    ".265": "hevc",
    ".h265": "hevc",
    ".hevc": "hevc",
    ".mjpeg": "mjpeg",
    ".mjpg": "mjpeg",
}
SUFFIXES: Final = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".ts", ".m2ts", ".mts", ".gif"),
    *_RAW,
)
#: Streams without a container have no clock.
RAW: Final = frozenset(_RAW.values())
_BY_SIGNATURE: Final = frozenset({"mp4", "matroska", "avi", "gif"})
_START: Final = b"\0\0\1"
_H264_FIRST: Final = frozenset({0x67, 0x47, 0x27})
_HEVC_FIRST: Final = frozenset({b"\x40\x01", b"\x42\x01", b"\x46\x01"})
_TS: Final = {188: 0, 192: 4}
_SYNC: Final = 0x47
_SEGMENT: Final = 0x18538067


def video_kind(head: bytes, name: str) -> str | None:
    """``mp4 matroska avi gif mpegts`` or, of a raw stream, ``h264 hevc mjpeg``; ``None`` for another file.

    Args:
        head: Its first bytes; 600 are enough.
        name: Raw streams begin with so little that their names are looked at too.
    """
    kind = signature(head)
    if kind in _BY_SIGNATURE:
        return kind
    if _ts_step(head):
        return "mpegts"
    named = _RAW.get(Path(name).suffix.lower())
    if kind == "jpeg":
        return "mjpeg" if named == "mjpeg" else None
    body = head[1:] if head.startswith(b"\0" + _START) else head
    if not body.startswith(_START) or len(body) < 5:  # noqa: PLR2004 - code and two bytes
        return None
    if body[3:5] in _HEVC_FIRST:
        return "hevc"
    return "h264" if body[3] in _H264_FIRST or named == "h264" else named


def kind_of_file(path: Path) -> str | None:
    """As :func:`video_kind`, of a file."""
    return video_kind(read_head(path), path.name)


def _ts_step(head: bytes) -> int | None:
    for step, first in _TS.items():
        places = range(first, min(len(head), 3 * step), step)
        if len(places) == 3 and all(head[place] == _SYNC for place in places):  # noqa: PLR2004
            return step
    return None


def missing_end(path: Path) -> str | None:
    """Why a file is known to be cut, by what its container declares; ``None`` where nothing says so."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1_024)
        file.seek(0)
        kind = video_kind(head, path.name)
        if kind == "mp4":
            return _mp4(file, size)
        if kind == "matroska":
            return _matroska(file, size)
        if kind == "avi":
            declared = struct.unpack_from("<I", head, 4)[0] + 8
            if declared == 8:  # noqa: PLR2004 - written at the end
                return "it was not closed: its size was never written"
            return f"{size} bytes of {declared} declared" if declared > size else None
        if kind == "mpegts":
            over = size % (_ts_step(head) or 188)
            return f"its last packet has {over} bytes" if over else None
        if kind in ("gif", "mjpeg"):
            file.seek(max(0, size - 64))
            ends = file.read().rstrip(b"\0").endswith(b";" if kind == "gif" else b"\xff\xd9")
            return None if ends else "it does not end as its pictures do"
    return None


def _mp4(file: BinaryIO, size: int) -> str | None:
    at, found = 0, set[bytes]()
    for _ in range(MAX_ELEMENTS):
        if at + 8 > size:
            break
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1 and at + 16 <= size:
            (length,), header = struct.unpack(">Q", file.read(8)), 16
        elif length == 0:
            length = size - at
        if length < header:
            break
        found.add(kind)
        at += length
        if at > size:
            return f"its {_printable(kind)} box ends {at - size} bytes behind the end of the file"
    if b"mdat" in found and not found & {b"moov", b"moof"}:
        return "it was not closed: it has no index (moov)"
    return None


def _printable(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


def _matroska(file: BinaryIO, size: int) -> str | None:
    """Elements side by side; of a live recording, whose segments and clusters have no size, those in them."""
    at = 0
    for _ in range(MAX_ELEMENTS):
        if at >= size:
            return None
        file.seek(at)
        data = file.read(12)
        name, first = _number(data, keep=True)
        length, second = _number(data[first:], keep=False)
        if not first or not second:
            return f"it ends in the first bytes of an element, at byte {at}" if at + 12 > size else None
        unknown = length == (1 << (7 * second)) - 1
        end = at + first + second + length
        if not unknown and end > size:
            return f"an element of it ends {end - size} bytes behind the end of the file"
        inside = unknown or name == _SEGMENT
        at = at + first + second if inside else end
    return None


def _number(data: bytes, *, keep: bool) -> tuple[int, int]:
    """A number of Matroska's and its bytes; 0 bytes where it is cut or none. `keep` keeps the length bit."""
    if not data or not data[0]:
        return 0, 0
    width = 9 - data[0].bit_length()
    if len(data) < width:
        return 0, 0
    value = int.from_bytes(data[:width], "big")
    return (value if keep else value & ((1 << (7 * width)) - 1)), width
