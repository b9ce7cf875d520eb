"""Which format an input is: the signature table, and how a format module is found.

A format is one module of this package with a top-level object ``FORMAT`` (a :class:`Format`). The modules
are found by listing the package, not by a table: adding a format touches one file, and two people who add one
each never edit the same line. Modules must therefore be cheap to import; libraries load inside functions.

``matches`` is cheap (first bytes, names, sizes) and says how sure it is; ``probe`` reads. The best match
alone is asked to ``probe``; the others stay in the report as candidates. Confidence by convention: 0.95 and
above the content's signature or a marker file such as ``metadata.yaml``, from 0.6 the content of a folder's
files, 0.3 and below a name only.

Empty files and Git LFS pointers are nobody's format: :mod:`emboflow_dagster.formats.probe` reports both, for
single files and for every file of a folder, before any format is asked.
"""

import os
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

from emboflow_dagster.formats.recording import Part
from emboflow_dagster.formats.report import Candidate, Probe

HEAD_BYTES = 4_096
MAX_ENTRIES = 200_000
MAX_DEPTH = 32

KEPT_HEADS = 4_096
"""Heads of a folder's files that are kept at a time: 16 MiB."""

NAME_ONLY = 0.5
"""A candidate up to here has only its name for it and is not read."""

_FORMAT = b"\nFORMAT = "

LFS_PREFIX = b"version https://git-lfs.github.com/spec/v1"
LFS_MAX_BYTES = 1_024

SIGNATURES: tuple[tuple[str, int, bytes], ...] = (
    # format, offset, bytes; the first that fits wins. libmagic calls an MCAP a dBase file, and the usual
    # Python libraries know none of MCAP, ROS bags, HDF5, parquet and TFRecord, so the table is our own.
    ("rosbag1", 0, b"#ROSBAG V"),
    ("mcap", 0, b"\x89MCAP0\r\n"),
    ("sqlite3", 0, b"SQLite format 3\x00"),
    ("hdf5", 0, b"\x89HDF\r\n\x1a\n"),
    ("zip", 0, b"PK\x03\x04"),
    ("zip", 0, b"PK\x05\x06"),
    ("zip", 0, b"PK\x07\x08PK\x03\x04"),
    ("gzip", 0, b"\x1f\x8b"),
    ("bzip2", 0, b"BZh"),
    ("xz", 0, b"\xfd7zXZ\x00"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd"),
    ("lz4", 0, b"\x04\x22\x4d\x18"),
    ("rar", 0, b"Rar!\x1a\x07"),
    ("7z", 0, b"7z\xbc\xaf\x27\x1c"),
    ("tar", 257, b"ustar"),
    ("parquet", 0, b"PAR1"),
    ("npy", 0, b"\x93NUMPY"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("mp4", 4, b"ftyp"),
    ("matroska", 0, b"\x1a\x45\xdf\xa3"),
    ("avi", 8, b"AVI "),
    ("webp", 8, b"WEBP"),
    ("gif", 0, b"GIF8"),
    ("tiff", 0, b"II*\x00"),
    ("tiff", 0, b"MM\x00*"),
    ("tiff", 0, b"II+\x00"),
    ("exr", 0, b"v/1\x01"),
)


def signature(head: bytes) -> str | None:
    """The name of the container whose first bytes ``head`` has (see :data:`SIGNATURES`), or ``None``."""
    for name, offset, magic in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a Git LFS pointer: text that stands for bytes not fetched.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    return head.startswith(LFS_PREFIX)


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file below a folder: its relative path with ``/``, and its size in bytes."""

    path: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last suffix in lower case with its dot, ``""`` without one."""
        stem, dot, suffix = self.name.rpartition(".")
        return f".{suffix.lower()}" if dot and stem else ""


@dataclass(frozen=True, slots=True)
class Source:
    """What is probed: one file, or a folder with a bounded listing.

    Attributes:
        path: The file or folder.
        is_folder: Whether it is a folder.
        head: The first 4096 bytes of a file, empty for a folder.
        size: Bytes of the file, or of all listed files.
        entries: The regular files below a folder, sorted by path; empty for a file. Symbolic links are left
            out: they may lead anywhere.
        complete: False where the folder has more files than were listed.
        asset_type: What the asset was registered as, where known.
    """

    path: Path
    is_folder: bool
    head: bytes
    size: int
    entries: tuple[Entry, ...] = ()
    complete: bool = True
    asset_type: str | None = None
    _heads: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def with_suffix(self, *suffixes: str) -> tuple[Entry, ...]:
        """The folder's files whose name ends so (lower case, with dot)."""
        return tuple(entry for entry in self.entries if entry.suffix in suffixes)

    def named(self, *names: str) -> tuple[Entry, ...]:
        """The folder's files with one of these names, shallowest first."""
        found = (entry for entry in self.entries if entry.name in names)
        return tuple(sorted(found, key=lambda entry: (entry.path.count("/"), entry.path)))

    def file(self, entry: Entry) -> Path:
        """Where an entry is on disk."""
        return self.path / entry.path

    def head_of(self, entry: Entry) -> bytes:
        """The first 4096 bytes of an entry, empty where it cannot be read."""
        head = self._heads.get(entry.path)
        if head is None:
            try:
                head = read_head(self.file(entry))
            except OSError:
                head = b""
            if len(self._heads) >= KEPT_HEADS:
                self._heads.clear()
            self._heads[entry.path] = head
        return head

    def lfs_pointers(self) -> Iterator[str]:
        """The relative paths of files that are Git LFS pointers."""
        root = str(self.path)
        for entry in self.entries:
            if len(LFS_PREFIX) <= entry.size <= LFS_MAX_BYTES and _starts_as_pointer(f"{root}/{entry.path}"):
                yield entry.path


@dataclass(frozen=True, slots=True)
class Format:
    """A format module's entry: what it can name, how it recognises an input, how it looks into it.

    Attributes:
        names: The format names this module gives.
        matches: A cheap look; ``None`` where the input is something else.
        probe: Fills ``structure``, ``warnings`` and ``raw``, and may ``suggest`` a more exact candidate (such
            as ``hdf5_aloha`` for ``hdf5``). It may raise anything: the caller reports it as a warning.
        parts: For recordings of messages: the files to read, with their readers.
        described: Of such a folder: the name of each file that a description lists to where that stands.
    """

    names: tuple[str, ...]
    matches: Callable[[Source], Candidate | None]
    probe: Callable[[Source, Probe], None]
    parts: Callable[[Source], list[Part]] | None = None
    described: Callable[[Source], dict[str, str]] | None = None


def _may_be_format(module: str) -> bool:
    """Whether its text has the name: importing all others would take longer than most probes."""
    try:
        return _FORMAT in Path(__file__).with_name(f"{module}.py").read_bytes()
    except OSError:  # compiled without its text, or a package
        return True


@cache
def formats() -> tuple[Format, ...]:
    """Every format module's ``FORMAT``, in the order of the module names."""
    package = import_module("emboflow_dagster.formats")
    found: list[Format] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        if not _may_be_format(module):
            continue
        entry = getattr(import_module(f"emboflow_dagster.formats.{module}"), "FORMAT", None)
        if isinstance(entry, Format):
            found.append(entry)
    return tuple(found)


Recorded = Path | tuple[Part, ...]
"""A recording: its file or folder, or some files of a folder with their readers."""


def recording_parts(recorded: Recorded) -> Sequence[Part]:
    """The files of a recording (bag, bag folder, MCAP) with their readers, in split order; else nothing.

    Raises:
        OSError: The path cannot be read.
    """
    return recording(recorded)[1] if isinstance(recorded, Path) else recorded


def recording(path: Path) -> tuple[str, list[Part]]:
    """The format of a recording, and its parts as :func:`recording_parts` gives them.

    Returns:
        ``unknown`` and no parts where it is no recording of messages.

    Raises:
        OSError: The path cannot be read.
    """
    name, parts, _ = _recording(open_source(path))
    return name, parts


def recording_of(path: Path) -> tuple[list[Part], dict[str, str]]:
    """The parts of a recording, and which of them are described where (:attr:`Format.described`).

    Raises:
        OSError: The path cannot be read.
    """
    source = open_source(path)
    _, parts, found = _recording(source)
    several = len(parts) > 1  # of a single file nobody asks
    return parts, found.described(source) if several and found is not None and found.described else {}


def _recording(source: Source) -> tuple[str, list[Part], Format | None]:
    best: tuple[Candidate, Format] | None = None
    for entry in formats():
        candidate = entry.matches(source) if entry.parts else None
        if candidate and candidate.confidence > (best[0].confidence if best else NAME_ONLY):
            best = (candidate, entry)
    if best is None or best[1].parts is None:
        return "unknown", [], None
    return best[0].format, best[1].parts(source), best[1]


def _starts_as_pointer(path: str) -> bool:
    # Plain calls: a folder may have a hundred thousand small files.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(LFS_PREFIX)) == LFS_PREFIX
    except OSError:
        return False
    finally:
        os.close(descriptor)


def read_head(path: Path) -> bytes:
    """The first 4096 bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def open_source(path: Path, asset_type: str | None = None) -> Source:
    """Look at ``path`` from outside: its head, or its listing.

    Raises:
        OSError: The path does not exist or may not be read.
    """
    if not path.is_dir():
        return Source(path, False, read_head(path), path.stat().st_size, asset_type=asset_type)
    entries, complete = _walk(path)
    size = sum(entry.size for entry in entries)
    return Source(path, True, b"", size, tuple(entries), complete, asset_type)


def _walk(root: Path) -> tuple[list[Entry], bool]:
    entries: list[Entry] = []
    complete = True
    pending = [(root, "", 0)]
    while pending:
        folder, prefix, depth = pending.pop()
        try:
            children = list(os.scandir(folder))
        except OSError:
            complete = False
            continue
        for child in children:
            if child.is_dir(follow_symlinks=False):
                if depth < MAX_DEPTH:
                    pending.append((folder / child.name, f"{prefix}{child.name}/", depth + 1))
                else:
                    complete = False
            elif child.is_file(follow_symlinks=False):
                if len(entries) >= MAX_ENTRIES:
                    return sorted(entries, key=lambda entry: entry.path), False
                entries.append(Entry(prefix + child.name, child.stat(follow_symlinks=False).st_size))
    return sorted(entries, key=lambda entry: entry.path), complete
