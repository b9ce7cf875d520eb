"""A canonical dataset as Rerun shows it: one `.rrd` an episode.

::

    episodes/episode_000000.rrd    observation/state, action ...   scalars, named as the dimensions are
                                   camera/<name>                   the mp4 itself, a frame of it each row
                                   trajectory/<feature>            the way, and the place in each frame
                                   raw/<topic>                     streams that kept their own rate
                                   task, about                     in words

Timelines: ``frame`` (from 0), ``time`` (seconds of the grid) and, where the source held time, ``recorded``.
Rerun gives every chunk an id of the moment and of chance: two exports hold the same data, not the same bytes.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.split import video_place
from emboflow_dagster.formats.exports.together import together
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.previews.scene import path_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LIBRARIES: Final = ("pyarrow", "rerun-sdk")
FOLDER: Final = "episodes"
APPLICATION: Final = "emboflow"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_/.-]")


def write_rrd(
    dataset: CanonicalDataset,
    out: Path,
    facts: Mapping[str, Any],
    *,
    tick: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Write a file an episode; memory holds one, with its videos.

    Args:
        dataset: The version.
        out: The package's folder, with its lineage.
        facts: What is said of the version in each file.
        tick: Called with episodes done and in all.

    Returns:
        ``features`` (of the version), ``entities`` {feature: entity}, ``leftOut``.

    Raises:
        InvalidInputError: A video that has not one picture a frame.
        ConfigurationError: The extra `rerun` is not installed.
    """
    with needs_extra("rerun"):
        import rerun as rr  # pyright: ignore[reportMissingImports] - no part of the usual environment

    (out / FOLDER).mkdir(parents=True)
    features = dataset.manifest.features
    entities = {name: _entity(name, spec) for name, spec in features.items() if spec["shape"][0]}
    for number, table, raw, told in together(dataset, out, facts):
        known = told["episode"].get("id") or f"episode {number}"
        file = rr.RecordingStream(APPLICATION, recording_id=known, send_properties=False)
        file.save(out / FOLDER / f"episode_{number:06d}.rrd")
        file.send_recording_name(f"episode {number}: {', '.join(told['tasks'])}")
        text = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False)
        file.log("about", rr.TextDocument(text), static=True)
        _write_one(_Open(rr, file, dataset), entities, table, raw)
        file.flush()
        file.disconnect()
        tick(number + 1, dataset.manifest.episodes)
    lost = [
        {"feature": name, "reason": "has no dimension"}
        for name, spec in features.items()
        if name not in entities
    ]
    return {"features": features, "entities": entities, "leftOut": lost}


@dataclass(slots=True)
class _Open:
    """A file under way: the library, its stream, the version, and the times of the episode's rows."""

    rr: Any
    file: Any
    dataset: CanonicalDataset
    times: list[Any] = field(default_factory=list)

    def scalars(self, entity: str, values: "np.ndarray", names: Any, times: list[Any] | None = None) -> None:
        """Numbers ``(rows, dim)`` over time, named."""
        self.file.log(entity, self.rr.SeriesLines(names=list(names)), static=True)
        columns = self.rr.Scalars.columns(scalars=values)
        self.file.send_columns(entity, self.times if times is None else times, columns)

    def clock(self, stamps: "pa.ChunkedArray") -> Any:
        """The recording's own stamps as a timeline."""
        return self.rr.TimeColumn("recorded", timestamp=stamps.to_numpy().astype("datetime64[ns]"))


def _entity(name: str, spec: Mapping[str, Any]) -> str:
    """Where a feature stands, of letters that need no escape."""
    words = name.replace(".", "/").strip("/")
    if spec["dtype"] == "video":
        words = f"camera/{name.removeprefix('observation.images.')}"
    return _UNSAFE.sub("_", words)


def _write_one(made: _Open, entities: Mapping[str, str], table: "pa.Table", raw: "pa.Table | None") -> None:
    import numpy as np

    count, fps, rr = table.num_rows, made.dataset.fps, made.rr
    number = int(table.column("episode_index")[0].as_py())
    stamps = table.column("source_timestamp_ns")

    def times(rows: "np.ndarray") -> list[Any]:
        found = [rr.TimeColumn("frame", sequence=rows), rr.TimeColumn("time", duration=rows / fps)]
        return found if stamps.null_count else [*found, made.clock(stamps.take(rows))]

    made.times = times(np.arange(count))
    features = made.dataset.manifest.features
    for name, entity in entities.items():
        if features[name]["dtype"] == "video":
            _video(made, name, entity, number, count)
            continue
        values, names = _rows(table.column(name), count), features[name]["names"]
        made.scalars(entity, values, names)
        way = path_of((name, np.arange(count), values, names))
        if way is not None:
            points = np.pad(way[1], ((0, 0), (0, 3 - way[1].shape[1])))
            place = f"trajectory/{entity}"
            made.file.log(place, rr.LineStrips3D([points]), static=True)
            if len(points) == count:
                made.file.send_columns(f"{place}/now", made.times, rr.Points3D.columns(positions=points))
    words = made.dataset.tasks()
    said = table.column("task_index").to_pylist()
    changes = [place for place in range(count) if not place or said[place] != said[place - 1]]
    texts = rr.TextDocument.columns(text=[words[said[place]] for place in changes])
    made.file.send_columns("task", times(np.array(changes)), texts)
    valid = np.array(table.column("valid").to_pylist(), dtype=np.float64)
    if not valid.all():
        made.scalars("valid", valid[:, None], ("valid",))
    if raw is not None:
        _raw(made, raw)


def _raw(made: _Open, raw: "pa.Table") -> None:
    """Streams at their own rate; they have the recording's clock alone."""
    import pyarrow.compute

    pc: Any = pyarrow.compute
    features = made.dataset.manifest.features.values()
    for topic in dict.fromkeys(raw.column("topic").to_pylist()):
        rows = raw.filter(pc.equal(raw.column("topic"), topic))
        values = _rows(rows.column("values"), rows.num_rows)
        names = next((spec["names"] for spec in features if spec.get("sourceTopic") == topic), None)
        if names is None or len(names) != values.shape[1]:
            names = [str(place) for place in range(values.shape[1])]
        entity = "raw/" + _UNSAFE.sub("_", topic.strip("/"))
        made.scalars(entity, values, names, [made.clock(rows.column("source_timestamp_ns"))])


def _video(made: _Open, feature: str, entity: str, number: int, count: int) -> None:
    """The file as it is, and for each row which of its pictures is shown."""
    camera = feature.removeprefix("observation.images.")
    files = made.dataset.manifest.files
    name = next(f["path"] for f in files if video_place(f["path"]) == (camera, number))
    asset = made.rr.AssetVideo(path=made.dataset.path(name), media_type="video/mp4")
    shown = asset.read_frame_timestamps_nanos()
    if len(shown) != count:
        text = f"{camera}: {len(shown)} pictures for {count} frames of episode {number}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT)
    made.file.log(entity, asset, static=True)
    made.file.send_columns(entity, made.times, made.rr.VideoFrameReference.columns_nanos(shown))


def _rows(column: Any, length: int) -> "np.ndarray":
    import numpy as np

    return np.asarray(column.combine_chunks().flatten(), np.float64).reshape(length, -1)
