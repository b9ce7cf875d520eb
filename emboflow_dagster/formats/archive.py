"""Archives: zip, tar, compressed tar, gzip, bzip2, xz, 7z. Listed first, then looked into in bounded size.

One archive, or a folder that holds nothing else. Sizes of compressed streams are counted by unpacking into
nowhere, since their own trailers hold them modulo 2**32 only.
"""

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.formats.archives.inside import look_inside
from emboflow_dagster.formats.archives.members import Listing, Member, is_bomb
from emboflow_dagster.formats.archives.seven_zip import EncryptedError, headers, open_7z
from emboflow_dagster.formats.archives.streams import BombError, Unpacked
from emboflow_dagster.formats.archives.walk import tar_members, zip_member
from emboflow_dagster.formats.detect import Format, Source, signature
from emboflow_dagster.formats.report import Candidate, Probe

KINDS = {"zip": "zip", "gzip": "gzip", "bzip2": "bzip2", "xz": "xz", "7z": "7z", "tar": "tar"}
SUFFIX_KINDS = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z")
MAX_NAMES = 100
MAX_PROBLEMS = 150
MAX_INSIDE = 20
"""Archives of one folder that are unpacked and looked into."""
MAX_MEMBERS = 500_000
MAX_CENTRAL_DIRECTORY = 256 * 1024 * 1024
_LOCAL_CHECKS = 20_000
_ZIP64 = 0xFFFFFFFF


def matches(source: Source) -> Candidate | None:
    """A file with an archive's signature, or a folder of archives only."""
    if not source.is_folder:
        kind = KINDS.get(signature(source.head) or "")
        return Candidate(kind, 0.95, (f"{kind} signature",)) if kind else None
    if not source.entries or any(entry.suffix not in SUFFIX_KINDS for entry in source.entries):
        return None
    kinds = [KINDS.get(signature(source.head_of(entry)) or "") for entry in source.entries[:50]]
    kind = kinds[0]
    if kind is None or None in kinds:
        return None
    return Candidate(kind, 0.6, (f"{len(source.entries)} archive(s) and nothing else",))


def probe(source: Source, report: Probe) -> None:
    """List every archive of the asset, and probe what is in it.

    ``structure`` has the names of the formats specification, and ``inside`` as
    :func:`~emboflow_dagster.formats.archives.inside.look_inside` gives it (of several archives: by name).
    """
    if source.is_folder:
        files = [(entry.path, source.file(entry)) for entry in source.entries[:MAX_NAMES]]
        if len(source.entries) > MAX_NAMES:
            report.warn("listing_truncated", f"{len(source.entries)} archives; {MAX_NAMES} were listed")
    else:
        files = [(source.path.name, source.path)]
    listings: dict[str, Listing] = {}
    insides: dict[str, Any] = {}
    for name, path in files:
        kind, listing = list_archive(path)
        if kind is None:
            report.warn("corrupt", "the first bytes are no archive's", name)
            continue
        report.suggest(kind, 0.97, f"{name} was listed as {kind}")
        listings[name] = listing
        if len(insides) < MAX_INSIDE:
            insides[name] = look_inside(path, kind, listing, report)
        for code, message, member in listing.problems:
            report.warn(code, message, member if len(files) == 1 and member else f"{name}:{member or ''}")
        if not listing.complete and not listing.problems:
            report.warn("listing_truncated", "the archive was not listed to its end", name)
    several = len(listings) > 1
    names = [f"{a}:{n}" if several else n for a, listing in listings.items() for n in listing.names]
    extensions: dict[str, int] = {}
    for listing in listings.values():
        for ext, count in listing.extensions.items():
            extensions[ext] = extensions.get(ext, 0) + count
    report.structure.update(
        {
            "members": sum(listing.members for listing in listings.values()),
            "uncompressedBytes": sum(listing.size for listing in listings.values()),
            "names": names[:MAX_NAMES],
            "memberExtensions": extensions,
            "inside": insides if several else next(iter(insides.values()), None),
            "complete": all(listing.complete for listing in listings.values()) and bool(listings),
        }
    )


def list_archive(path: Path) -> tuple[str | None, Listing]:
    """The kind of one archive (``tar.gz`` for a compressed tar) and its listing; damage is in `problems`."""
    listing = Listing()
    with path.open("rb") as stream:
        head = stream.read(4_096)
        stream.seek(0)
        kind = KINDS.get(signature(head) or "")
        try:
            if kind == "zip":
                _list_zip(stream, path.stat().st_size, listing)
            elif kind == "tar":
                _list_tar(stream, listing)
            elif kind in ("gzip", "bzip2", "xz"):
                kind = _list_compressed(stream, kind, path, listing)
            elif kind == "7z":
                _list_7z(stream, path.stat().st_size, listing)
        except EncryptedError as error:
            _incomplete(listing, "archive_encrypted", str(error))
        except ConfigurationError as error:
            _incomplete(listing, "listing_unavailable", f"{error.message} ({error.hint})")
        except BombError as error:
            _incomplete(listing, "archive_bomb", f"unpacking was stopped: {error}")
        except EOFError as error:
            _incomplete(listing, "truncated", str(error) or "the archive ends too early")
        except tarfile.ReadError as error:
            cut = "unexpected end" in str(error)
            _incomplete(listing, "truncated" if cut else "corrupt", f"not readable: {error}")
        except (
            OSError,
            ValueError,
            RuntimeError,
            zipfile.BadZipFile,
            tarfile.TarError,
        ) as error:
            _incomplete(listing, "corrupt", f"not readable: {error}")
    return kind, listing


def _incomplete(listing: Listing, code: str, message: str, member: str | None = None) -> None:
    listing.complete = False
    listing.problems.insert(0, (code, message, member))


def _list_zip(stream: BinaryIO, size: int, listing: Listing) -> None:
    if _central_directory_bytes(stream, size) > MAX_CENTRAL_DIRECTORY:
        _incomplete(listing, "listing_truncated", "the table of contents is too large to be read")
        return
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        _add(listing, map(zip_member, infos))
        _check_places(stream, infos, listing)
    _weigh(listing, size)


def _add(listing: Listing, members: Iterable[Member]) -> None:
    """Take members in, as many as a listing may have."""
    for count, member in enumerate(members):
        if count >= MAX_MEMBERS:
            listing.complete = False
            return
        listing.add(member, max_names=MAX_NAMES, max_problems=MAX_PROBLEMS)


def _weigh(listing: Listing, size: int) -> None:
    """Hold what all members announce against the bytes of the archive."""
    if is_bomb(listing.size, size):
        listing.problems.insert(0, ("archive_bomb", f"{listing.size} bytes from {size} in all", None))


def _central_directory_bytes(stream: BinaryIO, size: int) -> int:
    """What the end record says about the table of contents; 0 where there is none (zipfile then refuses)."""
    tail = min(size, 66_000)
    stream.seek(size - tail)
    data = stream.read(tail)
    stream.seek(0)
    at = data.rfind(b"PK\x05\x06")
    return int.from_bytes(data[at + 12 : at + 16], "little") if at >= 0 and len(data) >= at + 16 else 0


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
        if len(local) < 30 or local[:4] != b"PK\x03\x04":  # noqa: PLR2004 - the fixed part of a local header
            _incomplete(
                listing, "corrupt", "no local header where the table of contents says", info.orig_filename
            )
            return
        crc = int.from_bytes(local[14:18], "little")
        declared = int.from_bytes(local[22:26], "little")
        streamed, large = int.from_bytes(local[6:8], "little") & 8, declared == _ZIP64
        if not streamed and not large and (declared != info.file_size or crc != info.CRC):
            text = f"local header says {declared} bytes, the table of contents {info.file_size}"
            if declared == info.file_size:
                text = "local header and table of contents disagree on the checksum"
            listing.problems.insert(0, ("corrupt", text, info.orig_filename))


def _list_7z(stream: BinaryIO, size: int, listing: Listing) -> None:
    with open_7z(stream) as archive:
        _add(listing, (member for member, _ in headers(archive)))
    _weigh(listing, size)


def _list_tar(stream: "BinaryIO | io.BufferedReader", listing: Listing) -> None:
    _add(listing, (member for member, _, _ in tar_members(stream)))


def _list_compressed(stream: BinaryIO, kind: str, path: Path, listing: Listing) -> str:
    unpacked = Unpacked(stream, kind)
    reader = io.BufferedReader(unpacked, 64 * 1024)
    if signature(reader.peek(512)[:512]) == "tar":
        _list_tar(reader, listing)
        # What stands behind the last entry is read too: its checksum says whether the file is whole.
        unpacked.drain()
        return {"gzip": "tar.gz", "bzip2": "tar.bz2", "xz": "tar.xz"}[kind]
    stem = path.name.removesuffix({"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}[kind])
    listing.add(Member(stem), max_names=MAX_NAMES, max_problems=MAX_PROBLEMS)
    reader.read(0)
    try:
        unpacked.drain()
    finally:
        listing.size = unpacked.count
    return kind


FORMAT = Format(
    names=("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "gzip", "bzip2", "xz", "7z"),
    matches=matches,
    probe=probe,
)
