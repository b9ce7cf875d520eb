"""Workflow files: read from YAML or JSON, and taken apart without judging what they say.

Two spellings mean the same: the file that people write (``nodes`` with ``after``), and the stored
form (``logicGraph``, ``runtimeGraph``, ``visualGraph``) that ``workflow show --json`` prints. Both
become one :class:`WorkflowFile`, whose parts remember where they stood; every judgement is
:mod:`emboflow_dagster.runtime.validate`'s.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError, Problem, shown
from emboflow_dagster.model.workflow import MAX_EDGES, MAX_NODES
from emboflow_dagster.runtime.plain_data import MAX_TEXT_BYTES, decode, read_json, read_yaml, refusal
from emboflow_dagster.runtime.registry import nearest
from emboflow_dagster.runtime.step_processes import STEPS

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
_FILE_FIELDS: Final = ("workflow", "name", "description", "nodes", "schedule", "steps", "layout")
_STORED_FIELDS: Final = ("workflow", "name", "description", "logicGraph", "runtimeGraph", "visualGraph")
# What a stored document has besides its graphs: known, and given anew when it is published again.
_BOOKKEEPING: Final = frozenset(
    (
        "_id slug workflowDefinitionId workspaceId projectId versionNumber pluginRefs summary createdBy "
        "createdAt updatedAt status latestVersionNumber publishedVersionNumber"
    ).split()
)
# A path is shown whole: cut off, it names no file.
_PATH_SHOWN: Final = 1_000
_PORTS: Final = frozenset({"inputs", "outputs", "ports"})


@dataclass(frozen=True, slots=True)
class FileNode:
    """One node as written. ``path`` is where it stands, ``settings_path`` where its settings do."""

    path: str
    id: Any
    type: Any
    settings: Mapping[str, Any]
    settings_path: str

    def at(self, field: str) -> str:
        """Where one of its settings stands."""
        return f"{self.settings_path}.{field}"


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


def load(source: Path | str | bytes | dict[str, Any]) -> dict[str, Any]:
    """The mapping in a workflow file.

    Args:
        source: A path, the text itself (a ``str`` with a line break, ``: `` or a leading ``{``), its
            bytes, or a mapping that somebody read already.

    Raises:
        NotFoundError: The path names no file.
        InvalidInputError: Not YAML or JSON as allowed; more than 1 MiB; not a mapping.
    """
    if isinstance(source, dict):
        return source
    suffix = ""
    if isinstance(source, str) and (
        "\n" in source or ": " in source or source.lstrip()[:1] in ("{", "[", "")
    ):
        data = source.encode("utf-8", "surrogatepass")
    elif isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        suffix = path.suffix.lower()
        data = _bytes_of(path)
    try:
        raw = _read(decode(data), suffix)
    except InvalidInputError as error:
        if not suffix:
            raise
        found = [Problem(p.kind, Path(str(source)).name, p.message) for p in error.problems]
        raise InvalidInputError.of(found) from None
    if not isinstance(raw, dict):
        found_what = "nothing" if raw is None else shown(raw)
        raise refusal(ErrorKind.NOT_A_DICT, f"found {found_what}; a workflow file is a mapping")
    return raw


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_TEXT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"no workflow file {shown(str(path), _PATH_SHOWN)}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise refusal(
            ErrorKind.FILE_UNREADABLE, f"cannot read {shown(str(path), _PATH_SHOWN)}: {why}"
        ) from None


def _read(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return read_json(text)
    if not suffix and text.lstrip()[:1] in ("{", "["):
        try:
            return read_json(text)
        except InvalidInputError as error:
            if error.kind is not ErrorKind.YAML_CORRUPT:
                raise
            # YAML has mappings in braces too.
    return read_yaml(text)


def parse(raw: object) -> tuple[WorkflowFile | None, list[Problem]]:
    """A workflow's parts out of either spelling, and what is wrong with their shape.

    The result is ``None`` when there is nothing that could be judged further.
    """
    reader = _Reader()
    if not isinstance(raw, dict):
        reader.add(ErrorKind.GRAPH_SHAPE, "", f"found {shown(raw)}; a workflow is a mapping")
        return None, reader.problems
    stored = "logicGraph" in raw
    reader.unknown(raw, "", _STORED_FIELDS if stored else _FILE_FIELDS, _BOOKKEEPING if stored else ())
    result = _stored(raw, reader) if stored else _written(raw, reader)
    return result, reader.problems


def parse_graph(raw: object, path: str = "") -> tuple[list[FileNode], list[FileEdge], list[Problem]]:
    """Nodes and edges of a bare ``{nodes: [{id, type}], edges: [{from, to}]}``, settings in the nodes."""
    reader = _Reader()
    if not isinstance(raw, dict):
        reader.add(
            ErrorKind.GRAPH_SHAPE, path, f"found {shown(raw)}; a graph is a mapping of nodes and edges"
        )
        return [], [], reader.problems
    reader.unknown(raw, path, ("nodes", "edges"))
    # An empty graph is said last: a list that is none is the worse fault.
    arrows = reader.rows(raw, "edges", path, required=False)
    rows = reader.rows(raw, "nodes", path)
    if rows is None or arrows is None:
        return [], [], reader.problems
    nodes = [reader.node(row, _join(path, f"nodes[{i}]"), ()) for i, row in enumerate(rows)]
    edges = [reader.arrow(row, _join(path, f"edges[{i}]")) for i, row in enumerate(arrows)]
    return [n for n in nodes if n], [e for e in edges if e], reader.problems


def _written(raw: dict[str, Any], reader: "_Reader") -> WorkflowFile | None:
    rows = reader.rows(raw, "nodes", "")
    if rows is None:
        return None
    nodes: list[FileNode] = []
    edges: list[FileEdge] = []
    for i, row in enumerate(rows):
        node = reader.node(row, f"nodes[{i}]", ("after",))
        if node is not None:
            nodes.append(node)
            edges += reader.after(row, node)
    if len(edges) > MAX_EDGES:
        reader.add(
            ErrorKind.GRAPH_TOO_LARGE, "nodes", f"found {len(edges)} edges; at most {MAX_EDGES} are allowed"
        )
        return None
    return WorkflowFile(
        slug=raw.get("workflow"),
        name=raw.get("name"),
        description=raw.get("description"),
        nodes=tuple(nodes),
        edges=tuple(edges),
        defaults={} if raw.get(STEPS) is None else {STEPS: raw[STEPS]},
        schedule=raw.get("schedule"),
        schedule_path="schedule",
        layout=raw.get("layout"),
        layout_path="layout",
    )


def _stored(raw: dict[str, Any], reader: "_Reader") -> WorkflowFile | None:
    nodes, edges, problems = parse_graph(raw["logicGraph"], "logicGraph")
    reader.problems += problems
    runtime = reader.mapping(raw, "runtimeGraph", "")
    reader.unknown(runtime, "runtimeGraph", ("nodeConfigs", "defaults", "schedule"))
    configs = reader.mapping(runtime, "nodeConfigs", "runtimeGraph")
    if nodes:
        reader.unknown(configs, "runtimeGraph.nodeConfigs", [n.id for n in nodes if isinstance(n.id, str)])
    settled: list[FileNode] = []
    for node in nodes:
        if not isinstance(node.id, str) or node.id not in configs:
            settled.append(node)
            continue
        path = f"runtimeGraph.nodeConfigs.{node.id}"
        config = configs[node.id]
        if not isinstance(config, dict):
            reader.add(ErrorKind.NODE_CONFIG, path, f"found {shown(config)}; a mapping is needed")
            config = {}
        reader.unknown(config, path, NODE_SETTINGS, ("definitionId",))
        settings = {k: v for k, v in config.items() if k in NODE_SETTINGS}
        settled.append(FileNode(node.path, node.id, node.type, {**node.settings, **settings}, path))
    summary = raw.get("summary")
    extra = summary if isinstance(summary, dict) else {}
    return WorkflowFile(
        slug=raw.get("workflow", raw.get("slug")),
        name=raw.get("name", extra.get("name")),
        description=raw.get("description", extra.get("description")),
        nodes=tuple(settled),
        edges=tuple(edges),
        defaults=runtime.get("defaults"),
        schedule=runtime.get("schedule"),
        schedule_path="runtimeGraph.schedule",
        layout=raw.get("visualGraph"),
        layout_path="visualGraph",
    )


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, kind: ErrorKind, path: str, message: str) -> None:
        self.problems.append(Problem(kind, path, message))

    def unknown(
        self, raw: Mapping[str, Any], path: str, known: Iterable[str], ignored: Iterable[str] = ()
    ) -> None:
        known = list(known)
        for key in raw:
            if key not in known and key not in ignored:
                near = nearest(key, known)
                hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known[:20])}"
                self.add(ErrorKind.GRAPH_FIELD, path, f"unknown field {shown(key)}; {hint}")

    def mapping(self, raw: Mapping[str, Any], field: str, path: str) -> dict[str, Any]:
        value = raw.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(ErrorKind.GRAPH_SHAPE, _join(path, field), f"found {shown(value)}; a mapping is needed")
            return {}
        return value

    def rows(
        self, raw: Mapping[str, Any], field: str, path: str, *, required: bool = True
    ) -> list[Any] | None:
        where = _join(path, field)
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

    def arrow(self, raw: object, path: str) -> FileEdge | None:
        if not isinstance(raw, dict):
            self.add(ErrorKind.EDGE_SHAPE, path, f"found {shown(raw)}; an edge is a mapping with from and to")
            return None
        self.unknown(raw, path, ("from", "to"))
        source, target = raw.get("from"), raw.get("to")
        for field, value in (("from", source), ("to", target)):
            if not isinstance(value, str):
                self.add(
                    ErrorKind.EDGE_SHAPE, f"{path}.{field}", f"found {shown(value)}; a node id is needed"
                )
        if not isinstance(source, str) or not isinstance(target, str):
            return None
        return FileEdge(f"{path} ({shown(f'{source} -> {target}', 140)[1:-1]})", source, target)

    def after(self, raw: dict[str, Any], node: FileNode) -> list[FileEdge]:
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


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field
