"""What differs between what a run was frozen with and a version of its workflow, node by node."""

from typing import NamedTuple

from emboflow_dagster.errors import shown
from emboflow_dagster.model.run import RuntimeSnapshot
from emboflow_dagster.model.workflow import LogicEdge, NodeConfig, WorkflowDefinitionVersion


class Change(NamedTuple):
    """One node that differs: ``added``, ``removed`` or ``changed``, and how."""

    node_id: str
    change: str
    detail: str


def compare(snapshot: RuntimeSnapshot, version: WorkflowDefinitionVersion) -> list[Change]:
    """The nodes that a run of ``version`` would execute differently, in graph order; those gone come last."""
    types = {node.id: node.type for node in version.logic_graph.nodes}
    before, after = _upstream(snapshot.edges), version.logic_graph.upstream()
    changes = []
    for node_id, kind in types.items():
        if node_id not in snapshot.node_types:
            changes.append(Change(node_id, "added", kind))
            continue
        old = snapshot.runtime_graph.node_configs.get(node_id, NodeConfig())
        details = [
            *_one("type", snapshot.node_types[node_id], kind),
            *_one("after", before.get(node_id, []), after[node_id]),
            *_config(old, version.node(node_id)[1]),
        ]
        if details:
            changes.append(Change(node_id, "changed", "; ".join(details)))
    gone = [node_id for node_id in snapshot.node_types if node_id not in types]
    return [*changes, *(Change(node_id, "removed", snapshot.node_types[node_id]) for node_id in gone)]


def _config(old: NodeConfig, new: NodeConfig) -> list[str]:
    was, now = old.to_mongo(), new.to_mongo()
    found = [text for name in now for text in _one(name, was.get(name), now[name]) if name not in _WHOLE]
    keys = dict.fromkeys([*old.config, *new.config])
    found += [text for key in keys for text in _one(key, old.config.get(key), new.config.get(key))]
    if was.get("codeHook") != now.get("codeHook"):
        found.append("codeHook changed")
    return found


_WHOLE = ("config", "codeHook", "title")


def _one(name: str, old: object, new: object) -> list[str]:
    return [] if old == new else [f"{name}: {shown(old, 40)} -> {shown(new, 40)}"]


def _upstream(edges: list[LogicEdge]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for edge in edges:
        found.setdefault(edge.to, []).append(edge.from_)
    return found
