"""The `normalize` node: recordings and demonstrations become one canonical dataset package."""

from typing import Annotated, Any, Literal

from pydantic import Field

from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.model.dataset import CANONICAL_SCHEMA
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short


class NormalizeOptions(ChildOptions):
    """How episodes are made out of the assets."""

    fps: Annotated[float, Field(gt=0, le=1_000)] | None = Field(
        default=None,
        description="Frames per second. Topics are sampled on this grid; HDF5 rows are not resampled and "
        "must have it. null: the rate that the HDF5 files give.",
    )
    robot_type: Annotated[str, Field(max_length=100)] | None = Field(
        default=None,
        description="Name of the robot for the manifest; null takes it from the reports when they agree.",
    )
    task: Annotated[str, Field(max_length=500)] | None = Field(
        default=None, description="What was asked of the robot; null takes the files' own word for it."
    )
    topics: list[str] | dict[str, str] = Field(
        default_factory=list,
        description="Topics of bags to take, or topic to feature name. Empty: every dense numeric topic.",
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="HDF5 dataset of a demonstration to feature name; empty for the usual ones.",
    )
    rate_policy: Literal["hold", "keep"] = Field(
        default="hold", description="`keep` also keeps every sample of a topic at its own rate."
    )
    videos: bool = Field(default=True, description="Whether pictures of HDF5 demonstrations become videos.")
    clock: Literal["bag"] = Field(default="bag", description="Topics are aligned by the recorder's stamps.")
    on_mismatch: Literal["fail", "drop"] = Field(
        default="fail", description="What to do with an episode whose features differ from the first one's."
    )
    target: Literal["emboflow-canonical/1"] = Field(
        default=CANONICAL_SCHEMA, description="The canonical schema that is written."
    )


def run(context: NodeContext) -> NodeResult:
    """Write the package in a child process.

    Raises:
        InvalidInputError: No asset gives an episode, their features differ, or the frame rate is not known.
        LimitError: Too much memory or time.
    """
    options: NormalizeOptions = context.options
    out = context.workdir / "package"
    made = context.child(
        "emboflow_dagster.runtime.normalizing:normalize",
        {
            "assets": [
                {
                    "id": bound.id,
                    "name": bound.name,
                    "path": str(bound.path),
                    "format": bound.report.format if bound.report else "unknown",
                    "sha256": bound.asset.storage_ref.sha256,
                }
                for bound in context.assets
            ],
            "out": str(out),
            "fps": options.fps,
            "robotType": options.robot_type or _robot_type(context),
            "task": options.task,
            "topics": options.topics,
            "mapping": options.mapping,
            "ratePolicy": options.rate_policy,
            "videos": options.videos,
            "onMismatch": "raise" if options.on_mismatch == "fail" else "skip",
        },
        timeout_s=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    given = [row for row in made["assets"] if row["episodes"]]
    for row in made["assets"]:
        if not row["episodes"]:
            context.log(f"{row['name']} gives no episode: {'; '.join(row['reasons']) or 'it holds none'}")
    size = sum(file["size"] for file in made["files"])
    summary = {
        "schemaVersion": CANONICAL_SCHEMA,
        "episodes": made["episodes"],
        "frames": made["frames"],
        "fps": made["fps"],
        "robotType": made["robotType"],
        "features": [_feature(name, spec) for name, spec in list(made["features"].items())[:50]],
        "bytes": size,
        "assets": len(given),
        "skipped": made["skippedCount"],
    }
    rows = [_row(row) for row in made["assets"][:MAX_ROWS]]
    output = NodeOutput(
        type=NORMALIZED_DATASET_PACKAGE,
        payload=out,
        content_type=LISTING_TYPE,
        title=context.task.artifact_title,
        summary=summary,
    )
    return NodeResult(
        outputs=(output,),
        asset_ids=tuple(row["id"] for row in given),
        preview={**summary, "sources": rows},
        page={
            "episodes": made["episodes"],
            "frames": made["frames"],
            "seconds": round(made["frames"] / made["fps"], 3),
            "bytes": size,
            "sources": {"table": rows},
            "features": {"table": summary["features"]},
        },
    )


def _feature(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "feature": short(name),
        "shape": "x".join(str(part) for part in spec["shape"]),
        "kind": spec["kind"],
        "source": short(spec["sourceTopic"] or ""),
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": short(row["name"]),
        "episodes": row["episodes"],
        "frames": row["frames"],
        "left out": short("; ".join(row["reasons"])),
    }


def _robot_type(context: NodeContext) -> str | None:
    found = {b.report.structure_summary.get("robotType") for b in context.assets if b.report} - {None}
    return str(found.pop()) if len(found) == 1 else None


NODE = NodeType(
    id="normalize",
    version="1",
    title="Normalize",
    description=(
        "Brings HDF5 demonstrations and the numeric topics of ROS bags and MCAP recordings to one canonical "
        "package (emboflow-canonical/1), episodes in the order of the assets. Assets without episodes are "
        "listed with the reason and not passed on."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=NormalizeOptions,
    run=run,
    produces=NORMALIZED_DATASET_PACKAGE,
    sees=frozenset({Sight.REPORT}),
    aliases=("normalise",),
    kinds=("parquet",),
)
