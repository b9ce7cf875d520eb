"""What a graph must be, whatever its nodes are set to: ids, types, edges, cycles, reach, artifact types.

Every rule looks at everything it can still judge, so that one run finds all problems.
"""

import re
from collections.abc import Sequence

from emboflow_dagster.errors import ErrorKind, Problem, shown
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.text import to_slug
from emboflow_dagster.model.workflow import NODE_ID_PATTERN
from emboflow_dagster.runtime.file_parts import FileEdge, FileNode
from emboflow_dagster.runtime.graph import Graph, shown_path
from emboflow_dagster.runtime.node import NodeType
from emboflow_dagster.runtime.registry import NodeTypes, nearest

MAX_NODE_ID_CHARS = 63


def check_structure(nodes: Sequence[FileNode], edges: Sequence[FileEdge], types: NodeTypes) -> list[Problem]:
    """All that is wrong with a graph, in the order of the file: nodes, edges, then the whole."""
    rules = _Rules(nodes, edges, types)
    rules.check_nodes()
    rules.check_ends()
    rules.check_cycles()
    rules.check_meaning()
    rules.check_reach()
    rules.check_needs()
    return rules.problems


def produced(node: FileNode, node_type: NodeType) -> str | None:
    """The artifact type a node leaves: its ``artifactType``, else what its type produces."""
    override = node.settings.get("artifactType")
    if isinstance(override, str):
        return override
    return INTERMEDIATE_TASK_OUTPUT if node_type.code_hook else node_type.produces


class _Rules:
    def __init__(self, nodes: Sequence[FileNode], edges: Sequence[FileEdge], types: NodeTypes) -> None:
        self.nodes = nodes
        self.edges = edges
        self.types = types
        self.problems: list[Problem] = []
        self.by_id: dict[str, FileNode] = {}
        for node in nodes:
            if isinstance(node.id, str):
                self.by_id.setdefault(node.id, node)
        self.type_of: dict[str, NodeType] = {}
        for node_id, node in self.by_id.items():
            node_type = types.get(node.type)
            if node_type is not None:
                self.type_of[node_id] = node_type
        between = [(e.source, e.target) for e in edges if e.source != e.target]
        self.graph = Graph(list(self.by_id), between)

    def add(self, kind: ErrorKind, path: str, message: str) -> None:
        self.problems.append(Problem(kind, path, message))

    def check_nodes(self) -> None:
        first: dict[str, FileNode] = {}
        for node in self.nodes:
            if isinstance(node.id, str):
                other = first.setdefault(node.id.casefold(), node)
                if other is not node:
                    self.add(ErrorKind.NODE_DUPLICATE, node.path, f"the id is taken by {other.path}")
            self.check_id(node)
            if node.type is None:
                self.add(ErrorKind.NODE_TYPE, node.path, "has no type")
            elif self.types.get(node.type) is None:
                self.add(ErrorKind.NODE_TYPE, node.own("type"), self.types.unknown(node.type))

    def check_id(self, node: FileNode) -> None:
        if node.id is None:
            return  # said when the file was taken apart
        if not isinstance(node.id, str):
            self.add(ErrorKind.NODE_ID, node.own("id"), f"found {shown(node.id)}; a node id is a text")
        elif len(node.id) > MAX_NODE_ID_CHARS or not re.fullmatch(NODE_ID_PATTERN[1:-1], node.id):
            near = to_slug(node.id[:MAX_NODE_ID_CHARS], "node")
            self.add(
                ErrorKind.NODE_ID,
                node.own("id"),
                f"found {shown(node.id)}; allowed are words of a-z 0-9 joined by single '-', "
                f"at most {MAX_NODE_ID_CHARS} characters, such as {near!r}",
            )

    def check_ends(self) -> None:
        seen: dict[tuple[str, str], FileEdge] = {}
        for edge in self.edges:
            for end in dict.fromkeys((edge.source, edge.target)):
                if end not in self.by_id:
                    near = nearest(end, self.by_id)
                    hint = f"; did you mean {near!r}?" if near else ""
                    self.add(ErrorKind.EDGE_DANGLING, edge.path, f"no node has the id {shown(end)}{hint}")
            if edge.source == edge.target and edge.source in self.by_id:
                self.add(ErrorKind.EDGE_SELF, edge.path, f"{edge.source!r} cannot run after itself")
            other = seen.setdefault((edge.source, edge.target), edge)
            if other is not edge:
                self.add(ErrorKind.EDGE_DUPLICATE, edge.path, f"the same edge as {other.path}")

    def check_cycles(self) -> None:
        for cycle in self.graph.cycles():
            self.add(
                ErrorKind.GRAPH_CYCLE,
                self.by_id[cycle[0]].path,
                f"waits for itself: {shown_path(cycle)}",
            )

    def check_meaning(self) -> None:
        for edge in self.edges:
            source, target = self.by_id.get(edge.source), self.by_id.get(edge.target)
            if source is None or target is None or source is target:
                continue
            above, below = self.type_of.get(edge.source), self.type_of.get(edge.target)
            if above is not None and above.sink:
                self.add(
                    ErrorKind.EDGE_FROM_SINK,
                    edge.path,
                    f"{edge.source!r} ({above.id}) is an end: nothing runs after it",
                )
            if below is not None and below.source:
                self.add(
                    ErrorKind.EDGE_TO_SOURCE,
                    edge.path,
                    f"{edge.target!r} ({below.id}) is a beginning: it runs after nothing",
                )
            if above is None or below is None or below.accepts is None:
                continue
            given = produced(source, above)
            if given is not None and given not in below.accepts:
                takes = ", ".join(sorted(below.accepts)) or "no artifact"
                self.add(
                    ErrorKind.EDGE_TYPE_MISMATCH,
                    edge.path,
                    f"{edge.source!r} ({above.id}) produces {given}; "
                    f"{edge.target!r} ({below.id}) takes {takes}",
                )

    def check_reach(self) -> None:
        targets = {edge.target for edge in self.edges}
        for node_id, node_type in self.type_of.items():
            if not node_type.source and node_id not in targets:
                sources = ", ".join(t.id for t in self.types if t.source)
                self.add(
                    ErrorKind.NODE_UNREACHABLE,
                    self.by_id[node_id].path,
                    f"runs after nothing, so no asset reaches it; paths begin at a node of type {sources}",
                )

    def check_needs(self) -> None:
        for node_id, node_type in self.type_of.items():
            before = self.graph.before[node_id]
            if not node_type.requires_artifact or not before or any(b not in self.type_of for b in before):
                continue
            given = {b: produced(self.by_id[b], self.type_of[b]) for b in before}
            if node_type.requires_artifact.isdisjoint(filter(None, given.values())):
                found = ", ".join(f"{b!r} producing {what or 'no artifact'}" for b, what in given.items())
                makers = [t.id for t in self.types if t.produces in node_type.requires_artifact]
                hint = f"; node types that produce it: {', '.join(makers)}" if makers else ""
                self.add(
                    ErrorKind.EDGE_TYPE_MISMATCH,
                    self.by_id[node_id].path,
                    f"{node_type.id} needs {' or '.join(sorted(node_type.requires_artifact))} "
                    f"from a node it directly runs after; found {found}{hint}",
                )
