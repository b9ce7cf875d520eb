"""CSV: one table as text, or a folder of them. Rows are lines less the header line, counted by reading."""

from collections import Counter
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.csv_scan import Scan, scan
from emboflow_dagster.formats.csv_text import is_text
from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.report import Candidate, Probe

SUFFIXES = (".csv", ".tsv")
MAX_COLUMNS = 2_000
MAX_FILES = 200
MAX_NAMED = 5


def matches(source: Source) -> Candidate | None:
    """Text with a table's suffix; a folder where most files are such."""
    if not source.is_folder:
        if source.path.suffix.lower() not in SUFFIXES or not is_text(source.head):
            return None
        return Candidate("csv", 0.8, ("a table's suffix, and text",))
    tables = table_entries(source)
    if not tables or 2 * len(tables) <= len(source.entries):
        return None
    return Candidate("csv", 0.6, (f"{len(tables)} of {len(source.entries)} files are tables",))


def probe(source: Source, report: Probe) -> None:
    """Read every table once."""
    if not source.is_folder:
        found = {source.path.name: read_table(source.path, report, None)}
        report.structure.update(found[source.path.name])
    else:
        tables = table_entries(source)
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
    if any(set(table["kinds"].values()) & {"integer", "number"} for table in found.values()):
        report.recommend("normalize")


def read_table(path: Path, report: Probe, name: str | None) -> dict[str, Any]:
    """What one table holds.

    Returns:
        ``rows`` (lines less the line with the names), ``records`` (with as many cells as there are columns),
        ``columns``, ``columnCount``, ``delimiter``, ``decimal``, ``encoding``, ``header``, ``comments``,
        ``kinds`` {column: ``integer``, ``number``, ``moment``, ``text`` or ``empty``}, ``missing`` {column:
        cells that are empty or NaN}, ``time`` (see :meth:`.csv_time.Clock.to_json`) or ``None``.
    """
    found = scan(path)
    dialect, clock = found.dialect, found.clock
    if clock is not None and clock.broken:
        report.warn("invalid_stamp", f"column {clock.column}: {clock.broken}", name)
        clock = None
    _warn_about(found, report, name)
    names = list(dialect.columns)
    return {
        "rows": found.rows,
        "records": found.records,
        "columns": names[:MAX_COLUMNS],
        "columnCount": len(names),
        "delimiter": dialect.separator,
        "decimal": dialect.decimal,
        "encoding": dialect.encoding,
        "header": dialect.header,
        "comments": found.comments,
        "raggedRows": found.ragged,
        "kinds": dict(zip(names[:MAX_COLUMNS], found.kinds, strict=False)),
        "missing": {n: count for n, count in zip(names[:MAX_COLUMNS], found.missing, strict=False) if count},
        "time": clock.to_json() if clock is not None else None,
    }


def _warn_about(found: Scan, report: Probe, name: str | None) -> None:
    dialect, clock = found.dialect, found.clock
    if not dialect.known_encoding or found.replaced:
        report.warn("not_utf8", f"the text is not {dialect.encoding if found.replaced else 'UTF-8'}", name)
    if found.error:
        text = f"not readable as a table after {found.records} records: {found.error}"
        report.warn("corrupt", text, name)
    if found.open_quote:
        text = f"a quotation mark is never closed: {found.rows} lines are {found.records} records"
        report.warn("unclosed_quote", text, name)
    if found.ragged or dialect.padded:
        line, cells = found.first_ragged
        where = f"; the first is record {line} with {cells}" if line else ""
        text = f"{found.ragged} rows have other than {len(dialect.columns)} cells{where}"
        if dialect.padded:
            text = f"rows have {dialect.padded} cells more than the header" if not found.ragged else text
        report.warn("ragged_rows", text, name)
    twice = [column for column, count in Counter(dialect.columns).items() if count > 1]
    if twice:
        text = f"{len(twice)} name(s) stand above several columns: {', '.join(twice[:MAX_NAMED])}"
        report.warn("duplicate_column", text, name)
    if not dialect.named and dialect.columns:
        report.warn("header_missing", "no line names the columns: the first holds values", name)
    if not found.records and not found.ragged and not found.error:
        report.warn("no_rows", "the table has no record", name)
    if clock is None or clock.broken:
        return
    if clock.backwards or clock.repeated:
        text = (
            f"{clock.column}: of {clock.count} stamps {clock.backwards} are earlier than the one before, "
            f"{clock.repeated} the same; the first is record {clock.first_wrong + 1}"
        )
        report.warn("time_not_monotonic", text, name)
    if clock.gaps:
        said = clock.to_json()
        text = f"{clock.column}: {clock.gaps} gaps, the longest of {said['largestGapS']:g} s"
        report.warn("time_gap", f"{text}; the usual step is {1 / (clock.rate or 1):g} s", name)


def table_entries(source: Source) -> list[Entry]:
    """A folder's tables."""
    return [entry for entry in source.with_suffix(*SUFFIXES) if is_text(source.head_of(entry))]


FORMAT = Format(names=("csv",), matches=matches, probe=probe)
