"""The `export-training-config` node: what `lerobot-train` is started with on a delivered version."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.model.artifact import (
    DELIVERY_PACKAGE,
    NORMALIZED_DATASET_PACKAGE,
    TRAINING_CONFIG_PACKAGE,
)
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.delivering import LEROBOT
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Reach, Sight
from emboflow_dagster.runtime.nodes._delivered import (
    VersionOptions,
    deliver,
    exported,
    feature_rows,
    package,
    uncached,
    versions,
)


class TrainingOptions(VersionOptions):
    """What is trained, with what, for how long."""

    trainer: Literal["lerobot"] = Field(default="lerobot", description="The program that trains.")
    policy: Literal[
        "act",
        "diffusion",
        "groot",
        "pi0",
        "pi05",
        "pi0_fast",
        "smolvla",
        "tdmpc",
        "vqbet",
        "wall_x",
        "xvla",
    ] = Field(default="act", description="The policy's type, as LeRobot 0.4.4 calls it.")
    requires: list[str] = Field(
        default_factory=list, description="Features without which no config is written."
    )
    steps: Annotated[int, Field(ge=1, le=100_000_000)] = Field(default=100_000, description="Training steps.")
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(default=8, description="Frames of one step.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=1_000, description="Of the model's start and of the order of frames."
    )
    num_workers: Annotated[int, Field(ge=0, le=256)] = Field(
        default=4, description="Processes that decode frames."
    )
    device: Literal["cpu", "cuda", "mps"] | None = Field(
        default=None, description="Where is trained; null for the best that the machine has."
    )
    dataset_root: Annotated[str, Field(min_length=1, max_length=1_000)] = Field(
        default="dataset", description="Where the delivery package will lie, seen from the config's folder."
    )
    episodes: Annotated[str, Field(max_length=10_000)] | None = Field(
        default=None, description="Places of the episodes to train on, such as `0-9,12`; null for all."
    )
    policy_options: dict[str, Any] = Field(
        default_factory=dict, description="More of LeRobot's options of the policy."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="More of `lerobot-train`'s options, over what is written otherwise."
    )


def run(context: NodeContext) -> NodeResult:
    """Write one config a delivery; where none was delivered before, one is made to look at.

    Raises:
        InvalidInputError: A feature that is required is not there, or nothing can be trained on.
    """
    options: TrainingOptions = context.options
    outputs: list[NodeOutput] = []
    rows: list[dict[str, Any]] = []
    made: dict[str, Any] = {}
    for number, delivery in enumerate(_deliveries(context, options)):
        out = context.workdir / f"training-{number}"
        made = context.child(
            "emboflow_dagster.runtime.delivering:training",
            {
                "delivery": str(delivery),
                "out": str(out),
                "policy": options.policy,
                "requires": options.requires,
                "episodes": options.episodes,
                "settings": {
                    "steps": options.steps,
                    "batchSize": options.batch_size,
                    "seed": options.seed,
                    "numWorkers": options.num_workers,
                    "datasetRoot": options.dataset_root,
                    "device": options.device,
                    "policyOptions": options.policy_options,
                    "options": options.options,
                },
            },
            timeout_s=options.timeout_seconds,
            memory_mb=options.memory_mb,
        )
        context.log(
            f"{options.policy} on {made['episodes']} episodes, {made['frames']} frames of version "
            f"{made['versionSha256']}: {made['command']}"
        )
        summary = {**made, "features": feature_rows(made["features"])}
        outputs.append(package(context, TRAINING_CONFIG_PACKAGE, out, summary))
        shown = ("policy", "episodes", "frames", "files", "bytes", "versionSha256")
        rows.append({key: made[key] for key in shown})
    use = f"```sh\n{made['command']} --dataset.root={options.dataset_root}\n```"
    return exported("configs", outputs, rows, made["features"], use)


def _deliveries(context: NodeContext, options: TrainingOptions) -> list[Path]:
    found = [
        (given, artifact)
        for given in context.inputs.values()
        for artifact in given.artifacts
        if artifact.type == DELIVERY_PACKAGE
    ]
    fitting = [(g, a) for g, a in found if (a.summary or {}).get("format") == LEROBOT]
    if options.dataset is None and found and not fitting:
        there = ", ".join(f"{g.node_id}: {(a.summary or {}).get('format')}" for g, a in found)
        raise InvalidInputError(
            f"{options.trainer} trains on {LEROBOT} deliveries; before this node are {there}",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
    if options.dataset is None and fitting:
        return [given.fetch(artifact) for given, artifact in fitting]
    out: list[Path] = []
    for number, version in enumerate(versions(context, options)):
        folder = context.workdir / f"looked-at-{number}"
        deliver(context, options, version, LEROBOT, folder)
        out.append(folder)
    return out


NODE = NodeType(
    id="export-training-config",
    version="1",
    title="Export training config",
    description=(
        "Writes the config that `lerobot-train` is started with on the LeRobot delivery of the nearest node "
        "before it (or of a version that can be delivered so): the version's hash pinned, the episodes that "
        "the policy will have seen listed, and what the policy needs held against what the data has."
    ),
    category=CustomNodeCategory.EXPORT,
    options=TrainingOptions,
    run=run,
    produces=TRAINING_CONFIG_PACKAGE,
    needs_bytes=False,
    sees=frozenset({Sight.INPUTS, Sight.NAMES}),
    reaches={DELIVERY_PACKAGE: Reach.NEAREST, NORMALIZED_DATASET_PACKAGE: Reach.NEAREST},
    uncached=uncached,
    kinds=("config",),
)
