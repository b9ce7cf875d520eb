"""Arrow schemas of the canonical parquet files and a row-group buffer that keeps memory bounded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical.schema import FeatureSpec
from emboflow_dagster.formats.canonical.stats import STAT_NAMES

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of one row group; also the most that is held before it is written.
ROWS_PER_GROUP = 65_536
#: Bytes that may wait for their row group.
BYTES_PER_GROUP = 64 * 1024 * 1024
#: Small tables that may wait each by itself.
TABLES_WAITING = 256


def frames_schema(specs: Mapping[str, FeatureSpec]) -> "pa.Schema":
    """Columns of `frames.parquet`."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("episode_index", pa.int64(), nullable=False),
            pa.field("frame_index", pa.int64(), nullable=False),
            pa.field("index", pa.int64(), nullable=False),
            pa.field("timestamp", pa.float64(), nullable=False),
            pa.field("source_timestamp_ns", pa.int64()),
            pa.field("task_index", pa.int64(), nullable=False),
            *(pa.field(name, pa.list_(pa.float32())) for name in specs),
            pa.field("valid", pa.bool_(), nullable=False),
        ]
    )


def episodes_schema(specs: Mapping[str, FeatureSpec]) -> "pa.Schema":
    """Columns of `episodes.parquet`; statistics as ``stats/<feature>/<name>``, one number per dimension."""
    import pyarrow as pa

    fields = [
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("dataset_from_index", pa.int64(), nullable=False),
        pa.field("dataset_to_index", pa.int64(), nullable=False),
        pa.field("tasks", pa.list_(pa.string()), nullable=False),
        pa.field("source_asset_id", pa.string()),
        pa.field("source_path", pa.string()),
        pa.field("source_ref", pa.string()),
        pa.field("t0_ns", pa.int64()),
        pa.field("success", pa.bool_()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("sync_max_age_ns", pa.map_(pa.string(), pa.int64())),
        pa.field("sync_mean_age_ns", pa.map_(pa.string(), pa.float64())),
    ]
    for feature in specs:
        for name in STAT_NAMES:
            number = pa.int64() if name == "count" else pa.float64()
            fields.append(pa.field(f"stats/{feature}/{name}", pa.list_(number)))
    return pa.schema(fields)


def tasks_schema() -> "pa.Schema":
    """Columns of `tasks.parquet`."""
    import pyarrow as pa

    return pa.schema(
        [pa.field("task_index", pa.int64(), nullable=False), pa.field("task", pa.string(), nullable=False)]
    )


def raw_index_schema() -> "pa.Schema":
    """Columns of `raw_index.parquet`: every sample of a stream at its own rate."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("episode_index", pa.int64(), nullable=False),
            pa.field("topic", pa.string(), nullable=False),
            pa.field("sample_index", pa.int64(), nullable=False),
            pa.field("source_timestamp_ns", pa.int64(), nullable=False),
            pa.field("values", pa.list_(pa.float32()), nullable=False),
        ]
    )


class TableFile:
    """One parquet file, written row group by row group with fixed, reproducible settings."""

    def __init__(self, path: Path, schema: "pa.Schema") -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.schema = schema
        self.rows = 0
        self._waiting: list[Any] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        # Versions and compression are pinned: the same rows must give the same bytes.
        self._writer = pq.ParquetWriter(
            path, schema, version="2.6", compression="zstd", compression_level=3, write_statistics=True
        )

    def add(self, table: "pa.Table") -> None:
        """Append rows; they are written when a row group is full."""
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        self.rows += table.num_rows
        if self._waiting_rows >= ROWS_PER_GROUP or self._waiting_bytes >= BYTES_PER_GROUP:
            self._flush()
        elif len(self._waiting) >= TABLES_WAITING:
            # A table of one row costs a hundred times its bytes.
            self._waiting = [self._waited()]

    def write(self, table: "pa.Table") -> None:
        """Write rows at once, behind those that wait."""
        self._flush()
        self.rows += table.num_rows
        self._writer.write_table(table, row_group_size=ROWS_PER_GROUP)

    def close(self) -> None:
        """Write what waits and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._waited(), row_group_size=ROWS_PER_GROUP)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def _waited(self) -> "pa.Table":
        import pyarrow as pa

        return pa.concat_tables(self._waiting).combine_chunks()
