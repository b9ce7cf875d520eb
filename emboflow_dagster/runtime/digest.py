"""Which change of a workflow matters: digests over exactly what counts.

========================  ================  ==============  ================
what changed              execution digest  content digest  node code version
========================  ================  ==============  ================
layout, titles, names     same              new             same
order of the node list    same              new             same
schedule, asset bindings  same              new             same
retries, cache policy     new               new             same
order of ``after``        new               new             new
config, hook, executor    new               new             new (that node)
version of a node type    new               new             new (that type)
========================  ================  ==============  ================

Retries and cache policy change no result, but they are how a run executes, and a run's snapshot holds
them. The schedule says when and on what a run is requested, not what it does.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from emboflow_dagster.model.workflow import LogicGraph, LogicNode, NodeConfig, RuntimeGraph
from emboflow_dagster.runtime.asset_bindings import BINDINGS
from emboflow_dagster.runtime.registry import NodeTypes

_EXACT: Final = 2**53


def canonical_json(value: object) -> str:
    """One text for equal values: sorted keys, no white space, UTF-8, dates in UTC.

    A float that is a whole number is written as that integer: ``20.0`` and ``20`` are equal in Python,
    and not every reader of a stored document keeps them apart. All other floats have the shortest
    text that reads back as the same double.

    Raises:
        ValueError: NaN or infinity.
        TypeError: Not JSON and not a date.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return value


def sha256_of(value: object) -> str:
    """sha256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _type_version(node: LogicNode, config: NodeConfig, types: NodeTypes) -> str:
    """``type@version``; of a type that is no longer there, what was recorded when it was published."""
    node_type = types.get(node.type)
    if node_type is None:
        return config.definition_id or node.type
    return f"{node_type.id}@{node_type.version}"


def _what_runs(node: LogicNode, config: NodeConfig, types: NodeTypes, after: Sequence[str]) -> dict[str, Any]:
    return {
        "type": _type_version(node, config, types),
        "executor": config.executor.value,
        "image": config.image,
        "config": config.config,
        "codeHook": config.code_hook.to_json() if config.code_hook else None,
        "artifactType": config.artifact_type,
        "after": list(after),
    }


def execution_digest(logic: LogicGraph, runtime: RuntimeGraph, node_types: NodeTypes) -> str:
    """sha256 (hex) over what a run executes: see the table above."""
    upstream = logic.upstream()
    nodes: dict[str, Any] = {}
    for node in logic.nodes:
        config = runtime.node_configs.get(node.id, NodeConfig())
        nodes[node.id] = _what_runs(node, config, node_types, upstream[node.id]) | {
            "cache": config.cache,
            "retries": config.retries,
        }
    defaults = {key: value for key, value in runtime.defaults.items() if key != BINDINGS}
    return sha256_of({"schema": 1, "nodes": nodes, "defaults": defaults})


def content_digest(
    *,
    name: str,
    description: str,
    logic: LogicGraph,
    runtime: RuntimeGraph,
    visual: Mapping[str, Any],
) -> str:
    """sha256 (hex) over everything a version holds: equal means that publishing changes nothing."""
    return sha256_of(
        {
            "schema": 1,
            "name": name,
            "description": description,
            "logic": logic.to_json(),
            "runtime": runtime.to_json(),
            "visual": visual,
        }
    )


def node_code_version(
    node: LogicNode, config: NodeConfig, node_types: NodeTypes, after: Sequence[str] = ()
) -> str:
    """Dagster's ``code_version`` of one node: ``type@version`` and a digest of all that decides its result.

    Args:
        node: The node.
        config: Its configuration.
        node_types: To find the version of its type.
        after: The ids it directly runs after, in order (a difference depends on the order).
    """
    version = _type_version(node, config, node_types)
    return f"{version}-{sha256_of(_what_runs(node, config, node_types, after))[:16]}"
