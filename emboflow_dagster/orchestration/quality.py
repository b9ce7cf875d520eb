"""Asset checks of quality reports: every check of a `quality-report` node, with severity and coverage.

The step that measures logs their results, also when it refuses its input. Executed from an asset's page they
show again what the newest report found; no recording is read for that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import dagster as dg

from emboflow_dagster.model.artifact import QUALITY_REPORT
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Node
from emboflow_dagster.orchestration.specs import NodeProps
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.nodes.quality_report import ALIASES, CHECKS, NODE, READABLE

OP: Final = "quality_checks"
_RESOURCE: Final = "emboflow"
_TITLES: Final = {
    "pass": "passed",
    "warn": "worth a look",
    "fail": "failed",
    "unresolved": "nothing could be measured: not clean",
}


def check_names(node: Node) -> list[str]:
    """The checks that a node of the catalog can show; none for a node that measures nothing."""
    if node["type"] not in (NODE.id, *NODE.aliases) or node["produces"] not in (None, QUALITY_REPORT):
        return []
    asked = node["config"].get("checks")
    named = [ALIASES.get(name, name) for name in asked if isinstance(name, str)] if asked else CHECKS
    return [READABLE, *(name for name in dict.fromkeys(named) if name in CHECKS)]


def evaluations(key: dg.AssetKey, preview: Mapping[str, Any] | None) -> Iterator[dg.AssetCheckEvaluation]:
    """What a task's preview says of each check; nothing for tasks that measured nothing.

    A failure is an ERROR, a warning a WARN; a check that could not look at anything did not pass.
    """
    found = (preview or {}).get("checks")
    if not isinstance(found, list) or "coverage" not in (preview or {}):
        return
    unread = [one for one in found if one["check"] == READABLE]
    if not unread:
        yield dg.AssetCheckEvaluation(
            asset_key=key, check_name=READABLE, passed=True, description="every input could be read"
        )
    for one in found:
        yield _evaluation(key, one)


def _evaluation(key: dg.AssetKey, one: Mapping[str, Any]) -> dg.AssetCheckEvaluation:
    severity = one["severity"]
    metadata: dict[str, Any] = {
        "result": _TITLES[severity],
        "declared": one["declared"],
        "resolved": one["resolved"],
        "unresolved": one["unresolved"],
        "subjects": one["subjects"],
        "check_version": one["version"],
    }
    if one["threshold"]:
        metadata["threshold"] = one["threshold"]
    if one["places"]:
        listed = "\n".join(f"- {_escaped(place)}" for place in one["places"])
        metadata["places"] = dg.MetadataValue.md(listed)
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=one["check"],
        passed=severity == "pass",
        severity=dg.AssetCheckSeverity.ERROR if severity == "fail" else dg.AssetCheckSeverity.WARN,
        description=one["message"],
        metadata=metadata,
    )


def log_checks(context: dg.OpExecutionContext, props: NodeProps, preview: Mapping[str, Any] | None) -> None:
    """Log the results of a step as events of its run."""
    if check_names(props.node):
        for evaluation in evaluations(props.key, preview):
            # Dagster takes it there, and its signature does not say so: the check is no output of this op.
            context.log_event(evaluation)  # pyright: ignore[reportArgumentType]


def quality_checks(nodes: Iterable[NodeProps]) -> list[dg.AssetsDefinition]:
    """The check definitions of a project's quality nodes, all in one op."""
    measured = [(props, check_names(props.node)) for props in nodes]
    measured = [(props, names) for props, names in measured if names]
    if not measured:
        return []
    place = measured[0][0].place
    specs = {
        f"check_{number}_{name}": dg.AssetCheckSpec(
            name, asset=props.key, description=f"`{name}` of the quality report; see docs/quality.md."
        )
        for number, (props, names) in enumerate(measured)
        for name in names
    }
    by_key = {props.key: props for props, _ in measured}

    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[dg.AssetCheckResult]:
        wanted = context.selected_asset_check_keys
        with context.resources.emboflow.open(place.workspace, place.project) as ef:
            for key in sorted({check.asset_key for check in wanted}):
                task = newest(ef, by_key[key])
                for found in evaluations(key, task.last_result_preview if task else None):
                    if dg.AssetCheckKey(key, found.check_name) in wanted:
                        yield dg.AssetCheckResult(
                            asset_key=found.asset_key, check_name=found.check_name, passed=found.passed,
                            severity=found.severity, metadata=found.metadata, description=found.description,
                        )  # fmt: skip

    op = dg.OpDefinition(
        compute_fn=compute,
        name=keys.place_name(place, OP),
        outs={name: dg.Out(dg.Nothing, is_required=False) for name in specs},
        required_resource_keys={_RESOURCE},
        description="Shows again what the newest quality reports found.",
    )
    return [
        dg.AssetChecksDefinition.create(
            node_def=op, keys_by_input_name={}, check_specs_by_output_name=specs, can_subset=True
        )
    ]


def newest(ef: EmboFlow, props: NodeProps) -> RunTask | None:
    """The newest task of a node that left a report, whether it succeeded or refused its input."""
    runs = ef.runs.documents.find({"workflowDefinitionId": props.workflow["definitionId"]}, limit=50)
    tasks: Sequence[RunTask] = ef.tasks.documents.find(
        {
            "workflowRunId": {"$in": [run.id for run in runs]},
            "nodeId": props.node["id"],
            "status": {"$in": ["success", "failed"]},
        },
        sort=[("finishedAt", -1)],
        limit=5,
    )
    return next((task for task in tasks if task.last_result_preview), None)


def _escaped(text: str) -> str:
    for char in "\\`*_[]<>|#":
        text = text.replace(char, "\\" + char)
    return text
