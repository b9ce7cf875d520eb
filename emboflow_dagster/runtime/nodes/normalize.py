"""The `normalize` node: recordings and demonstrations become canonical dataset packages."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.model.dataset import CANONICAL_SCHEMA
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._recordings import recordings, told_places
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short
from emboflow_dagster.runtime.nodes._split import SplitOptions


class NormalizeOptions(ChildOptions):
    """How episodes are made out of the assets."""

    fps: Annotated[float, Field(gt=0, le=1_000)] | None = Field(
        default=None,
        description="Frames per second. Topics and videos are sampled on this grid; rows of HDF5, LeRobot, "
        "RLDS, tables and arrays are not resampled and must have it. null: each recording's own rate.",
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
        description="Topics of bags to take, or topic to feature name; image topics become cameras. Empty: "
        "every dense numeric topic.",
    )
    split: SplitOptions | None = Field(
        default=None,
        description="Where episodes end: of bags `{by: gap, seconds}`, `{by: topic, topic, value?}`; of "
        "bags, videos and pictures `{by: file}`, `{by: one}`, `{by: name, pattern}`. null: a recording is "
        "one episode, and videos and pictures are told apart by the names of files and folders.",
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="HDF5 dataset of a demonstration, column of a table or numpy array (several joined with "
        "`+`) to feature name; empty for the usual ones. In other HDF5 files each group that holds all of "
        "them is an episode.",
    )
    rate_policy: Literal["hold", "keep"] = Field(
        default="hold", description="`keep` also keeps every sample of a topic at its own rate."
    )
    videos: bool | Literal["copy", "encode"] = Field(
        default=True,
        description="true: pictures become videos, and a video that already is a constant-rate MP4 of its "
        "episode is copied bit for bit. `copy` counts one that cannot be copied as missing, `encode` copies "
        "none; false leaves pictures out.",
    )
    on_missing_video: Literal["fail", "drop-feature", "drop-episode"] = Field(
        default="fail",
        description="What to do where a declared video is absent or unusable. A camera without any file is "
        "left out by both `drop-...`.",
    )
    clock: Literal["bag"] = Field(default="bag", description="Topics are aligned by the recorder's stamps.")
    on_mismatch: Literal["separate", "fail", "drop"] = Field(
        default="separate",
        description="Episodes of other features or another rate than the first: a package for each kind, a "
        "failure, or left out.",
    )
    target: Literal["emboflow-canonical/1"] = Field(
        default=CANONICAL_SCHEMA, description="The canonical schema that is written."
    )


def run(context: NodeContext) -> NodeResult:
    """Write the packages in a child process.

    Raises:
        InvalidInputError: No asset gives an episode, their features differ, a video is missing, or the frame
            rate is not known.
        LimitError: Too much memory or time.
    """
    options: NormalizeOptions = context.options
    made = context.child(
        "emboflow_dagster.runtime.normalizing:normalize",
        {
            "assets": recordings(context),
            "forgotten": told_places(context),
            "traces": list(context.traces),
            "out": str(context.workdir / "package"),
            "fps": options.fps,
            "robotType": options.robot_type or _robot_type(context),
            "task": options.task,
            "topics": options.topics,
            "split": options.split.told() if options.split else None,
            "mapping": options.mapping,
            "ratePolicy": options.rate_policy,
            "videos": options.videos,
            "onMissingVideo": options.on_missing_video,
            "onMismatch": {"fail": "raise", "drop": "skip"}.get(options.on_mismatch, options.on_mismatch),
        },
        timeout_s=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    given = tuple(dict.fromkeys(row["id"] for row in made["assets"] if row["episodes"]))
    for row in made["assets"]:
        if not row["episodes"]:
            context.log(f"{row['name']} gives no episode: {'; '.join(row['reasons']) or 'it holds none'}")
    packages = made["packages"]
    summaries = [_summary(package, made) for package in packages]
    # One artifact of one kind is shown as it always was; of several the preview says what they have in all.
    shown = dict(summaries[0])
    if len(packages) > 1:
        shown |= {
            name: sum(summary[name] for summary in summaries) for name in ("episodes", "frames", "bytes")
        }
        shown |= {"assets": len(given), "packages": len(packages)}
        context.log(f"{len(packages)} packages: the episodes are of so many sets of features and rates")
    rows = [_row(row) for row in made["assets"][:MAX_ROWS]]
    kinds = [_kind(summary) for summary in summaries[:MAX_ROWS]]
    title = context.task.artifact_title
    return NodeResult(
        outputs=tuple(
            NodeOutput(
                type=NORMALIZED_DATASET_PACKAGE,
                payload=Path(package["folder"]),
                content_type=LISTING_TYPE,
                title=title if len(packages) == 1 else f"{title or 'package'} {number} of {len(packages)}",
                summary=summary,
            )
            for number, (package, summary) in enumerate(zip(packages, summaries, strict=True), start=1)
        ),
        asset_ids=given,
        preview={**shown, "sources": rows, **({"kinds": kinds} if len(kinds) > 1 else {})},
        page={
            "episodes": shown["episodes"],
            "frames": shown["frames"],
            "seconds": round(sum(package["frames"] / package["fps"] for package in packages), 3),
            "bytes": shown["bytes"],
            "sources": {"table": rows},
            **({"packages": {"table": kinds}} if len(kinds) > 1 else {}),
            "features": {"table": [row for summary in summaries for row in summary["features"]][:MAX_ROWS]},
        },
    )


def _summary(package: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    sync = package["sync"]
    return {
        "schemaVersion": CANONICAL_SCHEMA,
        "episodes": package["episodes"],
        "frames": package["frames"],
        "fps": package["fps"],
        "robotType": made["robotType"],
        "features": [
            _feature(name, spec, sync.get(name)) for name, spec in list(package["features"].items())[:50]
        ],
        "bytes": sum(file["size"] for file in package["files"]),
        "assets": len(package["assets"]),
        "skipped": made["skippedCount"],
    }


def _kind(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "fps": summary["fps"],
        "episodes": summary["episodes"],
        "frames": summary["frames"],
        "assets": summary["assets"],
        "features": short(", ".join(f"{row['feature']} {row['shape']}" for row in summary["features"])),
    }


def _feature(name: str, spec: dict[str, Any], sync: dict[str, float] | None) -> dict[str, Any]:
    row = {
        "feature": short(name),
        "shape": "x".join(str(part) for part in spec["shape"]),
        "kind": spec["kind"],
        "source": short(spec["sourceTopic"] or ""),
    }
    if sync is None:
        return row
    # How old a held sample was on the grid: the sync error.
    return row | {
        "maxAgeMs": round(sync["maxAgeNs"] / 1e6, 3),
        "meanAgeMs": round(sync["meanAgeNs"] / 1e6, 3),
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
        "Brings HDF5 demonstrations, LeRobot and RLDS datasets, the numeric topics of ROS bags and MCAP "
        "recordings, tables, numpy arrays, videos and pictures to canonical packages "
        "(emboflow-canonical/1), one for each set of features and rate, episodes in the order of the assets. "
        "Recordings that a node before made of an asset are read in its place. Assets without episodes are "
        "listed with the reason and not passed on."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=NormalizeOptions,
    run=run,
    makes_episodes=True,
    produces=NORMALIZED_DATASET_PACKAGE,
    sees=frozenset({Sight.REPORT, Sight.RECORDINGS}),
    aliases=("normalise",),
    kinds=("parquet",),
)
