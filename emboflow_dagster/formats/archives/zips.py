"""What a zip lists: its table of contents, or, where that was cut off, the members that stand before the cut.

Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from emboflow_dagster.formats.archives.members import Listing, Member, is_bomb
from emboflow_dagster.formats.archives.walk import utf8, zip_member

MAX_CENTRAL_DIRECTORY: Final = 256 * 1024 * 1024
LOCAL, SPLIT = b"PK\x03\x04", b"PK\x07\x08"
_END, _END_64, _PLACE_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL_CHECKS: Final = 20_000
_LARGE: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct("<4s5HIIIHH")
_TAIL: Final = 66_000
_STREAMED, _ENCRYPTED, _UTF8 = 1 << 3, 1, 1 << 11
_DEFLATED: Final = 8
_METHODS: Final = frozenset({0, _DEFLATED, 9, 12, 14, 93, 95, 98, 99})
_PIECE: Final = 256 * 1024
#: A cut archive's members that are looked for.
_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class End:
    """The record at the end: how large the table of contents is, on which disk it stands, what follows it."""

    directory: int
    disk: int
    trailing: int


class CutZipError(EOFError):
    """There is no table of contents."""


class SplitZipError(ValueError):
    """It is one of several files."""


def entries(stream: BinaryIO, size: int, listing: Listing) -> Iterator[Member]:
    """The members by the table of contents; what is wrong with it goes to `problems`.

    Raises:
        CutZipError: There is none.
        SplitZipError: It is one part of several.
        OSError, ValueError, RuntimeError, zipfile.BadZipFile: It is damaged.
    """
    end = end_of(stream, size)
    stream.seek(0)
    if end is None:
        head = stream.read(_HEAD.size)
        if head[:4] == SPLIT:
            raise SplitZipError
        if len(head) < _HEAD.size or _HEAD.unpack(head)[3] not in _METHODS:
            raise zipfile.BadZipFile("neither a table of contents nor a first member")
        raise CutZipError("the table of contents at the end is missing: the file was cut")
    if end.disk:
        raise SplitZipError
    if end.directory > MAX_CENTRAL_DIRECTORY:
        listing.incomplete("listing_truncated", "the table of contents is too large to be read")
        return
    if end.trailing:
        text = f"{end.trailing} bytes stand behind the end of the archive: not read"
        listing.problems.append(("trailing_bytes", text, None))
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        yield from map(zip_member, infos)
        _check_places(stream, infos, listing)


def end_of(stream: BinaryIO, size: int) -> End | None:
    """The end record, where there is one in the last 66,000 bytes."""
    tail = min(size, _TAIL)
    stream.seek(size - tail)
    data = stream.read(tail)
    at = data.rfind(_END)
    if at < 0 or len(data) < at + 22:
        return None
    disk, _, _, _, directory, _, comment = struct.unpack_from("<4H2IH", data, at + 4)
    trailing = max(0, len(data) - (at + 22 + comment))
    if directory == _LARGE and at >= 20 and data[at - 20 : at - 16] == _PLACE_64:  # noqa: PLR2004 - its length
        (place,) = struct.unpack_from("<Q", data, at - 12)
        if place <= size - 56:
            stream.seek(place)
            record = stream.read(56)
            if record[:4] == _END_64:
                disk, directory = (
                    struct.unpack_from("<I", record, 16)[0],
                    struct.unpack_from("<Q", record, 40)[0],
                )
    return End(directory, disk if disk != 0xFFFF else 0, trailing)  # noqa: PLR2004 - it stands elsewhere


def before_the_cut(stream: BinaryIO, size: int) -> Iterator[Member]:
    """The members whose header and bytes are whole, from the first on, without a table of contents."""
    place = 0
    for _ in range(_MOST):
        stream.seek(place)
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size or head[:4] != LOCAL:
            return
        _, _, flags, method, _, _, _, packed, plain, name_size, extra_size = _HEAD.unpack(head)
        said, extra = stream.read(name_size), stream.read(extra_size)
        place += _HEAD.size + name_size + extra_size
        if _LARGE in (packed, plain):
            plain, packed = _wide(extra, plain, packed)
        if flags & _STREAMED and not packed:
            found = _inflated(stream, place) if method == _DEFLATED and not flags & _ENCRYPTED else None
            if found is None:
                return
            packed, plain = found
            stream.seek(place + packed)
            descriptor = stream.read(4)
            place += 16 if descriptor == SPLIT else 12
        place += packed
        if place > size:
            return
        name = said.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        name = name if flags & _UTF8 else utf8(name) or name
        is_folder = name.endswith("/")
        yield Member(name, plain, packed, is_folder, encrypted=bool(flags & _ENCRYPTED))


def _wide(extra: bytes, plain: int, packed: int) -> tuple[int, int]:
    """Sizes above 4 GiB stand in a field of their own."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1 and length >= 16 and at + 20 <= len(extra):  # noqa: PLR2004 - two sizes of 8 bytes
            return struct.unpack_from("<QQ", extra, at + 4)
        at += 4 + length
    return plain, packed


def _inflated(stream: BinaryIO, place: int) -> tuple[int, int] | None:
    """Bytes that went into and came out of a deflated member whose size stands behind it; `None` if cut."""
    stream.seek(place)
    decoder, came, taken = zlib.decompressobj(-15), 0, 0
    data = b""
    while not decoder.eof:
        if not data:
            data = stream.read(_PIECE)
            taken += len(data)
            if not data:
                return None
        try:
            came += len(decoder.decompress(data, _PIECE))
        except zlib.error:
            return None
        data = decoder.unconsumed_tail
        if is_bomb(came, taken):
            return None
    return taken - len(decoder.unused_data), came


def _check_places(stream: BinaryIO, infos: list[zipfile.ZipInfo], listing: Listing) -> None:
    """Entries that share bytes multiply them; a local header that contradicts the table of contents lies."""
    end = 0
    for info in sorted(infos, key=lambda item: item.header_offset)[:_LOCAL_CHECKS]:
        if info.header_offset < end:
            listing.problems.insert(
                0, ("archive_bomb", "shares its bytes with another entry", info.orig_filename)
            )
            return
        end = info.header_offset + 30 + info.compress_size
        stream.seek(info.header_offset)
        local = stream.read(30)
        if len(local) < 30 or local[:4] != LOCAL:  # noqa: PLR2004 - the fixed part of a local header
            text = "no local header where the table of contents says"
            listing.incomplete("corrupt", text, info.orig_filename)
            return
        crc = int.from_bytes(local[14:18], "little")
        declared = int.from_bytes(local[22:26], "little")
        streamed, large = int.from_bytes(local[6:8], "little") & _STREAMED, declared == _LARGE
        if not streamed and not large and (declared != info.file_size or crc != info.CRC):
            text = f"local header says {declared} bytes, the table of contents {info.file_size}"
            if declared == info.file_size:
                text = "local header and table of contents disagree on the checksum"
            listing.problems.insert(0, ("corrupt", text, info.orig_filename))
