"""Recover HDF5 files that were never closed or were cut off: what can be read, in a file that is closed.

Groups, attributes, types, filters and filter keys stay as they were. Of a demonstration those rows are
written that all of its streams have, so that what reads the new file finds frames and not loose ends;
everything else has the rows that stand before the cut. The new file is read again and compared, dataset by
dataset.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.formats.canonical.from_hdf5 import hdf5_files
from emboflow_dagster.formats.hdf5_layout import Field, Layout, layout_of, open_hdf5
from emboflow_dagster.formats.hdf5_mended import look

if TYPE_CHECKING:
    import h5py

#: Bytes of rows that are copied at a time.
BLOCK_BYTES: Final = 8 << 20
MAX_NOTES: Final = 50


def recover_hdf5(path: Path, out: Path) -> dict[str, Any]:
    """Write what is readable of HDF5 files below ``out``; see :func:`.recover.recover_recording`.

    Returns:
        As there; ``messages`` and ``seconds`` are ``None``, ``rows`` are all rows of all datasets.

    Raises:
        InvalidInputError: Nothing can be read (``file-corrupt``). Nothing is left in ``out``.
        IntegrityError: What was written does not hold what was read.
    """
    files = hdf5_files(path)
    root = path if path.is_dir() else path.parent
    base = out / path.name if path.is_dir() else out
    damaged = [file for file in files if look(file) is not None]
    made: dict[str, int] = {}
    notes: list[dict[str, Any]] = []
    formats: list[str] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        if not damaged:
            break
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            layout, rows = _rewrite(file, target, name, notes)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            target.unlink(missing_ok=True)
            notes.append({"code": "unreadable", "message": f"nothing is left of it: {error}", "path": name})
            continue
        made[name] = rows
        formats.append(layout.format)
    if damaged and not made:
        text = f"{path.name}: nothing in it can be read"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT, hint=notes[0]["message"])
    known = [name for name in formats if name != "hdf5"]
    return {
        "path": (path.name if path.is_dir() else next(iter(made))) if damaged else None,
        "whole": not damaged,
        "format": (known or formats or ["hdf5"])[0],
        "messages": None,
        "rows": sum(made.values()),
        "bytes": sum((base / name).stat().st_size for name in made),
        "seconds": None,
        "topics": {},
        "files": made,
        "tooLarge": 0,
        "warnings": notes[:MAX_NOTES],
    }


def _rewrite(path: Path, target: Path, name: str, notes: list[dict[str, Any]]) -> tuple[Layout, int]:
    import h5py

    rows = 0
    with open_hdf5(path) as old:
        layout = layout_of(old)
        if layout.damage is not None:
            notes.append({"code": layout.damage.code, "message": layout.damage.text, "path": name})
        fields = {item.path: item for item in layout.fields}
        # A demonstration's datasets have the rows that it has.
        fields |= {item.path: item for demo in layout.demos for item in demo.fields.values()}
        with h5py.File(target, "w") as new:
            _attributes(old, new)
            for group, found in _groups(old, layout):
                if group:
                    _attributes(found, new.require_group(group))
            for place, item in fields.items():
                try:
                    rows += _copy(old, new, item)
                except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
                    notes.append(
                        {"code": "unreadable", "message": str(error)[:300], "path": f"{name}:{place}"}
                    )
                    if place in new:
                        del new[place]
    with h5py.File(target, "r", locking=False) as new, open_hdf5(path) as old:
        found = layout_of(new)
        for item in found.fields:
            _compare(old, new, item)
    return found, rows


def _groups(old: "h5py.File", layout: Layout) -> "list[tuple[str, h5py.Group]]":
    """The groups above the datasets that were found, and those that are empty."""
    paths = {""}
    for item in layout.fields:
        parts = item.path.split("/")[:-1]
        paths |= {"/".join(parts[: count + 1]) for count in range(len(parts))}
    return [(path, old[path]) for path in sorted({*paths, *layout.empty}) if path]  # pyright: ignore[reportReturnType]


def _attributes(old: Any, new: Any) -> None:
    for name in list(old.attrs):
        try:
            new.attrs[name] = old.attrs[name]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError):
            continue


def _copy(old: "h5py.File", new: "h5py.File", item: Field) -> int:
    """Write one dataset; the rows written."""
    from h5py import h5d, h5s  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    if item.foreign:
        raise ValueError("the values stand in another file")
    source: Any = old[item.path]
    new.require_group(item.path.rpartition("/")[0] or "/")
    if item.declared is None and not item.missing and source.shape is None:
        new.create_dataset(item.path, dtype=source.dtype)
        return 0
    if item.declared is None:
        # As it is packed: nothing is unpacked, so that no filter is needed.
        old.copy(source, new, name=item.path)
        return item.shape[0] if item.shape else 0
    made = source.id.get_create_plist()
    space = h5s.create_simple(
        item.shape, source.id.get_space().get_simple_extent_dims(True) if source.chunks else item.shape
    )
    h5d.create(new.id, item.path.encode(), source.id.get_type(), space, made).close()
    target: Any = new[item.path]
    _attributes(source, target)
    for start, stop in _blocks(source, item.shape):
        target[start:stop] = source[start:stop]
    return item.shape[0]


def _blocks(source: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    each = source.dtype.itemsize
    for length in shape[1:]:
        each *= length
    step = max(1, BLOCK_BYTES // max(1, each))
    if source.chunks:
        step = max(source.chunks[0], step // source.chunks[0] * source.chunks[0])
    return [(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


def _compare(old: "h5py.File", new: "h5py.File", item: Field) -> None:
    """Read a dataset that was written, and what it was made of.

    Raises:
        IntegrityError: They differ.
    """
    import numpy as np

    if item.missing or item.foreign:
        return
    source: Any = old[item.path]
    target: Any = new[item.path]
    if not item.shape:
        same = _same(source[()], target[()]) if target.shape is not None else True
    else:
        same = all(
            _same(np.asarray(source[start:stop]), np.asarray(target[start:stop]))
            for start, stop in _blocks(target, item.shape)
        )
    if not same:
        raise IntegrityError(f"{item.path} was written, and other values are read from the new file")


def _same(first: Any, second: Any) -> bool:
    import numpy as np

    first, second = np.asarray(first), np.asarray(second)
    if first.dtype.hasobject:
        return first.shape == second.shape and all(
            np.array_equal(a, b) for a, b in zip(first.reshape(-1), second.reshape(-1), strict=True)
        )
    return first.shape == second.shape and first.tobytes() == second.tobytes()
