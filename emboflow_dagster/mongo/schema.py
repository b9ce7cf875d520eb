r"""``$jsonSchema`` validators, made from the pydantic documents so that the two cannot drift.

MongoDB knows no ``$ref``, ``format`` or ``integer``; ``$`` in its patterns also matches before a
trailing newline (spec/reliability.md, finding 6), so patterns end in ``\z`` there.
"""

from functools import cache
from typing import Any, Final

from emboflow_dagster.model.collections import Collection
from emboflow_dagster.model.storage import IN_OBJECT_BYTES

MAX_DOCUMENT_BYTES: Final = 1 << 20
# A head carries superseded versions for a moment, so it may be larger than other documents.
_MAX_BYTES: Final = {"objects": 8 << 20, "annotations": 2 << 20, "object_history": 2 << 20}
_BOUNDS: Final = {
    "minLength": "minLength",
    "maxLength": "maxLength",
    "minItems": "minItems",
    "maxItems": "maxItems",
    "minimum": "minimum",
    "maximum": "maximum",
    "enum": "enum",
}
_NUMBERS: Final = ["int", "long", "double"]


@cache
def validator_for(collection: Collection) -> dict[str, Any]:
    """The server-side validator of one collection: shape, size and no bytes in documents.

    Source: R-027, R-326 (validator on ``$binarySize``, document cap 1 MiB).
    """
    source = collection.document.model_json_schema(by_alias=True, mode="serialization")
    schema = _convert(source, source.get("$defs", {}))
    schema["properties"]["_id"] = {"bsonType": "string", "minLength": 1}
    if collection.name in ("objects", "object_history"):
        _blob_fields(schema)
    limit = _MAX_BYTES.get(collection.name, MAX_DOCUMENT_BYTES)
    return {
        "$and": [
            {"$jsonSchema": schema},
            {"$expr": {"$lte": [{"$bsonSize": "$$ROOT"}, limit]}},
            {"$expr": {"$lte": [{"$binarySize": {"$ifNull": ["$data", ""]}}, IN_OBJECT_BYTES]}},
        ]
    }


def _blob_fields(schema: dict[str, Any]) -> None:
    """Fields the storage modes and the outbox add to a blob's document (decision 0005)."""
    schema["properties"] |= {
        "data": {"bsonType": "binData"},
        "grid_fs_file_id": {"bsonType": ["objectId", "string", "null"]},
        "tail": {"bsonType": "array"},
        "request_ids": {"bsonType": "array"},
        "first_kept": {"bsonType": ["int", "long"]},
        "put_id": {"bsonType": "string"},
    }


def _convert(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912 - one row a kind
    if "$ref" in node:
        return _convert(defs[node["$ref"].rsplit("/", 1)[1]], defs)
    if "allOf" in node and len(node["allOf"]) == 1:
        return _convert(node["allOf"][0], defs)
    options = node.get("anyOf") or node.get("oneOf")
    if options:
        return _merge([_convert(option, defs) for option in options])
    if "const" in node:
        return {"enum": [node["const"]]}
    out: dict[str, Any] = {_BOUNDS[k]: v for k, v in node.items() if k in _BOUNDS}
    for name, flag in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        # 2**63 does not fit a long; the BSON type bounds it already.
        if name in node and abs(node[name]) < 2**63:
            out |= {flag: node[name], name: True}
    match node.get("type"):
        case "string" if node.get("format") == "date-time":
            return {"bsonType": "date"}
        case "string":
            if "pattern" in node:
                pattern = node["pattern"]
                out["pattern"] = pattern[:-1] + r"\z" if pattern.endswith("$") else pattern
            return {"bsonType": "string", **out}
        case "integer":
            return {"bsonType": ["int", "long"], **out}
        case "number":
            return {"bsonType": _NUMBERS, **out}
        case "boolean":
            return {"bsonType": "bool"}
        case "null":
            return {"bsonType": "null"}
        case "array":
            items = node.get("items")
            return {"bsonType": "array", **out, **({"items": _convert(items, defs)} if items else {})}
        case "object":
            return _object(node, defs)
        case _:
            return {"enum": node["enum"]} if "enum" in node else {}


def _object(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"bsonType": "object"}
    if "properties" in node:
        out["properties"] = {k: _convert(v, defs) for k, v in node["properties"].items()}
        if node.get("required"):  # MongoDB refuses an empty list
            out["required"] = sorted(node["required"])
        out["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        inner = _convert(node["additionalProperties"], defs)
        if inner:
            out["additionalProperties"] = inner
    return out


def _merge(options: list[dict[str, Any]]) -> dict[str, Any]:
    """``X | null`` as one schema where that is possible: clearer errors than ``anyOf``."""
    nulls = [o for o in options if o == {"bsonType": "null"}]
    rest = [o for o in options if o != {"bsonType": "null"}]
    if nulls and len(rest) == 1 and "bsonType" in rest[0]:
        only = dict(rest[0])
        kinds = only["bsonType"] if isinstance(only["bsonType"], list) else [only["bsonType"]]
        only["bsonType"] = [*kinds, "null"]
        if "enum" in only:
            only["enum"] = [*only["enum"], None]
        return only
    return {"anyOf": options}
