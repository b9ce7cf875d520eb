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


def walk(folder: Path, *, links_into: Path | None = None) -> Iterator[Path]:
    """The files below ``folder``, sorted by path, without following links.

    Args:
        folder: Where to begin.
        links_into: Links to files that stand directly in this folder count as files (:func:`hub_blobs`).

    Raises:
        InvalidInputError: Something there is neither file nor folder (a link, a socket, a device).
    """
    with os.scandir(folder) as rows:
        entries = sorted(rows, key=lambda e: e.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path), links_into=links_into)
        elif entry.is_file(follow_symlinks=False) or _leads_into(Path(entry.path), links_into):
            yield Path(entry.path)
        else:
            raise InvalidInputError(
                f"{entry.path}: neither a file nor a folder (a link or a device); only those are stored",
                kind=ErrorKind.FORMAT_UNSUPPORTED,
                hint=_hint(Path(entry.path)),
            )


def hub_blobs(folder: Path) -> Path | None:
    """The folder that the links of a snapshot in a Hugging Face cache lead to, ``None`` for other folders.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache: ``snapshots/<revision>/<path>``
    is a link to ``../../blobs/<hash>``.
    """
    place = folder.absolute()
    blobs = place.parent.parent / "blobs"
    return blobs if place.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink() else None


def _leads_into(link: Path, folder: Path | None) -> bool:
    # One step only, and to a plain file: a link to a link could lead anywhere.
    if folder is None or not link.is_symlink():
        return False
    target = Path(os.path.normpath(link.parent / link.readlink()))
    return target.parent == folder and target.is_file() and not target.is_symlink()


def _hint(path: Path) -> str:
    if path.is_symlink() and "snapshots" in path.parts:
        return "register the folder of one revision, snapshots/<revision>: its links are followed"
    return "replace links by the files they point to"


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
