"""A project's own node type, made of what its document says: image, contract, options.

The image's own command is run. It finds its inputs in ``/in`` (``index.json``, ``config.json``), and leaves
in ``/out`` what ``contract.outputs`` names.

Source: requirements R-380..R-386.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import Field, create_model

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.plugin import CustomNode, CustomNodeCategory, DockerImageSource
from emboflow_dagster.model.text import TYPE_PATTERN
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.runtime.containers.contract import KINDS, Expected, check_properties, kind_of
from emboflow_dagster.runtime.containers.job import Use, run_job
from emboflow_dagster.runtime.containers.options import ContainerLimits, why_every_time
from emboflow_dagster.runtime.digest import sha256_of
from emboflow_dagster.runtime.node import NodeContext, NodeOptions, NodeResult, NodeType, Sight

PREFIX: Final = "custom:"
#: What a task keeps of the definition it was requested with, in ``executorConfig``.
FROZEN: Final = "custom"
INPUT: Final = "/in"
OUTPUT: Final = "/out"
_TYPES: Final[dict[str, Any]] = {
    "string": str,
    "number": float,
    "integer": int,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
}
_INPUT_FIELDS: Final = frozenset({"artifactType", "required", "description"})
_OUTPUT_FIELDS: Final = frozenset({"path", "type", "artifactType", "required", "properties", "description"})
_OPTION_FIELDS: Final = frozenset({"type", "default", "description"})


def frozen(node: CustomNode) -> dict[str, Any]:
    """Of a definition what executing it depends on; ``version`` is a digest over it."""
    body = {
        "definitionId": node.definition_id,
        "image": image_of(node),
        "contract": node.contract.to_json(),
        "category": node.category.value,
    }
    return body | {
        "version": sha256_of({**body, "source": node.source.to_json()})[:12],
        "name": node.name,
        "description": node.description,
    }


def image_of(node: CustomNode) -> str:
    """What its image is called."""
    source = node.source
    return source.image if isinstance(source, DockerImageSource) else source.image_tag


def node_type(kept: Mapping[str, Any]) -> NodeType:
    """The node type of what :func:`frozen` gave.

    Raises:
        InvalidInputError: The contract is not one that can be checked (kind ``contract``).
    """
    contract: Mapping[str, Any] = kept["contract"]
    accepts, needed = _inputs(contract["inputs"])
    expected = _outputs(contract["outputs"])
    options = _options(contract["configSchema"])

    def run(context: NodeContext) -> NodeResult:
        chosen: ContainerLimits = context.options
        given = chosen.model_dump(by_alias=True, exclude=set(ContainerLimits.model_fields))
        return run_job(context, Use((), INPUT, OUTPUT, chosen, given), expected)

    return NodeType(
        id=str(kept["definitionId"]),
        version=str(kept["version"]),
        title=str(kept["name"]),
        description=str(kept["description"]) or f"A node of this project: {kept['image']}.",
        category=CustomNodeCategory(kept["category"]),
        options=options,
        run=run,
        accepts=accepts,
        requires_artifact=needed,
        produces=expected[0].artifact_type if len(expected) == 1 else None,
        executor=ExecutorType.DOCKER,
        image=str(kept["image"]),
        sees=frozenset({Sight.INPUTS, Sight.NAMES}),
        uncached=why_every_time,
        aliases=(str(kept["definitionId"]).removeprefix(PREFIX),),
        kinds=("docker",),
    )


def _inputs(given: Mapping[str, Any]) -> tuple[frozenset[str] | None, frozenset[str]]:
    """The artifact types that it takes, and of which it needs one; anything where nothing is named."""
    types: dict[str, bool] = {}
    for name, row in given.items():
        path = f"contract.inputs.{name}"
        _known(row, _INPUT_FIELDS, path)
        types[_artifact_type(row, path)] = bool(row.get("required", False))
    if not types:
        return None, frozenset()
    return frozenset(types), frozenset(name for name, required in types.items() if required)


def _outputs(given: Mapping[str, Any]) -> list[Expected]:
    found: list[Expected] = []
    for name, row in given.items():
        path = f"contract.outputs.{name}"
        _known(row, _OUTPUT_FIELDS, path)
        where = str(row.get("path") or name)
        parts = PurePosixPath(where.rstrip("/")).parts
        if not parts or where.startswith("/") or ".." in parts or "." in parts or "\\" in where:
            raise _wrong(f"{path}.path", f"found {shown(where)}; a path below {OUTPUT} is needed")
        kind = row.get("type", kind_of(where))
        if kind not in KINDS:
            raise _wrong(f"{path}.type", f"found {shown(kind)}; allowed are {', '.join(KINDS)}")
        properties = row.get("properties")
        found.append(
            Expected(
                field=path,
                path="/".join(parts),
                kind=kind,
                artifact_type=_artifact_type(row, path),
                required=bool(row.get("required", True)),
                properties=None if properties is None else check_properties(properties, f"{path}.properties"),
            )
        )
    if len({one.path for one in found}) != len(found):
        raise _wrong("contract.outputs", "two outputs have the same path")
    return found


def _options(schema: Mapping[str, Any]) -> type[NodeOptions]:
    """The options model of ``configSchema``: JSON Schema's ``properties`` and ``required``, one level."""
    path = "contract.configSchema"
    _known(schema, frozenset({"type", "properties", "required"}), path)
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    taken = {info.alias for info in ContainerLimits.model_fields.values()} | set(ContainerLimits.model_fields)
    fields: dict[str, Any] = {}
    for number, (name, row) in enumerate(properties.items()):
        where = f"{path}.properties.{name}"
        _known(row, _OPTION_FIELDS, where)
        kind = _TYPES.get(row.get("type"))
        if kind is None:
            raise _wrong(f"{where}.type", f"found {shown(row.get('type'))}; allowed are {', '.join(_TYPES)}")
        if name in taken:
            raise _wrong(where, "is an option of every container; choose another name")
        default: Any = ... if name in required else row.get("default")
        kind = kind if default is not None else kind | None
        # Names of Python would not allow every name that people choose.
        fields[f"option_{number}"] = (kind, Field(default, alias=name, description=row.get("description")))
    if unknown := sorted(set(required) - set(properties)):
        raise _wrong(f"{path}.required", f"names {shown(unknown[0])}, which is not in properties")
    return create_model("CustomOptions", __base__=ContainerLimits, **fields)


def _artifact_type(row: Mapping[str, Any], path: str) -> str:
    found = row.get("artifactType", INTERMEDIATE_TASK_OUTPUT)
    if not isinstance(found, str) or not re.fullmatch(TYPE_PATTERN.strip("^$"), found):
        raise _wrong(f"{path}.artifactType", f"found {shown(found)}; a type such as quality_report is needed")
    return found


def _known(row: object, fields: frozenset[str], path: str) -> None:
    if not isinstance(row, Mapping):
        raise _wrong(path, f"found {shown(row)}; a mapping is needed")
    if unknown := sorted(set(row) - fields):
        raise _wrong(path, f"unknown field {shown(unknown[0])}; known are {', '.join(sorted(fields))}")


def _wrong(path: str, text: str) -> InvalidInputError:
    return InvalidInputError.of([Problem(ErrorKind.CONTRACT, path, text)])
