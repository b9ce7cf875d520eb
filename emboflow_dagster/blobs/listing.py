"""Folders as blobs: a listing of files, each file a payload of its own under its hash."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from emboflow_dagster.blobs.entries import Entry, is_listing, payload_ref, read_listing, write_listing
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.model.storage import StorageRef

__all__ = [
    "Entry",
    "is_listing",
    "payload_ref",
    "put_folder",
    "read_listing",
    "restore",
    "walk",
    "write_listing",
]
Progress = Callable[[int, int], None]
"""Called with files done and bytes done."""


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
