"""Episodes out of RLDS: a record of a TFRecord shard is one episode.

Values are taken from the protocol buffer itself: through numpy's ``S`` arrays encoded pictures lose the zero
bytes that they end with. RLDS holds no time and no rate: the caller says which one it is.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, NotFoundError
from emboflow_dagster.formats.canonical.names import camera_name, kind_of
from emboflow_dagster.formats.canonical.schema import INDEX_COLUMNS, Camera, Episode, FeatureSpec
from emboflow_dagster.formats.detect import open_source
from emboflow_dagster.formats.rlds import described_features, episode_length, shards
from emboflow_dagster.formats.tfrecord_file import BrokenRecordError, records

if TYPE_CHECKING:
    import numpy as np

_STEPS = "steps/"
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff")
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
    described = described_features(source)
    files = shards(source)
    if not files:
        raise NotFoundError(f"{path.name}: no TFRecord shard", kind=ErrorKind.FILE_MAGIC)
    said: set[str] = set()
    for file in files:
        name = file.relative_to(path).as_posix() if source.is_folder else file.name
        number = -1
        try:
            for number, record in enumerate(records(file)):
                where = {"assetId": asset_id, "path": name, "ref": f"record {number}"}
                found = _episode(record, described, where, task, videos=videos, said=said, left_out=left_out)
                if isinstance(found, str):
                    left_out.append({"source": where, "reason": found})
                else:
                    yield found
        except BrokenRecordError as error:
            where = {"assetId": asset_id, "path": name, "ref": f"record {number + 1}"}
            left_out.append({"source": where, "reason": str(error)})


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
    import numpy as np
    from tfrecord import example_pb2

    length = episode_length(record, described)
    if not length:
        return "holds no steps that can be counted"
    example = example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    found = example.FromString(record).features.feature
    features: dict[str, np.ndarray] = {}
    specs: dict[str, FeatureSpec] = {}
    cameras: dict[str, Camera] = {}
    words: dict[str, list[str | None]] = {}
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
        if kind == "bytes_list":
            if len(values) == length and _is_picture(values[0], described.get(path)):
                camera = _camera(values, path) if videos else None
                if isinstance(camera, str):
                    return f"{path}: {camera}"
                if camera is not None:
                    cameras[camera_name(name, taken=cameras)] = camera
            elif len(values) and _text(values[0]) is not None:
                words[name] = [_text(value) for value in values]
            else:
                reason = "its bytes are neither pictures nor words"
        elif len(values) % length or not len(values):
            reason = f"{len(values)} values for {length} steps"
        else:
            plain = np.asarray(values, dtype=np.float64).reshape(length, -1)
            name = f"source.{name}" if name in INDEX_COLUMNS else name
            with np.errstate(over="ignore"):
                features[name] = plain.astype(np.float32)
            stem = name.rpartition(".")[2]
            width = plain.shape[1]
            names = tuple(f"{stem}_{place}" for place in range(width)) if width > 1 else (stem,)
            specs[name] = FeatureSpec(names, kind_of(name), None, path)
        if reason and path not in said:
            said.add(path)
            left_out.append({"source": {**where, "ref": path}, "reason": reason})
    own = next((words[name] for name in sorted(words, key=_task_order) if words[name][0]), [""])
    said_of_each = tuple(filter(None, own)) if len(own) == length else ()
    several = task is None and len(said_of_each) == length and len(set(said_of_each)) > 1
    return Episode(
        source=where,
        features=features,
        specs=specs,
        task=own[0] or "" if task is None else task,
        success=success,
        cameras=cameras,
        frames=length,
        frame_tasks=said_of_each if several else (),
    )


def _task_order(name: str) -> tuple[int, str]:
    word = name.rpartition(".")[2]
    return (_TASK_WORDS.index(word) if word in _TASK_WORDS else len(_TASK_WORDS), name)


def _is_picture(data: bytes, described: Mapping[str, Any] | None) -> bool:
    return data.startswith(_PICTURES) or (
        described is not None and described.get("dtype") == "uint8" and len(described.get("shape", ())) == 3  # noqa: PLR2004 - height, width, channels
    )


def _camera(values: Sequence[bytes], path: str) -> Camera | str:
    first = _picture(values[0])
    if first is None:
        return "its first picture cannot be decoded"
    pictures = partial(_pictures, tuple(values))
    return Camera((int(first.shape[0]), int(first.shape[1]), 3), pictures, path)


def _pictures(values: Sequence[bytes]) -> Iterator["np.ndarray"]:
    """Every picture in order; an undecodable one ends the sequence, and the writer sees that it is short."""
    for data in values:
        picture = _picture(data)
        if picture is None:
            return
        yield picture


def _picture(data: bytes) -> "np.ndarray | None":
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None


def _text(data: bytes) -> str | None:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        return None
