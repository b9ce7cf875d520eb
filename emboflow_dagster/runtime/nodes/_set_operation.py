"""What union, intersection and difference share.

The narrowing itself happens when the task is promoted (``runtime.narrowing``), from the effective sets of
the upstream nodes; running one of these only reports what came in and what is left.
"""

from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.node import Narrowing, NodeContext, NodeOptions, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, asset_row


class SetOptions(NodeOptions):
    """Set operations have no options: the order of ``after`` says it all."""


def run(context: NodeContext) -> NodeResult:
    """Report the sizes of the sets that came in and of the one that goes out."""
    sets = [{"node": node_id, "assets": len(given.asset_ids)} for node_id, given in context.inputs.items()]
    rows = [asset_row(bound) for bound in context.assets[:MAX_ROWS]]
    sizes = ", ".join(f"{row['node']}: {row['assets']}" for row in sets)
    context.log(f"{context.task.node_type} of {sizes} gives {len(context.assets)} assets")
    return NodeResult(
        preview={"inputs": sets, "assetCount": len(context.assets), "assets": rows},
        page={"assets": len(context.assets), "inputs": {"table": sets}, "result": {"table": rows}},
        outcome="done" if context.assets else "empty",
    )


def set_node(narrowing: Narrowing, description: str, *aliases: str) -> NodeType:
    """The node type of one set operation."""
    return NodeType(
        id=f"set-{narrowing.value}",
        version="1",
        title=f"Set {narrowing.value}",
        description=description,
        category=CustomNodeCategory.UTILITY,
        options=SetOptions,
        run=run,
        narrowing=narrowing,
        needs_bytes=False,
        runs_on_empty=True,
        sees=frozenset({Sight.NAMES}),
        aliases=aliases,
        kinds=("set",),
    )
