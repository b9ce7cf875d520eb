"""A canonical package becomes what a version keeps: files of episodes, their tree, a manifest (decision 25).

::

    manifest.json     what it is, and the first page of the tree
    objects/<sha256>  frames, streams and videos of single episodes; the pages
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.blobs.pages import TREE, Builder, line_of
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.content import content_of
from emboflow_dagster.formats.canonical.episode_files import (
    OBJECTS,
    cut,
    entry_of,
    put_bytes,
    put_table,
    without_place,
)
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import (
    EPISODES_FILE,
    FRAMES_FILE,
    MANIFEST_FILE,
    RAW_INDEX_FILE,
    TASKS_FILE,
)
from emboflow_dagster.formats.report import json_safe

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = (FRAMES_FILE, EPISODES_FILE, TASKS_FILE, RAW_INDEX_FILE)
#: Where an exported folder keeps what it was made from; made anew with the next version.
VERSION_FOLDER = "version/"


def split(package: CanonicalDataset, out: Path) -> dict[str, Any]:
    """Write the version of a package into ``out`` (absent or empty); memory holds one episode.

    Returns:
        The manifest: that of the package, its ``files`` replaced by the first page (and files that the schema
        does not know), with ``tree`` and ``columns``.

    Raises:
        InvalidInputError: Tables and manifest of the package do not agree, or it holds what the schema lacks.
    """
    (out / OBJECTS).mkdir(parents=True, exist_ok=True)
    builder = Builder(lambda payload: put_bytes(out, payload))
    names = Names()
    for entry in entries(package, out):
        entry["id"] = names.of(entry)
        builder.add(line_of(entry), entry)
    root = builder.close()
    if root is None:
        raise InvalidInputError("the package has no episode")
    document = {key: value for key, value in package.manifest.document.items() if key != "version"}
    if (root.episodes, root.frames) != (document["episodes"], document["frames"]):
        raise InvalidInputError(
            f"manifest.json declares {document['episodes']} episodes and {document['frames']} frames; "
            f"found are {root.episodes} and {root.frames}"
        )
    others = [file for file in package.manifest.files if _is_other(file["path"])]
    for file in others:
        _link(package.path(file["path"]), out / OBJECTS / file["sha256"])
    page = {"path": root.path, "sha256": root.sha256, "size": root.size, "rows": root.episodes}
    manifest = {**document, "columns": package.features, TREE: root.to_json(), "files": [page, *others]}
    (out / MANIFEST_FILE).write_bytes(line_of(manifest) + b"\n")
    return manifest


class Names:
    """Gives every episode an id: the same for the same content of the same source, in any version."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def of(self, entry: dict[str, Any]) -> str:
        """The id of a new episode; copies of one episode are told apart by their number."""
        digest = hashlib.sha256(line_of({"content": entry["content"], "source": entry["source"]})).hexdigest()
        self._given[digest] += 1
        number = self._given[digest]
        return f"ep_{digest[:24]}" + (f"-{number}" if number > 1 else "")


def entries(package: CanonicalDataset, out: Path | None) -> Iterator[dict[str, Any]]:
    """The line of every episode but for its id; its files are written into ``out`` unless that is ``None``.

    Raises:
        InvalidInputError: The tables do not agree.
    """
    videos = _videos(package)
    names, features = package.tasks(), package.features
    raw = _Raw(package)
    frames = cut(package.path(FRAMES_FILE))
    place = -1
    for place, row in enumerate(package.episodes()):
        number, rows = next(frames, (None, None))
        if rows is None or not number == row["episode_index"] == place or rows.num_rows != row["length"]:
            raise InvalidInputError(
                f"episode {place}: episodes.parquet says episode {row['episode_index']} with {row['length']} "
                f"frames, frames.parquet has episode {number} with {rows.num_rows if rows else 0}"
            )
        entry = entry_of(json_safe(row), features)
        rows = without_place(rows, entry["tasks"], names, package.fps)
        streams = raw.of(place)
        cameras = videos.pop(place, {})
        entry["content"] = content_of(rows, streams, {name: file["sha256"] for name, file in cameras.items()})
        if out is not None:
            files = {"frames": put_table(out, rows)}
            if streams is not None:
                files["raw"] = put_table(out, streams)
            for name, file in cameras.items():
                _link(package.path(file["path"]), out / OBJECTS / file["sha256"])
                files[f"videos/{name}"] = {key: file[key] for key in ("sha256", "size", "rows")}
            entry["files"] = files
        yield entry
    left = next(frames, None)
    if left is not None or videos or raw.left:
        what = f"frames of episode {left[0]}" if left else "videos or streams"
        raise InvalidInputError(f"the package has {what}, but only {place + 1} episodes")


class _Raw:
    """Streams at their own rate, read beside the frames."""

    def __init__(self, package: CanonicalDataset) -> None:
        there = any(file["path"] == RAW_INDEX_FILE for file in package.manifest.files)
        self._rows = cut(package.path(RAW_INDEX_FILE)) if there else iter(())
        self._next = next(self._rows, None)

    def of(self, number: int) -> "pa.Table | None":
        if self._next is None or self._next[0] != number:
            return None
        rows = self._next[1]
        self._next = next(self._rows, None)
        return rows.drop_columns(["episode_index"])

    @property
    def left(self) -> bool:
        return self._next is not None


def _videos(package: CanonicalDataset) -> dict[int, dict[str, Any]]:
    """Episode to camera to the video's row in the manifest."""
    found: dict[int, dict[str, Any]] = {}
    for file in package.manifest.files:
        if (at := video_place(file["path"])) is not None:
            found.setdefault(at[1], {})[at[0]] = file
    return found


def video_place(path: str) -> tuple[str, int] | None:
    """Camera and episode of ``videos/<camera>/episode_%06d.mp4``; ``None`` for another file."""
    top, _, rest = path.partition("/")
    camera, _, name = rest.rpartition("/")
    digits = name.removeprefix("episode_").removesuffix(".mp4")
    if top != "videos" or not camera or name != f"episode_{digits}.mp4" or not digits.isdecimal():
        return None
    return camera, int(digits)


def _is_other(path: str) -> bool:
    return path not in _TABLES and video_place(path) is None and not path.startswith(VERSION_FOLDER)


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def read_version(folder: Path) -> dict[str, Any]:
    """The manifest of a version that :func:`split` wrote."""
    return json.loads((folder / MANIFEST_FILE).read_bytes())
