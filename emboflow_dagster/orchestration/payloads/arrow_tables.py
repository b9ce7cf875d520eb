"""pyarrow's own tables: stored as they are, and loaded as what is annotated."""

from typing import Any

from emboflow_dagster.orchestration.payloads import tables
from emboflow_dagster.orchestration.payloads.handler import (
    Column,
    Draft,
    Facts,
    Handler,
    Payload,
    Stored,
    is_named,
)


def _is_arrow(value: object) -> bool:
    return any(
        is_named(kind, "pyarrow.Table", "pyarrow.RecordBatch", "pyarrow.RecordBatchReader")
        for kind in type(value).__mro__
    )


class ArrowHandler(Handler):
    """``pyarrow.Table`` and ``RecordBatch``; a ``RecordBatchReader`` is streamed, both ways."""

    name = "arrow-table"
    reads = frozenset({tables.ARROW})

    def stores(self, value: object) -> bool:
        """Whether it is one of Arrow's tables."""
        return _is_arrow(value)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants one of them."""
        return isinstance(annotation, type) and is_named(
            annotation, "pyarrow.Table", "pyarrow.RecordBatch", "pyarrow.RecordBatchReader"
        )

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The table in the format of the manager."""
        import pyarrow as pa

        tables.check_schema(value, draft, self.name)
        if isinstance(value, pa.RecordBatchReader):
            columns = [
                Column(f.name, str(f.type), nullable=f.nullable, description=tables.description_of(f))
                for f in value.schema
            ]
            return tables.payload(value, draft, self.name, Facts(columns=columns))
        table = value if isinstance(value, pa.Table) else pa.Table.from_batches([value])
        return tables.payload(table, draft, self.name, tables.facts_of(table, draft))

    def load(self, stored: Stored) -> Any:
        """A table, or what is annotated."""
        wanted = getattr(stored.annotation, "__name__", "Table")
        if wanted == "RecordBatchReader":
            return _reader(stored)
        table = tables.read(stored)
        if wanted == "RecordBatch":
            return table.combine_chunks().to_batches()[0] if table.num_rows else _empty_batch(table.schema)
        return table


def _reader(stored: Stored) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tables.source_of(stored)
    if stored.content_type.startswith(tables.ARROW):
        file = pa.ipc.open_file(source)
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
        return pa.RecordBatchReader.from_batches(file.schema, batches)
    file = pq.ParquetFile(source)
    metadata = file.metadata.metadata if stored.serializer is not None else None
    schema = tables.as_written(file.schema_arrow.empty_table(), metadata).schema
    batches = (
        batch
        for index in range(file.num_row_groups)  # not `iter_batches`, which keeps what it has read
        for batch in tables.as_written(file.read_row_group(index), metadata).to_batches()
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _empty_batch(schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema=schema)
