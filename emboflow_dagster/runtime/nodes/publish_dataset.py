"""The `publish-dataset` node: a canonical package becomes the next version of a dataset."""

from typing import Annotated

from pydantic import Field

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem
from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE, Artifact
from emboflow_dagster.model.base import Slug, TypeName
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.text import TAG_PATTERN
from emboflow_dagster.runtime.node import (
    DatasetDraft,
    NodeContext,
    NodeInput,
    NodeOptions,
    NodeResult,
    NodeType,
    Sight,
)
from emboflow_dagster.runtime.nodes._shown import short


class PublishOptions(NodeOptions):
    """Which dataset gets the version."""

    dataset: Slug = Field(description="Name of the dataset; it is created with its first version.")
    type: TypeName = Field(default="canonical", description="Type of the dataset when it is created.")
    tag: Annotated[str, Field(pattern=TAG_PATTERN)] | None = Field(
        default=None, description="Tag of the version, unique in the dataset; null for the next `v<number>`."
    )
    description: Annotated[str, Field(max_length=2_000)] = Field(
        default="", description="What the version is, for its summary."
    )


def run(context: NodeContext) -> NodeResult:
    """Check the package of the one upstream node that has one, and draft the version.

    Raises:
        InvalidInputError: No upstream package, or more than one.
        IntegrityError: The package is damaged.
    """
    options: PublishOptions = context.options
    given, artifact = _package(context)
    folder = given.fetch(artifact)
    made = context.workdir / "version"
    found = context.child("emboflow_dagster.runtime.publishing:version", str(folder), str(made))
    sources = [source["assetId"] for source in found["sourceAssets"]]
    features = [
        {"feature": short(name), "shape": "x".join(map(str, spec["shape"])), "kind": spec["kind"]}
        for name, spec in list(found["features"].items())[:50]
    ]
    stats = found["stats"]
    summary = {
        "description": options.description,
        "robotType": found["robotType"],
        "features": features,
        "tasks": [short(task) for task in found["tasks"]],
        "sourceAssetCount": len(sources),
        "skippedEpisodes": found["skipped"],
        "packageArtifactId": artifact.id,
    }
    context.log(
        f"{options.dataset}: {stats['episodes']} episodes, {stats['frames']} frames of {len(sources)} assets"
    )
    draft = DatasetDraft(
        name=options.dataset,
        type=options.type,
        package=made,
        canonical_schema_version=found["schemaVersion"],
        stats=stats,
        summary=summary,
        tag=options.tag,
        source_asset_id=sources[0] if len(sources) == 1 else None,
    )
    return NodeResult(
        preview={"dataset": options.dataset, "stats": stats, **summary},
        page={**stats, "feature list": {"table": features}},
        dataset=draft,
    )


def _package(context: NodeContext) -> tuple[NodeInput, Artifact]:
    found = [
        (given, artifact)
        for given in context.inputs.values()
        for artifact in given.artifacts
        if artifact.type == NORMALIZED_DATASET_PACKAGE
    ]
    if len(found) != 1:
        nodes = ", ".join(f"{given.node_id} ({artifact.id})" for given, artifact in found) or "none"
        text = f"needs exactly one {NORMALIZED_DATASET_PACKAGE} upstream; found {nodes}"
        raise InvalidInputError.of([Problem(ErrorKind.INPUT_MISSING, context.task.node_id, text)])
    return found[0]


NODE = NodeType(
    id="publish-dataset",
    version="1",
    title="Publish dataset",
    description=(
        "Makes the canonical package of an upstream node the next version of a dataset: manifest, version "
        "and head move together. A package equal to the latest version is no new version."
    ),
    category=CustomNodeCategory.EXPORT,
    options=PublishOptions,
    run=run,
    needs_bytes=False,
    sees=frozenset({Sight.INPUTS}),
    requires_artifact=frozenset({NORMALIZED_DATASET_PACKAGE}),
    aliases=("publish",),
    kinds=("dataset",),
)
