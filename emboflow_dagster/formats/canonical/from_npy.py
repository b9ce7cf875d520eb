"""Episodes out of numpy arrays: an ``.npz``, or the ``.npy`` files of a folder, is an episode.

An array with as many rows as the actions (else as most arrays) is a feature; its name says which, or
`mapping` does. Files that are named alike but for a number are an episode each. A structured array is its
columns. Arrays of objects are pickles and never opened.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.hdf5_plain import JOIN, TIMESTAMP
from emboflow_dagster.formats.canonical.names import camera_name, kind_of
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec
from emboflow_dagster.formats.csv_time import NS, unit_of
from emboflow_dagster.formats.hdf5_layout import Field, natural_key, raw_pictures
from emboflow_dagster.formats.hdf5_proposal import feature_of
from emboflow_dagster.formats.nearest import instead
from emboflow_dagster.formats.npy_file import MAX_MEMBERS, groups
from emboflow_dagster.formats.npy_header import Array, array_of

if TYPE_CHECKING:
    import numpy as np

#: Numbers of one episode that are read into memory.
MAX_NUMBERS: Final = 200_000_000
_UNPACKABLE: Final = (OSError, RuntimeError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an array is: its file, the member of an ``.npz``, the column of a structure."""

    file: Path
    array: Array
    member: str = ""
    column: str = ""

    @property
    def field(self) -> Field:
        """As datasets of HDF5 are described, so that the same rules say what it is."""
        kind = self.array.dtype[self.column] if self.column else self.array.dtype
        return Field("", (self.array.rows, *self.array.shape[1:], *kind.shape), kind.base.name)


def suggested_fps(path: Path) -> float | None:
    """The rate of the first episode that has stamps."""
    import numpy as np

    for _, arrays in _episodes(path, []):
        name = next((n for n in arrays if feature_of(n) == TIMESTAMP), None)
        if name is None:
            return None
        stamps = _stamps(name, _values(arrays[name]))
        steps = np.diff(stamps) if not isinstance(stamps, str) else np.zeros(0)
        forward = steps[steps > 0]
        return round(1e9 / float(np.median(forward)), 3) if len(forward) else None
    return None


def episodes(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    task: str = "",
    asset_id: str | None = None,
    videos: bool = True,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every episode of the arrays, in natural order.

    Args:
        path: An ``.npy``, an ``.npz``, or a folder of them.
        mapping: Array (several joined with ``+``) to feature name; replaces what names say. ``timestamp``
            names the frames' own stamps.
        task: What was asked of the robot.
        asset_id: For the source reference.
        videos: Whether pictures are taken along.
        skipped: Gets ``{"source", "reason"}`` of what is left out.

    Raises:
        NotFoundError: No array that can be read.
    """
    left_out = skipped if skipped is not None else []
    any_found = False
    for ref, arrays in _episodes(path, left_out):
        any_found = True
        source = {"assetId": asset_id, "path": ref, "ref": ref or path.name}
        try:
            yield _episode(arrays, source, mapping or {}, task, left_out, videos=videos)
        except InvalidInputError as error:
            left_out.append({"source": source, "reason": error.message})
    if not any_found:
        reason = "; ".join(str(item["reason"]) for item in left_out[:3]) or "there is none"
        raise NotFoundError(f"{path.name}: no array can be read: {reason}", kind=ErrorKind.FORMAT_UNSUPPORTED)


def _episodes(path: Path, left_out: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Stored]]]:
    files = [path]
    if path.is_dir():
        files = sorted(
            (
                p
                for p in path.rglob("*")
                if p.suffix.lower() in (".npy", ".npz") and p.is_file() and not p.is_symlink()
            ),
            key=lambda p: natural_key(p.relative_to(path).as_posix()),
        )
    stored: dict[str, Stored] = {}
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            stored |= _of_file(file, name)
        except _UNPACKABLE as error:
            left_out.append({"source": {"path": name}, "reason": f"{name}: not readable: {error}"})
    for name in [name for name, item in stored.items() if item.array.pickled]:
        reason = f"{name}: object arrays are pickles: they are never opened"
        left_out.append({"source": {"path": name}, "reason": reason})
        del stored[name]
    for ref, group in groups([(name, item.array) for name, item in stored.items()]).items():
        arrays: dict[str, Stored] = {}
        for name, _ in group:
            item = stored[name]
            short = item.member or name.rpartition("/")[2].removesuffix(".npy")
            if item.array.dtype.names:
                columns = item.array.dtype.names
                arrays |= {c: Stored(item.file, item.array, item.member, c) for c in columns}
            else:
                arrays[short] = item
        yield ref or path.name, arrays


def _of_file(file: Path, name: str) -> dict[str, Stored]:
    if file.suffix.lower() != ".npz":
        with file.open("rb") as stream:
            found = array_of(stream, file.stat().st_size)
        if found is None:
            raise ValueError("not a readable numpy header")
        return {name: Stored(file, found)}
    arrays: dict[str, Stored] = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist()[:MAX_MEMBERS]:
            with archive.open(info) as stream:
                found = array_of(stream, info.file_size)
            if found is not None:
                member = info.filename.removesuffix(".npy")
                arrays[f"{name}:{member}"] = Stored(file, found, member)
    return arrays


def _episode(
    arrays: Mapping[str, Stored],
    source: Mapping[str, Any],
    mapping: Mapping[str, str],
    task: str,
    left_out: list[dict[str, Any]],
    *,
    videos: bool,
) -> Episode:
    import numpy as np

    rows = _frames(arrays, mapping)
    wanted = dict(mapping) or _usual(arrays, rows, source, left_out)
    features: dict[str, np.ndarray] = {}
    specs: dict[str, FeatureSpec] = {}
    cameras: dict[str, Camera] = {}
    stamps: np.ndarray | None = None
    left = MAX_NUMBERS
    for key, feature in wanted.items():
        names = [key] if key in arrays else [part.strip() for part in key.split(JOIN)]
        for name in names:
            if name not in arrays:
                raise InvalidInputError(f"no array {name}{instead(name, arrays)}")
            if arrays[name].field.shape[:1] != (rows,):
                raise InvalidInputError(f"{name}: shape {list(arrays[name].field.shape)} for {rows} frames")
        if raw_pictures(arrays[names[0]].field):
            if videos:
                found = _camera(arrays[names[0]], rows)
                cameras[camera_name(feature, taken=cameras)] = found
            continue
        left -= sum(int(np.prod(arrays[name].field.shape, dtype=np.int64)) for name in names)
        if left < 0:
            raise InvalidInputError(f"more than {MAX_NUMBERS} numbers")
        columns = [_values(arrays[name])[:rows] for name in names]
        if any(values.dtype.kind not in "biuf" for values in columns):
            raise InvalidInputError(f"{key}: {columns[0].dtype} is no number")
        if feature == TIMESTAMP:
            made = _stamps(names[0], columns[0])
            if isinstance(made, str):
                raise InvalidInputError(f"{names[0]}: {made}")
            stamps = made
            continue
        # A number beyond float32 becomes infinite; the quality report names it.
        with np.errstate(over="ignore"):
            flat = [values.astype(np.float32).reshape(rows, -1) for values in columns]
        features[feature] = np.concatenate(flat, axis=1)
        width = features[feature].shape[1]
        stem = names[0].rpartition("/")[2]
        specs[feature] = FeatureSpec(
            tuple(f"{stem}_{index}" for index in range(width)), kind_of(feature), None, ",".join(names)
        )
    if not rows or not (features or cameras):
        raise InvalidInputError("no array with rows of numbers")
    cut = any(item.array.truncated for item in arrays.values())
    return Episode(
        source=source,
        features=features,
        specs=specs,
        source_timestamp_ns=stamps,
        t0_ns=None if stamps is None else int(stamps[0]),
        task=task,
        flags=("truncated",) if cut else (),
        cameras=cameras,
        frames=rows,
    )


def _frames(arrays: Mapping[str, Stored], mapping: Mapping[str, str]) -> int:
    """The frames: rows of what is mapped, else of the actions, else of most."""
    names = [part.strip() for key in mapping for part in ([key] if key in arrays else key.split(JOIN))]
    fields = {name: item.field for name, item in arrays.items() if item.field.shape}
    first = next((name for name in names if name in fields), None)
    first = first or next((name for name in fields if feature_of(name) == "action"), None)
    if first is not None:
        return fields[first].shape[0]
    counts = Counter(field.shape[0] for field in fields.values() if field.is_numeric or raw_pictures(field))
    return max(counts, key=lambda rows: (counts[rows], rows), default=0)


def _usual(
    arrays: Mapping[str, Stored], rows: int, source: Mapping[str, Any], left_out: list[dict[str, Any]]
) -> dict[str, str]:
    """A feature for each array, by its name; what can be none is left out with the reason."""
    found: dict[str, str] = {}
    for name, item in arrays.items():
        field, reason = item.field, ""
        plain = re.sub(r"[/\s]+", ".", name).strip(".") or "values"
        if not field.dtype.startswith(("float", "int", "uint", "bool")):
            reason = f"{field.dtype} is no number"
        elif not field.shape or field.shape[0] != rows:
            reason = f"shape {list(field.shape)} for {rows} frames"
        elif not raw_pictures(field) and len(field.shape) > 2:  # noqa: PLR2004 - rows and columns
            reason = f"shape {list(field.shape)} of {field.dtype} is no vector per frame"
        if reason:
            left_out.append({"source": {**source, "ref": name}, "reason": f"{name}: {reason}"})
            continue
        if raw_pictures(field):
            feature = f"observation.images.{plain}"
        else:
            feature = feature_of(name) or f"observation.{plain}"
            if feature == TIMESTAMP and (field.width or 1) != 1:
                feature = f"observation.{plain}"
        if feature in found.values():
            feature = f"{'action' if feature == 'action' else 'observation'}.{plain}"
        found[name] = feature
    return found


def _values(item: Stored) -> "np.ndarray":
    """The values; nothing is unpickled.

    Raises:
        InvalidInputError: They cannot be read.
    """
    import numpy as np

    array = item.array
    try:
        if item.member:
            with zipfile.ZipFile(item.file) as archive, archive.open(f"{item.member}.npy") as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=1 << 20)
        else:
            values = _mapped(item)
        return values[item.column] if item.column else values
    except (*_UNPACKABLE, KeyError, MemoryError) as error:
        if isinstance(error, MemoryError):
            raise
        text = f"{item.member or item.file.name}: shape {list(array.shape)} is not readable: {error}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from error


def _mapped(item: Stored) -> "np.ndarray":
    """The rows of an ``.npy`` that are there, read when they are used."""
    import numpy as np

    array = item.array
    shape = (array.rows, *array.shape[1:]) if array.shape else ()
    if not np.prod(shape, dtype=np.int64):
        return np.empty(shape, array.dtype)
    order = "F" if array.fortran else "C"
    return np.memmap(item.file, array.dtype, "r", array.offset, shape, order)


def _camera(item: Stored, rows: int) -> Camera:
    import numpy as np

    axes, field = raw_pictures(item.field), item.field
    height, width = field.shape[2:4] if axes == "chw" else field.shape[1:3]

    def pictures() -> "Iterator[np.ndarray]":
        values = _values(item)
        for index in range(rows):
            picture = np.asarray(values[index])
            if axes == "chw":
                picture = np.moveaxis(picture, 0, -1)
            elif axes == "hw":
                picture = picture[..., None]
            rgb = picture[..., :3] if picture.shape[-1] >= 3 else np.repeat(picture[..., :1], 3, axis=-1)  # noqa: PLR2004
            yield np.ascontiguousarray(rgb)

    return Camera((int(height), int(width), 3), pictures, item.member or item.file.name)


def _stamps(name: str, values: "np.ndarray") -> "np.ndarray | str":
    """Stamps in ns, or why they are none."""
    import numpy as np

    flat = np.asarray(values).reshape(len(values), -1)
    if flat.shape[1] != 1 or flat.dtype.kind not in "iuf" or not len(flat):
        return f"{flat.dtype} of shape {list(values.shape)} is no stamp"
    flat = flat[:, 0]
    if not np.isfinite(flat).all():
        return "not every stamp is a number"
    steps = np.diff(flat)
    forward = steps[steps > 0]
    whole = bool((flat == np.round(flat)).all())
    unit, _ = unit_of(name, float(flat[0]), float(np.median(forward)) if len(forward) else 0.0, whole=whole)
    if flat.dtype.kind in "iu":
        return flat.astype(np.int64) * NS[unit]
    return np.round(flat.astype(np.float64) * NS[unit]).astype(np.int64)
