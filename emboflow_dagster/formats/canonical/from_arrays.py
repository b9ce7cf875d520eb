"""Episodes as plain arrays, ``emboflow-episodes/1``: what code that computes episodes leaves for `normalize`.

::

    episodes.jsonl    a line an episode: {ref, file, task?, success?, t0Ns?, fps?, videos?, names?, sources?}
    000000.npz        feature name -> array, first dimension frames; `timestamp_ns` (int64) where known

``videos`` maps a camera to a video file of the folder, one picture per frame; ``names`` a feature to the
names of its columns, ``sources`` to the topic or dataset that it was made of. Nothing is ever unpickled.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.canonical.schema import INDEX_COLUMNS, Camera, Episode, FeatureSpec

if TYPE_CHECKING:
    import numpy as np

FORMAT: Final = "emboflow-episodes/1"
INDEX_FILE: Final = "episodes.jsonl"
STAMPS: Final = "timestamp_ns"
MAX_LINE_BYTES: Final = 1 << 20
#: Numbers of one episode that are read into memory.
MAX_NUMBERS: Final = 200_000_000
#: An `fps` that far from an episode's own would falsify time.
RATE_TOLERANCE: Final = 0.05
_KINDS: Final = {
    "action": "action",
    "observation.state": "state",
    "observation.velocity": "velocity",
    "observation.effort": "effort",
    "observation.environment_state": "environment_state",
}
_OPTIONAL: Final = ("task", "success", "t0Ns", "fps", "videos", "names", "sources")


class EpisodeFolder:
    """Writes episodes into a folder, one by one; equal episodes give equal bytes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.count = 0
        (folder / INDEX_FILE).touch()

    def add(self, ref: str, arrays: "Mapping[str, np.ndarray]", **told: Any) -> None:
        """Append one episode.

        Args:
            ref: What it is called where it comes from.
            arrays: Feature name to numbers, first dimension frames; ``timestamp_ns`` int64 where known.
            told: ``task``, ``success``, ``t0Ns``, ``fps``, ``videos``, ``names``, ``sources``; those that are
                ``None`` are left out.

        Raises:
            InvalidInputError: A name that features may not have, an array without rows, or of objects.
        """
        for name, values in arrays.items():
            _check(name, values, ref)
        file = f"{self.count:06d}.npz"
        save_arrays(self.folder / file, arrays)
        row = {"ref": ref, "file": file, **{k: told[k] for k in _OPTIONAL if told.get(k) is not None}}
        with (self.folder / INDEX_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self.count += 1


def _check(name: str, values: "np.ndarray", ref: str) -> None:
    reserved = name != STAMPS and name in INDEX_COLUMNS
    if not name or "/" in name or reserved or not name.isprintable():
        raise InvalidInputError(f"{ref}: {shown(name)} cannot be the name of a feature")
    if values.dtype.kind not in "biuf" or values.ndim == 0:
        text = f"{ref}: {name}: found {values.dtype} of shape {values.shape}; numbers per frame are needed"
        raise InvalidInputError(text)


def save_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """As :func:`numpy.savez`, whose keyword arguments would take some names for its own; no clock in it."""
    import numpy as np

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(values), allow_pickle=False)


def load_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of one file by name.

    Raises:
        InvalidInputError: No such file, pickled objects, or more numbers than fit.
    """
    import numpy as np

    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > MAX_NUMBERS * 8:
                raise InvalidInputError(f"{path.name}: {size} bytes of numbers; at most {MAX_NUMBERS * 8}")
            for info in archive.infolist():
                with archive.open(info) as stream:
                    name = info.filename.removesuffix(".npy")
                    found[name] = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        text = f"{path.name}: no arrays can be read: {error}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from None
    return found


def is_folder(path: Path) -> bool:
    """Whether a path is such a folder."""
    return (path / INDEX_FILE).is_file()


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the list, checked; ``file`` is the absolute path of a file of the folder.

    Raises:
        InvalidInputError: There is no list, or a line of it is none of these.
    """
    index = path / INDEX_FILE
    if not index.is_file():
        raise InvalidInputError(f"{path.name}: no {INDEX_FILE}", kind=ErrorKind.FORMAT_UNSUPPORTED)
    with index.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES), b""), 1):
            where = f"{INDEX_FILE}, line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                raise InvalidInputError(f"{where}: no JSON", kind=ErrorKind.FILE_CORRUPT) from None
            if not isinstance(row, dict) or not isinstance(row.get("ref"), str):
                text = f"{where}: found {shown(row)}; an episode has a ref and a file"
                raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT)
            videos = row.get("videos") or {}
            placed = {camera: _inside(path, file, where) for camera, file in videos.items()}
            yield {**row, "file": _inside(path, row.get("file"), where), "videos": placed}


def _inside(folder: Path, name: object, where: str) -> Path:
    parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name else ()
    place = folder.joinpath(*parts)
    if not parts or ".." in parts or parts[0] == "/" or place.is_symlink() or not place.is_file():
        raise InvalidInputError(f"{where}: {shown(name)} is no file of the folder")
    return place


def episodes(
    path: Path,
    *,
    fps: float,
    task: str | None = None,
    asset_id: str | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every episode of the folder, in its order.

    Args:
        path: The folder.
        fps: Frames per second of the dataset; an episode that says another rate is left out.
        task: What was asked of the robot; default is the episode's own word for it.
        asset_id: For the source reference.
        skipped: Gets ``{"source", "reason"}`` of each episode left out.

    Raises:
        InvalidInputError: There is no list, or it is none.
    """
    left_out = skipped if skipped is not None else []
    for row in rows(path):
        source = {"assetId": asset_id, "path": row["file"].name, "ref": row["ref"]}
        try:
            yield _episode(row, source, fps=fps, task=task)
        except InvalidInputError as error:
            left_out.append({"source": source, "reason": error.message})


def _episode(row: Mapping[str, Any], source: Mapping[str, Any], *, fps: float, task: str | None) -> Episode:
    import numpy as np

    own = row.get("fps")
    if isinstance(own, int | float) and abs(own - fps) > RATE_TOLERANCE * fps:
        raise InvalidInputError(f"made at {own:g} fps; {fps:g} fps falsifies its time, it is not resampled")
    arrays = load_arrays(row["file"])
    stamps = arrays.pop(STAMPS, None)
    lengths = {len(values) for values in arrays.values() if values.ndim}
    if not arrays or len(lengths) != 1 or 0 in lengths:
        raise InvalidInputError(f"found {sorted(lengths) or 'no'} frames; features have as many rows each")
    features, specs = {}, {}
    for name, values in arrays.items():
        _check(name, values, str(row["ref"]))
        # A number beyond float32 becomes infinite; the quality report names it.
        with np.errstate(over="ignore"):
            features[name] = values.astype(np.float32).reshape(len(values), -1)
        specs[name] = FeatureSpec(
            _names(row, name, features[name].shape[1]), kind_of(name), None, _source(row, name)
        )
    if stamps is not None and (stamps.dtype.kind not in "iu" or stamps.shape != (next(iter(lengths)),)):
        raise InvalidInputError(f"{STAMPS}: found {stamps.dtype} of shape {stamps.shape}; one int64 a frame")
    t0 = row.get("t0Ns")
    if t0 is None and stamps is not None:
        t0 = int(stamps[0])
    success = row.get("success")
    return Episode(
        source=source,
        features=features,
        specs=specs,
        source_timestamp_ns=None if stamps is None else stamps.astype(np.int64),
        t0_ns=t0 if isinstance(t0, int) else None,
        task=task if task is not None else str(row.get("task") or ""),
        success=success if isinstance(success, bool) else None,
        cameras={camera: camera_of(file) for camera, file in row["videos"].items()},
    )


def kind_of(feature: str) -> str:
    """The kind of a feature, by its name."""
    if feature.partition(".")[0] == "action":
        return "action"
    return _KINDS.get(feature, "observation")


def _names(row: Mapping[str, Any], feature: str, width: int) -> tuple[str, ...]:
    given = (row.get("names") or {}).get(feature)
    if isinstance(given, list) and len(given) == width and all(isinstance(name, str) for name in given):
        return tuple(given)
    stem = feature.rpartition(".")[2]
    return tuple(f"{stem}_{index}" for index in range(width))


def _source(row: Mapping[str, Any], feature: str) -> str | None:
    found = (row.get("sources") or {}).get(feature)
    return found if isinstance(found, str) else None


def camera_of(file: Path) -> Camera:
    """The pictures of a video file, decoded when they are written.

    Raises:
        InvalidInputError: It has no pictures.
    """
    first = next(_pictures(file), None)
    if first is None:
        raise InvalidInputError(f"{file.name}: no pictures", kind=ErrorKind.FILE_CORRUPT)
    shape = (int(first.shape[0]), int(first.shape[1]), 3)
    return Camera(shape, lambda: _pictures(file), file.name)


def _pictures(file: Path) -> "Iterator[np.ndarray]":
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(file), metadata_errors="replace") as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (FFmpegError, IndexError):
        return  # the writer sees that it is short


def legal_name(name: str, topics: Sequence[str] = ()) -> str:
    """A name that features may have: of a topic as a bag's own feature would be called, else without ``/``.

    >>> legal_name("/imu/data", ["/imu/data"]), legal_name("arm/gripper"), legal_name("action")
    ('observation.imu.data', 'arm.gripper', 'action')
    """
    plain = re.sub(r"[/\s]+", ".", name).strip(".")
    if name in topics and not plain.startswith(("observation.", "action")):
        return f"observation.{plain}"
    return plain
