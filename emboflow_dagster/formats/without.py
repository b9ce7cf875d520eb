"""A recording without some of its episodes, as a copy of the same format: what is left out is not in it.

Messages are left out by time, demonstrations of HDF5 by their group, files that are one episode each as a
whole. Of other formats, whose episodes share files, no copy is made, and why is told.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.errors import InvalidInputError

if TYPE_CHECKING:
    import h5py

_MESSAGES: Final = ("rosbag", "mcap")
_FILES: Final = ("video", "video_collection")
_SHARED: Final = ("lerobot", "rlds", "tfrecord")
NOTHING: Final = "nothing else is in it"
SHARED: Final = "its episodes share files"
_ENDS: Final = (".hdf5", ".h5")


def without(path: Path, form: str, places: Sequence[Place], out: Path) -> dict[str, Any]:
    """Write the recording without the episodes at some places below ``out``.

    Args:
        path: A file or folder, which is only read.
        form: Its format, as a probe names it.
        places: Where the episodes are.
        out: An existing, empty folder. Files that stay as they are may be links to the recording's own.

    Returns:
        ``path`` in ``out``, ``None`` where nothing is left or no copy can be made; ``why``: then the reason.
    """
    met: set[Place] = set()
    try:
        if form.startswith(_MESSAGES):
            told = _messages(path, places, out, met)
        elif form.startswith("hdf5"):
            told = _demonstrations(path, places, out, met)
        elif form in _FILES:
            told = _files(path, places, out, met)
        elif form.startswith(_SHARED):
            return {"path": None, "why": f"{SHARED}: no copy of {form} without one is made"}
        else:
            return {"path": None, "why": f"no copy of {form} without one is made"}
    except (InvalidInputError, OSError, RuntimeError, ValueError) as error:
        return {"path": None, "why": f"it cannot be read whole: {error}"}
    if met != set(places):  # a copy may have it: nobody is given that
        return {"path": None, "why": "where the episode is in it is not found"}
    return told


def _messages(path: Path, places: Sequence[Place], out: Path, met: set[Place]) -> dict[str, Any]:
    from emboflow_dagster.formats.recover import recover_recording

    def drop(name: str, stamp_ns: int) -> bool:
        found = [
            place
            for place in places
            if _is_file(place, name)
            and (place.start is None or place.stop is None or place.start <= stamp_ns < place.stop)
        ]
        met.update(found)
        return bool(found)

    return _told(recover_recording(path, out, drop=drop)["path"])


def _is_file(place: Place, name: str) -> bool:
    """Whether a place is in a file of a folder, which some readers call by its last name."""
    return place.path is None or name == place.path or name.endswith(f"/{place.path}")


def _files(path: Path, places: Sequence[Place], out: Path, met: set[Place]) -> dict[str, Any]:
    """All files but those that are an episode."""
    if not path.is_dir():
        met.update(places)
        return _told(None)
    left = 0
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if not file.is_file():
            continue
        gone = [place for place in places if _is_file(place, name)]
        met.update(gone)
        if not gone:
            left += 1
            _link(file, out / path.name / name)
    return _told(path.name if left else None)


def _demonstrations(path: Path, places: Sequence[Place], out: Path, met: set[Place]) -> dict[str, Any]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    left = 0
    for file in files:
        if not file.is_file():
            continue
        inner = file.relative_to(path).as_posix() if path.is_dir() else None
        here = [place for place in places if inner is None or _is_file(place, inner)]
        target = out / path.name / inner if inner is not None else out / path.name
        if not here or file.suffix.lower() not in _ENDS:
            _link(file, target)
            left += file.suffix.lower() in _ENDS
            continue
        met.update(here)
        refs = {place.ref for place in here}
        if None in refs or "/" in refs:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        left += _copied(file, target, {str(ref) for ref in refs})
    return _told(path.name if left else None)


def _copied(source: Path, target: Path, refs: set[str]) -> bool:
    """Copy all of a file but those groups; whether it had one of them and has others.

    Raises:
        InvalidInputError: An episode is no group of its own.
    """
    import h5py

    from emboflow_dagster.formats.hdf5_layout import layout_of, open_hdf5

    with open_hdf5(source) as file, h5py.File(target, "w") as copy:
        demos = {demo.group for demo in layout_of(file).demos}
        for ref in refs:
            if ref not in file or not isinstance(file[ref], h5py.Group):
                raise InvalidInputError(f"{ref} is no group of its own")
        _copy(file, copy, {ref.strip("/") for ref in refs}, "")
    if demos and demos <= refs:
        target.unlink()
        return False
    return True


def _copy(source: "h5py.Group", target: "h5py.Group", refs: set[str], at: str) -> None:
    import h5py

    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name in source:
        path = f"{at}/{name}".strip("/")
        if path in refs:
            continue
        link: Any = source.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            inside = f"{link.path.strip('/')}/" if isinstance(link, h5py.SoftLink) else ""
            if inside and not any(inside.startswith(f"{ref}/") for ref in refs):
                target[name] = h5py.SoftLink(link.path)
            continue  # a link out of the file is a path of somebody's machine
        inner = source[name]
        if isinstance(inner, h5py.Group) and any(ref.startswith(f"{path}/") for ref in refs):
            _copy(inner, target.create_group(name), refs, path)
        else:
            source.copy(name, target, name=name)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _told(path: str | None) -> dict[str, Any]:
    return {"path": path, "why": None if path else NOTHING}
