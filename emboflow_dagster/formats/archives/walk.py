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

_SUFFIXES: Final = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}
_PACKED: Final = {"tar.gz": "gzip", "tar.bz2": "bzip2", "tar.xz": "xz"}
_SPECIAL: Final = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_PIECE: Final = 1 << 20


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
            plain = _PACKED.get(kind, kind)
            reader = io.BufferedReader(Unpacked(stream, plain), _PIECE)
            if plain != kind:
                yield from _of_tar(reader)
            else:
                yield Member(path.name.removesuffix(_SUFFIXES[kind])), reader
            # Behind the last entry stands the checksum that says whether all of it is right.
            while reader.read(_PIECE):
                pass


def zip_member(info: zipfile.ZipInfo) -> Member:
    """What the header of a zip's entry says."""
    mode = info.external_attr >> 16
    return Member(
        name=info.orig_filename,
        size=info.file_size,
        packed=info.compress_size,
        is_folder=info.orig_filename.endswith("/"),
        link_to="unread" if stat.S_ISLNK(mode) else None,
        is_special=stat.S_IFMT(mode) in _SPECIAL,
        mode=mode,
        encrypted=bool(info.flag_bits & 1),
    )


def tar_members(stream: Any) -> Iterator[tuple[Member, tarfile.TarInfo, tarfile.TarFile]]:
    """What the headers of a tar say, read as a stream: each with its own and the open archive."""
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
        for info in archive:
            member = Member(
                name=info.name + ("/" if info.isdir() else ""),
                size=info.size if info.isreg() else 0,
                is_folder=info.isdir(),
                link_to=info.linkname if info.issym() or info.islnk() else None,
                is_special=info.isdev(),
                mode=info.mode,
            )
            yield member, info, archive
            # The stream reader keeps every header it saw; nothing here may grow with the archive.
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs


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
