"""A canonical dataset as recordings again: one MCAP an episode, for viewers and ROS tools.

::

    episodes/episode_000000.mcap    /observation/state, /action ...   each frame at its recorded stamp
                                    /camera/<name>                    each picture as JPEG
                                    /raw/<topic>                      streams that kept their own rate
                                    /task, /valid                     at the first frame and at each change

Vectors are `sensor_msgs/JointState` (`position` with the names of the dimensions), whatever they are; the
channel's metadata says the feature, its kind, unit and source. An episode without recorded time has its grid.
"""

import heapq
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats import ros_mcap
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.split import video_place
from emboflow_dagster.formats.exports.together import together
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.ros_mcap import NS, RosMcap

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LIBRARIES: Final = ("av", "pillow", "pyarrow", *ros_mcap.LIBRARIES)
FOLDER: Final = "episodes"
QUALITY: Final = 95
RECORDED, GRID = "recorded", "grid"
TASK, VALID = "/task", "/valid"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_/]")

Message = tuple[int, Callable[[RosMcap, int], None]]
"""Its stamp in ns, and what writes it."""


def write_mcap(
    dataset: CanonicalDataset,
    out: Path,
    facts: Mapping[str, Any],
    *,
    tick: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Write a file an episode; memory holds the numbers of one, and one picture of each camera.

    Args:
        dataset: The version.
        out: The package's folder, with its lineage.
        facts: What is said of the version in each file.
        tick: Called with episodes done and in all.

    Returns:
        ``features`` (of the version), ``topics`` {feature: topic}, ``clocks`` {recorded, grid: episodes},
        ``leftOut``.

    Raises:
        InvalidInputError: A video that has not one picture a frame.
        ConfigurationError: An extra (`rosbag`, `video`, `plots`) is not installed.
    """
    (out / FOLDER).mkdir(parents=True)
    features = dataset.manifest.features
    topics = _topics(features)
    clocks: dict[str, int] = dict.fromkeys((RECORDED, GRID), 0)
    left_out = {name: "has no dimension" for name, spec in features.items() if not spec["shape"][0]}
    for number, table, raw, said in together(dataset, out, facts):
        stamps, clock = _clock(table, dataset.fps)
        clocks[clock] += 1
        told = {**said, "clock": clock}
        path = out / FOLDER / f"episode_{number:06d}.mcap"
        with path.open("wb") as stream, RosMcap(stream) as file:
            file.metadata("emboflow", {name: _said(value) for name, value in told.items()})
            _write_one(file, dataset, topics, table, raw, stamps, left_out)
        tick(number + 1, dataset.manifest.episodes)
    lost = [{"feature": name, "reason": reason} for name, reason in left_out.items()]
    return {"features": features, "topics": topics, "clocks": clocks, "leftOut": lost}


def _topics(features: Mapping[str, Any]) -> dict[str, str]:
    """Feature to its topic, each another one, of the letters that ROS takes.

    >>> vector, video = {"dtype": "float32"}, {"dtype": "video"}
    >>> _topics({"camera.top": vector, "observation.images.top": video, "task": vector})
    {'camera.top': '/camera/top', 'observation.images.top': '/camera/top_2', 'task': '/task_2'}
    """
    topics: dict[str, str] = {}
    taken = {TASK, VALID}
    for name, spec in features.items():
        words = f"camera/{_camera(name)}" if spec["dtype"] == "video" else name.replace(".", "/").strip("/")
        plain = "/" + _UNSAFE.sub("_", words)
        topic, number = plain, 1
        while topic in taken:
            number += 1
            topic = f"{plain}_{number}"
        taken.add(topic)
        topics[name] = topic
    return topics


def _camera(feature: str) -> str:
    return feature.removeprefix("observation.images.")


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _clock(table: "pa.Table", fps: float) -> "tuple[list[int], str]":
    """The stamps of an episode's frames: the recording's own, else those of its grid from 0."""
    found = table.column("source_timestamp_ns").to_pylist()
    if found and all(stamp is not None and stamp >= 0 for stamp in found):
        return found, RECORDED
    return [round(place * NS / fps) for place in range(table.num_rows)], GRID


def _write_one(
    file: RosMcap,
    dataset: CanonicalDataset,
    topics: Mapping[str, str],
    table: "pa.Table",
    raw: "pa.Table | None",
    stamps: list[int],
    left_out: dict[str, str],
) -> None:
    features = dataset.manifest.features
    sources: list[Iterator[Message]] = []
    number = int(table.column("episode_index")[0].as_py())
    for name, topic in topics.items():
        spec = features[name]
        about = {key: _said(spec[key]) for key in ("kind", "unit", "sourceTopic") if spec.get(key)}
        about["feature"] = name
        if spec["dtype"] == "video":
            file.topic(topic, ros_mcap.PICTURE, about)
            sources.append(_pictures(dataset, name, topic, number, stamps))
        elif spec["shape"][0]:
            file.topic(topic, ros_mcap.VECTOR, about)
            values = _rows(table.column(name), len(stamps))
            sources.append(_vectors(topic, spec["names"], stamps, values))
    words = dataset.tasks()
    said = [words[place] for place in table.column("task_index").to_pylist()]
    file.topic(TASK, ros_mcap.TEXT)
    sources.append(_changes(TASK, stamps, said))
    valid = table.column("valid").to_pylist()
    if not all(valid):
        file.topic(VALID, ros_mcap.FLAG)
        sources.append(_changes(VALID, stamps, valid))
    for topic, kept, values in _raw(raw):
        if min(kept) < 0:
            left_out[topic] = "has stamps before 1970"
            continue
        names = next((s["names"] for s in features.values() if s.get("sourceTopic") == topic), None)
        if names is None or len(names) != values.shape[1]:
            names = [str(place) for place in range(values.shape[1])]
        place = "/raw/" + _UNSAFE.sub("_", topic.strip("/"))
        file.topic(place, ros_mcap.VECTOR, {"sourceTopic": topic})
        sources.append(_vectors(place, names, kept, values))
    # Each source in its own order: where a recording's stamps go backwards they do so here too.
    for stamp, write in heapq.merge(*sources, key=lambda message: message[0]):
        write(file, stamp)


def _rows(column: Any, length: int) -> "np.ndarray":
    import numpy as np

    return np.asarray(column.combine_chunks().flatten(), np.float32).reshape(length, -1)


def _raw(table: "pa.Table | None") -> "Iterator[tuple[str, list[int], np.ndarray]]":
    """Topic, stamps and values of each stream that kept its own rate."""
    import pyarrow.compute

    pc: Any = pyarrow.compute
    if table is None:
        return
    for topic in dict.fromkeys(table.column("topic").to_pylist()):
        rows = table.filter(pc.equal(table.column("topic"), topic))
        stamps = rows.column("source_timestamp_ns").to_pylist()
        yield topic, stamps, _rows(rows.column("values"), len(stamps))


def _vectors(topic: str, names: Any, stamps: list[int], values: "np.ndarray") -> Iterator[Message]:
    for stamp, row in zip(stamps, values, strict=True):
        yield stamp, lambda file, at, row=row: file.vector(topic, at, names, row)


def _changes(topic: str, stamps: list[int], values: list[Any]) -> Iterator[Message]:
    last: object = None
    for stamp, value in zip(stamps, values, strict=True):
        if value != last:
            last = value
            yield stamp, lambda file, at, value=value: file.value(topic, at, value)


def _pictures(
    dataset: CanonicalDataset, feature: str, topic: str, number: int, stamps: list[int]
) -> Iterator[Message]:
    camera = _camera(feature)
    name = next(f["path"] for f in dataset.manifest.files if video_place(f["path"]) == (camera, number))
    count = 0
    for jpeg in _jpegs(dataset.path(name)):
        if count < len(stamps):
            yield stamps[count], lambda file, at, jpeg=jpeg: file.picture(topic, at, camera, jpeg)
        count += 1
    if count != len(stamps):
        text = f"{camera}: {count} pictures for {len(stamps)} frames of episode {number}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT)


def _jpegs(path: Path) -> Iterator[bytes]:
    with needs_extra("video"):
        import av
        from av.error import FFmpegError
    with needs_extra("plots"):
        from PIL import Image

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for frame in container.decode(video=0):
                buffer = io.BytesIO()
                Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, "JPEG", quality=QUALITY)
                yield buffer.getvalue()
    except FFmpegError as error:
        text = f"{path.name}: not decodable: {error}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from error
