"""Is this workflow one that can be published? All problems at once, each with its place in the file.

Order of problems: shape of the file, names, the graph (nodes, edges, the whole), settings of the nodes
in file order, schedule, layout. The same file always gives the same list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.freeform import MAX_KEYS, check_freeform
from emboflow_dagster.model.text import check_name, check_slug
from emboflow_dagster.model.workflow import (
    LogicEdge,
    LogicGraph,
    LogicNode,
    NodeConfig,
    RuntimeGraph,
    Schedule,
)
from emboflow_dagster.runtime.asset_bindings import BINDINGS, check_bindings
from emboflow_dagster.runtime.cron import check_cron, check_timezone
from emboflow_dagster.runtime.file_parts import FileEdge, FileNode, WorkflowFile
from emboflow_dagster.runtime.graph_rules import check_structure
from emboflow_dagster.runtime.node_rules import check_settings, relocate
from emboflow_dagster.runtime.registry import NodeTypes, nearest
from emboflow_dagster.runtime.selector import is_selector, parse_selector
from emboflow_dagster.runtime.step_processes import check_steps
from emboflow_dagster.runtime.workflow_file import parse, parse_graph

MAX_DESCRIPTION_CHARS: Final = 4_000
MAX_LAYOUT_BYTES: Final = 256 << 10
MAX_LAYOUT_ITEMS: Final = 20_000
MAX_SCHEDULE_ASSETS: Final = 1_000
MAX_ASSET_NAME_CHARS: Final = 200
_SCHEDULE_FIELDS: Final = ("cron", "timezone", "assets")


@dataclass(frozen=True, slots=True)
class Graphs:
    """A workflow that can be published: its names and its three graphs, node types resolved."""

    slug: str
    name: str
    description: str
    logic: LogicGraph
    runtime: RuntimeGraph
    visual: dict[str, Any]


def validate_graph(raw_graph: object, *, known_types: NodeTypes) -> list[Problem]:
    """All that is wrong with a bare ``{nodes: [{id, type, config?...}], edges: [{from, to}]}``."""
    nodes, edges, problems = parse_graph(raw_graph)
    return problems + _judge(nodes, edges, known_types)[1]


def _judge(
    nodes: Sequence[FileNode], edges: Sequence[FileEdge], types: NodeTypes
) -> tuple[dict[str, NodeConfig], list[Problem]]:
    """The graph, then each node's settings: what every way of giving a graph goes through."""
    problems = check_structure(nodes, edges, types)
    configs: dict[str, NodeConfig] = {}
    for node in nodes:
        config, found = check_settings(node, types.get(node.type), types)
        problems += found
        if config is not None and isinstance(node.id, str):
            configs[node.id] = config
    return configs, problems


def validate(raw: object, *, registry: NodeTypes) -> tuple[Graphs | None, list[Problem]]:
    """The graphs of a workflow, or everything that is wrong with it; never both, never neither.

    Args:
        raw: What :func:`~emboflow_dagster.runtime.workflow_file.load` gave, in any spelling.
        registry: The node types to resolve types and check options with.
    """
    file, problems = parse(raw)
    if file is None:
        return None, problems
    checker = _Checker(problems)
    slug, name, description = checker.names(file)
    configs, found = _judge(file.nodes, file.edges, registry)
    problems += found
    defaults = checker.freeform(file.defaults, "runtimeGraph.defaults")
    problems += check_steps(file.defaults)
    bindings, found = check_bindings(file.bindings, file.bindings_path, file.nodes, registry)
    problems += found
    if bindings:
        defaults = checker.freeform({**defaults, BINDINGS: bindings}, "runtimeGraph.defaults")
    schedule = checker.schedule(file.schedule, file.schedule_path)
    visual = checker.freeform(
        file.layout, file.layout_path, max_bytes=MAX_LAYOUT_BYTES, max_items=MAX_LAYOUT_ITEMS
    )
    if problems:
        return None, problems
    logic = LogicGraph(
        nodes=[LogicNode(id=node.id, type=registry.require(node.type).id) for node in file.nodes],
        edges=[LogicEdge(from_=edge.source, to=edge.target) for edge in file.edges],
    )
    runtime = RuntimeGraph(node_configs=configs, defaults=defaults, schedule=schedule)
    return Graphs(slug, name, description, logic, runtime, visual), []


class _Checker:
    """The parts of a file that are not its graph; adds to one list of problems."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def add(self, kind: ErrorKind, path: str, message: str) -> None:
        self.problems.append(Problem(kind, path, message))

    def names(self, file: WorkflowFile) -> tuple[str, str, str]:
        slug = file.slug
        if slug is None:
            self.add(ErrorKind.GRAPH_SHAPE, "workflow", "is needed and absent: the slug of the workflow")
        else:
            self.run(check_slug, slug, "workflow")
        name = file.name
        if name is not None:
            self.run(check_name, name, "name")
        text = "" if file.description is None else file.description
        if not isinstance(text, str):
            self.add(ErrorKind.GRAPH_SHAPE, "description", f"found {shown(text)}; a text is needed")
        elif len(text) > MAX_DESCRIPTION_CHARS:
            self.add(
                ErrorKind.GRAPH_SHAPE,
                "description",
                f"found {len(text)} characters; at most {MAX_DESCRIPTION_CHARS} are allowed",
            )
        else:
            # The rules of every stored text: no NUL, no lone surrogate.
            self.freeform({"description": text}, "")
        return str(slug), str(name if name is not None else slug), str(text).strip()

    def run(self, check: Any, value: object, path: str) -> bool:
        try:
            check(value, path)
        except InvalidInputError as error:
            self.problems += error.problems
            return False
        return True

    def freeform(
        self, value: object, path: str, *, max_bytes: int = 64 << 10, max_items: int = MAX_KEYS
    ) -> dict[str, Any]:
        if value is None:
            return {}
        try:
            return check_freeform(value, max_bytes=max_bytes, max_items=max_items)
        except InvalidInputError as error:
            self.problems += relocate(error, path) if path else error.problems
            return {}

    def schedule(self, raw: object, path: str) -> Schedule | None:
        if raw is None:
            return None
        if not isinstance(raw, Mapping):
            self.add(
                ErrorKind.GRAPH_SHAPE,
                path,
                f"found {shown(raw)}; a mapping of cron, timezone, assets is needed",
            )
            return None
        before = len(self.problems)
        for key in raw:
            if key not in _SCHEDULE_FIELDS:
                near = nearest(key, _SCHEDULE_FIELDS)
                hint = f"did you mean {near!r}?" if near else f"known are {', '.join(_SCHEDULE_FIELDS)}"
                self.add(ErrorKind.GRAPH_FIELD, path, f"unknown field {shown(key)}; {hint}")
        cron, zone, said = raw.get("cron"), raw.get("timezone", "UTC"), raw.get("assets") or []
        assets: Any = [said] if isinstance(said, str) and is_selector(said) else said
        if cron is None:
            self.add(ErrorKind.CRON_TYPE, f"{path}.cron", "is needed and absent")
        else:
            self.run(check_cron, cron, f"{path}.cron")
        self.run(check_timezone, zone, f"{path}.timezone")
        if not isinstance(assets, list) or len(assets) > MAX_SCHEDULE_ASSETS:
            found = f"{len(assets)} of them" if isinstance(assets, list) else shown(assets)
            self.add(
                ErrorKind.GRAPH_SHAPE,
                f"{path}.assets",
                f"found {found}; a list of at most {MAX_SCHEDULE_ASSETS} asset ids or names is needed",
            )
        else:
            for i, asset in enumerate(assets):
                if isinstance(asset, str) and is_selector(asset):
                    self.run(parse_selector, asset, f"{path}.assets[{i}]")
                elif not isinstance(asset, str) or not 0 < len(asset) <= MAX_ASSET_NAME_CHARS:
                    text = f"found {shown(asset)}; the id or name of an asset, or a selector, is needed"
                    self.add(ErrorKind.GRAPH_SHAPE, f"{path}.assets[{i}]", text)
        if len(self.problems) > before:
            return None
        return Schedule(cron=str(cron), timezone=str(zone), assets=assets)
