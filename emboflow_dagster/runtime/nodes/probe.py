"""The `probe` node: what is inside each asset."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from emboflow_dagster.errors import ExecutionError
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.asset import AssetProbeReport, AssetStatus
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.in_child import best_format, each, failed_probe
from emboflow_dagster.runtime.node import BoundAsset, NodeContext, NodeOutput, NodeResult, NodeType
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, counted, short


class ProbeOptions(ChildOptions):
    """How to look into the assets."""

    refresh: bool = Field(
        default=False, description="Look again into assets that are ready and have a report already."
    )
    depth: Literal["full"] = Field(
        default="full", description="Recordings are read to their end; nothing less exists."
    )
    count_messages: Literal[True] = Field(
        default=True, description="Messages are counted by reading, never taken from an index."
    )


def run(context: NodeContext) -> NodeResult:
    """Probe the assets in a child process; a crash in one is a warning in its report alone."""
    options: ProbeOptions = context.options
    known = {
        bound.id: bound.report
        for bound in context.assets
        if bound.report is not None and bound.asset.status is AssetStatus.READY and not options.refresh
    }
    wanted = [bound for bound in context.assets if bound.id not in known and not bound.is_prefix]
    found = each(
        context.child,
        "probe",
        [[str(bound.path), bound.asset.type.value] for bound in wanted],
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    fresh: dict[str, dict[str, Any]] = {
        bound.id: failed_probe(result) if isinstance(result, ExecutionError) else result
        for bound, result in zip(wanted, found, strict=True)
    }
    for bound in context.assets:
        if bound.is_prefix and bound.id not in known:
            fresh[bound.id] = _there(context, bound)
    entries = []
    for bound in context.assets:
        report = known.get(bound.id)
        entries.append(_entry(bound, fresh[bound.id] if report is None else report.to_json(), report))
        codes = ", ".join(entries[-1]["warnings"]) or "no warnings"
        context.log(f"{bound.name}: {entries[-1]['format']}, {codes}{'' if report is None else ' (known)'}")
    formats = counted(Counter(entry["format"] for entry in entries), "format")
    warnings = counted(Counter(code for entry in entries for code in entry["warnings"]), "code")
    summary = {
        "assets": len(entries),
        "probed": len(fresh),
        "withWarnings": sum(bool(entry["warnings"]) for entry in entries),
        "formats": formats[:50],
        "warnings": warnings[:50],
    }
    rows = [_row(entry) for entry in entries[:MAX_ROWS]]
    payload = json.dumps(
        {"schema": "emboflow-probe/1", **summary, "reports": entries}, indent=1, allow_nan=False
    )
    output = NodeOutput(
        type=context.task.artifact_type or INTERMEDIATE_TASK_OUTPUT,
        payload=payload.encode(),
        content_type="application/json",
        title=context.task.artifact_title,
        previewable=True,
        summary=summary,
    )
    return NodeResult(
        outputs=(output,),
        preview={**summary, "rows": rows},
        page={
            "assets": len(entries),
            "probed now": len(fresh),
            "with warnings": summary["withWarnings"],
            "reports": {"table": rows},
        },
        probes=fresh,
    )


def _there(context: NodeContext, bound: BoundAsset) -> dict[str, Any]:
    """The report of a prefix, whose objects stay where they are."""
    options: ProbeOptions = context.options
    assert context.there is not None  # noqa: S101 - whoever binds such assets gives it
    try:
        return context.there(
            bound.asset, context.child, timeout_s=options.timeout_seconds, memory_mb=options.memory_mb
        )
    except ExecutionError as error:
        return failed_probe(error)


def _entry(bound: BoundAsset, report: Mapping[str, Any], known: AssetProbeReport | None) -> dict[str, Any]:
    return {
        "assetId": bound.id,
        "name": bound.name,
        "type": bound.asset.type.value,
        "format": best_format(report),
        "warnings": sorted({warning["code"] for warning in report["warnings"]}),
        "reportVersion": None if known is None else known.report_version,
        **{
            key: report[key]
            for key in ("detectedFormatCandidates", "structureSummary", "recommendedNextNodes", "truncated")
        },
        "messages": report["warnings"],
    }


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One line about one asset: what a person looks for first."""
    found = entry["structureSummary"]
    numbers = {name: found.get(name) for name in ("messageCount", "episodes", "frames", "rows", "members")}
    counts = ", ".join(f"{value} {name}" for name, value in numbers.items() if isinstance(value, int))
    return {
        "name": short(entry["name"]),
        "format": entry["format"],
        "counts": counts.replace("messageCount", "messages"),
        "warnings": short(", ".join(entry["warnings"])),
    }


NODE = NodeType(
    id="probe",
    version="1",
    title="Probe",
    description=(
        "Looks into each asset in a child process: format candidates, structure, counts by reading, "
        "warnings. A ready asset's newest report is used again unless `refresh` is true."
    ),
    category=CustomNodeCategory.INSPECT,
    options=ProbeOptions,
    run=run,
    produces=INTERMEDIATE_TASK_OUTPUT,
    sees=frozenset(),
    uncached=lambda options: "`refresh` looks again" if options.refresh else None,
    reports=True,
    looks_there=True,
    aliases=("inspect",),
    kinds=("probe",),
)
