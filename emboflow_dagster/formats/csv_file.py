"""CSV: one table as text, or a folder of them. Rows are lines less the header line, counted by reading."""

import csv
import io
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.report import Candidate, Probe

SUFFIXES = (".csv", ".tsv")
MAX_COLUMNS = 2_000
MAX_FILES = 200
_PIECE = 1024 * 1024
_HEADER_BYTES = 256 * 1024


def matches(source: Source) -> Candidate | None:
    """Text with a table's suffix; a folder where most files are such."""
    if not source.is_folder:
        if source.path.suffix.lower() not in SUFFIXES or not _is_text(source.head):
            return None
        return Candidate("csv", 0.8, ("a table's suffix, and text",))
    tables = _tables(source)
    if not tables or 2 * len(tables) <= len(source.entries):
        return None
    return Candidate("csv", 0.6, (f"{len(tables)} of {len(source.entries)} files are tables",))


def probe(source: Source, report: Probe) -> None:
    """Count rows and read the header of every table."""
    if not source.is_folder:
        report.structure.update(read_table(source.path, report, None))
    else:
        tables = _tables(source)
        found = {e.path: read_table(source.file(e), report, e.path) for e in tables[:MAX_FILES]}
        if len(tables) > MAX_FILES:
            report.warn("listing_truncated", f"{len(tables)} tables; {MAX_FILES} were read")
        columns = [table["columns"] for table in found.values()]
        report.structure.update(folder_summary(source))
        report.structure["rows"] = sum(table["rows"] for table in found.values())
        report.structure["columns"] = columns[0]
        if len(found) > 1:
            report.structure["tables"] = found
            if any(other != columns[0] for other in columns):
                report.warn("dimension_mismatch", "the tables have different columns")
    report.suggest("csv", 0.9, f"{len(report.structure['columns'])} columns in the header")
    report.recommend("preview", "quality-report")


def read_table(path: Path, report: Probe, name: str | None) -> dict[str, Any]:
    """``rows`` (lines less the header line) and ``columns`` of one table."""
    lines, last, head = 0, b"\n", b""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            head = head or piece[:_HEADER_BYTES]
            lines += piece.count(b"\n")
            last = piece[-1:]
    # A last line without its end is a line too.
    lines += last != b"\n"
    text = head.decode("utf-8-sig", "replace")
    if "\ufffd" in text[:-1]:
        report.warn("not_utf8", "the text is not UTF-8", name)
    try:
        dialect = csv.Sniffer().sniff(text[:4_096].partition("\n")[0] or ",", delimiters=",;\t|")
        delimiter = dialect.delimiter
    except csv.Error:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = list(_first_rows(text, delimiter, 20))
    except csv.Error as error:
        report.warn("corrupt", f"not readable as a table: {error}", name)
        rows = []
    columns = rows[0] if rows else []
    if any(row and len(row) != len(columns) for row in rows[1:]):
        report.warn("ragged_rows", "rows have different numbers of cells", name)
    if len(set(columns)) < len(columns):
        report.warn("duplicate_column", "two columns have the same name", name)
    return {"rows": max(0, lines - 1), "columns": columns[:MAX_COLUMNS], "delimiter": delimiter}


def _first_rows(text: str, delimiter: str, limit: int) -> list[list[str]]:
    # The last line of the piece may be cut; it is dropped where there is another.
    whole = text if len(text) < _HEADER_BYTES else text[: text.rfind("\n") + 1]
    found: list[list[str]] = []
    for row in csv.reader(io.StringIO(whole), delimiter=delimiter):
        found.append([cell.strip() for cell in row] if not found else row)
        if len(found) == limit:
            break
    return found


def _tables(source: Source) -> list[Entry]:
    return [entry for entry in source.with_suffix(*SUFFIXES) if _is_text(source.head_of(entry))]


def _is_text(head: bytes) -> bool:
    return bool(head) and b"\x00" not in head and not head.startswith(b"version https://git-lfs")


FORMAT = Format(names=("csv",), matches=matches, probe=probe)
