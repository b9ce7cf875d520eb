"""The `transform` node: LeRobot trees are repaired, and handed on in the place of their assets."""

from typing import Annotated, Any, Literal

from pydantic import Field

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.node import NodeContext, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._recordings import recordings
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short
from emboflow_dagster.runtime.transforming import MADE

Feature = Annotated[str, Field(min_length=1, max_length=200)]
Dtype = Literal["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"]
Template = Annotated[str, Field(min_length=1, max_length=300)]


class TransformOptions(ChildOptions):
    """What is repaired; what is not named stays as it is."""

    drop_features: Annotated[list[Feature], Field(max_length=1_000)] = Field(
        default_factory=list, description="Features to leave out, with their columns and videos."
    )
    set_data_path: Template | None = Field(
        default=None,
        description="Template of the data files, with `{episode_chunk:03d}` and `{episode_index:06d}`; null "
        "keeps the dataset's where it resolves, else it becomes the usual one.",
    )
    set_video_path: Template | None = Field(
        default=None, description="The same of videos, with `{video_key}` too."
    )
    add_columns: list[Literal["timestamp", "frame_index", "episode_index", "index", "task_index"]] = Field(
        default_factory=list, description="Columns to make where they are absent."
    )
    timestamps: Literal["frame_index/fps"] | None = Field(
        default=None, description="`frame_index/fps` puts every stamp on the grid; null keeps them."
    )
    cast: dict[Feature, Dtype] = Field(
        default_factory=dict, description="Feature to dtype: `float32`, `int64`, `bool` and so on."
    )
    rename: dict[Feature, Feature] = Field(
        default_factory=dict, description="Feature to its new name; the other options use the old one."
    )


def run(context: NodeContext) -> NodeResult:
    """Write a repaired tree of every recording in a child process, and look into it.

    Raises:
        InvalidInputError: A recording is no LeRobot dataset 2.0 or 2.1, or no recording has a feature of that
            name.
        ExecutionError: A warning that was to be repaired is still there.
    """
    options: TransformOptions = context.options
    given = recordings(context)
    folder = context.workdir / "repaired"
    folder.mkdir()
    wishes: dict[str, Any] = {
        "drop": options.drop_features,
        "data_path": options.set_data_path,
        "video_path": options.set_video_path,
        "add": options.add_columns,
        "grid_timestamps": options.timestamps is not None,
        "cast": options.cast,
        "rename": options.rename,
    }
    made = context.child(
        "emboflow_dagster.runtime.transforming:transform",
        {"recordings": given, "out": str(folder), "repair": wishes},
        timeout_s=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    unknown = set.intersection(*(set(row["unknown"]) for row in made)) if made else set[str]()
    if unknown:
        raise InvalidInputError(f"no recording has a feature named {', '.join(sorted(unknown))}")
    left = [
        derived.Derived(recording["id"], recording["sha256"], recording["name"], row["path"], MADE)
        for recording, row in zip(given, made, strict=True)
    ]
    rows = [
        {
            "name": short(recording["name"]),
            "episodes": row["episodes"],
            "frames": row["frames"],
            "videos": row["videos"],
            "repaired": short(", ".join(row["repaired"])),
            "warnings left": short(", ".join(row["left"])),
        }
        for recording, row in zip(given, made, strict=True)
    ]
    totals = {name: sum(row[name] for row in made) for name in ("episodes", "frames", "videos")}
    return NodeResult(
        outputs=(derived.output(folder, left, title=context.task.artifact_title),),
        preview={"recordings": len(made), **totals, "rows": rows[:MAX_ROWS]},
        page={"recordings": len(made), **totals, "repairs": {"table": rows[:MAX_ROWS]}},
    )


NODE = NodeType(
    id="transform",
    version="1",
    title="Transform",
    description=(
        "Repairs LeRobot datasets 2.0 and 2.1: features, path templates, index columns, stamps, types. Each "
        "becomes a whole 2.1 tree in which videos keep their bytes; it is probed, and a warning that was to "
        "be repaired and is still there fails the task. The nodes after it read these in place of the assets."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=TransformOptions,
    run=run,
    produces=INTERMEDIATE_TASK_OUTPUT,
    sees=frozenset({Sight.REPORT, Sight.RECORDINGS}),
    kinds=("parquet",),
)
