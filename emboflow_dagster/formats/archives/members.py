"""What is wrong with the members of an archive, judged from names and headers before anything is extracted.

``zipfile`` silently renames ``../evil`` and writes symbolic links as plain files; ``tarfile`` strips a
leading ``/``. So names are judged here, as they stand in the archive, and neither library's extraction is
ever called.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

ENCRYPTED = "encrypted: passwords are not asked for; unpack it with yours and register what comes out"
MAX_NAME_CHARS = 1_024
MAX_SEGMENT_BYTES = 255
#: An honest compressed log is 40:1; text of zeros is 1000:1.
MAX_RATIO = 200
#: Below this many bytes no ratio is a danger.
RATIO_FROM_BYTES = 1024 * 1024

_ENCODED = re.compile(r"%(2e|2f|5c|00)", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVE_NAME = re.compile(r"\.(zip|tar|tgz|tar\.\w+|gz|bz2|xz|7z|rar|zst)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive as its header says; sizes in bytes, ``None`` where the header has none."""

    name: str
    size: int = 0
    packed: int | None = None
    is_folder: bool = False
    link_to: str | None = None
    is_special: bool = False
    mode: int = 0
    encrypted: bool = False


@dataclass(slots=True)
class Listing:
    """Everything known about the members; `problems` holds (code, message, member name)."""

    members: int = 0
    size: int = 0
    names: list[str] = field(default_factory=list)
    extensions: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[str, str, str | None]] = field(default_factory=list)
    complete: bool = True
    _seen: set[str] = field(default_factory=set, repr=False)
    _files: set[str] = field(default_factory=set, repr=False)

    def incomplete(self, code: str, message: str, member: str | None = None) -> None:
        """Say first why it does not go to the end."""
        self.complete = False
        self.problems.insert(0, (code, message, member))

    def add(self, member: Member, *, max_names: int, max_problems: int) -> None:
        """Count one entry and judge it."""
        if len(self.names) < max_names:
            self.names.append(member.name)
        if not member.is_folder:
            self.members += 1
            self.size += max(0, member.size)
            ext = extension(member.name)
            if ext in self.extensions or len(self.extensions) < max_names:
                self.extensions[ext] = self.extensions.get(ext, 0) + 1
        for code, message in (*faults(member), *self._clashes(member)):
            if len(self.problems) < max_problems:
                self.problems.append((code, message, member.name))

    def _clashes(self, member: Member) -> Iterator[tuple[str, str]]:
        """Two entries for one place on disk; on some disks upper and lower case are one."""
        key = unicodedata.normalize("NFKC", member.name.rstrip("/")).casefold()
        if key in self._seen and not member.is_folder:
            yield "archive_duplicate", "a second entry with this name (upper and lower case taken as one)"
        parent = key.rpartition("/")[0]
        while parent:
            if parent in self._files:
                yield "archive_duplicate", "lies below an entry that is a file"
                break
            parent = parent.rpartition("/")[0]
        self._seen.add(key)
        if not member.is_folder:
            self._files.add(key)


def extension(name: str) -> str:
    """The last suffix in lower case without its dot; a name without a dot counts under itself.

    >>> extension("a/Demo.HDF5"), extension("LICENSE")
    ('hdf5', 'license')
    """
    return name.rpartition("/")[2].rpartition(".")[2].lower()[:40]


def faults(member: Member) -> Iterator[tuple[str, str]]:
    """What makes one entry dangerous or unusable, as (warning code, message)."""
    name = member.name
    plain = name.replace("\\", "/")
    if ".." in plain.split("/"):
        yield "archive_path_traversal", "the name leads out of the folder it is unpacked into"
    if plain.startswith("/") or _DRIVE.match(name):
        yield "archive_path_absolute", "the name is absolute"
    if "\\" in name:
        yield "archive_path_backslash", "the name has a backslash: a separator on some systems only"
    if _ENCODED.search(name):
        yield "archive_path_encoded", "the name has percent-encoded separators or dots"
    kinds = {unicodedata.category(char) for char in name}
    if kinds & {"Cc", "Cf"}:
        yield "archive_path_control", "the name has control or direction-changing characters"
    if "Cs" in kinds:
        yield (
            "archive_path_encoding",
            "the name is not UTF-8: pack it anew where it was made, with UTF-8 names",
        )
    segments = name.split("/")
    if len(name) > MAX_NAME_CHARS or any(
        len(s.encode(errors="replace")) > MAX_SEGMENT_BYTES for s in segments
    ):
        yield "archive_path_too_long", f"a part of the name is longer than {MAX_SEGMENT_BYTES} bytes"
    if member.link_to is not None:
        yield "archive_link", f"a link to {member.link_to[:200]!a}"
    if member.is_special:
        yield "archive_special", "a device, pipe or socket"
    if member.mode & 0o7000 and not member.is_folder:
        yield "archive_mode", f"set-user or sticky bits {oct(member.mode & 0o7777)}"
    if member.encrypted:
        yield "archive_encrypted", ENCRYPTED
    if not member.is_folder and _ARCHIVE_NAME.search(name):
        yield "archive_nested", "an archive inside the archive; archives in that one are not looked into"
    if member.packed is not None and is_bomb(member.size, member.packed):
        yield "archive_bomb", f"{member.size} bytes from {member.packed}: more than {MAX_RATIO}:1"


def is_bomb(size: int, packed: int) -> bool:
    """Whether `size` bytes out of `packed` are more than honest data gives."""
    return size > RATIO_FROM_BYTES and size > MAX_RATIO * max(1, packed)
