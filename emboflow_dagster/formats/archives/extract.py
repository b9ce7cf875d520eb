"""Archives unpacked within bounds: judged whole before the first byte is written, then again as bytes come.

Nothing of ``zipfile``'s or ``tarfile``'s own extraction is used: files are made under names that were judged,
never over one that is there, and neither links nor special files nor modes are made at all.
"""

import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError, LimitError
from emboflow_dagster.formats.archive import KINDS, list_archive
from emboflow_dagster.formats.archives.members import MAX_RATIO, RATIO_FROM_BYTES, faults
from emboflow_dagster.formats.archives.streams import BombError
from emboflow_dagster.formats.archives.walk import members
from emboflow_dagster.formats.detect import read_head, signature

Links = Literal["reject", "skip"]
PIECE: Final = 1 << 20
#: Ordinary, or of no effect where no mode is kept.
_HARMLESS: Final = frozenset({"archive_nested", "archive_mode"})
_LEFT_OUT: Final = frozenset({"trailing_bytes"})


@dataclass(slots=True)
class Bounds:
    """What is left of what one archive, and those directly inside it, may unpack to."""

    max_bytes: int
    max_members: int
    max_ratio: float = MAX_RATIO
    links: Links = "reject"
    bytes: int = 0
    members: int = 0

    def add(self, size: int, *, packed: int, came: int) -> None:
        """Count bytes; ``came`` came out so far of an archive of ``packed`` bytes.

        Raises:
            LimitError: Too many (kind ``limit-size``).
        """
        self.bytes += size
        if self.bytes > self.max_bytes:
            self._over(f"more than {self.max_bytes} bytes")
        if came > RATIO_FROM_BYTES and came > self.max_ratio * max(1, packed):
            self._over(f"more than {self.max_ratio:g} bytes for each that is stored")

    def count(self) -> None:
        """Count a member.

        Raises:
            LimitError: Too many.
        """
        self.members += 1
        if self.members > self.max_members:
            self._over(f"more than {self.max_members} members")

    def _over(self, what: str) -> None:
        raise LimitError(f"it unpacks to {what}", kind=ErrorKind.LIMIT_SIZE)


@dataclass(slots=True)
class Extracted:
    """What came out: files and bytes on disk, archives that were unpacked, what was left out and why."""

    files: int = 0
    bytes: int = 0
    archives: int = 0
    left_out: list[str] = field(default_factory=list)


def extract(path: Path, out: Path, bounds: Bounds, *, nested: bool = True) -> Extracted:
    """Unpack an archive into ``out``, which is made; nothing of it is left when it is refused.

    Args:
        path: The archive, or a folder of archives.
        out: Absent or empty.
        bounds: How much may come out, of all of them together.
        nested: Whether archives directly inside are unpacked too, each into a folder in its place; what
            is inside those stays as it is.

    Raises:
        InvalidInputError: It is no archive, damaged, or has a member that is not safe; names it.
        LimitError: More comes out than is allowed.
    """
    found = Extracted()
    out.mkdir(parents=True, exist_ok=True)
    try:
        for archive in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            _unpack(archive, out, archive.name, bounds, found)
        if nested:
            for inner in [p for p in sorted(out.rglob("*")) if p.is_file() and _is_inner(p)]:
                _unpack_inner(inner, out, bounds, found)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    files = [p for p in out.rglob("*") if p.is_file()]
    found.files, found.bytes = len(files), sum(p.stat().st_size for p in files)
    return found


def _kind(path: Path) -> str | None:
    return KINDS.get(signature(read_head(path)) or "")


def _is_inner(path: Path) -> bool:
    """Whether it is an archive; a recording packs its own files one by one with zstd, and stays as it is."""
    kind = _kind(path)
    return kind is not None and (kind != "zstd" or ".tar." in path.name or path.suffix == ".tzst")


def _unpack_inner(inner: Path, out: Path, bounds: Bounds, found: Extracted) -> None:
    """An archive in an archive becomes a folder of its name without the suffix."""
    stem = inner.name.partition(".")[0] or inner.name
    target = inner.with_name(stem)
    if target.exists():
        target = inner.with_name(f"{inner.name}.unpacked")
    target.mkdir()
    _unpack(inner, target, inner.relative_to(out).as_posix(), bounds, found)
    inner.unlink()


def _unpack(path: Path, out: Path, name: str, bounds: Bounds, found: Extracted) -> None:
    kind, listing = list_archive(path)
    if kind is None:
        text = f"{name}: the first bytes are no archive's"
        raise InvalidInputError(text, kind=ErrorKind.FORMAT_UNSUPPORTED)
    allowed = _allowed(kind, bounds)
    found.left_out += [f"{name}: {said}" for code, said, _ in listing.problems if code in allowed & _LEFT_OUT]
    bad = [problem for problem in listing.problems if problem[0] not in allowed]
    if bad:
        code, message, member = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        where = f"{name}: {member}" if member else name
        raise InvalidInputError(f"{where}: {code}: {message}{more}", kind=_error_of(code))
    if not listing.complete:
        raise InvalidInputError(f"{name}: it cannot be listed to its end", kind=ErrorKind.FILE_CORRUPT)
    # The listing says what the headers say; what really comes out is counted below.
    if listing.size + bounds.bytes > bounds.max_bytes:
        raise LimitError(f"{name}: it declares {listing.size} bytes", kind=ErrorKind.LIMIT_SIZE)
    packed = path.stat().st_size
    came = 0
    try:
        for member, stream in members(path, kind):
            bounds.count()
            if member.link_to is not None:
                found.left_out.append(f"{name}: {member.name}: a link")
                continue
            for code, message in faults(member):
                if code not in allowed:
                    raise InvalidInputError(f"{name}: {member.name}: {message}", kind=_error_of(code))
            place = out.joinpath(*(p for p in PurePosixPath(member.name).parts if p != "."))
            if member.is_folder or stream is None:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as target:
                while piece := stream.read(PIECE):
                    came += len(piece)
                    bounds.add(len(piece), packed=packed, came=came)
                    target.write(piece)
    except LimitError as error:
        raise LimitError(f"{name}: {error.message}", kind=error.kind) from None
    except BombError as error:
        raise LimitError(f"{name}: unpacking was stopped: {error}", kind=ErrorKind.LIMIT_SIZE) from None
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        if isinstance(error, InvalidInputError):
            raise
        text = f"{name}: not readable: {error or type(error).__name__}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from None
    found.archives += 1


def _allowed(kind: str, bounds: Bounds) -> frozenset[str]:
    """What may be wrong with an archive that is unpacked."""
    links = {"archive_link"} if bounds.links == "skip" else set()
    # Behind a table of contents or a stream stands junk; behind a tar it may be another one, with files.
    return _HARMLESS | links | (set() if kind.startswith("tar") else _LEFT_OUT)


def _error_of(code: str) -> ErrorKind:
    if code.startswith("archive_path") or code in ("archive_link", "archive_special", "archive_duplicate"):
        return ErrorKind.PATH_TRAVERSAL
    if code == "listing_unavailable":
        return ErrorKind.EXTRA_MISSING
    if code == "archive_not_read":
        return ErrorKind.FORMAT_UNSUPPORTED
    return ErrorKind.LIMIT_SIZE if code == "archive_bomb" else ErrorKind.FILE_CORRUPT
