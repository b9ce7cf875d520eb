"""The `filter` node: goes on with the assets whose probe result fulfils the conditions."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from emboflow_dagster.errors import ExecutionError, InvalidInputError
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.node import NodeContext, NodeOptions, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short
from emboflow_dagster.runtime.nodes._where import REPORT_FIELDS, Group, document_of, parse, spelt_out

NO_REPORT = "not probed: a probe node has to come before the filter"


class FilterOptions(NodeOptions):
    """Conditions over what is known about an asset."""

    where: dict[str, Any] | list[dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "Paths to conditions, all of which must hold. Paths: format, formats, type, name, id, status, "
            "sizeBytes, fileCount, warnings (codes), recommended, summary.* (the report's structureSummary), "
            "topics.name, topics.type, topics.count. A value is equality, a list is `in`; operators: equals, "
            "in/anyOf, noneOf, allOf, contains, matches, min/gte, max/lte, gt, lt, exists, not. `any`, `all` "
            "and `not` combine."
        ),
    )
    on_empty: Literal["pass", "fail"] = Field(
        default="pass", description="What to do when no asset is left: go on with none, or fail the task."
    )

    @classmethod
    def storable(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Conditions on dotted paths become ``{path: ..., operator: ...}``."""
        return {**config, "where": spelt_out(config["where"])} if "where" in config else dict(config)

    @field_validator("where")
    @classmethod
    def _understood(cls, value: Any) -> Any:
        try:
            parse(value)
        except InvalidInputError as error:
            raise ValueError("; ".join(str(problem) for problem in error.problems)) from None
        return value


def run(context: NodeContext) -> NodeResult:
    """Keep what fulfils ``where``, with the reasons for the rest.

    Raises:
        ExecutionError: Nothing is left and ``onEmpty`` is ``fail``.
    """
    options: FilterOptions = context.options
    group: Group = parse(options.where)
    needs_report = any(condition.field in REPORT_FIELDS for condition in group.conditions())
    kept, rejected, why = [], [], Counter[str]()
    for bound in context.assets:
        # Without a report "no such warning" would hold of everything: unknown is not good.
        missing = needs_report and bound.report is None
        reasons = [NO_REPORT] if missing else group.reasons(document_of(bound))
        if reasons:
            rejected.append(
                {"id": bound.id, "name": short(bound.name), "reasons": [short(r) for r in reasons[:5]]}
            )
            why[reasons[0].partition(":")[0]] += 1
            context.log(f"rejected {bound.name}: {'; '.join(reasons)}")
        else:
            kept.append({"id": bound.id, "name": short(bound.name)})
    if not kept and options.on_empty == "fail":
        some = "; ".join(f"{row['name']}: {row['reasons'][0]}" for row in rejected[:3])
        raise ExecutionError(f"no asset is left of {len(context.assets)}" + (f" ({some})" if some else ""))
    table = [
        *({"name": row["name"], "kept": "yes", "reason": ""} for row in kept[:MAX_ROWS]),
        *({"name": r["name"], "kept": "no", "reason": "; ".join(r["reasons"])} for r in rejected[:MAX_ROWS]),
    ]
    return NodeResult(
        asset_ids=tuple(row["id"] for row in kept),
        preview={
            "keptCount": len(kept),
            "rejectedCount": len(rejected),
            "kept": kept[:MAX_ROWS],
            "rejected": rejected[: MAX_ROWS // 2],
        },
        page={"kept": len(kept), "rejected": len(rejected), "assets": {"table": table}},
        outcome="done" if kept else "empty",
    )


NODE = NodeType(
    id="filter",
    version="1",
    title="Filter",
    description=(
        "Goes on with the assets whose newest probe result fulfils `where`; the others are listed with the "
        "reason. An asset without a probe result is rejected when a condition needs one."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=FilterOptions,
    run=run,
    needs_bytes=False,
    runs_on_empty=True,
    sees=frozenset({Sight.STATUS, Sight.REPORT}),
    kinds=("filter",),
)
