"""How steps become processes (decision 0007)."""

from collections.abc import Sequence
from typing import Final

import dagster as dg

# Nodes that only read and write metadata: a process each would cost a hundred times their work.
METADATA_NODES: Final = frozenset({"source", "filter", "set-union", "set-intersection", "set-difference"})
# Imported once in the fork server, inherited by every step.
PRELOADED: Final = ("dagster", "emboflow_dagster.orchestration", "emboflow_dagster.project")

FORKED: Final[dg.ExecutorDefinition] = dg.multiprocess_executor.configured(
    {"start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}}, name="emboflow_forkserver"
)


def executor_for(node_types: Sequence[str]) -> dg.ExecutorDefinition:
    """In one process when every node is a short one, else a forked process for each step."""
    short = all(node_type in METADATA_NODES for node_type in node_types)
    return dg.in_process_executor if short else FORKED
