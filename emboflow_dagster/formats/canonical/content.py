"""What an episode holds, as one hash: of its values, not of the file that they happen to be written in.

Two Parquet files of the same values differ by the library that wrote them; this hash does not. It is what an
exported folder is checked by, and what two versions of different layouts are compared by.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.canonical.schema import INDEX_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns that follow from an episode's place in its dataset, or from its rate.
PLACED = tuple(name for name in INDEX_COLUMNS if name not in ("source_timestamp_ns", "valid"))


def content_of(frames: "pa.Table", raw: "pa.Table | None", videos: Mapping[str, str]) -> str:
    """The hash of an episode: its frames, its streams at their own rate, the sha256 of each camera's video.

    Args:
        frames: Its rows; columns that follow from its place are left out, the order of columns is no matter.
        raw: Its rows of `raw_index.parquet`, or ``None``.
        videos: Camera to the sha256 of its file.
    """
    parts = [f"frames {table_digest(frames, leave_out=PLACED)}"]
    if raw is not None and raw.num_rows:
        parts.append(f"raw {table_digest(raw, leave_out=('episode_index',))}")
    parts += [f"video {name} {sha256}" for name, sha256 in sorted(videos.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def table_digest(table: "pa.Table", *, leave_out: Iterable[str] = ()) -> str:
    """sha256 over the values of every column, by name."""
    digest = hashlib.sha256(f"rows {table.num_rows}\n".encode())
    for name in sorted(set(table.column_names) - set(leave_out)):
        digest.update(f"column {len(name.encode())} {name} ".encode())
        _feed(digest, _whole(table.column(name)), name)
    return digest.hexdigest()


def _whole(column: "pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _feed(digest: Any, array: "pa.Array", name: str) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made when it is imported
    kind = array.type
    nulls = np.asarray(array.is_null())
    digest.update(f"{len(array)} ".encode())
    digest.update(np.packbits(nulls).tobytes() if nulls.any() else b"-")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(b" list ")
        digest.update(np.asarray(pc.fill_null(pc.list_value_length(array), 0), dtype="<i8").tobytes())
        _feed(digest, array.flatten(), name)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        digest.update(b" text ")
        digest.update(np.asarray(pc.fill_null(pc.binary_length(array), 0), dtype="<i8").tobytes())
        digest.update("".join(value or "" for value in array.to_pylist()).encode())
    elif pa.types.is_null(kind):
        digest.update(b" null ")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        filled = pc.fill_null(array, False) if pa.types.is_boolean(kind) else pc.fill_null(array, 0)
        values = np.asarray(filled)
        digest.update(f" {values.dtype.name} ".encode())
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    else:
        raise InvalidInputError(
            f"column {shown(name)}: type {kind} is none of emboflow-canonical/1 (numbers, text, lists)",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
