"""Finds the recordings in any folder: which files and folders are one asset each, and of which type.

A folder is one asset where something marks it as a whole (a rosbag2 ``metadata.yaml``, ``meta/info.json`` of
LeRobot, TFRecord shards, a robot description, pictures, HDF5 files with their models); else each recording
in it is one. Nothing is read but names, first bytes and markers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.detect import is_lfs_pointer, read_head, signature
from emboflow_dagster.formats.hdf5_file import SUFFIXES as HDF5_SUFFIXES
from emboflow_dagster.formats.hdf5_file import is_hdf5
from emboflow_dagster.formats.robot_xml import root_of_file
from emboflow_dagster.formats.video_container import video_kind

MAX_FOLDERS: Final = 20_000

_BAGS = {"rosbag1", "mcap"}
_VIDEOS = {"mp4", "matroska", "avi", "mpegts", "h264", "hevc", "mjpeg"}
_ARCHIVES = {"zip", "gzip", "bzip2", "xz", "zstd", "7z", "tar"}
_PICTURES = {"png", "jpeg", "tiff", "webp", "exr"}
_BY_NAME = {".bag": "rosbag", ".mcap": "rosbag", ".hdf5": "hdf5_dataset", ".h5": "hdf5_dataset"}
_TABLES = {".csv", ".tsv"}
_STAND_INS = {".mp4", ".mkv", ".parquet", ".db3", ".npz", ".npy", ".safetensors", ".stl"}
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class Found:
    """One asset to be.

    Attributes:
        path: The file or folder.
        asset_type: What to register it as.
        name: Its path below the folder that was searched, with ``/``.
    """

    path: Path
    asset_type: str
    name: str


@dataclass(slots=True)
class _Files:
    """The files directly in a folder, by what they are."""

    by_kind: dict[str, list[Path]] = field(default_factory=dict)
    count: int = 0
    stand_ins: int = 0

    def of(self, *kinds: str) -> list[Path]:
        return [path for kind in kinds for path in self.by_kind.get(kind, ())]


def find_recordings(root: Path) -> list[Found]:
    """Every recording in ``root``, in the order of their paths; ``root`` itself may be one.

    Raises:
        InvalidInputError: There is no recording, or no such file or folder.
    """
    root = root.expanduser().absolute()
    if not root.exists():
        raise InvalidInputError(f"{root}: there is no such file or folder")
    if root.is_file():
        kind = _kind(root)
        return [Found(root, _asset_type(kind) or "raw_file", root.name)]
    search = _Search(root)
    found, pending = search.folder(root)
    if not found and pending:
        found = [Found(root, "folder", root.name)]
    if not found:
        raise InvalidInputError(
            f"{root}: no recording in it", hint="give a folder with bags, MCAP or HDF5 files"
        )
    return sorted(found, key=lambda one: one.name)


def type_of_folder(folder: Path) -> str | None:
    """The asset type of a folder that is one recording as a whole; ``None`` where nothing says so."""
    files = _files_of(folder)
    whole = _whole(folder, files)
    if whole is not None:
        return whole
    # One HDF5 file or several, with the models that they refer to; beside other recordings, no whole.
    return "hdf5_dataset" if files.of("hdf5") and not list(_single(files)) else None


class _Search:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = 0

    def folder(self, folder: Path) -> tuple[list[Found], bool]:
        """What is in it, and whether it holds data that nothing here knows (LFS pointers and the like)."""
        self.folders += 1
        if self.folders > MAX_FOLDERS:
            raise InvalidInputError(
                f"{self.root}: more than {MAX_FOLDERS} folders", hint="give a smaller one"
            )
        files = _files_of(folder)
        whole = _whole(folder, files)
        if whole is not None:
            return [self._found(folder, whole)], False
        found = [self._found(path, kind) for path, kind in _single(files)]
        pending: list[Path] = []
        for child in _folders(folder):
            inside, unknown = self.folder(child)
            found += inside
            if unknown:
                pending.append(child)
        hdf5 = files.of("hdf5")
        if hdf5 and not found and folder != self.root:
            # Demonstrations with the models that they refer to are one thing.
            alone = len(hdf5) == 1 and files.count == 1 and not _folders(folder)
            return [self._found(hdf5[0] if alone else folder, "hdf5_dataset")], False
        found += [self._found(path, "hdf5_dataset") for path in hdf5]
        if found:
            return found + [self._found(child, "folder") for child in pending], False
        return [], bool(pending) or files.stand_ins > 0

    def _found(self, path: Path, asset_type: str) -> Found:
        name = path.name if path == self.root else path.relative_to(self.root).as_posix()
        return Found(path, asset_type, name)


def _whole(folder: Path, files: _Files) -> str | None:
    """The type of a folder that is one asset with all that is below it."""
    if (folder / "meta" / "info.json").is_file() or files.of("tfrecord"):
        return "standard_dataset"
    if files.of("sqlite3") or files.of("rosbag2"):
        return "rosbag"
    if files.of("urdf"):
        return "folder"
    pictures, videos = files.of(*_PICTURES), files.of(*_VIDEOS)
    if len(pictures) > 1 and len(pictures) >= _MOST * files.count:
        return "folder"
    if len(videos) > 1 and 2 * len(videos) > files.count:
        return "video_collection"
    return None


def _single(files: _Files) -> Iterator[tuple[Path, str]]:
    """The files that are an asset each; HDF5 files are decided with their folder."""
    for kind, paths in files.by_kind.items():
        asset_type = _asset_type(kind)
        if asset_type is not None and kind != "hdf5":
            yield from ((path, asset_type) for path in paths)


def _asset_type(kind: str) -> str | None:
    if kind in _BAGS or kind == "named rosbag":
        return "rosbag"
    if kind in ("hdf5", "named hdf5_dataset"):
        return "hdf5_dataset"
    if kind in _VIDEOS:
        return "video_collection"
    if kind in _ARCHIVES:
        return "archive"
    return "raw_file" if kind == "table" else None


def _files_of(folder: Path) -> _Files:
    files = _Files()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink() or not path.is_file():
            continue
        files.count += 1
        kind = _kind(path)
        if kind == "stand-in":
            files.stand_ins += 1
        files.by_kind.setdefault(kind, []).append(path)
    return files


def _kind(path: Path) -> str:
    """What one file is by its first bytes; a recording's suffix counts where these say nothing."""
    suffix = path.suffix.lower()
    try:
        head = read_head(path)
    except OSError:
        head = b""
    if path.name == "metadata.yaml" and b"rosbag2_bagfile_information" in head:
        return "rosbag2"
    if "tfrecord" in path.name and not is_lfs_pointer(head):
        return "tfrecord"
    if suffix == ".urdf" and root_of_file(path, head) == "robot":
        return "urdf"
    found = signature(head) or video_kind(head, path.name)
    if found == "sqlite3" and suffix != ".db3":
        found = None
    if found is None and suffix in HDF5_SUFFIXES and is_hdf5(path):
        found = "hdf5"  # behind a user block
    if found is not None:
        return found
    if suffix in _BY_NAME:
        return f"named {_BY_NAME[suffix]}"
    if suffix in _TABLES and head and b"\0" not in head and not is_lfs_pointer(head):
        return "table"
    return "stand-in" if is_lfs_pointer(head) or (suffix in _STAND_INS) else "other"


def _folders(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]
