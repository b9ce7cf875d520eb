"""The bytes of an asset: taken in once, and given back as a verified path."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from emboflow_dagster.blobs.listing import (
    Entry,
    hub_blobs,
    is_listing,
    payload_ref,
    read_listing,
    walk,
    write_listing,
)
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import (
    EmboflowError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    shown,
)
from emboflow_dagster.model.asset import MAX_TOP_LEVEL_PATHS, Asset
from emboflow_dagster.model.storage import LISTING_TYPE, PATH_BUCKET, StorageRef
from emboflow_dagster.runtime.scratch import scratch_folder

Progress = Callable[[int, int], None]
CHUNK = 1 << 20
#: Bytes of a path that stays where it is: as many as a storage reference keeps.
MAX_KEY = 1_024
_BYTES = "application/octet-stream"
_URL_HINT = (
    "files and folders of this machine can be registered, URLs cannot, "
    "but for s3://bucket/prefix with the type object_storage_prefix"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
_TYPES = {
    ".mcap": "application/vnd.mcap",
    ".bag": "application/vnd.rosbag",
    ".hdf5": "application/x-hdf5",
    ".h5": "application/x-hdf5",
    ".zip": "application/zip",
    ".gz": "application/gzip",
    ".tar": "application/x-tar",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".csv": "text/csv",
    ".json": "application/json",
    ".db3": "application/vnd.sqlite3",
    ".parquet": "application/vnd.apache.parquet",
}


@dataclass(slots=True)
class Taken:
    """What registering found and stored: ``ref`` is the file, or the listing of the folder's files.

    Only bytes so far: the blob is recorded with the asset that owns it.
    """

    ref: StorageRef
    size: int
    files: int
    top_level: list[str] = field(default_factory=list)


def take(blobs: Blobs, path: Path, *, in_place: bool, progress: Progress | None = None) -> Taken:
    """Read a file or folder once: hash it, and store it unless it stays in place.

    Raises:
        NotFoundError: There is nothing at ``path``.
        InvalidInputError: It is neither a file nor a folder, holds links or devices, cannot be read, or
            a name in it is no text.
    """
    with _naming_failures(path):
        return _take(blobs, path, in_place=in_place, progress=progress)


def _take(blobs: Blobs, path: Path, *, in_place: bool, progress: Progress | None) -> Taken:
    if not path.exists():
        url = any(_SCHEME.fullmatch(part) for part in path.parts)
        raise NotFoundError(
            f"{path}: there is no such file or folder",
            hint=_URL_HINT if url else None,
        )
    _refuse_unspeakable(path)
    if path.is_file():
        kind = _TYPES.get(path.suffix.lower(), _BYTES)
        ref = _in_place(path, kind, progress) if in_place else _put(blobs, path, kind, progress)
        return Taken(ref, ref.size, 1, [path.name])
    if not path.is_dir():
        raise InvalidInputError(f"{path}: neither a file nor a folder", kind=ErrorKind.FORMAT_UNSUPPORTED)
    blobs_of_hub = hub_blobs(path)
    # Before anything is read: what is refused in the end was read for nothing.
    for file in walk(path, links_into=blobs_of_hub):
        _refuse_unspeakable(file)
    entries: list[Entry] = []
    done = 0
    for file in walk(path, links_into=blobs_of_hub):
        ref = _in_place(file, _BYTES, None) if in_place else _put(blobs, file, _BYTES, None)
        entries.append(Entry(file.relative_to(path).as_posix(), ref.sha256, ref.size))
        done += ref.size
        if progress:
            progress(len(entries), done)
    top = sorted({entry.path.split("/", 1)[0] for entry in entries})[:MAX_TOP_LEVEL_PATHS]
    ref = blobs.put_payload(write_listing(entries), content_type=LISTING_TYPE)
    return Taken(ref, done, len(entries), [name[:512] for name in top])


@contextmanager
def view(blobs: Blobs, asset: Asset, scratch: Path) -> Iterator[Path]:
    """The asset as a read-only path, every byte checked against what was registered.

    A file keeps its name; a folder is laid out again below ``scratch``. Files of a local store are linked,
    not copied; so are those of a folder registered in place, where its file system allows it, and else
    the folder itself is given as long as it holds what was registered and nothing else.

    Raises:
        IntegrityError: A byte is missing or differs.
    """
    source = str((asset.summary or {}).get("sourcePath", ""))
    name = Path(source).name or asset.display_name.replace("/", "_")
    ref = asset.storage_ref
    with scratch_folder(scratch) as folder:
        target = folder / name
        if is_listing(ref) and asset.source_type == "registered_path":
            target = _checked_folder(blobs, asset, Path(source), target)
        elif is_listing(ref):
            _restore(blobs, asset, target)
        elif ref.bucket == PATH_BUCKET:
            _link_checked(Path("/") / ref.key, target, ref.sha256, ref.size, asset)
        else:
            _bring(blobs, ref, target)
        yield target


def _restore(blobs: Blobs, asset: Asset, target: Path) -> None:
    ref = asset.storage_ref
    target.mkdir()
    with blobs.open_ref(ref) as stream:
        for entry in read_listing(stream):
            place = target / entry.path
            if not place.resolve().is_relative_to(target.resolve()):
                raise IntegrityError(f"{asset.id}: the listing names {entry.path!r}, outside of its folder")
            place.parent.mkdir(parents=True, exist_ok=True)
            _bring(blobs, payload_ref(ref, entry.sha256, entry.size), place)


def _checked_folder(blobs: Blobs, asset: Asset, source: Path, target: Path) -> Path:
    """A folder that was registered in place, its files checked: with hard links, itself, or as a copy.

    Symbolic links would not do: what reads folders of strangers follows none.
    """
    with blobs.open_ref(asset.storage_ref) as stream:
        entries = list(read_listing(stream))
    for entry in entries:
        if not (target / entry.path).resolve().is_relative_to(target.resolve()):
            raise IntegrityError(f"{asset.id}: the listing names {entry.path!r}, outside of its folder")
        _refuse_changed(source / entry.path, entry.sha256, entry.size, asset)
    target.mkdir()
    for entry in entries:
        place = target / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        file = (source / entry.path).resolve()
        try:
            os.link(file, place)
        except OSError:  # another file system, or a file of somebody else
            if _holds_only(source, {entry.path for entry in entries}):
                return source
            shutil.copyfile(file, place)
            _refuse_changed(place, entry.sha256, entry.size, asset)
    return target


def _holds_only(folder: Path, paths: set[str]) -> bool:
    try:
        return {file.relative_to(folder).as_posix() for file in walk(folder)} == paths
    except InvalidInputError:  # a link, or a device
        return False


def check_in_place(blobs: Blobs, asset: Asset) -> Iterator[IntegrityError]:
    """What is wrong with the files of an asset that was registered in place; nothing when all are as then."""
    ref = asset.storage_ref
    if is_listing(ref):
        folder = Path(str((asset.summary or {}).get("sourcePath", "")))
        with blobs.open_ref(ref) as stream:
            files = [(folder / e.path, e.sha256, e.size) for e in read_listing(stream)]
    else:
        files = [(Path("/") / ref.key, ref.sha256, ref.size)]
    for path, sha256, size in files:
        try:
            _refuse_changed(path, sha256, size, asset)
        except IntegrityError as error:
            yield error


@contextmanager
def _naming_failures(path: Path) -> Iterator[None]:
    """What the disk refuses while reading, as an error of our tree that names the file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, EmboflowError):
            raise
        raise InvalidInputError(
            f"{error.filename or path} cannot be read: {error.strerror or error}",
            kind=ErrorKind.FILE_UNREADABLE,
        ) from error


def _refuse_unspeakable(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{shown(str(path), 300)}: the name is not UTF-8",
            kind=ErrorKind.PATH_ENCODING,
            hint="rename it: names are stored as text",
        ) from None


def _put(blobs: Blobs, path: Path, kind: str, progress: Progress | None) -> StorageRef:
    ref = blobs.put_payload(path, content_type=kind)
    if progress:
        progress(1, ref.size)
    return ref


def _in_place(path: Path, kind: str, progress: Progress | None) -> StorageRef:
    real = path.absolute()
    if (length := len(real.as_posix().encode())) > MAX_KEY:
        raise InvalidInputError(
            f"{real.name[:60]}: its path has {length} bytes, {MAX_KEY} are kept",
            kind=ErrorKind.PATH_TOO_LONG,
            hint="register it without --in-place",
        )
    sha256, size = _hash(real)
    if progress:
        progress(1, size)
    return StorageRef(
        bucket=PATH_BUCKET,
        key=real.as_posix().lstrip("/"),
        uri=real.as_uri(),
        checksum=f"sha256:{sha256}",
        content_type=kind,
        size=size,
    )


def _hash(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _link_checked(source: Path, target: Path, sha256: str, size: int, asset: Asset) -> None:
    _refuse_changed(source, sha256, size, asset)
    target.symlink_to(source)


def _refuse_changed(source: Path, sha256: str, size: int, asset: Asset) -> None:
    try:
        found, found_size = _hash(source)
    except OSError:
        raise IntegrityError(
            f"asset {asset.display_name}: {source} is gone; it was registered in place",
            kind=ErrorKind.PAYLOAD_MISSING,
            hint="bring the file back, or register it again without --in-place",
        ) from None
    if (found, found_size) != (sha256, size):
        raise IntegrityError(
            f"asset {asset.display_name}: {source} changed since it was registered: "
            f"sha256 {found} ({found_size} bytes), recorded {sha256} ({size} bytes)"
        )


def _bring(blobs: Blobs, ref: StorageRef, target: Path) -> None:
    local = blobs.local_path(ref)
    if local is not None:
        with blobs.open_ref(ref) as stream:
            while stream.read(CHUNK):
                pass
        try:
            os.link(local, target)
        except OSError:  # another filesystem
            shutil.copyfile(local, target)
        return
    blobs.fetch_ref(ref, target)
