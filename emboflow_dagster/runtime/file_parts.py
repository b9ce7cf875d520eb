"""The parts of a workflow file, each with the place where it stood, and how they are taken out of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, Problem, shown
from emboflow_dagster.model.workflow import MAX_EDGES, MAX_NODES
from emboflow_dagster.runtime.registry import nearest

NODE_SETTINGS: Final = (
    "title",
    "config",
    "executor",
    "image",
    "codeHook",
    "artifactType",
    "cache",
    "retries",
)
_PORTS: Final = frozenset({"inputs", "outputs", "ports"})


@dataclass(frozen=True, slots=True)
class FileNode:
    """One node as written. ``path`` is where it stands, ``settings_path`` where its settings do.

    ``spelt`` says which of its fields have another name in the file.
    """

    path: str
    id: Any
    type: Any
    settings: Mapping[str, Any]
    settings_path: str
    spelt: Mapping[str, str] = field(default_factory=dict)

    def at(self, name: str) -> str:
        """Where one of its settings stands."""
        return f"{self.settings_path}.{self.spelt.get(name, name)}"

    def own(self, name: str) -> str:
        """Where its ``id`` or ``type`` stands."""
        return f"{self.path}.{self.spelt.get(name, name)}"


@dataclass(frozen=True, slots=True)
class FileEdge:
    """``target`` runs after ``source``; both as written."""

    path: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class WorkflowFile:
    """A workflow as written: its parts and where each of them stands."""

    slug: Any
    name: Any
    description: Any
    nodes: tuple[FileNode, ...]
    edges: tuple[FileEdge, ...]
    defaults: Any
    schedule: Any
    schedule_path: str
    layout: Any
    layout_path: str
    bindings: Any = None
    bindings_path: str = "assetBindings"


class Reader:
    """Takes a file apart; what has the wrong shape becomes a problem, and the rest is still read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, kind: ErrorKind, path: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, path, message))

    def unknown(
        self, raw: Mapping[str, Any], path: str, known: Iterable[str], ignored: Iterable[str] = ()
    ) -> None:
        """Note every field that nobody knows, with the nearest one."""
        known = list(known)
        for key in raw:
            if key not in known and key not in ignored:
                near = nearest(key, known)
                hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known[:20])}"
                self.add(ErrorKind.GRAPH_FIELD, path, f"unknown field {shown(key)}; {hint}")

    def mapping(self, raw: Mapping[str, Any], field: str, path: str) -> dict[str, Any]:
        """A field's mapping; empty when it is absent or none."""
        value = raw.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(ErrorKind.GRAPH_SHAPE, join(path, field), f"found {shown(value)}; a mapping is needed")
            return {}
        return value

    def rows(
        self, raw: Mapping[str, Any], field: str, path: str, *, required: bool = True
    ) -> list[Any] | None:
        """A field's list of nodes or edges; ``None`` when it is none, too long, or empty and required."""
        where = join(path, field)
        limit = MAX_NODES if field == "nodes" else MAX_EDGES
        value = raw.get(field) if required or field in raw else []
        if not isinstance(value, list):
            self.add(ErrorKind.GRAPH_SHAPE, where, f"found {shown(value)}; a list of {field} is needed")
        elif len(value) > limit:
            self.add(
                ErrorKind.GRAPH_TOO_LARGE, where, f"found {len(value)} {field}; at most {limit} are allowed"
            )
        elif required and not value:
            self.add(ErrorKind.GRAPH_EMPTY, where, "found no nodes; a workflow has at least one")
        else:
            return value
        return None

    def node(self, raw: object, path: str, more: tuple[str, ...]) -> FileNode | None:
        """A node that has its settings beside its id, and ``more`` fields."""
        if not isinstance(raw, dict):
            self.add(ErrorKind.NODE_ID, path, f"found {shown(raw)}; a node is a mapping with id and type")
            return None
        node_id = raw.get("id")
        if isinstance(node_id, str):
            path = f"{path} ({shown(node_id, 70)[1:-1]})"
        self.unknown(raw, path, ("id", "type", *more, *NODE_SETTINGS), _PORTS)
        for port in sorted(_PORTS.intersection(raw)):
            self.add(
                ErrorKind.NODE_PORT,
                f"{path}.{port}",
                "nodes have no ports; name the nodes it runs after in 'after'",
            )
        settings = {key: raw[key] for key in NODE_SETTINGS if key in raw}
        if node_id is None:
            self.add(ErrorKind.NODE_ID, path, "has no id")
        return FileNode(path, node_id, raw.get("type"), settings, path)

    def arrow(self, raw: object, path: str, ends: tuple[str, str] = ("from", "to")) -> FileEdge | None:
        """An edge of a list; ``ends`` are the names of its two fields."""
        if not isinstance(raw, dict):
            text = f"found {shown(raw)}; an edge is a mapping with {ends[0]} and {ends[1]}"
            self.add(ErrorKind.EDGE_SHAPE, path, text)
            return None
        self.unknown(raw, path, ends)
        source, target = (raw.get(end) for end in ends)
        for end, value in zip(ends, (source, target), strict=True):
            if not isinstance(value, str):
                self.add(ErrorKind.EDGE_SHAPE, f"{path}.{end}", f"found {shown(value)}; a node id is needed")
        if not isinstance(source, str) or not isinstance(target, str):
            return None
        return FileEdge(f"{path} ({shown(f'{source} -> {target}', 140)[1:-1]})", source, target)

    def after(self, raw: dict[str, Any], node: FileNode) -> list[FileEdge]:
        """The edges that a node's ``after`` names."""
        value = raw.get("after")
        path = f"{node.path}.after"
        if value is None:
            return []
        if not isinstance(value, list):
            example = f": [{value}]" if isinstance(value, str) and value.isprintable() else ""
            self.add(
                ErrorKind.EDGE_SHAPE, path, f"found {shown(value)}; a list of node ids is needed{example}"
            )
            return []
        if len(value) > MAX_NODES:
            self.add(
                ErrorKind.GRAPH_TOO_LARGE, path, f"found {len(value)} ids; at most {MAX_NODES} are allowed"
            )
            return []
        edges: list[FileEdge] = []
        for i, item in enumerate(value):
            if not isinstance(item, str):
                self.add(ErrorKind.EDGE_SHAPE, f"{path}[{i}]", f"found {shown(item)}; a node id is needed")
            elif isinstance(node.id, str):
                edges.append(FileEdge(f"{path}[{i}]", item, node.id))
        return edges


def join(path: str, field: str) -> str:
    """The place of a field of what stands at ``path``."""
    return f"{path}.{field}" if path else field
