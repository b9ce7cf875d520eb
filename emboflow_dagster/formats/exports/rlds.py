"""A canonical dataset as RLDS: TFRecord shards, one record an episode, described as TensorFlow Datasets does.

::

    <name>/1.0.0/dataset_info.json, features.json
    <name>/1.0.0/<name>-train.tfrecord-00000-of-00002

Each record is a ``tf.train.Example`` whose lists hold all steps of the episode one after the other, under
``steps/...``. Source: https://github.com/google-research/rlds and the files that TensorFlow Datasets writes.
"""

import io
import math
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.episode_files import cut
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import FRAMES_FILE
from emboflow_dagster.formats.canonical.split import video_place
from emboflow_dagster.formats.exports.package import json_text
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.tfrecord_file import MAX_RECORD_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

LIBRARIES: Final = ("av", "pillow", "pyarrow", "tfrecord")
VERSION: Final = "1.0.0"
EPISODES_PER_SHARD: Final = 64
ACTION: Final = "action"
FLAGS: Final = ("is_first", "is_last", "is_terminal")


def write_rlds(
    dataset: CanonicalDataset,
    out: Path,
    *,
    name: str,
    tick: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Write the shards; memory holds one episode, pictures included, because a record is one.

    Args:
        dataset: The version.
        out: The package's folder.
        name: The dataset's; TensorFlow Datasets wants ``_`` for ``-``.
        tick: Called with episodes done and in all.

    Returns:
        ``features`` {step feature: {dtype, shape}}, ``shards``, ``folder`` (inside ``out``), ``leftOut``.

    Raises:
        InvalidInputError: An episode above 1 GiB, or a video that has not one picture a frame.
        ConfigurationError: The extra `rlds` is not installed.
    """
    plain = name.replace("-", "_")
    folder = out / plain / VERSION
    folder.mkdir(parents=True)
    described = _described(dataset)
    total = dataset.manifest.episodes
    shards = -(-total // EPISODES_PER_SHARD)
    lengths: list[int] = []
    size = 0
    episodes = zip(cut(dataset.path(FRAMES_FILE)), dataset.episodes(), strict=True)
    for shard in range(shards):
        path = folder / f"{plain}-train.tfrecord-{shard:05d}-of-{shards:05d}"
        with path.open("wb") as stream:
            lengths.append(0)
            for (number, frames), row in _some(episodes, EPISODES_PER_SHARD):
                record = _record(dataset, described, number, frames, row)
                _write_record(stream, record)
                lengths[-1] += 1
                tick(number + 1, total)
        size += path.stat().st_size
    info = {
        "name": plain,
        "version": VERSION,
        "description": "made by emboflow-dagster; delivery.json says of which version",
        "fileFormat": "tfrecord",
        "moduleName": "emboflow_dagster",
        "splits": [
            {
                "name": "train",
                "numBytes": str(size),
                "shardLengths": [str(length) for length in lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        ],
    }
    (folder / "dataset_info.json").write_text(json_text(info), encoding="utf-8")
    (folder / "features.json").write_text(json_text(_features_json(described)), encoding="utf-8")
    steps = {key.removeprefix("steps/"): spec for key, spec in described.items() if key.startswith("steps/")}
    return {
        "features": steps,
        "shards": shards,
        "folder": f"{plain}/{VERSION}",
        "leftOut": [
            {"feature": feature, "reason": "has no dimension"}
            for feature in dataset.features
            if not dataset.manifest.features[feature]["shape"][0]
        ],
    }


def _some(found: Iterator[Any], most: int) -> Iterator[Any]:
    for _ in range(most):
        one = next(found, None)
        if one is None:
            return
        yield one


def _described(dataset: CanonicalDataset) -> dict[str, dict[str, Any]]:
    """Key of the record -> dtype, shape of a step, and the version's own name of it."""
    out: dict[str, dict[str, Any]] = {}
    names = dataset.manifest.features
    for name, spec in names.items():
        key = _key(name, names, out)
        if spec["dtype"] == "video":
            out[key] = {"dtype": "uint8", "shape": list(spec["shape"]), "of": name, "image": True}
        elif spec["shape"][0]:
            out[key] = {"dtype": "float32", "shape": list(spec["shape"]), "of": name}
    for flag in FLAGS:
        out[f"steps/{flag}"] = {"dtype": "bool", "shape": []}
    for scalar in ("reward", "discount"):
        out[f"steps/{scalar}"] = {"dtype": "float32", "shape": []}
    out["steps/language_instruction"] = {"dtype": "string", "shape": []}
    return out


def _key(name: str, names: Container[str], taken: Container[str]) -> str:
    """Where a feature stands in a step; ``observation.state`` and ``state`` must not become one.

    >>> _key("action.arm", {"action.arm"}, ()), _key("action.arm", {"action", "action.arm"}, ())
    ('steps/action/arm', 'steps/action_dict/arm')
    >>> _key("state", {"observation.state", "state"}, {"steps/observation/state"})
    'steps/observation/state_2'
    """
    plain = name.replace("/", "_")
    if name == ACTION:
        return f"steps/{ACTION}"
    if plain.startswith(f"{ACTION}."):
        # Parts beside a whole stand where DROID has them: one key is a vector or a mapping, never both.
        key = f"steps/{ACTION}{'_dict' if ACTION in names else ''}/{plain.removeprefix(f'{ACTION}.')}"
    else:
        key = f"steps/observation/{plain.removeprefix('observation.')}"
    free, number = key, 1
    while free in taken:
        number += 1
        free = f"{key}_{number}"
    return free


def _record(
    dataset: CanonicalDataset,
    described: Mapping[str, Mapping[str, Any]],
    number: int,
    frames: "pa.Table",
    row: Mapping[str, Any],
) -> bytes:
    import numpy as np

    with needs_extra("rlds"):
        from tfrecord import example_pb2

    length = frames.num_rows
    tasks = dataset.tasks()
    said = [tasks[index].encode() for index in np.asarray(frames.column("task_index").combine_chunks())]
    first, last = [0] * length, [0] * length
    first[0], last[-1] = 1, 1
    done = float(row["success"] is True)
    lists: dict[str, tuple[str, Any]] = {
        "episode_metadata/episode_index": ("int64_list", [number]),
        "steps/is_first": ("int64_list", first),
        "steps/is_last": ("int64_list", last),
        # Demonstrations end where the recording does: that the task was over only `success` says.
        "steps/is_terminal": ("int64_list", last if done else [0] * length),
        "steps/reward": ("float_list", [0.0] * (length - 1) + [done]),
        "steps/discount": ("float_list", [1.0] * length),
        "steps/language_instruction": ("bytes_list", said),
    }
    for key, spec in described.items():
        if "of" not in spec:
            continue
        if spec.get("image"):
            lists[key] = ("bytes_list", list(_pictures(dataset, spec["of"], number, length)))
        else:
            column = frames.column(spec["of"]).combine_chunks()
            lists[key] = ("float_list", np.asarray(column.flatten(), np.float32))
    example = example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    for key, (kind, values) in lists.items():
        getattr(example.features.feature[key], kind).value.extend(values)
    if example.ByteSize() > MAX_RECORD_BYTES:
        raise InvalidInputError(f"episode {number} is above 1 GiB: no reader takes a record of that size")
    return example.SerializeToString(deterministic=True)


def _pictures(dataset: CanonicalDataset, feature: str, number: int, length: int) -> Iterator[bytes]:
    """Every picture of an episode as PNG."""
    import av
    from PIL import Image

    camera = feature.removeprefix("observation.images.")
    at = (camera, number)
    name = next(file["path"] for file in dataset.manifest.files if video_place(file["path"]) == at)
    count = 0
    with av.open(str(dataset.path(name)), metadata_errors="replace") as container:
        for frame in container.decode(video=0):
            buffer = io.BytesIO()
            Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, "png", compress_level=6)
            count += 1
            yield buffer.getvalue()
    if count != length:
        text = f"{camera}: {count} pictures for {length} frames of episode {number}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT)


def _write_record(stream: Any, record: bytes) -> None:
    from tfrecord.writer import TFRecordWriter

    length = struct.pack("<Q", len(record))
    stream.write(length + TFRecordWriter.masked_crc(length) + record + TFRecordWriter.masked_crc(record))


def _features_json(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    for key, spec in described.items():
        *parents, name = key.removeprefix("steps/").split("/")
        place = steps
        for parent in parents:
            place = place.setdefault(parent, _dict({}))["featuresDict"]["features"]
        place[name] = _leaf(spec)
    number = {"dtype": "int64", "shape": []}
    metadata = _dict({"episode_index": _leaf(number)})
    sequence = {
        "pythonClassName": "tensorflow_datasets.core.features.dataset_feature.Dataset",
        "sequence": {"feature": _dict(steps), "length": "-1"},
    }
    return _dict({"steps": sequence, "episode_metadata": metadata})


def _dict(features: dict[str, Any]) -> dict[str, Any]:
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


def _leaf(spec: Mapping[str, Any]) -> dict[str, Any]:
    shape = {"dimensions": [str(dim) for dim in spec["shape"]]} if spec["shape"] else {}
    core = "tensorflow_datasets.core.features"
    if spec.get("image"):
        image = {"dtype": "uint8", "encodingFormat": "png", "shape": shape}
        return {"pythonClassName": f"{core}.image_feature.Image", "image": image}
    if spec["dtype"] == "string":
        return {"pythonClassName": f"{core}.text_feature.Text", "text": {}}
    kind = "Tensor" if math.prod(spec["shape"]) > 1 or spec["shape"] else "Scalar"
    tensor = {"dtype": spec["dtype"], "encoding": "none", "shape": shape}
    return {
        "pythonClassName": f"{core}.tensor_feature.Tensor" if kind == "Tensor" else f"{core}.scalar.Scalar"
    } | {"tensor": tensor}
