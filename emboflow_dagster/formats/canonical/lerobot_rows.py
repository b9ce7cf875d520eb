"""The rows of a LeRobot tree, episode by episode, as numbers: whatever type the writer gave the columns."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical import columns
from emboflow_dagster.formats.canonical.lerobot_tree import Tree, number_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: Rows that are read at once.
BATCH = 8_192
#: Pictures that are read at once.
PICTURES = 32


class Segment(NamedTuple):
    """Consecutive rows of one file."""

    path: Path
    start: int
    rows: int


@dataclass(slots=True)
class Rows:
    """One episode: its number, its columns without pictures, where its rows are, its columns of pictures."""

    index: int
    table: "pa.Table"
    segments: list[Segment] = field(default_factory=list)
    images: tuple[str, ...] = ()


def episodes_of(tree: Tree) -> Iterator[Rows]:
    """Every episode in the order of the files; memory holds one of them and a batch.

    Raises:
        InvalidInputError: A file cannot be read, or the rows of an episode are not together.
    """
    import pyarrow as pa

    seen: set[int] = set()
    waiting: list[pa.Table] = []
    segments: list[Segment] = []
    number, images = -1, ()

    def finished() -> Rows:
        if number in seen:
            raise InvalidInputError(f"{tree.root.name}: the rows of episode {number} are not together")
        seen.add(number)
        return Rows(number, pa.concat_tables(waiting).combine_chunks(), segments, images)

    for path in tree.data:
        for index, rows, start, pictures in _file(tree, path, seen | ({number} if waiting else set())):
            if waiting and (index != number or not waiting[0].schema.equals(rows.schema)):
                yield finished()
                waiting, segments = [], []
            number, images = index, pictures
            waiting.append(rows)
            segments.append(Segment(path, start, rows.num_rows))
    if waiting:
        yield finished()


def _file(tree: Tree, path: Path, seen: set[int]) -> Iterator[tuple[int, "pa.Table", int, tuple[str, ...]]]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = None if tree.long_files else number_of(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            images = tuple(name for name in schema.names if is_picture(tree, schema.field(name)))
            columns = [name for name in schema.names if name not in images]
            start = 0
            # A tree may be of thousands of small files: to start threads took as long as to read one.
            for batch in file.iter_batches(columns=columns, batch_size=BATCH, use_threads=False):
                rows = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                indices = episode_indices(rows, named)
                # A writer that counts from 0 in every file: the name says which episode it is.
                if named is not None and named not in seen and len(np.unique(indices)) == 1:
                    indices = np.full(len(indices), named) if int(indices[0]) in seen else indices
                edges = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
                for first, last in pairwise(edges):
                    if last > first:
                        yield int(indices[first]), rows.slice(first, last - first), start + first, images
                start += rows.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path.name}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT) from error


def episode_indices(rows: "pa.Table", named: int | None) -> "np.ndarray":
    """The episode of each row as int64: its column, else the number of the file.

    Raises:
        InvalidInputError: There is neither.
    """
    import numpy as np

    if "episode_index" in rows.column_names:
        values = numbers(rows.column("episode_index"))
        if not isinstance(values, str) and np.isfinite(values).all():
            return values[:, 0].astype(np.int64)
    if named is None:
        raise InvalidInputError("no episode_index, and the file's name holds no number")
    return np.full(rows.num_rows, named, dtype=np.int64)


def is_picture(tree: Tree, column: "pa.Field") -> bool:
    """Whether a column holds encoded pictures: declared as such, or bytes with a path beside them."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    declared = tree.info.features.get(column.name, {}).get("dtype")
    return declared == "image" and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def numbers(column: Any) -> "np.ndarray | str":
    """A column as float64 ``(rows, dim)``, nested lists flattened, absent values NaN; else why it is none."""
    import numpy as np
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    rows = len(array)
    while _is_list(array.type):
        if array.null_count:
            return "some rows are empty"
        array, lengths = columns.inside(array)
        if len(lengths) and (lengths != lengths[0]).any():
            return "its rows are of different lengths"
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return f"values of type {kind} are no numbers"
    values = columns.to_numpy(array).astype(np.float64)
    return values.reshape(rows, -1) if rows else values.reshape(0, 0)


def pictures(tree: Tree, segments: list[Segment], column: str) -> Iterator["np.ndarray"]:
    """The pictures of a column as uint8 RGB; an undecodable one ends the sequence."""
    for path, start, count in segments:
        for cell in _cells(path, start, count, column):
            picture = _picture(tree, cell)
            if picture is None:
                return
            yield picture


def _cells(path: Path, start: int, count: int, column: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # Whole row groups before the first row are passed over unread.
        before, groups = 0, []
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if before + rows > start and before < start + count:
                groups.append((group, before))
            before += rows
        if not groups:
            return
        at = groups[0][1]
        chosen = [group for group, _ in groups]
        for batch in file.iter_batches(columns=[column], batch_size=PICTURES, row_groups=chosen):
            first, last = max(start - at, 0), min(start + count - at, batch.num_rows)
            if first < last:
                yield from batch.column(0).slice(first, last - first).to_pylist()
            at += batch.num_rows


def _picture(tree: Tree, cell: Any) -> "np.ndarray | None":
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None and isinstance(name, str):
        # A path inside of the tree only: the table may come from anybody.
        path = (tree.root / name).resolve()
        data = path.read_bytes() if path.is_relative_to(tree.root.resolve()) and path.is_file() else None
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
