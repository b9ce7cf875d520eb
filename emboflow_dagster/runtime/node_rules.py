"""What the settings of one node must be: its options, executor, code hook, artifact type, cache, retries."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.workflow import ExecutorType, NodeConfig
from emboflow_dagster.runtime.code_hook import check_code_hook, hook_fields
from emboflow_dagster.runtime.file_parts import FileNode
from emboflow_dagster.runtime.node import NodeOptions, NodeType
from emboflow_dagster.runtime.registry import NodeTypes, nearest

_PLAIN_SETTINGS: Final = ("title", "artifactType", "cache", "retries")


def check_settings(
    node: FileNode, node_type: NodeType | None, types: NodeTypes
) -> tuple[NodeConfig | None, list[Problem]]:
    """How one node runs, or everything that is wrong with its settings.

    What depends on the node's type is left out when the type is unknown.
    """
    settings = {key: value for key, value in node.settings.items() if value is not None}
    plain = {key: settings[key] for key in _PLAIN_SETTINGS if key in settings}
    executed, problems = _check_executor(node, node_type, settings, types)
    fields: dict[str, Any] = {}
    try:
        NodeConfig.model_validate(plain, strict=True, by_alias=True)
        fields |= plain
    except ValidationError as error:
        problems += explain(error, node.settings_path, NodeConfig)
    config = settings.get("config", {})
    try:
        fields["config"] = _storable(node_type, config)
    except InvalidInputError as error:
        problems += [_with_nesting(p) for p in relocate(error, node.at("config"))]
    else:
        if node_type is not None:
            problems += check_options(node_type, config, node.at("config"))
    problems += _check_hook(node, node_type, settings)
    if node_type is not None:
        problems += _check_artifact_type(node, node_type, settings)
        problems += _check_definition(node, node_type, settings, types)
        fields["definitionId"] = f"{node_type.id}@{node_type.version}"
    if problems:
        return None, problems
    if "codeHook" in settings:
        fields["codeHook"] = hook_fields(settings["codeHook"])
    fields |= executed
    return NodeConfig.model_validate(fields, by_alias=True), []


def _storable(node_type: NodeType | None, config: Any) -> dict[str, Any]:
    """A configuration as it is kept: dotted keys are spelt out where the type knows how.

    Raises:
        InvalidInputError: MongoDB may not hold it; places are those of the file.
    """
    try:
        return check_freeform(config)
    except InvalidInputError as error:
        dotted = all(problem.kind is ErrorKind.KEY_DOTTED for problem in error.problems)
        if node_type is None or not dotted:
            raise
        kept = node_type.options.storable(config)
        if kept == config:
            raise
        try:
            return check_freeform(kept)
        except InvalidInputError:
            raise error from None


def _check_definition(
    node: FileNode, node_type: NodeType, settings: Mapping[str, Any], types: NodeTypes
) -> list[Problem]:
    if "definitionId" not in settings:
        return []
    found, here = settings["definitionId"], f"{node_type.id}@{node_type.version}"
    name, _, version = found.partition("@") if isinstance(found, str) else ("", "", "")
    if types.get(name) is node_type and version in {node_type.version, *node_type.reads}:
        return []
    why = "which this release does not have; it" if types.get(name) is node_type else f"{node.id!r} "
    text = f"found {shown(found)}, {why} has {here}" if name else f"found {shown(found)}; {here} is needed"
    return [Problem(ErrorKind.NODE_CONFIG, node.at("definitionId"), text)]


def _check_executor(
    node: FileNode, node_type: NodeType | None, settings: Mapping[str, Any], types: NodeTypes
) -> tuple[dict[str, Any], list[Problem]]:
    """What executes a node, and which image of whose; both may be left to its type."""
    usual = ExecutorType.PYTHON if node_type is None else node_type.executor
    executor = settings.get("executor", usual.value)
    known = [each.value for each in ExecutorType]
    path = node.at("executor")
    if executor not in known:
        near = nearest(executor, known)
        hint = f"did you mean {near!r}?" if near else f"allowed are {', '.join(known)}"
        return {}, [Problem(ErrorKind.NODE_EXECUTOR, path, f"found {shown(executor)}; {hint}")]
    problems: list[Problem] = []
    if ExecutorType(executor) not in types.executors:
        there = " and ".join(sorted(each.value for each in types.executors))
        text = f"only {there} can be had in this release, {executor} comes in a later one"
        problems.append(Problem(ErrorKind.NODE_EXECUTOR, path, f"found {executor!r}; {text}"))
    elif node_type is not None and executor != usual.value:
        text = f"found {executor!r}; {node_type.id} is executed by {usual.value!r}"
        if executor == ExecutorType.DOCKER.value:
            text += "; a node of type 'container' runs an image"
        problems.append(Problem(ErrorKind.NODE_EXECUTOR, path, text))
    image, found = _check_image(node, node_type, settings, docker=executor == ExecutorType.DOCKER.value)
    fields = {"executor": executor, "image": image}
    return {key: value for key, value in fields.items() if value is not None}, problems + found


def _check_image(
    node: FileNode, node_type: NodeType | None, settings: Mapping[str, Any], *, docker: bool
) -> tuple[str | None, list[Problem]]:
    config = settings.get("config")
    beside = settings.get("image")
    inside = config.get("image") if docker and isinstance(config, Mapping) else None
    path = node.at("image")
    why: str | None = None
    if not docker:
        if beside is not None:
            why = "an image is for executor 'docker' alone"
    elif node_type is not None and node_type.image is not None:
        if beside is not None:
            why = f"{node_type.id} has an image of its own"
        inside = None
    elif beside is not None and inside is not None and beside != inside:
        why = f"found {shown(beside)}, and {shown(inside)} in config; one of them is enough"
    elif not isinstance(beside or inside, str) or not str(beside or inside).strip():
        why = f"found {shown(beside if beside is not None else inside)}; executor 'docker' needs an image"
    if why is not None:
        return None, [Problem(ErrorKind.NODE_EXECUTOR, path, why)]
    return beside or inside, []


def _check_hook(node: FileNode, node_type: NodeType | None, settings: Mapping[str, Any]) -> list[Problem]:
    path = node.at("codeHook")
    if "codeHook" not in settings:
        if node_type is not None and node_type.code_hook:
            text = f"{node_type.id} needs codeHook: {{language: python, entrypoint, source}}"
            return [Problem(ErrorKind.NODE_CODE_HOOK, node.path, text)]
        return []
    problems: list[Problem] = []
    if node_type is not None and not node_type.code_hook:
        text = f"{node_type.id} runs no code of yours; use a node of a type that does, such as 'python'"
        problems.append(Problem(ErrorKind.NODE_CODE_HOOK, path, text))
    return problems + check_code_hook(settings["codeHook"], path)


def _check_artifact_type(node: FileNode, node_type: NodeType, settings: Mapping[str, Any]) -> list[Problem]:
    found = settings.get("artifactType")
    fixed = node_type.produces
    if found is None or fixed is None or node_type.code_hook or found == fixed:
        return []
    text = f"found {shown(found)}; {node_type.id} always produces {fixed}"
    return [Problem(ErrorKind.NODE_CONFIG, node.at("artifactType"), text)]


def check_options(node_type: NodeType, config: Mapping[str, Any], path: str) -> list[Problem]:
    """What the options model of a node type says about a configuration (camelCase keys)."""
    try:
        node_type.options.model_validate(dict(config), by_alias=True, by_name=False)
    except ValidationError as error:
        return explain(error, path, node_type.options)
    except InvalidInputError as error:
        return relocate(error, path)
    return []


def _with_nesting(problem: Problem) -> Problem:
    if problem.kind is not ErrorKind.KEY_DOTTED:
        return problem
    return Problem(
        problem.kind, problem.path, f"{problem.message}; nest mappings instead: a.b is {{a: {{b: ...}}}}"
    )


def relocate(error: InvalidInputError, path: str) -> list[Problem]:
    """The problems of a part, as seen from the whole."""
    return [Problem(p.kind, f"{path}.{p.path}" if p.path else path, p.message) for p in error.problems]


def explain(error: ValidationError, path: str, model: type[NodeOptions] | type[NodeConfig]) -> list[Problem]:
    """Each finding of pydantic with the field's path, what was found, what is allowed and what is nearest."""
    problems: list[Problem] = []
    for row in error.errors(include_url=False):
        where = path + _place(row["loc"])
        inner = row.get("ctx", {}).get("error")
        if isinstance(inner, InvalidInputError):
            problems += relocate(inner, where)
        else:
            names = _names(model, row["loc"][:-1])
            problems.append(Problem(ErrorKind.NODE_CONFIG, where, _wording(row, names)))
    return problems


#: How pydantic calls the ways a value may be meant; nobody wrote that into a file.
_MEANT: Final = re.compile(r"(bool|int|float|str|(list|dict|literal|constrained|function)\b.*)\Z")


def _place(loc: Sequence[int | str]) -> str:
    parts = [part for place, part in enumerate(loc) if not (place and _MEANT.match(str(part)))]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _names(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The options that there are at a place, as files spell them; none where anything goes."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (f.alias, name)), None)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [f.alias or name for name, f in model.model_fields.items()]


def _wording(row: ErrorDetails, names: Sequence[str]) -> str:
    kind = row["type"]
    if kind == "missing":
        return "is needed and absent"
    if kind == "extra_forbidden":
        if near := nearest(row["loc"][-1], names):
            return f"unknown option; did you mean {near!r}?"
        return "unknown option" + (f"; known are {', '.join(sorted(names)[:20])}" if names else "")
    expected = row.get("ctx", {}).get("expected")
    message = row["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "it should be")
    if expected:
        near = nearest(row["input"], re.findall(r"'([^']*)'", str(expected)))
        message = (f"did you mean {near!r}? " if near else "") + f"allowed are {expected}"
    return f"found {shown(row['input'])}; {message}"
