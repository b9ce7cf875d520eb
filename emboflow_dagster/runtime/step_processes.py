"""The workflow file's ``steps``: whether the nodes of one workflow share a process or have one each.

Kept in ``runtimeGraph.defaults``: it changes no result, but it is how a run executes.
"""

from collections.abc import Mapping
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, Problem, shown
from emboflow_dagster.model.workflow import RuntimeGraph

STEPS: Final = "steps"
IN_PROCESS: Final = "in-process"
MULTIPROCESS: Final = "multiprocess"


def check_steps(defaults: object) -> list[Problem]:
    """What is wrong with ``steps``; nothing when it is absent."""
    if not isinstance(defaults, Mapping) or STEPS not in defaults:
        return []
    found = defaults[STEPS]
    if found in (IN_PROCESS, MULTIPROCESS):
        return []
    message = f"found {shown(found)}; allowed are {IN_PROCESS} and {MULTIPROCESS}"
    return [Problem(ErrorKind.GRAPH_SHAPE, STEPS, message)]


def steps_of(runtime: RuntimeGraph) -> dict[str, Any]:
    """What a workflow says of it, for the catalog; empty when it says nothing."""
    said = runtime.defaults.get(STEPS)
    return {STEPS: said} if said in (IN_PROCESS, MULTIPROCESS) else {}
