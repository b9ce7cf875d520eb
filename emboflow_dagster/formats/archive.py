"""Archives: zip, tar, compressed tar, gzip, bzip2, xz, zstd, 7z. Listed first, then looked into.

One archive, or a folder that holds nothing else. Sizes of compressed streams are counted by unpacking into
nowhere, since their own trailers hold them modulo 2**32 only.
"""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.formats.archives.inside import look_inside
from emboflow_dagster.formats.archives.members import Listing, Member, is_bomb
from emboflow_dagster.formats.archives.seven_zip import (
    EncryptedError,
    announced_size,
    headers,
    open_7z,
)
from emboflow_dagster.formats.archives.streams import BombError, Counted, Unpacked
from emboflow_dagster.formats.archives.walk import PACKED, PLAIN, stem_of, tar_members
from emboflow_dagster.formats.archives.zips import (
    CutZipError,
    SplitZipError,
    before_the_cut,
    end_of,
    entries,
)
from emboflow_dagster.formats.detect import Format, Source, signature
from emboflow_dagster.formats.report import Candidate, Probe

KINDS = {kind: kind for kind in ("zip", "gzip", "bzip2", "xz", "zstd", "7z", "tar")}
SUFFIX_KINDS = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zstd", ".7z", ".rar", ".lz4")
UNREAD = {
    "rar": "RAR is not read: unpack it (`unar FILE`) and register what comes out, or pack it as tar.zst",
    "lz4": "a file in LZ4 is not read: unpack it (`lz4 -d FILE`) and register what comes out",
}
"""Archives that are named only, and what to do with them."""
MAX_NAMES = 100
MAX_PROBLEMS = 150
MAX_INSIDE = 20
"""Archives of one folder that are unpacked and looked into."""
MAX_MEMBERS = 500_000
_JUNK = {"trailing_bytes"}
_BLOCK = 512
_PIECE = 256 * 1024


def matches(source: Source) -> Candidate | None:
    """A file with an archive's signature, or a folder of archives only."""
    if not source.is_folder:
        kind = _kind_of(source.path, source.head)
        # Bags and MCAPs that were packed with zstd are read as what they are.
        sure = 0.85 if kind == "zstd" else 0.95
        return Candidate(kind, sure, (f"{kind} signature",)) if kind else None
    if not source.entries or any(entry.suffix not in SUFFIX_KINDS for entry in source.entries):
        return None
    kinds = [_kind_of(source.file(entry), source.head_of(entry)) for entry in source.entries[:50]]
    kind = kinds[0]
    if kind is None or None in kinds:
        return None
    return Candidate(kind, 0.6, (f"{len(source.entries)} archive(s) and nothing else",))


def _kind_of(path: Path, head: bytes) -> str | None:
    """The kind by the first bytes; of what is named as a zip also by the last, as of the last of several."""
    found = signature(head)
    if found is None and path.suffix.lower() == ".zip":
        with path.open("rb") as stream:
            return "zip" if end_of(stream, path.stat().st_size) else None
    return found if found in KINDS or found in UNREAD else None


def _can_be_unpacked(kind: str, listing: Listing) -> bool:
    """Whether `extract-archive` would take it, at most with links left out."""
    left_out = {"archive_nested", "archive_mode", "archive_link"}
    codes = {code for code, _, _ in listing.problems} - (
        left_out if kind.startswith("tar") else left_out | _JUNK
    )
    return listing.complete and not codes


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
    takes: list[bool] = []
    for name, path in files:
        kind, listing = list_archive(path)
        if kind is None:
            report.warn("corrupt", "the first bytes are no archive's", name)
            continue
        report.suggest(kind, 0.97, f"{name} was listed as {kind}")
        listings[name] = listing
        takes.append(_can_be_unpacked(kind, listing))
        if len(insides) < MAX_INSIDE and kind not in UNREAD:
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
    if any(takes):
        report.recommend("extract-archive", "quality-report")
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
        kind = _kind_of(path, head)
        try:
            if kind == "zip":
                _list_zip(stream, path.stat().st_size, listing)
            elif kind == "tar":
                _list_tar(stream, listing)
            elif kind in PACKED:
                kind = _tarred(stream, kind, path)
                _list_compressed(stream, kind, path, listing)
            elif kind == "7z":
                _list_7z(stream, path.stat().st_size, listing)
            elif kind in UNREAD:
                listing.incomplete("archive_not_read", UNREAD[kind])
        except EncryptedError as error:
            listing.incomplete("archive_encrypted", str(error))
        except ConfigurationError as error:
            listing.incomplete("listing_unavailable", f"{error.message} ({error.hint})")
        except BombError as error:
            listing.incomplete("archive_bomb", f"unpacking was stopped: {error}")
        except EOFError as error:
            listing.incomplete("truncated", f"{error or 'the archive ends too early'}{_before(listing)}")
        except tarfile.ReadError as error:
            cut = "unexpected end" in str(error)
            text = f"not readable: {error}{_before(listing)}"
            listing.incomplete("truncated" if cut else "corrupt", text)
        except (
            OSError,
            ValueError,
            RuntimeError,
            zipfile.BadZipFile,
            tarfile.TarError,
        ) as error:
            listing.incomplete("corrupt", f"not readable: {error}")
    return kind, listing


def _before(listing: Listing) -> str:
    return f"; {listing.members} members stand before that" if listing.members else ""


def _list_zip(stream: BinaryIO, size: int, listing: Listing) -> None:
    try:
        _add(listing, entries(stream, size, listing))
    except SplitZipError:
        text = "one part of several: join them with `zip -s 0 PARTS.zip --out WHOLE.zip` and register that"
        listing.incomplete("archive_multi_part", text)
    except CutZipError as error:
        _add(listing, before_the_cut(stream, size))
        listing.incomplete("truncated", f"{error}; {listing.members} members stand whole before the cut")
        return
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


def _list_7z(stream: BinaryIO, size: int, listing: Listing) -> None:
    if (announced := announced_size(stream)) > size:
        text = (
            f"{announced} bytes are announced, {size} are there: it was cut, or is the first part of several"
        )
        raise EOFError(text)
    with open_7z(stream) as archive:
        _add(listing, (member for member, _ in headers(archive)))
    _weigh(listing, size)


def _list_tar(stream: "BinaryIO | io.BufferedReader", listing: Listing) -> None:
    counted = Counted(stream)
    archive: Any = None

    def found() -> Iterator[Member]:
        nonlocal archive
        for member, _, archive in tar_members(counted):  # noqa: B007 - the last one says where it ends
            yield member

    _add(listing, found())
    if archive is None or not listing.complete:
        return
    # Without an end mark it ended at a header that is none.
    broken = counted.recent(archive.offset, _BLOCK).strip(b"\0")
    # What stands behind is read too: it may be another tar, and a compressed one has its checksum there.
    while counted.read(_PIECE):
        pass
    behind = counted.last - archive.offset
    if broken:
        listing.incomplete(
            "corrupt", f"the header at byte {archive.offset} is damaged; {behind} bytes follow"
        )
    elif behind > 0:
        text = f"{behind} bytes behind the end mark are not read: another tar that was joined to it, or junk"
        listing.problems.append(("trailing_bytes", text, None))


def _tarred(stream: BinaryIO, kind: str, path: Path) -> str:
    """The kind with what is inside: ``tar.gz`` of ``gzip``."""
    try:
        head = io.BufferedReader(Unpacked(stream, kind), 1_024).peek(512)[:512]
    except (EOFError, OSError, ValueError):
        head = b""  # the name is all that is left to say it
    stream.seek(0)
    tarred = signature(head) == "tar" or (not head and ".tar." in path.name)
    return PACKED[kind] if tarred else kind


def _list_compressed(stream: BinaryIO, kind: str, path: Path, listing: Listing) -> None:
    plain = PLAIN.get(kind, kind)
    unpacked = Unpacked(stream, plain)
    reader = io.BufferedReader(unpacked, 64 * 1024)
    if kind != plain:
        _list_tar(reader, listing)
        unpacked.drain()
    else:
        listing.add(Member(stem_of(path, kind)), max_names=MAX_NAMES, max_problems=MAX_PROBLEMS)
        try:
            while reader.read(_PIECE):
                pass
        finally:
            listing.size = unpacked.count
    if unpacked.trailing:
        text = "behind the end of the compressed stream stand bytes that begin no other: not read"
        listing.problems.append(("trailing_bytes", text, None))


FORMAT = Format(
    names=(*KINDS, *PACKED.values(), *UNREAD),
    matches=matches,
    probe=probe,
)
