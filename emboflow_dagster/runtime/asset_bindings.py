"""Which assets each source of a workflow works on: the defaults that a file gives, and what a run is given.

A file says ``assetBindings: {left: [pick-01], right: ["type=rosbag"]}``; kept among the defaults of the
version's runtime graph. They say on what a run is requested, not what it does, so they are no part of the
execution digest. What a run really binds is frozen in its source tasks (``runtime.plan``).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.workflow import WorkflowDefinitionVersion
from emboflow_dagster.runtime.file_parts import FileNode
from emboflow_dagster.runtime.registry import NodeTypes, nearest
from emboflow_dagster.runtime.selector import is_selector, parse_selector

BINDINGS: Final = "assetBindings"
MAX_NAMES: Final = 1_000
MAX_NAME_CHARS: Final = 200


def check_bindings(
    raw: object, path: str, nodes: Sequence[FileNode], types: NodeTypes
) -> tuple[dict[str, list[str]], list[Problem]]:
    """The bindings of a file, or all that is wrong with them; no asset is looked for."""
    if raw is None:
        return {}, []
    if not isinstance(raw, Mapping):
        text = f"found {shown(raw)}; a mapping of source nodes to lists of assets is needed"
        return {}, [Problem(ErrorKind.GRAPH_SHAPE, path, text)]
    type_of = {node.id: types.get(node.type) for node in nodes if isinstance(node.id, str)}
    sources = [node_id for node_id, found in type_of.items() if found is not None and found.source]
    problems: list[Problem] = []
    for node_id, names in raw.items():
        where = f"{path}.{node_id}"
        if node_id not in type_of:
            near = nearest(node_id, sources)
            hint = f"; did you mean {near!r}?" if near else ""
            problems.append(
                Problem(ErrorKind.GRAPH_FIELD, path, f"no node has the id {shown(node_id)}{hint}")
            )
        elif node_id not in sources:
            text = f"only a source binds assets; {node_id!r} works on those of the nodes before it"
            problems.append(Problem(ErrorKind.GRAPH_FIELD, where, text))
        problems += _check_names(names, where)
    return ({} if problems else {node_id: list(names) for node_id, names in raw.items()}), problems


def _check_names(names: object, path: str) -> list[Problem]:
    if not isinstance(names, list) or not 0 < len(names) <= MAX_NAMES:
        found = f"{len(names)} of them" if isinstance(names, list) else shown(names)
        text = f"found {found}; a list of 1 to {MAX_NAMES} asset ids, names or selectors is needed"
        return [Problem(ErrorKind.GRAPH_SHAPE, path, text)]
    problems: list[Problem] = []
    for i, name in enumerate(names):
        where = f"{path}[{i}]"
        if isinstance(name, str) and is_selector(name):
            try:
                parse_selector(name, where)
            except InvalidInputError as error:
                problems += error.problems
        elif not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
            text = f"found {shown(name)}; the id or name of an asset, or a selector, is needed"
            problems.append(Problem(ErrorKind.GRAPH_SHAPE, where, text))
    return problems


def of_version(version: WorkflowDefinitionVersion) -> dict[str, list[str]]:
    """Source node to the assets that it takes when a run names none; empty where the file gave none."""
    found: dict[str, list[str]] = version.runtime_graph.defaults.get(BINDINGS) or {}
    return {node_id: list(names) for node_id, names in found.items()}
