"""The `quality-report` node: measurements with thresholds, over assets or over a canonical package."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, field_validator

from emboflow_dagster.errors import ExecutionError
from emboflow_dagster.formats.quality_render import render_html, render_markdown
from emboflow_dagster.model.artifact import QUALITY_REPORT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.in_child import each
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short
from emboflow_dagster.runtime.nodes._subjects import Subject, subjects

#: Other names that workflows use for the same measurement.
ALIASES: Final = {
    "gap_ratio": "gaps",
    "declared_vs_counted": "declared_counts",
    "frame_count": "declared_counts",
}
CHECKS: Final = (
    *("declared_counts", "sync_age", "time_monotonic", "gaps", "rate_jitter", "nan_inf", "action_range"),
    *(
        "frozen_action",
        "jumps",
        "zero_variance",
        "length_outlier",
        "zero_width",
        "duplicates",
        "empty_topics",
    ),
)
ANY: Final = "any"
MAX_NAMED: Final = 5
_ORDER: Final = ("pass", "unresolved", "warn", "fail")


class QualityOptions(ChildOptions):
    """What is measured, and what fails the task."""

    checks: list[str] | None = Field(
        default=None, description=f"Checks to run; null for all that apply. Known are {', '.join(CHECKS)}."
    )
    fps: Annotated[float, Field(gt=0, le=1_000)] | None = Field(
        default=None, description="Rate that stamps are held against where the input itself gives none."
    )
    max_gap_ratio: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Share of steps that may be gaps; more makes the check `gaps` fail, less pass.",
    )
    fail_on: list[str] = Field(
        default_factory=list,
        description="Checks whose failure fails the task; `any` for every check. Warnings never do.",
    )

    @field_validator("checks", "fail_on")
    @classmethod
    def _known(cls, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        plain = [ALIASES.get(name, name) for name in names]
        unknown = [name for name in plain if name not in (*CHECKS, ANY)]
        if unknown:
            raise ValueError(f"unknown check {', '.join(unknown)}; known are {', '.join(CHECKS)}")
        return list(dict.fromkeys(plain))


def run(context: NodeContext) -> NodeResult:
    """Measure every subject in a child process and keep one bundle: JSON, Markdown, HTML.

    Raises:
        ExecutionError: A check named in ``failOn`` failed; the report is in the task's log then.
    """
    options: QualityOptions = context.options
    found = subjects(context)
    wanted = None if options.checks is None else [check for check in options.checks if check != ANY]
    results = each(
        context.child,
        "quality",
        [[str(s.path), s.name, s.is_dataset, s.report, wanted, options.fps] for s in found],
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    reports = [
        _unreadable(subject, result) if isinstance(result, ExecutionError) else _judged(result, options)
        for subject, result in zip(found, results, strict=True)
    ]
    for report in reports:
        context.log(f"{report['subject']}: {report['verdict']}, {_findings(report) or 'no findings'}")
    _fail_on(options.fail_on, reports)
    verdicts = [{"verdict": v, "count": sum(r["verdict"] == v for r in reports)} for v in _ORDER]
    summary = {
        "verdict": max((r["verdict"] for r in reports), key=_ORDER.index, default="unresolved"),
        "subjects": len(reports),
        "verdicts": verdicts,
        "failedChecks": sorted({c["check"] for r in reports for c in r["checks"] if c["severity"] == "fail"}),
        "warnedChecks": sorted({c["check"] for r in reports for c in r["checks"] if c["severity"] == "warn"}),
    }
    folder = context.workdir / "report"
    folder.mkdir()
    text = json.dumps(
        {"schema": "emboflow-quality/1", **summary, "reports": reports}, indent=1, allow_nan=False
    )
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    markdown = "\n".join(render_markdown(report) for report in reports)
    (folder / "report.md").write_text(markdown or "nothing to measure\n", encoding="utf-8")
    (folder / "report.html").write_text(_one_page(reports), encoding="utf-8")
    rows = [_row(report) for report in reports[:MAX_ROWS]]
    output = NodeOutput(
        type=QUALITY_REPORT,
        payload=folder,
        content_type=LISTING_TYPE,
        title=context.task.artifact_title,
        previewable=True,
        summary=summary,
    )
    page = {"verdict": summary["verdict"], "subjects": len(reports), "results": {"table": rows}}
    return NodeResult(
        outputs=(output,),
        preview={**summary, "rows": rows},
        page=page | ({"report": {"markdown": markdown}} if len(reports) == 1 else {}),
    )


def _judged(report: dict[str, Any], options: QualityOptions) -> dict[str, Any]:
    """The report with the verdict on gaps by the ratio that the workflow allows."""
    if options.max_gap_ratio is None:
        return report
    checks = []
    for check in report["checks"]:
        steps = check["values"].get("steps")
        if check["check"] == "gaps" and steps:
            ratio, allowed = check["values"]["gaps"] / steps, options.max_gap_ratio
            checks.append(
                {
                    **check,
                    "severity": "fail" if ratio > allowed else "pass",
                    "values": {**check["values"], "gapRatio": ratio},
                    "threshold": {**check["threshold"], "gapRatio": allowed},
                    "message": f"{check['message']}; {ratio:.2%} of all steps, {allowed:.2%} allowed",
                }
            )
        else:
            checks.append(check)
    counts = {name: sum(c["severity"] == name for c in checks) for name in ("pass", "warn", "fail")}
    worst = max((c["severity"] for c in checks), key=_ORDER.index, default="pass")
    verdict = report["verdict"] if report["verdict"] == "unresolved" else worst
    return {**report, "checks": checks, "counts": counts, "verdict": verdict, "clean": verdict == "pass"}


def _unreadable(subject: Subject, error: ExecutionError) -> dict[str, Any]:
    """The report of what could not be measured because its reader failed."""
    coverage = {"declared": 1, "resolved": 0, "unresolved": 1}
    check = {
        "check": "readable",
        "version": 1,
        "severity": "fail",
        "values": {"code": error.kind.value},
        "threshold": {},
        "message": error.message,
        "places": [],
        "coverage": coverage,
    }
    return {
        "reportVersion": 1,
        "subject": subject.name,
        "kind": "unknown",
        "verdict": "fail",
        "clean": False,
        "counts": {"pass": 0, "warn": 0, "fail": 1},
        "coverage": coverage,
        "checks": [check],
    }


def _fail_on(names: list[str], reports: list[dict[str, Any]]) -> None:
    # What cannot be read passed none of the checks that the workflow insists on.
    fatal = {*names, "readable"} if names else set()
    failed = [
        f"{report['subject']}: {check['check']}: {check['message']}"
        for report in reports
        for check in report["checks"]
        if check["severity"] == "fail" and (ANY in fatal or check["check"] in fatal)
    ]
    if failed:
        more = f"; and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
        raise ExecutionError(f"{len(failed)} checks failed: {'; '.join(failed[:MAX_NAMED])}{more}")


def _findings(report: Mapping[str, Any]) -> str:
    return "; ".join(f"{c['check']} {c['severity']}" for c in report["checks"] if c["severity"] != "pass")


def _row(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "subject": short(report["subject"]),
        "kind": report["kind"],
        "verdict": report["verdict"],
        "measured": f"{report['coverage']['resolved']} of {report['coverage']['declared']}",
        "findings": short(_findings(report)),
    }


def _one_page(reports: list[dict[str, Any]]) -> str:
    """One HTML page of all reports: the first one's head, everybody's body."""
    pages = [render_html(report) for report in reports]
    if not pages:
        return "<!doctype html><html lang='en'><title>Quality</title><body>nothing to measure</body></html>\n"
    head, _, _ = pages[0].partition("<body>")
    bodies = [page.partition("<body>")[2].partition("</body>")[0] for page in pages]
    return f"{head}<body>{'<hr>'.join(bodies)}</body></html>\n"


NODE = NodeType(
    id="quality-report",
    version="1",
    title="Quality report",
    description=(
        "Measures time, rates, gaps, values, actions and episodes of the upstream package, or of each asset "
        "where there is none. Every check says how much it could look at; nothing measured is never clean."
    ),
    category=CustomNodeCategory.INSPECT,
    options=QualityOptions,
    run=run,
    produces=QUALITY_REPORT,
    sees=frozenset({Sight.REPORT, Sight.INPUTS, Sight.NAMES}),
    aliases=("quality-check",),
    kinds=("report",),
)
