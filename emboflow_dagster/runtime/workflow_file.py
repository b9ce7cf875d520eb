"""Workflow files: read from YAML or JSON, and taken apart without judging what they say.

Three spellings mean the same: the file that people write (``nodes`` with ``after``), the stored form
(``logicGraph``, ``runtimeGraph``, ``visualGraph``) that ``workflow show --json`` prints, and the export of
:mod:`emboflow_dagster.runtime.listed_file`. All become one :class:`WorkflowFile`, whose parts remember
where they stood; every judgement is :mod:`emboflow_dagster.runtime.validate`'s.
"""

from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError, Problem, shown
from emboflow_dagster.model.workflow import MAX_EDGES
from emboflow_dagster.runtime.asset_bindings import BINDINGS
from emboflow_dagster.runtime.file_parts import NODE_SETTINGS, FileEdge, FileNode, Reader, WorkflowFile, join
from emboflow_dagster.runtime.listed_file import FIELDS as LISTED_FIELDS
from emboflow_dagster.runtime.listed_file import is_listed, listed
from emboflow_dagster.runtime.plain_data import MAX_TEXT_BYTES, decode, read_json, read_yaml, refusal
from emboflow_dagster.runtime.step_processes import STEPS

_FILE_FIELDS: Final = ("workflow", "name", "description", "nodes", "schedule", "steps", "layout", BINDINGS)
_STORED_FIELDS: Final = (
    "workflow",
    "name",
    "description",
    "logicGraph",
    "runtimeGraph",
    "visualGraph",
    BINDINGS,
)
# What a stored document has besides its graphs: known, and given anew when it is published again.
_BOOKKEEPING: Final = frozenset(
    (
        "_id slug workflowDefinitionId workspaceId projectId versionNumber pluginRefs summary createdBy "
        "createdAt updatedAt status latestVersionNumber publishedVersionNumber"
    ).split()
)
#: What a listed file may hold besides the workflow, and what becomes of it.
IGNORED: Final = {"expectedRun": "says what somebody expects of a run; nothing is checked against it"}
# A path is shown whole: cut off, it names no file.
_PATH_SHOWN: Final = 1_000


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
    """A workflow's parts out of any spelling, and what is wrong with their shape.

    The result is ``None`` when there is nothing that could be judged further.
    """
    reader = Reader()
    if not isinstance(raw, dict):
        reader.add(ErrorKind.GRAPH_SHAPE, "", f"found {shown(raw)}; a workflow is a mapping")
        return None, reader.problems
    if is_listed(raw):
        reader.unknown(raw, "", LISTED_FIELDS, _BOOKKEEPING | IGNORED.keys())
        return listed(raw, reader), reader.problems
    stored = "logicGraph" in raw
    reader.unknown(raw, "", _STORED_FIELDS if stored else _FILE_FIELDS, _BOOKKEEPING if stored else ())
    result = _stored(raw, reader) if stored else _written(raw, reader)
    return result, reader.problems


def notes(raw: object) -> list[str]:
    """What of a file is read and has no effect, a sentence each."""
    if not isinstance(raw, dict) or not is_listed(raw):
        return []
    return [f"{name} {why}" for name, why in IGNORED.items() if name in raw]


def parse_graph(raw: object, path: str = "") -> tuple[list[FileNode], list[FileEdge], list[Problem]]:
    """Nodes and edges of a bare ``{nodes: [{id, type}], edges: [{from, to}]}``, settings in the nodes."""
    reader = Reader()
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
    nodes = [reader.node(row, join(path, f"nodes[{i}]"), ()) for i, row in enumerate(rows)]
    edges = [reader.arrow(row, join(path, f"edges[{i}]")) for i, row in enumerate(arrows)]
    return [n for n in nodes if n], [e for e in edges if e], reader.problems


def _written(raw: dict[str, Any], reader: "Reader") -> WorkflowFile | None:
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
        bindings=raw.get(BINDINGS),
    )


def _stored(raw: dict[str, Any], reader: "Reader") -> WorkflowFile | None:
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
    defaults = runtime.get("defaults")
    given = defaults if isinstance(defaults, dict) else {}
    return WorkflowFile(
        slug=raw.get("workflow", raw.get("slug")),
        name=raw.get("name", extra.get("name")),
        description=raw.get("description", extra.get("description")),
        nodes=tuple(settled),
        edges=tuple(edges),
        defaults={key: value for key, value in given.items() if key != BINDINGS} if given else defaults,
        schedule=runtime.get("schedule"),
        schedule_path="runtimeGraph.schedule",
        layout=raw.get("visualGraph"),
        layout_path="visualGraph",
        bindings=raw[BINDINGS] if BINDINGS in raw else given.get(BINDINGS),
        bindings_path=BINDINGS if BINDINGS in raw else f"runtimeGraph.defaults.{BINDINGS}",
    )
