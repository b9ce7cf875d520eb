"""The rows of a LeRobot tree, episode by episode, as numbers: whatever type the writer gave the columns."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.column_numbers import numbers
from emboflow_dagster.formats.canonical.lerobot_tree import Tree, number_of
from emboflow_dagster.formats.detect import is_lfs_pointer, read_head
from emboflow_dagster.formats.lerobot_tables import read_tables
from emboflow_dagster.formats.pictures import DEEP

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from PIL.Image import Image

#: Rows that are read at once.
BATCH = 8_192
#: Pictures that are read at once.
PICTURES = 32
_LFS = "a Git LFS pointer, not the file itself; `git lfs pull` fetches it"


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


def episodes_of(tree: Tree, leave_out: Callable[[str, str], None]) -> Iterator[Rows]:
    """Every episode in the order of the files; memory holds one of them and a batch.

    Args:
        tree: The dataset.
        leave_out: Called with what is left out and why: files that cannot be read, and episodes whose rows
            are not together or may be in such a file.
    """
    import pyarrow as pa

    scattered = _scattered(tree) if tree.long_files else set()
    seen: set[int] = set()
    waiting: list[pa.Table] = []
    segments: list[Segment] = []
    number, images, cut = -1, (), False

    def finished(*, at_cut: bool) -> Rows | None:
        ref = f"episode {number}"
        rows = sum(table.num_rows for table in waiting)
        meta = tree.episodes.get(number) if at_cut else None
        if number in scattered or number in seen:
            leave_out(ref, "its rows are not together")
        elif at_cut and (meta is None or meta.length != rows):
            leave_out(ref, "some of its rows may be in a file that cannot be read")
        else:
            seen.add(number)
            return Rows(number, pa.concat_tables(waiting).combine_chunks(), segments, images)
        return None

    for path in tree.data:
        try:
            known = seen | ({number} if waiting else set())
            for index, rows, start, pictures in _file(tree, path, known, leave_out):
                if waiting and (index != number or not waiting[0].schema.equals(rows.schema)):
                    if found := finished(at_cut=cut):
                        yield found
                    waiting, segments, cut = [], [], False
                number, images = index, pictures
                waiting.append(rows)
                segments.append(Segment(path, start, rows.num_rows))
        except InvalidInputError as error:
            leave_out(path.relative_to(tree.root).as_posix(), error.message)
            # Only files of several episodes share one with the file before or behind.
            if waiting and (found := finished(at_cut=tree.long_files)):
                yield found
            waiting, segments, cut = [], [], tree.long_files
    if waiting and (found := finished(at_cut=cut)):
        yield found


def _scattered(tree: Tree) -> set[int]:
    return read_tables((path.name, path) for path in tree.data).scattered


def _file(
    tree: Tree, path: Path, seen: set[int], leave_out: Callable[[str, str], None]
) -> Iterator[tuple[int, "pa.Table", int, tuple[str, ...]]]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = None if tree.long_files else number_of(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            # Of two columns of one name it cannot be said which is meant.
            once = [entry for entry in schema if schema.names.count(entry.name) == 1]
            for name in {*schema.names} - {entry.name for entry in once}:
                leave_out(name, "several columns have this name")
            images = tuple(entry.name for entry in once if is_picture(tree, entry))
            columns = [entry.name for entry in once if entry.name not in images]
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
        text = _LFS if is_lfs_pointer(read_head(path)) else f"not readable: {error}"
        raise InvalidInputError(f"{path.name}: {text}", kind=ErrorKind.FILE_CORRUPT) from error


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
        raise InvalidInputError(
            "rows without episode_index, and the file's name does not say which episode it is"
        )
    return np.full(rows.num_rows, named, dtype=np.int64)


def is_picture(tree: Tree, column: "pa.Field") -> bool:
    """Whether a column holds encoded pictures: declared as such, or bytes with a path beside them."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    declared = tree.info.features.get(column.name, {}).get("dtype")
    return declared == "image" and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


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


def is_depth(tree: Tree, segments: list[Segment], column: str) -> bool:
    """Whether the first picture of a column has more than 8 bits: no video holds them."""
    path, start, _ = segments[0]
    image = _image(tree, next(_cells(path, start, 1, column), None))
    return image is not None and image.mode in DEEP


def _picture(tree: Tree, cell: Any) -> "np.ndarray | None":
    import numpy as np

    image = _image(tree, cell)
    try:
        return None if image is None or image.mode in DEEP else np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        return None


def _image(tree: Tree, cell: Any) -> "Image | None":
    from PIL import Image, UnidentifiedImageError

    data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None and isinstance(name, str):
        # A path inside of the tree only: the table may come from anybody.
        path = (tree.root / name).resolve()
        data = path.read_bytes() if path.is_relative_to(tree.root.resolve()) and path.is_file() else None
    if data is None:
        return None
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None
