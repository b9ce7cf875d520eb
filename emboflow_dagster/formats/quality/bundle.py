"""The files of a quality report: measurements as a table, the reports as JSON, Markdown and an HTML page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.quality.evidence import (
    EVIDENCE_FILE,
    STANDARD,
    Thresholds,
    judged,
    read_evidence,
    write_evidence,
)
from emboflow_dagster.formats.quality.render import by_subject, render_markdown, render_page
from emboflow_dagster.formats.quality.report import STANDARD_RULES, TITLES

SCHEMA = "emboflow-quality/2"


def write_bundle(
    folder: Path,
    reports: Sequence[Mapping[str, Any]],
    parts: Sequence[Path],
    summary: Mapping[str, Any],
    thresholds: Thresholds | None = None,
    consumers: Mapping[str, Thresholds] | None = None,
) -> dict[str, Any]:
    """Write ``evidence.parquet``, ``report.json``, ``report.md`` and ``report.html``.

    Nothing in them says when or where: equal measurements give equal bytes.

    Args:
        folder: Where they go.
        reports: One a subject.
        parts: The measurements of each, as ``quality_report(evidence=...)`` wrote them; one may be absent.
        summary: What ``report.json`` says on top.
        thresholds: The limits that the reports were judged by, in place of the standard ones.
        consumers: Further verdicts.

    Returns:
        ``{"rows": measurements kept, "markdown": the reports' Markdown}``.
    """
    asked = {STANDARD: thresholds or {}, **(consumers or {})}
    table = folder / EVIDENCE_FILE
    rows = write_evidence(table, judged(_rows(parts), STANDARD_RULES, asked))
    document = {
        "schema": SCHEMA,
        **summary,
        "thresholds": thresholds or {},
        "consumers": consumers or {},
        "evidence": {"file": EVIDENCE_FILE, "rows": rows},
        "reports": list(reports),
    }
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    markdown = "\n".join(render_markdown(report) for report in reports) or "nothing to measure\n"
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    page = render_page(reports, by_subject(read_evidence(table)), STANDARD_RULES, TITLES)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return {"rows": rows, "markdown": markdown}


def evidence_of(
    table: Path,
    *,
    check: str | None = None,
    episode: str | None = None,
    subject: str | None = None,
    consumers: Mapping[str, Thresholds] | None = None,
    verdict: str | None = None,
    limit: int = 0,
) -> list[dict[str, Any]]:
    """Rows of a stored table, judged anew where thresholds are given; the recordings are not read.

    Args:
        table: ``evidence.parquet``.
        check: Only this check.
        episode: Only this episode: its name, its number, or the sha256 of its content.
        subject: Only this subject.
        consumers: Consumer to its thresholds, :data:`~...quality_evidence.STANDARD` for the standard verdict.
        verdict: Only rows with this verdict of the standard or of any consumer.
        limit: At most so many; 0 for all.
    """
    rows: Iterator[Mapping[str, Any]] = read_evidence(table, check=check, episode=episode, subject=subject)
    if consumers:
        rows = judged(rows, STANDARD_RULES, consumers)
    found: list[dict[str, Any]] = []
    for row in rows:
        one = {**row, "verdicts": dict(row["verdicts"])}
        if verdict is None or verdict in (one["verdict"], *one["verdicts"].values()):
            found.append(one)
            if limit and len(found) >= limit:
                break
    return found


def _rows(parts: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    for part in parts:
        if part.is_file():
            with part.open(encoding="utf-8") as stream:
                for line in stream:
                    yield json.loads(line)
