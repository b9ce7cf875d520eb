"""The spelling of EmboFlow's own exports: nodes listed twice, by what follows what and by how each runs.

::

    slug, name, description
    logicGraph    {nodes: [{nodeId, nodeType}], edges: [{source, target}]}
    runtimeGraph  {nodes: [{nodeId, nodeType, nodeDefinitionId: "filter@1", executorType, executorConfig,
                            title, artifactType, codeHookSpec: {entrypoint, source, timeoutSeconds}}]}
    visualGraph   where an editor draws the nodes
    assetBindings {source node: [asset names]}
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, shown
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.runtime.asset_bindings import BINDINGS
from emboflow_dagster.runtime.file_parts import FileEdge, FileNode, Reader, WorkflowFile

FIELDS: Final = ("slug", "name", "description", "logicGraph", "runtimeGraph", "visualGraph", BINDINGS)
#: A node's settings as they are called elsewhere, to how they are spelt here.
_SPELT: Final = {
    "definitionId": "nodeDefinitionId",
    "executor": "executorType",
    "config": "executorConfig",
    "title": "title",
    "artifactType": "artifactType",
    "codeHook": "codeHookSpec",
    "cache": "cache",
    "retries": "retries",
}
_NAMES: Final = {"id": "nodeId", "type": "nodeType", "image": "executorConfig.image", **_SPELT}
_WORDS: Final = re.compile(r"[a-z0-9]+( [a-z0-9]+)+")


def is_listed(raw: Mapping[str, Any]) -> bool:
    """Whether a workflow is spelt this way: nodes that have a ``nodeId``, or a list of how they run."""
    logic, runtime = raw.get("logicGraph"), raw.get("runtimeGraph")
    if not isinstance(logic, dict):
        return False
    nodes = logic.get("nodes")
    return (isinstance(runtime, dict) and "nodes" in runtime) or (
        isinstance(nodes, list) and any(isinstance(node, dict) and "nodeId" in node for node in nodes)
    )


def listed(raw: Mapping[str, Any], reader: Reader) -> WorkflowFile | None:
    """The parts of a workflow in this spelling; ``None`` when there is nothing that could be judged."""
    logic = raw["logicGraph"]
    reader.unknown(logic, "logicGraph", ("nodes", "edges"))
    arrows = reader.rows(logic, "edges", "logicGraph", required=False)
    rows = reader.rows(logic, "nodes", "logicGraph")
    if rows is None or arrows is None:
        return None
    runtime = reader.mapping(raw, "runtimeGraph", "")
    reader.unknown(runtime, "runtimeGraph", ("nodes", "defaults", "schedule"))
    nodes = [_node(row, f"logicGraph.nodes[{i}]", reader) for i, row in enumerate(rows)]
    settings = _settings(runtime, {node.id: node for node in nodes if node and _named(node.id)}, reader)
    edges: list[FileEdge | None] = [
        reader.arrow(row, f"logicGraph.edges[{i}]", ("source", "target")) for i, row in enumerate(arrows)
    ]
    return WorkflowFile(
        slug=raw.get("slug"),
        name=raw.get("name"),
        description=raw.get("description"),
        nodes=tuple(settings.get(node.id, node) if _named(node.id) else node for node in nodes if node),
        edges=tuple(edge for edge in edges if edge),
        defaults=runtime.get("defaults"),
        schedule=runtime.get("schedule"),
        schedule_path="runtimeGraph.schedule",
        layout=raw.get("visualGraph"),
        layout_path="visualGraph",
        bindings=raw.get(BINDINGS),
    )


def _named(node_id: object) -> bool:
    return isinstance(node_id, str)


def _node(raw: object, path: str, reader: Reader) -> FileNode | None:
    if not isinstance(raw, dict):
        reader.add(ErrorKind.NODE_ID, path, f"found {shown(raw)}; a node has a nodeId and a nodeType")
        return None
    node_id = raw.get("nodeId")
    if isinstance(node_id, str):
        path = f"{path} ({shown(node_id, 70)[1:-1]})"
    reader.unknown(raw, path, ("nodeId", "nodeType"))
    if node_id is None:
        reader.add(ErrorKind.NODE_ID, path, "has no nodeId")
    return FileNode(path, node_id, raw.get("nodeType"), {}, path, _NAMES)


def _settings(runtime: dict[str, Any], nodes: Mapping[str, FileNode], reader: Reader) -> dict[str, FileNode]:
    """Node id to the node with its settings, for those that have an entry in ``runtimeGraph.nodes``."""
    rows = reader.rows(runtime, "nodes", "runtimeGraph", required=False) or []
    found: dict[str, FileNode] = {}
    for i, row in enumerate(rows):
        path = f"runtimeGraph.nodes[{i}]"
        if not isinstance(row, dict):
            reader.add(ErrorKind.NODE_CONFIG, path, f"found {shown(row)}; a mapping is needed")
            continue
        reader.unknown(row, path, ("nodeId", "nodeType", *_SPELT.values()))
        node_id = row.get("nodeId")
        node = nodes.get(node_id) if isinstance(node_id, str) else None
        if node is None:
            text = f"found {shown(node_id)}; the nodeId of a node of logicGraph is needed"
            reader.add(ErrorKind.NODE_ID, f"{path}.nodeId", text)
            continue
        path = f"{path} ({shown(node_id, 70)[1:-1]})"
        if node_id in found:
            text = f"the settings of {shown(node_id)} stand at {found[node.id].settings_path} already"
            reader.add(ErrorKind.NODE_DUPLICATE, path, text)
            continue
        if row.get("nodeType", node.type) != node.type:
            text = f"found {shown(row['nodeType'])}; logicGraph says {shown(node.type)}"
            reader.add(ErrorKind.NODE_TYPE, f"{path}.nodeType", text)
        found[node.id] = FileNode(node.path, node.id, node.type, _of(row, path, reader), path, _NAMES)
    return found


def _of(row: dict[str, Any], path: str, reader: Reader) -> dict[str, Any]:
    """One node's settings under the names that they have elsewhere."""
    settings = {name: row[spelt] for name, spelt in _SPELT.items() if spelt in row}
    words = settings.get("artifactType")
    if isinstance(words, str) and _WORDS.fullmatch(words):
        settings["artifactType"] = words.replace(" ", "_")
    config = settings.get("config")
    if isinstance(config, dict) and settings.get("executor") == ExecutorType.DOCKER.value:
        settings["config"] = {key: value for key, value in config.items() if key != "image"}
        settings["image"] = config.get("image")
    hook = settings.get("codeHook")
    if isinstance(hook, dict) and "timeoutSeconds" in hook:
        settings["codeHook"] = {key: value for key, value in hook.items() if key != "timeoutSeconds"}
        settings["config"] = _limited(settings.get("config"), hook["timeoutSeconds"], path, reader)
    return settings


def _limited(config: Any, seconds: object, path: str, reader: Reader) -> Any:
    """A hook's configuration with the time that its hook may take."""
    where = f"{path}.codeHookSpec.timeoutSeconds"
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds > 0:
        text = f"found {shown(seconds)}; a number of seconds above 0 is needed"
        reader.add(ErrorKind.NODE_CODE_HOOK, where, text)
        return config
    if config is not None and not isinstance(config, dict):
        return config
    given = config or {}
    limits = given.get("limits", {})
    if "timeoutSeconds" in given or (isinstance(limits, dict) and "timeoutSeconds" in limits):
        text = "the time limit stands in executorConfig too"
        reader.add(ErrorKind.NODE_CODE_HOOK, where, text)
        return config
    return {**given, "timeoutSeconds": seconds}
