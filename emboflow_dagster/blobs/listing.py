"""Folders as blobs: a listing of files, each file a payload of its own under its hash.

A listing is JSON Lines: a head with the counts, then one ``{path, sha256, size}`` a file, sorted by
path. The same folder gives the same listing; files it shares with others are stored once.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.model.storage import LISTING_TYPE, StorageRef
from emboflow_dagster.model.text import check_sha256

SCHEMA = "emboflow-listing/1"
Progress = Callable[[int, int], None]
"""Called with files done and bytes done."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder: its path below it, its hash, its size in bytes."""

    path: str
    sha256: str
    size: int


def walk(folder: Path) -> Iterator[Path]:
    """The files below ``folder``, sorted by path, without following links.

    Raises:
        InvalidInputError: Something there is neither file nor folder (a link, a socket, a device).
    """
    with os.scandir(folder) as rows:
        entries = sorted(rows, key=lambda e: e.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        else:
            raise InvalidInputError(
                f"{entry.path}: neither a file nor a folder (a link or a device); only those are stored",
                kind=ErrorKind.FORMAT_UNSUPPORTED,
                hint="replace links by the files they point to",
            )


def write_listing(entries: list[Entry]) -> bytes:
    """The listing's bytes; the same for the same entries."""
    head = {"schema": SCHEMA, "files": len(entries), "bytes": sum(e.size for e in entries)}
    rows = [
        {"path": e.path, "sha256": e.sha256, "size": e.size} for e in sorted(entries, key=lambda e: e.path)
    ]
    return b"".join(
        json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in [head, *rows]
    )


def read_listing(stream: IO[bytes]) -> Iterator[Entry]:
    """The entries of a listing, one at a time.

    Raises:
        IntegrityError: It is no listing this release can read.
    """
    head: dict[str, Any] | None = None
    for number, line in enumerate(stream, start=1):
        try:
            row = json.loads(line)
            if head is None:
                head = row
                if row["schema"] != SCHEMA:
                    raise IntegrityError(f"a listing of schema {row['schema']!r}; known is {SCHEMA}")
                continue
            entry = Entry(str(row["path"]), check_sha256(row["sha256"]), int(row["size"]))
        except (ValueError, KeyError, TypeError) as error:
            text = f"line {number} of the listing is none: {type(error).__name__}"
            raise IntegrityError(text, kind=ErrorKind.FILE_CORRUPT) from None
        yield entry
    if head is None:
        raise IntegrityError("the listing is empty", kind=ErrorKind.FILE_CORRUPT)


def put_folder(blobs: Blobs, folder: Path, *, progress: Progress | None = None) -> list[Entry]:
    """Store every file of a folder; returns their entries."""
    entries: list[Entry] = []
    done = 0
    for path in walk(folder):
        ref = blobs.put_payload(path, content_type="application/octet-stream")
        entries.append(Entry(path.relative_to(folder).as_posix(), ref.sha256, ref.size))
        done += ref.size
        if progress:
            progress(len(entries), done)
    return entries


def payload_ref(ref: StorageRef, sha256: str, size: int) -> StorageRef:
    """The reference of a file that a listing or manifest at ``ref`` names, in the store that holds it."""
    key = f"sha256/{sha256[:2]}/{sha256[2:]}"
    return StorageRef(
        bucket=ref.bucket,
        key=key,
        uri=ref.uri[: -len(ref.key)] + key,
        checksum=f"sha256:{sha256}",
        content_type="application/octet-stream",
        size=size,
    )


def is_listing(ref: StorageRef) -> bool:
    """Whether a reference names a folder."""
    return ref.content_type == LISTING_TYPE


def restore(blobs: Blobs, ref: StorageRef, target: Path) -> Path:
    """Bring a stored folder back as files below ``target``, each verified."""
    with blobs.open_ref(ref) as stream:
        for entry in read_listing(stream):
            place = target / entry.path
            if not place.resolve().is_relative_to(target.resolve()):
                raise IntegrityError(f"the listing names {entry.path!r}, outside of its folder")
            blobs.fetch_ref(payload_ref(ref, entry.sha256, entry.size), place)
    target.mkdir(parents=True, exist_ok=True)
    return target
