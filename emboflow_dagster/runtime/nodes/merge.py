"""The `merge` node: canonical packages of one feature schema become one."""

from typing import Any, Literal

from pydantic import Field

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, Problem
from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.model.dataset import CANONICAL_SCHEMA
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short


class MergeOptions(ChildOptions):
    """Which packages become one, and what becomes of the others."""

    on: Literal["feature-schema"] = Field(
        default="feature-schema",
        description="Packages with the same frame rate and the same features (shape, columns) become one.",
    )
    mismatch: Literal["separate-versions", "fail", "drop"] = Field(
        default="separate-versions",
        description="Packages that differ from the first: one package for each schema is left, the task "
        "fails, or they are left out.",
    )


def run(context: NodeContext) -> NodeResult:
    """Merge the packages of the upstream nodes in a child process, in their order.

    Raises:
        InvalidInputError: There is no package.
        ExecutionError: They differ and ``mismatch`` is ``fail``.
    """
    options: MergeOptions = context.options
    found = {
        artifact.id: (given, artifact)
        for given in context.inputs.values()
        for artifact in given.artifacts
        if artifact.type == NORMALIZED_DATASET_PACKAGE
    }
    if not found:
        text = f"needs at least one {NORMALIZED_DATASET_PACKAGE} upstream; found none"
        raise InvalidInputError.of([Problem(ErrorKind.INPUT_MISSING, context.task.node_id, text)])
    made = context.child(
        "emboflow_dagster.runtime.merging:merge",
        {
            "packages": [str(given.fetch(artifact)) for given, artifact in found.values()],
            "out": str(context.workdir / "packages"),
            "work": str(context.workdir / ".merging"),
        },
        timeout_s=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    names = [f"{given.node_id} ({artifact.id})" for given, artifact in found.values()]
    for package in made[1:]:
        context.log(f"other features than the first: {', '.join(names[place] for place in package['of'])}")
    if len(made) > 1 and options.mismatch == "fail":
        shown = "; ".join(_differences(made[0], package) for package in made[1:3])
        text = f"{len(made)} feature schemas among {len(names)} packages: {shown}"
        raise ExecutionError(text, kind=ErrorKind.NODE_FAILED)
    kept = made[:1] if options.mismatch == "drop" else made
    sources = {asset_id for package in kept for asset_id in package["assetIds"]}
    rows = [
        {
            "packages": len(package["of"]),
            "episodes": package["episodes"],
            "frames": package["frames"],
            "bytes": package["bytes"],
            "features": short(", ".join(package["features"])),
        }
        for package in kept
    ]
    totals = {
        "packages": len(kept),
        "of": len(names),
        "leftOut": sum(len(package["of"]) for package in made[len(kept) :]),
        **{name: sum(package[name] for package in kept) for name in ("episodes", "frames", "bytes")},
    }
    return NodeResult(
        outputs=tuple(_output(package, context, alone=len(kept) == 1) for package in kept),
        asset_ids=tuple(bound.id for bound in context.assets if bound.id in sources),
        preview={**totals, "rows": rows[:MAX_ROWS]},
        page={**totals, "result": {"table": rows[:MAX_ROWS]}},
    )


def _output(package: dict[str, Any], context: NodeContext, *, alone: bool) -> NodeOutput:
    title = context.task.artifact_title
    features = [
        {
            "feature": short(name),
            "shape": "x".join(str(part) for part in spec["shape"]),
            "kind": spec["kind"],
            "source": short(spec["sourceTopic"] or ""),
        }
        for name, spec in list(package["features"].items())[:50]
    ]
    robot = package["robotType"]
    return NodeOutput(
        type=NORMALIZED_DATASET_PACKAGE,
        payload=context.workdir / "packages" / package["folder"].rpartition("/")[2],
        content_type=LISTING_TYPE,
        title=title if alone or title is None else f"{title}: {robot or features[0]['feature']}"[:200],
        summary={
            "schemaVersion": CANONICAL_SCHEMA,
            **{key: package[key] for key in ("episodes", "frames", "fps", "robotType", "bytes")},
            "features": features,
            "assets": len(package["assetIds"]),
        },
    )


def _differences(first: dict[str, Any], other: dict[str, Any]) -> str:
    """What a person looks for: the rates, and the features that only one has or that differ in shape."""
    if first["fps"] != other["fps"]:
        return f"{first['fps']:g} and {other['fps']:g} fps"
    ours, theirs = (
        {name: spec["shape"] for name, spec in package["features"].items()} for package in (first, other)
    )
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    told = [f"{name} {ours.get(name) or 'absent'} and {theirs.get(name) or 'absent'}" for name in names[:5]]
    return ", ".join(told) or "names of columns"


NODE = NodeType(
    id="merge",
    version="1",
    title="Merge",
    description=(
        "Canonical packages of the nodes before it that have the same features become one, episode after "
        "episode, frames and videos as they are. Packages with other features stay apart."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=MergeOptions,
    run=run,
    requires_artifact=frozenset({NORMALIZED_DATASET_PACKAGE}),
    produces=NORMALIZED_DATASET_PACKAGE,
    needs_bytes=False,
    sees=frozenset({Sight.INPUTS}),
    kinds=("parquet",),
)
