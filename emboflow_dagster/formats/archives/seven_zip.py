"""The members of a 7z archive, through py7zr: its headers, and its decoders one block at a time.

py7zr's own extraction makes the files itself; here the names are judged first, as those of every archive,
and a dictionary larger than a bound is refused before it is allocated.
"""

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind, LimitError
from emboflow_dagster.formats.archives.members import ENCRYPTED, Member

if TYPE_CHECKING:
    from py7zr import SevenZipFile

PIECE: Final = 1 << 20
_BEGIN: Final = 32
#: What a decoder may hold: 7-Zip's strongest setting is 64 MiB, its largest one is refused.
MAX_DICTIONARY: Final = 512 << 20
_LZMA, _LZMA2, _PPMD, _AES = b"\x03\x01\x01", b"\x21", b"\x03\x04\x01", b"\x06\xf1\x07\x01"
_SPECIAL: Final = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


class EncryptedError(ValueError):
    """The list of the members itself is encrypted."""


def announced_size(stream: IO[bytes]) -> int:
    """How large a whole archive is that begins so: its table of contents stands at its end."""
    head = stream.read(_BEGIN)
    stream.seek(0)
    if len(head) < _BEGIN:
        return _BEGIN
    offset, size = struct.unpack_from("<QQ", head, 12)
    return _BEGIN + offset + size


def open_7z(stream: IO[bytes]) -> "SevenZipFile":
    """The archive, its header read.

    Raises:
        EncryptedError: The header is encrypted.
        ValueError: It is damaged.
        ConfigurationError: py7zr is not installed (kind `extra-missing`).
    """
    try:
        import py7zr
        from py7zr.exceptions import PasswordRequired
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "7z archives are read by py7zr, which is not installed",
            kind=ErrorKind.EXTRA_MISSING,
            hint="pip install 'emboflow-dagster[archive]'",
        ) from error
    try:
        with _told():
            return py7zr.SevenZipFile(stream, "r")
    except PasswordRequired:
        raise EncryptedError(f"the list of its members is {ENCRYPTED}") from None


@contextmanager
def _told() -> Iterator[None]:
    """What py7zr and its decoders raise at damaged bytes, as one kind of error."""
    import lzma

    from py7zr.exceptions import ArchiveError, UnsupportedCompressionMethodError

    damage = (ArchiveError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)
    try:
        yield
    except UnsupportedCompressionMethodError as error:
        raise ValueError(f"packed in a way that is not read here: {error.message}") from None
    except (*damage, lzma.LZMAError, zlib.error, struct.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def headers(archive: "SevenZipFile") -> Iterator[tuple[Member, Any]]:
    """What the header says of each member, and py7zr's own object of it."""
    files = getattr(archive, "files", ())
    for file in files:
        mode = (file.st_fmt or 0) | (file.posix_mode or 0)
        folder = file.is_directory or stat.S_ISDIR(mode)
        name = str(file.filename)
        yield (
            Member(
                name=f"{name}/" if folder and not name.endswith("/") else name,
                size=file.uncompressed if not folder else 0,
                # Members share one stream: only of the first the header knows how much of it there is.
                packed=None,
                is_folder=folder,
                link_to="unread" if file.is_symlink or file.is_junction else None,
                is_special=stat.S_IFMT(mode) in _SPECIAL or file.is_socket,
                mode=mode,
                encrypted=_encrypted(file),
            ),
            file,
        )


def members_7z(stream: IO[bytes]) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """Every member with its bytes, to be read before the next one is asked for; the rest is passed over.

    Raises:
        LimitError: A decoder would need more memory than it may have (kind `limit-memory`).
        ValueError, EOFError, RuntimeError: It is damaged, or of a method that py7zr has not.
    """
    with open_7z(stream) as archive:
        main = getattr(archive.header, "main_streams", None)
        starts: dict[int, tuple[int, int]] = {}
        if main is not None:
            place = 0
            for folder in main.unpackinfo.folders:
                count = len(folder.packed_indices)
                sizes = main.packinfo.packsizes[place : place + count]
                first = archive.afterheader + sum(main.packinfo.packsizes[:place])
                starts[id(folder)] = (first, sum(sizes))
                place += count
        current: _Folder | None = None
        for member, file in headers(archive):
            if member.is_folder or member.encrypted or file.emptystream:
                empty = not (member.is_folder or member.encrypted or member.link_to)
                yield member, io.BytesIO() if empty else None
                continue
            if current is None or current.folder is not file.folder:
                current = _Folder(stream, file.folder, *starts[id(file.folder)])
            data = _Stream(current, member.size, file.crc32)
            yield member, None if member.link_to else io.BufferedReader(data, PIECE)
            data.drain()


class _Folder:
    """One compressed stream of the archive, from its beginning; a block of it is in memory at a time."""

    def __init__(self, stream: IO[bytes], folder: Any, start: int, packed: int) -> None:
        for coder in folder.coders:
            if coder["method"] == _PPMD:  # pyppmd 1.3 gives wrong bytes and crashes now and then
                raise ValueError("packed with PPMd, which is not read here; pack it with LZMA2")
            need = _memory_of(coder)
            if need > MAX_DICTIONARY:
                raise LimitError(
                    f"a decoder would need {need >> 20} MiB; at most {MAX_DICTIONARY >> 20} are given",
                    kind=ErrorKind.LIMIT_MEMORY,
                )
        self.folder = folder
        self._stream = stream
        self._at = start
        with _told():
            self._decoder = folder.get_decompressor(packed, reset=True)

    def read(self, most: int) -> bytes:
        """Some of what comes next; nothing only where it does not go on."""
        while True:
            self._stream.seek(self._at)
            with _told():
                data = self._decoder.decompress(self._stream, most)
            moved = self._stream.tell() != self._at
            self._at = self._stream.tell()
            if data or not moved:  # a filter may hold back what it was given
                return bytes(data)


class _Stream(io.RawIOBase):
    """One member: so many bytes of a folder, held against its checksum."""

    def __init__(self, folder: _Folder, size: int, crc: int | None) -> None:
        self._folder = folder
        self._left = size
        self._expected = crc
        self._crc = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill from the folder."""
        if not self._left:
            return 0
        data = self._folder.read(min(len(buffer), self._left, PIECE))
        if not data:
            raise EOFError("the compressed stream ends too early")
        buffer[: len(data)] = data
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if not self._left and self._expected is not None and self._crc != self._expected:
            raise ValueError("a member does not match its checksum")
        return len(data)

    def drain(self) -> None:
        """Pass over what was not read: the next member stands behind it."""
        while self.read(PIECE):
            pass


def _encrypted(file: Any) -> bool:
    return file.folder is not None and any(coder["method"] == _AES for coder in file.folder.coders)


def _memory_of(coder: dict[str, Any]) -> int:
    """What one decoder keeps, by its properties: the dictionary of LZMA, the model of PPMd."""
    method, said = coder["method"], coder.get("properties") or b""
    if method in (_LZMA, _PPMD) and len(said) >= 5:  # noqa: PLR2004 - one byte, then the size
        return int.from_bytes(said[1:5], "little")
    if method == _LZMA2 and said:
        return (1 << 32) - 1 if said[0] >= 40 else (2 | said[0] & 1) << (said[0] // 2 + 11)  # noqa: PLR2004
    return 0
