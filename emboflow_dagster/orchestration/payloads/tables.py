"""Arrow tables as Parquet or Arrow files, written in windows and read from a map of the file.

A table of equal values gives equal bytes, however it is chunked: windows of a number of rows that follows
from the schema are what becomes a row group or a record batch.
"""

import base64
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError, shown
from emboflow_dagster.orchestration.payloads.handler import Column, Draft, Facts, Payload, Stored
from emboflow_dagster.orchestration.payloads.preview import markdown_table

PARQUET: Final = "application/vnd.apache.parquet"
ARROW: Final = "application/vnd.apache.arrow.file"
FORMATS: Final = {"parquet": PARQUET, "arrow": ARROW}
_WINDOW_BYTES: Final = 16 << 20
_MIN_ROWS, _MAX_ROWS = 1 << 10, 1 << 20
_IN_MEMORY: Final = 4 << 20


def payload(table: Any, draft: Draft, serializer: str, facts: Facts) -> Payload:
    """A table, or a reader of record batches, as a payload in the format that was asked for."""
    content_type = FORMATS.get(draft.format)
    if content_type is None:
        raise InvalidInputError(
            f"emboflow/format: found {shown(draft.format)}; allowed are {', '.join(FORMATS)}"
        )
    write = _write_parquet if content_type == PARQUET else _write_arrow

    def all_of_it(out: IO[bytes]) -> None:
        with arrow_errors("the table cannot be written"):
            facts.row_count = write(out, table.schema, _windows(table))

    return Payload(draft.stream(all_of_it), content_type, serializer, facts)


def read(stored: Stored) -> Any:
    """The table of a payload; large ones stay in the file until their columns are used.

    Raises:
        IntegrityError: It is no such file, although its bytes are the stored ones.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = source_of(stored)
    try:
        if stored.content_type.startswith(ARROW):
            return pa.ipc.open_file(source).read_all()
        file = pq.ParquetFile(source)
        table = file.read()
        return table if stored.serializer is None else as_written(table, file.metadata.metadata)
    except pa.ArrowException as error:
        raise IntegrityError(
            f"the payload cannot be read as a table: {error}", kind=ErrorKind.FILE_CORRUPT
        ) from None


def source_of(stored: Stored) -> Any:
    """The bytes, verified: an Arrow file is used where it lies, a Parquet file is decoded anyway."""
    import pyarrow as pa

    if stored.size <= _IN_MEMORY:
        return pa.BufferReader(stored.read())
    path = str(stored.file())
    return pa.memory_map(path) if stored.content_type.startswith(ARROW) else pa.OSFile(path)


def as_written(table: Any, metadata: dict[bytes, bytes] | None) -> Any:
    """Types that Parquet writes as others (seconds, names inside of lists) as they were."""
    import pyarrow as pa

    encoded = (metadata or {}).get(b"ARROW:schema")
    if encoded is None:
        return table
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
    if schema.equals(table.schema, check_metadata=True):
        return table
    columns = [_cast(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
    fields = [field.with_type(column.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))


def _cast(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    try:
        if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
            column = column.cast(kind.value_type).dictionary_encode()
        return column.cast(kind)
    except pa.ArrowException:
        return column  # told when it was written: `check_schema`


def without_rows(table: Any, draft: Draft, serializer: str) -> Any:
    """A table without its rows after it was written and read: what its types come back as.

    Raises:
        InvalidInputError: Its types cannot be written.
    """
    import pyarrow as pa

    empty = table.schema.empty_table()
    made = payload(empty, draft, serializer, Facts())
    content = b"".join(made.source)  # pyright: ignore[reportArgumentType] - chunks
    stored = Stored(
        content_type=made.content_type,
        serializer=serializer,
        size=len(content),
        opener=lambda: io.BytesIO(content),
        scratch=draft.temporary,
    )
    try:
        return read(stored)
    except (IntegrityError, pa.ArrowException, TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"the table cannot be stored unchanged as {draft.format}: {error}", kind=ErrorKind.VALUE_TYPE
        ) from None


def check_schema(table: Any, draft: Draft, serializer: str) -> None:
    """Refuse a table whose types would come back as others.

    Raises:
        InvalidInputError: It names the column.
    """
    found = without_rows(table, draft, serializer).schema
    for field, back in zip(table.schema, found, strict=True):
        if not field.equals(back):
            raise InvalidInputError(
                f"the table cannot be stored unchanged: column {shown(field.name)} has type {field.type} "
                f"and would come back as {back.type}",
                kind=ErrorKind.VALUE_TYPE,
                hint="cast it first, or use the other format (parquet, arrow)",
            )


def facts_of(table: Any, draft: Draft) -> Facts:
    """Rows, columns and a preview of a table."""
    columns = [
        Column(
            field.name,
            str(field.type),
            nullable=field.nullable and table.column(index).null_count > 0,
            description=description_of(field),
        )
        for index, field in enumerate(table.schema)
    ]
    return Facts(row_count=table.num_rows, columns=columns, preview=preview_of(table, draft))


def preview_of(table: Any, draft: Draft) -> str | None:
    """The first rows as a Markdown table."""
    if not draft.preview_rows:
        return None
    head = table.slice(0, draft.preview_rows)
    try:
        values = [column.to_pylist() for column in head.columns]
    except (ValueError, OverflowError):  # a date that Python cannot express
        values = [[str(value) for value in column] for column in head.columns]
    rows = [list(row) for row in zip(*values, strict=True)]
    return markdown_table(list(head.schema.names), rows, total=table.num_rows)


def description_of(field: Any) -> str | None:
    """What a field's metadata says of it."""
    metadata = field.metadata or {}
    text = metadata.get(b"description") or metadata.get(b"comment")
    return text.decode("utf-8", "replace") if text else None


class arrow_errors:  # noqa: N801 - used like a function
    """What Arrow refuses to convert is the caller's input, in one line."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowException | OverflowError | UnicodeEncodeError) or (
            isinstance(error, TypeError | ValueError) and not isinstance(error, InvalidInputError)
        ):
            reason = "; ".join(map(str, getattr(error, "args", ()))) or type(error).__name__
            raise InvalidInputError(f"{self._what}: {reason}", kind=ErrorKind.VALUE_TYPE) from None


def rows_of(schema: Any) -> int:
    """How many rows of a schema make about 16 MiB."""
    width = 0
    for kind in schema.types:
        try:
            width += max(1, kind.bit_width // 8)
        except ValueError:  # of variable length
            width += 32
    return min(_MAX_ROWS, max(_MIN_ROWS, _WINDOW_BYTES // max(1, width)))


def _windows(table: Any) -> Iterator[Any]:
    """Tables of as many rows as a window has, the last one shorter; at least one."""
    import pyarrow as pa

    size = rows_of(table.schema)
    if isinstance(table, pa.Table):
        for start in range(0, max(1, table.num_rows), size):
            yield table.slice(start, size).combine_chunks()
        return
    waiting: list[Any] = []
    count, sent = 0, False
    for batch in table:
        waiting.append(batch)
        count += batch.num_rows
        while count >= size:
            gathered = pa.Table.from_batches(waiting, table.schema)
            yield gathered.slice(0, size).combine_chunks()
            sent, count = True, count - size
            waiting = gathered.slice(size).to_batches()
    if count or not sent:
        yield pa.Table.from_batches(waiting, table.schema).combine_chunks()


def _write_parquet(out: IO[bytes], schema: Any, windows: Iterable[Any]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A dictionary of numbers is given up after the work of making it; that of texts pays.
    texts: Any = [
        field.name
        for field in schema
        if pa.types.is_string(field.type)
        or pa.types.is_large_string(field.type)
        or pa.types.is_binary(field.type)
        or pa.types.is_dictionary(field.type)
    ]
    rows = 0
    writer = pq.ParquetWriter(out, schema, use_dictionary=texts or False, compression="snappy")
    try:
        for window in windows:
            writer.write_table(window, row_group_size=_MAX_ROWS)
            rows += window.num_rows
    except BaseException:
        with suppress(Exception):  # it complains of the half-written rows instead of what went wrong
            writer.close()
        raise
    writer.close()
    return rows


def _write_arrow(out: IO[bytes], schema: Any, windows: Iterable[Any]) -> int:
    import pyarrow as pa

    rows = 0
    with pa.ipc.new_file(out, schema) as writer:
        for window in windows:
            writer.write_table(window)
            rows += window.num_rows
    return rows
