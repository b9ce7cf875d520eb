"""The `quality-report` node: measurements with thresholds, over assets or over what nodes before it made."""

from typing import Annotated, Any, Final

from pydantic import Field, field_validator, model_validator

from emboflow_dagster.errors import EmboflowError, ExecutionError, shown
from emboflow_dagster.formats.nearest import nearest_name
from emboflow_dagster.model.artifact import QUALITY_REPORT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.in_child import each
from emboflow_dagster.runtime.node import (
    NodeContext,
    NodeOutput,
    NodeResult,
    NodeType,
    RefusedError,
    Sight,
)
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._quality_page import findings, outcomes, rows_of, summary_of
from emboflow_dagster.runtime.nodes._subjects import Subject, subjects

#: Other names that workflows use for the same measurement.
ALIASES: Final = {"gap_ratio": "gaps", "declared_vs_counted": "declared_counts"}
CHECKS: Final = (
    *("declared_counts", "sync_age", "time_monotonic", "gaps", "timestamp_grid", "rate_jitter", "nan_inf"),
    *("action_range", "state_range", "frozen_action", "frozen_state", "idle_ratio", "jumps", "zero_variance"),
    *("action_lag", "index_integrity", "length_outlier", "zero_width", "duplicates", "near_duplicates"),
    "stats_recompute",
    *("empty_topics", "video_exists", "decode_all_frames", "declared_vs_decoded", "video_fps", "frame_count"),
    *("video_freeze", "duplicate_frames", "duration_drift", "blank_frames"),
)
#: What Dagster shows beside the checks: whether the input could be read at all.
READABLE: Final = "readable"
ANY: Final = "any"
MAX_NAMED: Final = 5
#: With the outcome of every check they stay under the 64 KiB of a preview.
MAX_PREVIEW_ROWS: Final = 40
Limits = dict[str, dict[str, dict[str, float | None] | None] | None]


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
    thresholds: Limits = Field(
        default_factory=dict,
        description="Other limits: check to metric to `{warn, fail}`; null for a metric judges it no more.",
    )
    consumers: dict[Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)], Limits] = (
        Field(
            default_factory=dict,
            description="Further verdicts: a consumer to its thresholds; null for a check it does not want.",
        )
    )
    fail_on: list[str] = Field(
        default_factory=list,
        description="Checks whose failure fails the task; `any` for every check. Warnings never do.",
    )
    fail_for: list[str] = Field(
        default_factory=list, description="Consumers whose verdict fails the task when it is `fail`."
    )

    @field_validator("checks", "fail_on")
    @classmethod
    def _known(cls, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        plain = [ALIASES.get(name, name) for name in names]
        if unknown := [name for name in plain if name not in (*CHECKS, ANY)]:
            raise ValueError(_unknown(*unknown))
        return list(dict.fromkeys(plain))

    @field_validator("thresholds")
    @classmethod
    def _limits(cls, limits: Limits) -> Limits:
        return _plain(limits)

    @model_validator(mode="after")
    def _consumers(self) -> "QualityOptions":
        for name, limits in self.consumers.items():
            self.consumers[name] = _plain(limits)
        unknown = [name for name in self.fail_for if name not in self.consumers]
        if unknown:
            raise ValueError(f"failFor names {', '.join(map(shown, unknown))}, which is no consumer")
        return self

    def limits(self) -> Limits:
        """The thresholds that the standard verdict is made with."""
        if self.max_gap_ratio is None:
            return self.thresholds
        ratio = {"gaps": None, "gapRatio": {"fail": self.max_gap_ratio}}
        return {**self.thresholds, "gaps": {**ratio, **(self.thresholds.get("gaps") or {})}}


def _unknown(*names: str) -> str:
    near = nearest_name(names[0], (*CHECKS, *ALIASES))
    meant = f"did you mean {near!r}? " if near else ""
    return f"unknown check {', '.join(names)}; {meant}known are {', '.join(CHECKS)}"


def _plain(limits: Limits) -> Limits:
    """Thresholds under the checks' own names, every metric and limit known."""
    if not limits:
        return limits
    from emboflow_dagster.formats.quality.evidence import rules_for
    from emboflow_dagster.formats.quality.report import STANDARD_RULES

    plain = {ALIASES.get(name, name): metrics for name, metrics in limits.items()}
    for name in plain:
        if name not in CHECKS:
            raise ValueError(_unknown(name))
        try:
            rules_for(name, STANDARD_RULES[name], plain)
        except EmboflowError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
    return plain


def run(context: NodeContext) -> NodeResult:
    """Measure every subject in a child process and keep one bundle: evidence, JSON, Markdown, HTML.

    Raises:
        RefusedError: A check named in ``failOn`` or a consumer in ``failFor`` failed; the report goes along.
    """
    options: QualityOptions = context.options
    found = subjects(context)
    reports, parts = _measured(context, options, found)
    for report in reports:
        context.log(f"{report['subject']}: {report['verdict']}, {findings(report) or 'no findings'}")
    summary = summary_of(reports)
    folder = context.workdir / "report"
    folder.mkdir()
    written = context.child(
        "emboflow_dagster.runtime.in_child:quality_bundle",
        str(folder), reports, parts, summary, options.limits(), options.consumers,
        timeout_s=options.timeout_seconds, memory_mb=options.memory_mb,
    )  # fmt: skip
    output = NodeOutput(
        type=QUALITY_REPORT,
        payload=folder,
        content_type=LISTING_TYPE,
        title=context.task.artifact_title,
        previewable=True,
        summary={**summary, "measurements": written["rows"]},
    )
    checks, rows = outcomes(reports), rows_of(reports)
    coverage = summary["coverage"]
    page = {
        "verdict": summary["verdict"],
        **{f"verdict for {one['consumer']}": one["verdict"] for one in summary["consumers"]},
        "subjects": len(reports),
        **coverage,
        "measurements": written["rows"],
        "results": {"table": rows},
    }
    result = NodeResult(
        outputs=(output,),
        preview={**summary, "rows": rows[:MAX_PREVIEW_ROWS], "checks": checks},
        page=page | ({"report": {"markdown": written["markdown"]}} if len(reports) == 1 else {}),
    )
    refused = _refused(options, reports)
    if refused:
        more = f"; and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
        raise RefusedError(
            f"{len(refused)} checks failed: {'; '.join(refused[:MAX_NAMED])}{more}",
            hint="the report is kept: emboflow artifact list shows it",
            result=result,
        )
    return result


def _measured(
    context: NodeContext, options: QualityOptions, found: list[Subject]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The report of every subject, and the files with their measurements."""
    wanted = None if options.checks is None else [check for check in options.checks if check != ANY]
    how = {
        "checks": wanted,
        "fps": options.fps,
        "thresholds": options.limits(),
        "consumers": options.consumers,
    }
    parts = [str(context.workdir / f"measured-{place:04d}.jsonl") for place in range(len(found))]
    calls = [
        [str(s.path), s.name, s.is_dataset, s.report, how, part, _about(s)]
        for s, part in zip(found, parts, strict=True)
    ]
    results = each(
        context.child,
        "quality",
        calls,
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    reports = [
        _unreadable(subject, result, list(options.consumers))
        if isinstance(result, ExecutionError)
        else result
        for subject, result in zip(found, results, strict=True)
    ]
    return reports, parts


def _about(subject: Subject) -> dict[str, Any]:
    """What the evidence says of a subject; a package is named by its manifest, which the reader hashes."""
    return {} if subject.is_dataset else {"assetId": subject.asset_id, "subjectSha256": subject.sha256}


def _unreadable(subject: Subject, error: ExecutionError, consumers: list[str]) -> dict[str, Any]:
    """The report of what could not be measured because its reader failed."""
    coverage = {"declared": 1, "resolved": 0, "unresolved": 1}
    check = {
        "check": READABLE,
        "version": 1,
        "severity": "fail",
        "verdicts": dict.fromkeys(consumers, "fail"),
        "values": {"code": error.kind.value},
        "threshold": {},
        "message": error.message,
        "places": [],
        "measurements": 0,
        "notKept": 0,
        "coverage": coverage,
    }
    return {
        "reportVersion": 2,
        "subject": subject.name,
        "subjectSha256": subject.sha256,
        "kind": "unknown",
        "verdict": "fail",
        "clean": False,
        "verdicts": dict.fromkeys(consumers, "fail"),
        "counts": {"pass": 0, "warn": 0, "fail": 1},
        "coverage": coverage,
        "checks": [check],
    }


def _refused(options: QualityOptions, reports: list[dict[str, Any]]) -> list[str]:
    """What the workflow insists on and did not get."""
    # What cannot be read passed none of the checks that the workflow insists on.
    fatal = {*options.fail_on, READABLE} if options.fail_on else set()
    return [
        f"{report['subject']}: {check['check']}: {check['message']}"
        for report in reports
        for check in report["checks"]
        if (check["severity"] == "fail" and (ANY in fatal or check["check"] in fatal))
        or any(check["verdicts"].get(name) == "fail" for name in options.fail_for)
    ]


NODE = NodeType(
    id="quality-report",
    version="3",
    reads=frozenset({"1", "2"}),
    title="Quality report",
    description=(
        "Measures time, rates, gaps, values, actions, episodes and videos of the upstream package or "
        "recordings, or of each asset where there is none. Every check says how much it could look at; "
        "nothing measured is never clean. Keeps every measurement: other thresholds need no second reading."
    ),
    category=CustomNodeCategory.INSPECT,
    options=QualityOptions,
    run=run,
    produces=QUALITY_REPORT,
    sees=frozenset({Sight.REPORT, Sight.INPUTS, Sight.NAMES}),
    aliases=("quality-check",),
    kinds=("report",),
)
