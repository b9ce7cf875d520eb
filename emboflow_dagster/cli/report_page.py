"""A probe report as people read it: format first, then the structure, warnings, what to do next."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.cli import figures, output

if TYPE_CHECKING:
    from emboflow_dagster.model.asset import AssetProbeReport

MAX_ROWS: Final = 40
MAX_COLUMNS: Final = 8


def brief(report: "AssetProbeReport") -> None:
    """The newest probe in a few lines, below the asset it belongs to."""
    output.pairs(
        [
            ("probed", f"report {report.report_version}, {figures.moment(report.created_at)}"),
            ("warnings", ", ".join(_codes(report)) or "none"),
            ("next nodes", ", ".join(report.recommended_next_nodes)),
        ]
    )


def line(report: "AssetProbeReport") -> tuple[str, str, str]:
    """Format, warnings and next nodes, where many reports stand below each other."""
    return report.format, ", ".join(_codes(report)) or "none", ", ".join(report.recommended_next_nodes)


def show(name: str, report: "AssetProbeReport") -> None:
    """The whole report."""
    output.pairs(
        [
            ("asset", output.styled(name, "bold")),
            ("format", output.styled(report.format, "bold")),
            ("warnings", ", ".join(_codes(report)) or "none"),
            ("next nodes", ", ".join(report.recommended_next_nodes)),
            ("report", f"{report.report_version} ({report.id})"),
        ]
    )
    output.table(
        ("FORMAT", ">CONFIDENCE", "EVIDENCE"),
        [(c.format, f"{c.confidence:.2f}", "; ".join(c.evidence)) for c in report.detected_format_candidates],
        title="Candidates",
    )
    values("Structure", report.structure_summary)
    if report.warnings:
        output.table(
            ("CODE", "WHERE", "MESSAGE"),
            [(output.styled(w.code, "yellow"), w.path, w.message) for w in report.warnings[:MAX_ROWS]],
            title="Warnings",
        )
        _rest(len(report.warnings))


def values(title: str, summary: Mapping[str, Any]) -> None:
    """A nested document: plain values first, then a table for every map or list of records."""
    plain = [(key, _value(key, value)) for key, value in summary.items() if not _nested(value)]
    output.heading(title)
    if plain:
        output.pairs((f"  {key}", value) for key, value in plain)
    for key, value in summary.items():
        if (key == "streams" and "topics" in summary) or not _nested(value):
            continue  # a topic's stream is in the topic's row
        if key == "topics":
            value = _topics(value, summary.get("streams") or {})  # noqa: PLW2901 - the fuller rows
        _records(key, value)


def _topics(topics: Mapping[str, Any], streams: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**row, "meanHz": (streams.get(name) or {}).get("meanHz")} if isinstance(row, Mapping) else row
        for name, row in topics.items()
    }


def _records(title: str, value: Mapping[str, Any] | Sequence[Any]) -> None:
    named = isinstance(value, Mapping)
    items = list(value.items()) if isinstance(value, Mapping) else [(None, row) for row in value]
    columns: list[str] = []
    for _, row in items[:MAX_ROWS]:
        if isinstance(row, Mapping):
            columns += [key for key in row if key not in columns]
    columns = columns[:MAX_COLUMNS]
    head = ("NAME",) if named else ()
    rows = [(*((name,) if named else ()), *_cells(row, columns)) for name, row in items[:MAX_ROWS]]
    output.table((*head, *(columns or ["VALUE"])), rows, title=f"{title} ({len(items)})")
    _rest(len(items))


def _cells(row: Any, columns: Sequence[str]) -> list[object]:
    if not columns:
        return [_value("", row)]
    if not isinstance(row, Mapping):
        return [_value("", row), *([""] * (len(columns) - 1))]
    return [_value(key, row.get(key)) for key in columns]


def _value(key: str, value: Any) -> object:
    if key == "durationNs" and isinstance(value, int | float):
        return figures.duration(value / 1e6)
    if key in ("bytes", "sizeBytes") and isinstance(value, int):
        return figures.size(value)
    if key == "maxGapNs" and isinstance(value, int | float):
        return figures.duration(value / 1e6)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_value(str(k), v)}" for k, v in list(value.items())[:MAX_COLUMNS])
    if isinstance(value, list):
        shown = ", ".join(str(_value("", v)) for v in value[:12])
        return f"[{shown}{', …' if len(value) > 12 else ''}]"  # noqa: PLR2004 - as many as a line holds
    return value


def _nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _codes(report: "AssetProbeReport") -> list[str]:
    counts: dict[str, int] = {}
    for warning in report.warnings:
        counts[warning.code] = counts.get(warning.code, 0) + 1
    return [code if count == 1 else f"{code} ({count})" for code, count in counts.items()]


def _rest(count: int) -> None:
    if count > MAX_ROWS:
        output.note(f"  and {count - MAX_ROWS} more; --json shows all")
