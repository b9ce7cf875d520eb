"""The `export-delivery` node: a version, or reports, as a package that others can use and check."""

from typing import Any, Final, Literal

from pydantic import Field

from emboflow_dagster.model.artifact import (
    DELIVERY_PACKAGE,
    NORMALIZED_DATASET_PACKAGE,
    PREVIEW_BUNDLE,
    QUALITY_REPORT,
)
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.delivering import ANNOTATED, LEROBOT, REPORTS
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Reach, Sight
from emboflow_dagster.runtime.nodes._delivered import (
    VersionOptions,
    deliver,
    exported,
    feature_rows,
    missing,
    package,
    uncached,
    versions,
)
from emboflow_dagster.runtime.nodes._shown import short

#: How the artifact of an annotation node is known: by the start of its ``summary.format``.
ANNOTATIONS: Final = "emboflow-annotations/"
_REPORTS: Final = (QUALITY_REPORT, PREVIEW_BUNDLE)
_USE: Final = {
    LEROBOT: 'LeRobotDataset("emboflow/{name}", root="FOLDER", video_backend="pyav")',
    "rlds": 'tfds.builder_from_directory("FOLDER/{plain}/1.0.0").as_dataset(split="train")',
    "mcap": 'make_reader(open("FOLDER/episodes/episode_000000.mcap", "rb"))',
    "rrd": 'rerun.dataframe.load_recording("FOLDER/episodes/episode_000000.rrd")',
    "canonical": 'pd.read_parquet("FOLDER/frames.parquet")',
    ANNOTATED: 'pd.read_json("FOLDER/annotations.jsonl", lines=True)',
}
Layout = Literal["lerobot-v3.0", "canonical", "canonical+annotations", "rlds", "mcap", "rrd", "reports-only"]


class DeliveryOptions(VersionOptions):
    """What is delivered."""

    format: Layout = Field(
        description="Layout of the package; `mcap` is a recording an episode for viewers and ROS tools, "
        "`rrd` one for Rerun, `reports-only` every quality report and preview made before."
    )


def run(context: NodeContext) -> NodeResult:
    """Write one package a version in a child process, which also checks what it wrote.

    Raises:
        InvalidInputError: Nothing to deliver, or a version that cannot have the layout.
    """
    options: DeliveryOptions = context.options
    if options.format == REPORTS:
        return _reports(context, options)
    more = {"annotations": _annotations(context)} if options.format == ANNOTATED else {}
    outputs: list[NodeOutput] = []
    rows: list[dict[str, Any]] = []
    made: dict[str, Any] = {}
    for number, version in enumerate(versions(context, options)):
        out = context.workdir / f"delivery-{number}"
        made = deliver(context, options, version, options.format, out, **more)
        context.log(
            f"{made['format']}: {made['episodes']} episodes, {made['frames']} frames, {made['files']} files, "
            f"{made['bytes']} bytes, version {made['versionSha256']}"
        )
        summary = {key: value for key, value in made.items() if key != "features"}
        summary["features"] = feature_rows(made["features"])
        outputs.append(package(context, DELIVERY_PACKAGE, out, summary))
        shown = ("format", "episodes", "frames", "files", "bytes", "versionSha256")
        rows.append({key: made[key] for key in shown})
    name = options.name or made.get("name") or "dataset"
    return exported("packages", outputs, rows, made["features"], _use(options.format, name))


def _reports(context: NodeContext, options: DeliveryOptions) -> NodeResult:
    found = [
        {"node": given.node_id, "type": artifact.type, "path": str(given.fetch(artifact))}
        for given in context.inputs.values()
        for artifact in given.artifacts
        if artifact.type in _REPORTS
    ]
    if not found:
        raise missing(context, f"no node before this one made a {' or a '.join(_REPORTS)}")
    out = context.workdir / "delivery-0"
    made = context.child(
        "emboflow_dagster.runtime.delivering:collect",
        {"out": str(out), "artifacts": found},
        timeout_s=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    rows = [{key: short(value) for key, value in row.items()} for row in made["reports"][:100]]
    return NodeResult(
        outputs=(package(context, DELIVERY_PACKAGE, out, made | {"reports": rows}),),
        preview={**made, "reports": rows},
        page={"files": made["files"], "bytes": made["bytes"], "reports": {"table": rows}},
    )


def _annotations(context: NodeContext) -> list[str]:
    """What annotation nodes left."""
    paths: list[str] = []
    for given in context.inputs.values():
        for artifact in given.artifacts:
            if str((artifact.summary or {}).get("format", "")).startswith(ANNOTATIONS):
                place = given.fetch(artifact)
                paths += sorted(map(str, place.rglob("*.json*"))) if place.is_dir() else [str(place)]
    if not paths:
        raise missing(context, "no node before this one left annotations")
    return paths


def _use(form: str, name: str) -> str:
    code = _USE[form].format(name=name, plain=name.replace("-", "_"))
    return (
        "```sh\nemboflow artifact get ARTIFACT --output FOLDER\n"
        f"cd FOLDER && sha256sum --check --quiet SHA256SUMS\n```\n```python\n{code}\n```"
    )


NODE = NodeType(
    id="export-delivery",
    version="1",
    title="Export delivery",
    description=(
        "Writes the canonical package of the nearest node before it that made one, or a published version, "
        "in the layout that is asked for: README, checksums, the version's hashes and the source of every "
        "episode inside, the same bytes every time. `canonical+annotations` takes what an annotation node "
        "left."
    ),
    category=CustomNodeCategory.EXPORT,
    options=DeliveryOptions,
    run=run,
    produces=DELIVERY_PACKAGE,
    needs_bytes=False,
    sees=frozenset({Sight.INPUTS, Sight.NAMES}),
    reaches={
        NORMALIZED_DATASET_PACKAGE: Reach.NEAREST,
        QUALITY_REPORT: Reach.ALL,
        PREVIEW_BUNDLE: Reach.ALL,
    },
    uncached=uncached,
    kinds=("package",),
)
