"""The files of single episodes: what a version keeps of each, independent of its place in the dataset."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.content import PLACED
from emboflow_dagster.formats.canonical.stats import STAT_NAMES

if TYPE_CHECKING:
    import pyarrow as pa

#: Payloads of a version that is being made, by their sha256.
OBJECTS: Final = "objects"
#: Column of an episode with several tasks: the place of each frame's task in the episode's list.
TASK_PLACE: Final = "task_place"


def put_table(folder: Path, table: "pa.Table") -> dict[str, Any]:
    """Write rows as one payload of ``folder``; its sha256, size and rows. Equal rows, equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # Thousands of small files: what a reader can do without is not written.
    pq.write_table(
        table,
        sink,
        version="2.6",
        compression="zstd",
        compression_level=3,
        write_statistics=False,
        store_schema=False,
        row_group_size=max(1, table.num_rows),
    )
    payload = sink.getvalue().to_pybytes()
    return {**put_bytes(folder, payload), "rows": table.num_rows}


def put_bytes(folder: Path, payload: bytes) -> dict[str, Any]:
    """Write a payload under its sha256; sha256 and size."""
    sha256 = hashlib.sha256(payload).hexdigest()
    (folder / OBJECTS / sha256).write_bytes(payload)
    return {"sha256": sha256, "size": len(payload)}


def read_table(path: Path) -> "pa.Table":
    """The rows of such a payload, vectors as list<float32>."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as stream:
        table = pq.read_table(stream)
    fields = [
        pa.field(f.name, pa.list_(f.type.value_type), f.nullable) if pa.types.is_list(f.type) else f
        for f in table.schema
    ]
    return table.replace_schema_metadata(None).cast(pa.schema(fields))


def cut(path: Path) -> Iterator[tuple[int, "pa.Table"]]:
    """The rows of each episode of a table, in the order of the file, with its number; one is in memory.

    Raises:
        InvalidInputError: The rows of an episode are not together, or episodes are not in their order.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[pa.Table] = []
    number = -1
    with path.open("rb") as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=65_536):
            rows = pa.Table.from_batches([batch])
            indices = np.asarray(rows.column("episode_index").combine_chunks())
            if not len(indices):
                continue
            edges = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
            for start, end in pairwise(edges):
                index = int(indices[start])
                if index != number and waiting:
                    yield number, pa.concat_tables(waiting).combine_chunks()
                    waiting = []
                if index < number:
                    raise InvalidInputError(f"{path.name}: episode {index} comes behind episode {number}")
                number = index
                waiting.append(rows.slice(start, end - start))
    if waiting:
        yield number, pa.concat_tables(waiting).combine_chunks()


def without_place(frames: "pa.Table", tasks: Sequence[str], names: Sequence[str], fps: float) -> "pa.Table":
    """An episode's frames without the columns that follow from its place.

    Args:
        frames: Rows of `frames.parquet`.
        tasks: The episode's tasks.
        names: The dataset's tasks by their index.
        fps: Frames per second.

    Raises:
        InvalidInputError: Such a column says something else than what follows.
    """
    import numpy as np
    import pyarrow as pa

    number = np.arange(frames.num_rows)
    timestamps = np.asarray(frames.column("timestamp").combine_chunks())
    if not np.array_equal(np.asarray(frames.column("frame_index").combine_chunks()), number):
        raise InvalidInputError("frames.parquet: frame_index does not count from 0 in an episode")
    if not np.allclose(timestamps, number / fps, rtol=0, atol=1e-6):
        raise InvalidInputError("frames.parquet: a timestamp is not frame_index / fps")
    said = [names[index] for index in np.asarray(frames.column("task_index").combine_chunks()).tolist()]
    if not set(said) <= set(tasks):
        raise InvalidInputError(
            "frames.parquet: an episode has frames of a task that is not one of its tasks"
        )
    kept = frames.drop_columns([name for name in PLACED if name in frames.column_names])
    if len(tasks) > 1:
        kept = kept.append_column(TASK_PLACE, pa.array([tasks.index(task) for task in said], pa.int64()))
    return kept


def entry_of(row: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """A row of `episodes.parquet` as the line of a page says it; content, id and files come with the data.

    Raises:
        InvalidInputError: It has columns that the schema does not know.
    """
    rest = dict(row)
    for name in ("episode_index", "dataset_from_index", "dataset_to_index"):
        del rest[name]
    stats = {
        feature: {name: rest.pop(f"stats/{feature}/{name}", None) for name in STAT_NAMES}
        for feature in features
    }
    ages = {key: dict(rest.pop(f"sync_{key}_age_ns", None) or ()) for key in ("max", "mean")}
    entry = {
        "length": rest.pop("length"),
        "tasks": rest.pop("tasks"),
        "source": {
            "assetId": rest.pop("source_asset_id", None),
            "path": rest.pop("source_path", None),
            "ref": rest.pop("source_ref", None),
        },
        "t0Ns": rest.pop("t0_ns", None),
        "success": rest.pop("success", None),
        "flags": rest.pop("flags", None) or [],
        "sync": {
            name: {"maxAgeNs": age, "meanAgeNs": ages["mean"].get(name)} for name, age in ages["max"].items()
        },
        "stats": stats,
    }
    if rest:
        raise InvalidInputError(
            f"episodes.parquet: emboflow-canonical/1 has no columns {', '.join(sorted(rest))}",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
    return entry


def row_of(entry: dict[str, Any], index: int, start: int) -> dict[str, Any]:
    """The other way: the row of an episode at its place; ``start`` is the number of its first frame."""
    row = {
        "episode_index": index,
        "length": entry["length"],
        "dataset_from_index": start,
        "dataset_to_index": start + entry["length"],
        "tasks": entry["tasks"],
        "source_asset_id": entry["source"]["assetId"],
        "source_path": entry["source"]["path"],
        "source_ref": entry["source"]["ref"],
        "t0_ns": entry["t0Ns"],
        "success": entry["success"],
        "flags": entry["flags"],
        "sync_max_age_ns": [(name, age["maxAgeNs"]) for name, age in entry["sync"].items()],
        "sync_mean_age_ns": [(name, age["meanAgeNs"]) for name, age in entry["sync"].items()],
    }
    for feature, parts in entry["stats"].items():
        for name, values in parts.items():
            row[f"stats/{feature}/{name}"] = values
    return row
