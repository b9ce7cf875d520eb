"""The objects of a prefix as files, for as long as a task runs: bounded, streamed, each one verified.

Nodes see them as they see a folder that was registered: the same names, the same readers.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import ErrorKind, InvalidInputError, LimitError, UnavailableError, shown
from emboflow_dagster.formats.archives.members import Member, faults
from emboflow_dagster.formats.detect import MAX_ENTRIES
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.object_storage.prefix import Listed, Prefix
from emboflow_dagster.project.prefixes import Make, listed
from emboflow_dagster.project.settings import DEFAULT_PREFIX_MAX_BYTES
from emboflow_dagster.runtime.scratch import scratch_folder

#: What stays free on the disk.
RESERVE_BYTES: Final = 1 << 30
AT_ONCE: Final = 8
_TELL_BYTES: Final = 1 << 30
_TELL_OBJECTS: Final = 1_000
#: An archive among the objects, and a mode that objects have not: nothing about where a file is written.
_HARMLESS: Final = frozenset({"archive_nested", "archive_mode"})
Say = Callable[[str], None]


@contextmanager
def prefix_view(
    blobs: Blobs,
    asset: Asset,
    scratch: Path,
    *,
    make: Make = Prefix,
    max_bytes: int = DEFAULT_PREFIX_MAX_BYTES,
    say: Say = lambda _text: None,
) -> Iterator[Path]:
    """What a prefix held when it was registered, as a path for the time of the block.

    See :func:`bring_prefix`; nothing is left behind, whatever happens.
    """
    with scratch_folder(scratch) as folder:
        yield bring_prefix(blobs, asset, folder, make=make, max_bytes=max_bytes, say=say)


def bring_prefix(blobs: Blobs, asset: Asset, folder: Path, *, make: Make, max_bytes: int, say: Say) -> Path:
    """Write every listed object below ``folder``; memory holds some rows of the listing.

    Args:
        blobs: Has the listing.
        asset: The prefix.
        folder: An existing empty folder; what is in it after a failure is the caller's to remove.
        make: Opens the prefix.
        max_bytes: More than that in all is refused before anything is read.
        say: Takes a text now and then: how much has come.

    Returns:
        The folder of the objects, or the file where the prefix is the name of a single object.

    Raises:
        LimitError: Too many bytes or objects.
        InvalidInputError: A name cannot be a file here.
        IntegrityError: An object changed or is gone (``object-changed``, ``payload-missing``).
        UnavailableError: The object store does not answer, or the disk has no room (``disk-full``).
    """
    name = asset.display_name
    if asset.file_count > MAX_ENTRIES or asset.size_bytes > max_bytes:
        raise LimitError(
            f"asset {name}: {asset.file_count} objects with {asset.size_bytes} bytes; "
            f"at most {MAX_ENTRIES} with {max_bytes} bytes are brought here",
            kind=ErrorKind.LIMIT_SIZE,
            hint="register a part of the prefix, or set EMBOFLOW_PREFIX_MAX_BYTES",
        )
    free = shutil.disk_usage(folder).free - RESERVE_BYTES
    if asset.size_bytes > free:
        raise UnavailableError(
            f"asset {name}: {asset.size_bytes} bytes are to be brought, {max(0, free)} are free in {folder}",
            kind=ErrorKind.DISK_FULL,
            hint="make room, or register a part of the prefix",
        )
    prefix = make(str((asset.summary or {}).get("sourcePath")))
    first = list(itertools.islice(listed(blobs, asset), 2))
    if len(first) == 1 and prefix.is_single(first[0].path):
        target = _place(first[0], folder, name)
        prefix.bring(first[0], target)
        return target
    root = folder / (prefix.prefix.rstrip("/").rpartition("/")[2] or prefix.bucket)
    root.mkdir()
    _all(listed(blobs, asset), root, prefix, asset, say)
    return root


def _all(rows: Iterator[Listed], root: Path, prefix: Prefix, asset: Asset, say: Say) -> None:
    """Some objects at a time; the first failure ends it, and those that are on the way with it."""
    objects = size = told_objects = told_bytes = 0
    running: dict[Future[None], int] = {}
    # The client is made before the threads are: it is one for all of them.
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="prefix-get")
    try:
        while True:
            for found in itertools.islice(rows, AT_ONCE - len(running)):
                running[pool.submit(prefix.bring, found, _place(found, root, asset.display_name))] = (
                    found.size
                )
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                size += running.pop(done)
                objects += 1
                done.result()
            if objects - told_objects >= _TELL_OBJECTS or size - told_bytes >= _TELL_BYTES:
                told_objects, told_bytes = objects, size
                say(
                    f"{asset.display_name}: {objects} of {asset.file_count} objects, "
                    f"{size} of {asset.size_bytes} bytes"
                )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _place(found: Listed, root: Path, name: str) -> Path:
    """Where an object is written; the empty file is made, and its folders.

    Keys are any text: those that would lead out of the folder, or that no file system takes, are refused.
    """
    wrong = [text for code, text in faults(Member(found.path)) if code not in _HARMLESS]
    parts = found.path.split("/")
    if wrong or not all(parts) or "." in parts:
        why = wrong[0] if wrong else "a part of the name is empty or a dot"
        raise InvalidInputError(
            f"asset {name}: object {shown(found.path)} cannot be a file: {why}",
            kind=ErrorKind.PATH_TRAVERSAL,
            hint="register a part of the prefix without it",
        )
    place = root.joinpath(*parts)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(exist_ok=False)  # now, not when its bytes come: whoever comes next sees it
    except (FileExistsError, NotADirectoryError):
        raise InvalidInputError(
            f"asset {name}: object {shown(found.path)} is a file and a folder at once",
            kind=ErrorKind.PATH_SEGMENT,
            hint="register a part of the prefix without it",
        ) from None
    return place
