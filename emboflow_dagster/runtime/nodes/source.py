"""The `source` node: which of the run's assets the workflow works on."""

from collections import Counter
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from emboflow_dagster.model.asset import AssetStatus, AssetType
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.node import BoundAsset, NodeContext, NodeOptions, NodeResult, NodeType
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, asset_row, counted

Pattern = Annotated[str, Field(min_length=1, max_length=300)]


class SourceOptions(NodeOptions):
    """Narrows the run's assets; an empty list narrows nothing."""

    types: Annotated[list[AssetType], Field(max_length=8)] = Field(
        default_factory=list, description="Asset types to take."
    )
    names: Annotated[list[Pattern], Field(max_length=1000)] = Field(
        default_factory=list,
        description="Asset ids, display names, or patterns of names with `*`, `?`, `[...]`, case-sensitive.",
    )
    statuses: Annotated[list[AssetStatus], Field(max_length=5)] = Field(
        default_factory=list, description="Asset statuses to take; archived assets only when named here."
    )


def takes(options: SourceOptions, bound: BoundAsset) -> bool:
    """Whether an asset of the run belongs to this source."""
    asset = bound.asset
    if options.types and asset.type not in options.types:
        return False
    statuses = options.statuses or [status for status in AssetStatus if status is not AssetStatus.ARCHIVED]
    if asset.status not in statuses:
        return False
    return not options.names or any(
        pattern in (asset.id, asset.display_name) or fnmatchcase(asset.display_name, pattern)
        for pattern in options.names
    )


def run(context: NodeContext) -> NodeResult:
    """Pass on the assets that the options take, in the run's order."""
    kept = [bound for bound in context.assets if takes(context.options, bound)]
    context.log(f"{len(kept)} of {len(context.assets)} assets of the run")
    for pattern in context.options.names:
        only = SourceOptions(names=[pattern], statuses=list(AssetStatus))
        if not any(takes(only, bound) for bound in context.assets):
            context.log(f"no asset of the run is named {pattern!r}")
    rows = [asset_row(bound) for bound in kept[:MAX_ROWS]]
    size = sum(bound.asset.size_bytes for bound in kept)
    types = counted(Counter(bound.asset.type.value for bound in kept), "type")
    return NodeResult(
        asset_ids=tuple(bound.id for bound in kept),
        preview={"assetCount": len(kept), "sizeBytes": size, "types": types, "assets": rows},
        page={"assets": len(kept), "bytes": size, "bound assets": {"table": rows}},
        outcome="done" if kept else "empty",
    )


NODE = NodeType(
    id="source",
    version="1",
    title="Source",
    description="Binds the run's assets; `types`, `names` and `statuses` narrow them.",
    category=CustomNodeCategory.SOURCE,
    options=SourceOptions,
    run=run,
    source=True,
    needs_bytes=False,
    runs_on_empty=True,
    sees=frozenset(),
    uncached=lambda options: "`statuses` look at what changes with time" if options.statuses else None,
    aliases=("source-asset",),
    kinds=("source",),
)
