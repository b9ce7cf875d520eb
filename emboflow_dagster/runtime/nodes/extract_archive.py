"""The `extract-archive` node: archives become folders that later nodes read."""

import shutil
from typing import Annotated, Any, Literal

from pydantic import Field

from emboflow_dagster.errors import ErrorKind, ExecutionError
from emboflow_dagster.formats.archives.members import MAX_RATIO
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.derived import Derived
from emboflow_dagster.runtime.in_child import each
from emboflow_dagster.runtime.node import NodeContext, NodeResult, NodeType
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short


class ExtractOptions(ChildOptions):
    """How much may come out of one archive, and what it may hold."""

    max_bytes: Annotated[int, Field(ge=1, le=1 << 44)] = Field(
        default=10 << 30, description="Bytes that one archive may unpack to."
    )
    max_members: Annotated[int, Field(ge=1, le=500_000)] = Field(
        default=100_000, description="Files, folders and links that one archive may hold."
    )
    max_ratio: Annotated[float, Field(gt=1, le=MAX_RATIO)] = Field(
        default=MAX_RATIO, description="Bytes that may come out for each byte of an archive above 1 MiB."
    )
    links: Literal["reject", "skip"] = Field(
        default="reject", description="What a link in an archive does: refuse the archive, or be left out."
    )
    nested: bool = Field(
        default=True,
        description="Whether archives directly inside are unpacked too; what is inside those is not.",
    )
    on_rejected: Literal["drop", "fail"] = Field(
        default="drop",
        description="An archive that is refused is not passed on, or fails the task. None left always fails.",
    )


def run(context: NodeContext) -> NodeResult:
    """Unpack each archive in a child process into an entry of one bundle.

    Raises:
        ExecutionError: No archive could be unpacked, or one was refused and ``onRejected`` is ``fail``.
    """
    options: ExtractOptions = context.options
    bundle = context.workdir / "unpacked"
    bundle.mkdir()
    bounds = {
        "maxBytes": options.max_bytes,
        "maxMembers": options.max_members,
        "maxRatio": options.max_ratio,
        "links": options.links,
        "nested": options.nested,
    }
    done = each(
        context.child,
        "extract_archive",
        [
            [str(bound.path), str(bundle / f"{number:03d}"), bounds]
            for number, bound in enumerate(context.assets)
        ],
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    made: list[Derived] = []
    rows: list[dict[str, Any]] = []
    for number, (bound, result) in enumerate(zip(context.assets, done, strict=True)):
        if isinstance(result, ExecutionError):
            # A child that was killed cleans nothing up.
            shutil.rmtree(bundle / f"{number:03d}", ignore_errors=True)
            context.log(f"refused {bound.name}: {result.message}")
            rows.append({"name": short(bound.name), "files": 0, "bytes": 0, "refused": short(result.message)})
            continue
        for reason in result["leftOut"]:
            context.log(f"{bound.name}: left out {reason}")
        context.log(f"{bound.name}: {result['files']} files, {result['bytes']} bytes, {result['format']}")
        sha256 = bound.asset.storage_ref.sha256
        made.append(Derived(bound.id, sha256, bound.name, result["path"], result["format"]))
        rows.append(
            {"name": short(bound.name), **{k: result[k] for k in ("files", "bytes", "archives", "format")}}
        )
    refused = [row for row in rows if "refused" in row]
    if not made or (refused and options.on_rejected == "fail"):
        some = "; ".join(f"{row['name']}: {row['refused']}" for row in refused[:3])
        raise ExecutionError(f"{len(refused)} archives were refused: {some}", kind=ErrorKind.NODE_FAILED)
    totals = {
        "archives": len(made),
        "refused": len(refused),
        **{name: sum(row[name] for row in rows) for name in ("files", "bytes")},
    }
    kept = {recording.asset_id for recording in made}
    return NodeResult(
        outputs=(derived.output(bundle, made, title=context.task.artifact_title),),
        asset_ids=tuple(bound.id for bound in context.assets if bound.id in kept),
        preview={**totals, "rows": rows[:MAX_ROWS]},
        page={**totals, "contents": {"table": rows[:MAX_ROWS]}},
    )


NODE = NodeType(
    id="extract-archive",
    version="1",
    title="Extract archive",
    description=(
        "Unpacks zip, 7z and (compressed) tar archives, gzip, bzip2, xz and zstd files in a child process, "
        "within bounds of bytes, members and ratio. An archive with a link, a special file or a name that "
        "leads elsewhere is refused whole. The nodes after it read what came out."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=ExtractOptions,
    run=run,
    produces=INTERMEDIATE_TASK_OUTPUT,
    sees=frozenset(),
    aliases=("extract",),
    kinds=("archive",),
)
