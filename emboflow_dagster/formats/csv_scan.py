"""One pass over a table: records, kinds and missing values of its columns, and its time.

Cells are parsed by Arrow in blocks of a few MiB, so that memory does not grow with the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.formats.csv_cells import kind_of
from emboflow_dagster.formats.csv_text import HEAD_BYTES, Dialect, Lines, dialect_of
from emboflow_dagster.formats.csv_time import Clock, clock_of

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK: Final = 4 << 20
#: A record larger than that is no record but a quote that is never closed.
MAX_BLOCK: Final = 32 << 20
#: Columns whose values are looked at; of wider tables records alone are counted.
MAX_PARSED: Final = 20_000
MISSING: Final = ("", "nan", "NaN", "NAN", "-nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "none")


@dataclass(slots=True)
class Scan:
    """What a pass found.

    Attributes:
        dialect: How the table is written.
        lines: As `wc -l` counts them; a last line without its end is one too.
        records: Records of as many cells as the table has columns.
        ragged: Records that have another number of cells; they are left out of everything else.
        first_ragged: Line-like number, cells of the first of them.
        comments: Comment lines.
        kinds: Of each column ``integer``, ``number``, ``moment``, ``text`` or ``empty``.
        missing: Cells of each column that are empty or NaN.
        clock: The time column, ``None`` where none was found.
        error: Why reading stopped, empty where it did not.
        replaced: Whether some bytes were no text.
        open_quote: Whether a quotation mark is never closed, and lines were taken for one cell.
    """

    dialect: Dialect
    lines: int = 0
    records: int = 0
    ragged: int = 0
    first_ragged: tuple[int, int] = (0, 0)
    comments: int = 0
    kinds: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    clock: Clock | None = None
    error: str = ""
    replaced: bool = False
    open_quote: bool = False

    @property
    def rows(self) -> int:
        """Lines less the line that names the columns."""
        return max(0, self.lines - self.dialect.named)


def read_dialect(path: Path) -> Dialect:
    """How the table of a file is written."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        return dialect_of(head, whole=not stream.read(1), suffix=path.suffix.lower())


def scan(path: Path) -> Scan:
    """Read a whole table."""
    found = Scan(read_dialect(path))
    for batch in batches(path, found):
        if not found.kinds:
            found.kinds = ["empty"] * batch.num_columns
            found.missing = [0] * batch.num_columns
            found.clock = clock_of(found.dialect.columns, batch, found.dialect.decimal)
        for index, column in enumerate(batch.columns):
            found.missing[index] += column.null_count
            found.kinds[index] = kind_of(column, found.kinds[index], found.dialect.decimal)
        if found.clock is not None:
            found.clock.see(batch.column(found.clock.index), found.dialect.decimal)
    if not found.kinds:
        found.kinds = ["empty"] * len(found.dialect.columns)
        found.missing = [0] * len(found.dialect.columns)
    return found


def batches(path: Path, found: Scan) -> "Iterator[pa.RecordBatch]":
    """The records of a table as text, block by block; what is no record is counted in `found`."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    dialect = found.dialect
    names = [f"{number}" for number in range(len(dialect.columns))]
    if len(names) > MAX_PARSED or not names:
        _count_only(path, found)
        return

    def odd(row: Any) -> str:
        text = row.text
        if dialect.comment and text.startswith(dialect.comment):
            found.comments += 1
        else:
            found.ragged += 1
            if found.ragged == 1:
                found.first_ragged = (row.number or 0, row.actual_columns)
        return "skip"

    skip = 1 if dialect.header else 0
    # A quote that is never closed makes one cell of the rest: then quotes are characters as others.
    for quotes in (True, False):
        text = Lines(path, dialect)
        found.error = ""
        found.records = found.ragged = found.comments = 0
        given = False
        try:
            reader = arrow.open_csv(
                pa.PythonFile(text, mode="r"),
                read_options=arrow.ReadOptions(
                    use_threads=False, block_size=BLOCK, column_names=names, skip_rows_after_names=skip
                ),
                parse_options=arrow.ParseOptions(
                    delimiter=dialect.separator,
                    quote_char='"' if quotes else False,
                    newlines_in_values=quotes,
                    invalid_row_handler=odd,
                ),
                convert_options=arrow.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=list(MISSING),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
            for batch in reader:
                found.records += batch.num_rows
                given = True
                if batch.num_rows:
                    yield batch
        except pa.ArrowInvalid as error:
            found.error = "" if "Empty CSV file" in str(error) else str(error)
        _finish(text, found)
        if not found.error or given:
            return


def _finish(text: Lines, found: Scan) -> None:
    while text.read(1 << 20):
        pass
    found.lines, found.replaced = text.lines, text.replaced
    # A mark too many, and lines that are no records: they stand within a cell that never ends.
    told = found.records + found.ragged + found.comments + text.comments
    found.open_quote = bool(text.quotes % 2) and told < found.rows
    found.comments += text.comments
    text.close()


def _count_only(path: Path, found: Scan) -> None:
    text = Lines(path, found.dialect)
    _finish(text, found)
    found.records = max(0, found.rows - found.comments)
