"""Where the parts of a LeRobot tree 2.0, 2.1 or 3.0 are: found by looking, its path templates come second.

Templates of public datasets do not always resolve, and files are what can be read: data is every Parquet file
below ``data/``, a video belongs to the episode or file whose number its name ends with.
"""

import re
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.detect import Source, open_source, signature
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.lerobot_folder import own
from emboflow_dagster.formats.lerobot_info import INFO, Info, read_info, why_not_read
from emboflow_dagster.formats.lerobot_meta import EpisodeMeta, read_episodes, read_tasks
from emboflow_dagster.formats.video_file import SIGNATURES, SUFFIXES

_NUMBER = re.compile(r"\d+")
MAX_DIGITS = 15


class Clip(NamedTuple):
    """Pictures of one episode: a file, or a part of one (seconds of the file)."""

    path: Path
    from_s: float = 0.0
    whole: bool = True


class Tree:
    """One dataset on disk.

    Raises:
        InvalidInputError: There is no ``meta/info.json`` of a known version, or no data.
    """

    def __init__(self, root: Path) -> None:
        source = open_source(root)
        self.source: Source = own(source) if source.is_folder else source
        info = read_info(root / INFO) if source.is_folder else None
        if info is None or info.version is None:
            raise InvalidInputError(f"{root.name}: {why_not_read(info)}", kind=ErrorKind.FORMAT_UNSUPPORTED)
        self.root = root
        self.info: Info = info
        self.data: list[Path] = [
            self.source.file(entry)
            for entry in sorted(self.source.with_suffix(".parquet"), key=lambda e: natural_key(e.path))
            if entry.path.startswith("data/")
        ]
        if not self.data:
            raise InvalidInputError(f"{root.name}: no parquet file below data/", kind=ErrorKind.INPUT_MISSING)

    @property
    def long_files(self) -> bool:
        """Whether a file holds several episodes (3.0)."""
        return self.info.version == "v3.0"

    @cached_property
    def tasks(self) -> dict[int, str]:
        """Task by its index."""
        return read_tasks(self.root, self.info)

    @cached_property
    def episodes(self) -> dict[int, EpisodeMeta]:
        """Episode by its index; those that the metadata do not name are absent."""
        return read_episodes(self.source, self.info).episodes

    def clip(self, feature: str, episode: int) -> Clip | None:
        """Where an episode's video is, ``None`` where there is none."""
        files = self._videos.get(feature, {})
        if self.long_files:
            meta = self.episodes.get(episode)
            place = meta.clips.get(feature) if meta else None
            path = files.get(place[:2]) if place else None
            return Clip(path, place[2], whole=False) if path is not None and place else None
        template = self.info.template("video_path")
        name = self.info.resolve(template, episode, feature) if template else None
        if name is not None and (path := self._by_name.get(name)) is not None:
            return Clip(path)
        found = self._by_last.get(feature, {}).get(episode, [])
        return Clip(found[0]) if len(found) == 1 else None

    def has_videos(self, feature: str) -> bool:
        """Whether any file is of this feature."""
        return bool(self._videos.get(feature))

    @cached_property
    def _videos(self) -> dict[str, dict[tuple[int, ...], Path]]:
        """Feature to the last two numbers of a path (chunk, file or episode) to the file."""
        found: dict[str, dict[tuple[int, ...], Path]] = {}
        for name, path in self._by_name.items():
            feature = next((f for f in self.info.videos if f"/{f}/" in f"/{name}"), None)
            if feature is not None:
                inside = name.replace(f"{feature}/", "", 1)
                numbers = [int(n) for n in _NUMBER.findall(inside.rpartition(".")[0]) if len(n) <= MAX_DIGITS]
                found.setdefault(feature, {}).setdefault(tuple(numbers[-2:]), path)
        return found

    @cached_property
    def _by_last(self) -> dict[str, dict[int, list[Path]]]:
        """Feature to the last number of a path to its files."""
        found: dict[str, dict[int, list[Path]]] = {}
        for feature, files in self._videos.items():
            for numbers, path in files.items():
                if numbers:
                    found.setdefault(feature, {}).setdefault(numbers[-1], []).append(path)
        return found

    @property
    def undeclared_videos(self) -> list[Path]:
        """Videos that are of no declared feature."""
        known = {path for files in self._videos.values() for path in files.values()}
        return [path for path in self._by_name.values() if path not in known]

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        entries = sorted(self.source.with_suffix(*SUFFIXES), key=lambda entry: natural_key(entry.path))
        return {
            entry.path: self.source.file(entry)
            for entry in entries
            if signature(self.source.head_of(entry)) in SIGNATURES
        }


def number_of(path: Path) -> int | None:
    """The number that a file's name ends with."""
    found = _NUMBER.findall(PurePosixPath(path.name).stem)
    return int(found[-1]) if found and len(found[-1]) <= MAX_DIGITS else None
