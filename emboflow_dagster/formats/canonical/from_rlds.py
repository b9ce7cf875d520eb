"""Episodes out of RLDS: a record of a TFRecord shard is one episode.

Values are taken from the protocol buffer itself: through numpy's ``S`` arrays encoded pictures lose the zero
bytes that they end with. RLDS holds no time and no rate: the caller says which one it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, NotFoundError
from emboflow_dagster.formats.canonical.names import camera_name, kind_of
from emboflow_dagster.formats.canonical.rlds_pictures import (
    DEPTH,
    pictures_of,
)
from emboflow_dagster.formats.canonical.schema import INDEX_COLUMNS, Camera, Episode, FeatureSpec
from emboflow_dagster.formats.detect import open_source
from emboflow_dagster.formats.rlds import episode_length, example_of, flags_fit, groups
from emboflow_dagster.formats.tfrecord_file import BrokenRecordError, records

if TYPE_CHECKING:
    import numpy as np

_STEPS = "steps/"
_TASK_WORDS = ("language_instruction", "natural_language_instruction", "instruction", "task")


def episodes(
    path: Path,
    *,
    task: str | None = None,
    asset_id: str | None = None,
    videos: bool = True,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every record in the order of the shards; memory holds one.

    ``steps/action`` becomes ``action``, ``steps/observation/state`` ``observation.state``, any other numbers
    keep their name; encoded pictures become cameras; instructions in words are the tasks of the steps.

    Args:
        path: A shard, or the folder with the shards and ``features.json``.
        task: What was asked of the robot; default is the episode's own instruction.
        asset_id: For the source reference.
        videos: Whether pictures are taken along.
        skipped: Gets ``{"source", "reason"}`` of each record and feature left out.

    Raises:
        NotFoundError: No shard.
    """
    left_out = skipped if skipped is not None else []
    source = open_source(path)
    found, passed = groups(source)
    if not found:
        raise NotFoundError(f"{path.name}: no TFRecord shard", kind=ErrorKind.FILE_MAGIC)
    for folder in passed:
        where = {"assetId": asset_id, "path": folder, "ref": folder}
        left_out.append({"source": where, "reason": f"an older version than {found[0].folder}"})
    said: set[str] = set()
    for group in found:
        for entry in group.shards:
            file = source.file(entry) if source.is_folder else path
            shard = _Shard(file, entry.path, group.features, task, asset_id, videos, said, left_out)
            yield from shard.episodes()


@dataclass(slots=True)
class _Shard:
    """One file, and how its records are read."""

    file: Path
    name: str
    described: dict[str, dict[str, Any]]
    task: str | None
    asset_id: str | None
    videos: bool
    said: set[str]
    left_out: list[dict[str, Any]]

    def episodes(self) -> Iterator[Episode]:
        """Every record that is an episode."""
        number = -1
        try:
            for number, record in records(self.file, self._damaged):
                where = self._where(number)
                found = _episode(
                    record,
                    self.described,
                    where,
                    self.task,
                    videos=self.videos,
                    said=self.said,
                    left_out=self.left_out,
                )
                if isinstance(found, str):
                    self.left_out.append({"source": where, "reason": found})
                else:
                    yield found
        except BrokenRecordError as error:
            self.left_out.append({"source": self._where(number + 1), "reason": str(error)})

    def _where(self, number: int) -> dict[str, Any]:
        return {"assetId": self.asset_id, "path": self.name, "ref": f"record {number}"}

    def _damaged(self, number: int) -> None:
        reason = "its bytes do not match their checksum"
        self.left_out.append({"source": self._where(number), "reason": reason})


def _episode(
    record: bytes,
    described: dict[str, dict[str, Any]],
    where: Mapping[str, Any],
    task: str | None,
    *,
    videos: bool,
    said: set[str],
    left_out: list[dict[str, Any]],
) -> Episode | str:
    length = episode_length(record, described)
    if not length:
        return "holds no step" if length == 0 else "holds no steps that can be counted"
    found = example_of(record)
    flags = () if flags_fit(found, length) else ("step_flags_mismatch",)
    features: dict[str, Any] = {}
    specs: dict[str, FeatureSpec] = {}
    cameras: dict[str, Camera] = {}
    words: dict[str, list[str]] = {}
    success: bool | None = None
    for path in sorted(found):
        kind = found[path].WhichOneof("kind")
        values: Sequence[Any] = getattr(found[path], kind).value if kind else []
        if not path.startswith(_STEPS):
            if (
                path.rpartition("/")[2] in ("success", "is_success")
                and len(values) == 1
                and kind != "bytes_list"
            ):
                success = bool(values[0])
            continue
        name = path.removeprefix(_STEPS).replace("/", ".")
        reason = None
        shown = pictures_of(kind, values, length, described.get(path), path, wanted=videos)
        if path.rpartition("/")[2].startswith("ragged_"):
            reason = "its steps hold different numbers of values"
        elif shown == DEPTH:
            reason = DEPTH
        elif isinstance(shown, str):
            return f"{path}: {shown}"
        elif shown is not None:
            cameras |= {camera_name(name, taken=cameras): camera for camera in shown}
        elif kind == "bytes_list":
            if texts := _texts(values):
                words[name] = texts
            else:
                reason = "its bytes are neither pictures nor words"
        elif len(values) % length or not len(values):
            reason = f"{len(values)} values for {length} steps"
        else:
            name = f"source.{name}" if name in INDEX_COLUMNS else name
            features[name], specs[name] = _vector(name, values, length, path)
        if reason and path not in said:
            said.add(path)
            left_out.append({"source": {**where, "ref": path}, "reason": reason})
    said_tasks = next((words[name] for name in sorted(words, key=_task_order) if any(words[name])), [""])
    several = len(said_tasks) == length and len(set(said_tasks)) > 1
    return Episode(
        source=where,
        features=features,
        specs=specs,
        task=said_tasks[0] if task is None else task,
        success=success,
        flags=flags,
        cameras=cameras,
        frames=length,
        frame_tasks=tuple(said_tasks) if task is None and several else (),
    )


def _task_order(name: str) -> tuple[int, str]:
    word = name.rpartition(".")[2]
    return (_TASK_WORDS.index(word) if word in _TASK_WORDS else len(_TASK_WORDS), name)


def _vector(name: str, values: Sequence[Any], length: int, path: str) -> tuple["np.ndarray", FeatureSpec]:
    import numpy as np

    plain = np.asarray(values, dtype=np.float64).reshape(length, -1)
    stem = name.rpartition(".")[2]
    width = plain.shape[1]
    names = tuple(f"{stem}_{place}" for place in range(width)) if width > 1 else (stem,)
    with np.errstate(over="ignore"):
        return plain.astype(np.float32), FeatureSpec(names, kind_of(name), None, path)


def _texts(values: Sequence[bytes]) -> list[str]:
    """The values as words, none where one of them is no text."""
    try:
        return [data.decode().strip() for data in values]
    except UnicodeDecodeError:
        return []
