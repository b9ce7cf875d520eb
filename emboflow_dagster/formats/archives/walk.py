"""The members of an archive one after the other: headers as :class:`Member`, bytes as a stream.

Whoever writes them judges their names first (:func:`~emboflow_dagster.formats.archives.members.faults`).
"""

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from emboflow_dagster.formats.archives.members import Member
from emboflow_dagster.formats.archives.seven_zip import members_7z
from emboflow_dagster.formats.archives.streams import Unpacked

PACKED: Final = {"gzip": "tar.gz", "bzip2": "tar.bz2", "xz": "tar.xz", "zstd": "tar.zst"}
PLAIN: Final = {tarred: kind for kind, tarred in PACKED.items()}
_SUFFIXES: Final = {"gzip": (".gz",), "bzip2": (".bz2",), "xz": (".xz",), "zstd": (".zst", ".zstd")}
_SPECIAL: Final = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_PIECE: Final = 1 << 20
#: The bit of a zip's header that says that the name is UTF-8; without it, it is code page 437.
_UTF8: Final = 1 << 11


def members(path: Path, kind: str) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """Every member with its bytes, to be read before the next one is asked for.

    Args:
        path: The archive.
        kind: As :func:`~emboflow_dagster.formats.archive.list_archive` names it.

    Raises:
        BombError: A compressed stream gives more than honest data does.
        LimitError: A decoder of a 7z needs too much memory.
        OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, tarfile.TarError: It is damaged.
    """
    with path.open("rb") as stream:
        if kind == "zip":
            yield from _of_zip(stream)
        elif kind == "tar":
            yield from _of_tar(stream)
        elif kind == "7z":
            yield from members_7z(stream)
        else:
            plain = PLAIN.get(kind, kind)
            reader = io.BufferedReader(Unpacked(stream, plain), _PIECE)
            if plain != kind:
                yield from _of_tar(reader)
            else:
                yield Member(stem_of(path, kind)), reader
            # Behind the last entry stands the checksum that says whether all of it is right.
            while reader.read(_PIECE):
                pass


def stem_of(path: Path, kind: str) -> str:
    """What the file in a compressed one is called."""
    for suffix in _SUFFIXES[kind]:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def zip_member(info: zipfile.ZipInfo) -> Member:
    """What the header of a zip's entry says."""
    mode = info.external_attr >> 16
    name = info.orig_filename
    if not info.flag_bits & _UTF8:
        name = utf8(name) or name
    return Member(
        name=name,
        size=info.file_size,
        packed=info.compress_size,
        is_folder=name.endswith("/"),
        link_to="unread" if stat.S_ISLNK(mode) else None,
        is_special=stat.S_IFMT(mode) in _SPECIAL,
        mode=mode,
        encrypted=bool(info.flag_bits & 1),
    )


def utf8(name: str) -> str | None:
    """The name in UTF-8 where a zip's header does not say that it is, as many writers leave it."""
    try:
        return None if name.isascii() else name.encode("cp437").decode()
    except UnicodeError:
        return None


def tar_members(stream: Any) -> Iterator[tuple[Member, tarfile.TarInfo, tarfile.TarFile]]:
    """What the headers of a tar say, read as a stream: each with its own and the open archive."""
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
        for info in archive:
            member = Member(
                name=info.name + ("/" if info.isdir() else ""),
                size=info.size if info.isreg() else 0,
                packed=_stored(info),
                is_folder=info.isdir(),
                link_to=info.linkname if info.issym() or info.islnk() else None,
                is_special=info.isdev(),
                mode=info.mode,
            )
            yield member, info, archive
            # The stream reader keeps every header it saw; nothing here may grow with the archive.
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs


def _stored(info: tarfile.TarInfo) -> int | None:
    """What a sparse member takes in the archive: its holes take nothing there."""
    sparse = getattr(info, "sparse", None)
    return None if sparse is None else sum(size for _, size in sparse)


def _of_zip(stream: IO[bytes]) -> Iterator[tuple[Member, IO[bytes] | None]]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            member = zip_member(info)
            if member.is_folder or member.link_to or member.encrypted:
                yield member, None
                continue
            with archive.open(info) as data:
                yield member, data


def _of_tar(stream: Any) -> Iterator[tuple[Member, IO[bytes] | None]]:
    for member, info, archive in tar_members(stream):
        yield member, archive.extractfile(info) if info.isreg() else None
