"""The tables of the docs that are made from the code; ``python tests/docs/tables.py`` writes them anew."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from emboflow_dagster.runtime.node import NodeOptions, NodeType
from emboflow_dagster.runtime.registry import node_types

ROOT = Path(__file__).resolve().parents[2]


def types() -> list[NodeType]:
    return sorted(node_types(), key=lambda node_type: node_type.id)


def node_table() -> str:
    """README: one row a node type."""
    rows = ["| type | what it does | produces |", "|---|---|---|"]
    for node_type in types():
        first = node_type.description.split(". ")[0].rstrip(".")
        produces = f"`{node_type.produces}`" if node_type.produces else ""
        rows.append(f"| `{node_type.id}` | {first} | {produces} |")
    return "\n".join(rows)


def node_pages() -> str:
    """The workflow file: every node type with its options."""
    return "\n".join(line for node_type in types() for line in _page(node_type)).rstrip("\n")


def _page(node_type: NodeType) -> Iterator[str]:
    yield f"### `{node_type.id}`"
    yield ""
    yield node_type.description
    facts = []
    if node_type.aliases:
        facts.append(f"Also written {', '.join(f'`{name}`' for name in node_type.aliases)}.")
    if node_type.source:
        facts.append("Runs after nothing.")
    if node_type.requires_artifact:
        needed = ", ".join(f"`{name}`" for name in sorted(node_type.requires_artifact))
        facts.append(f"Needs {needed} from a node it runs after.")
    if node_type.produces:
        facts.append(f"Produces `{node_type.produces}`.")
    if node_type.code_hook:
        facts.append("Needs `codeHook`.")
    if node_type.runs_on_empty:
        facts.append("Runs even when no asset is left.")
    if facts:
        yield ""
        yield " ".join(facts)
    rows = list(_options(node_type.options))
    yield ""
    if rows:
        yield from ("| `config` | value | default | what |", "|---|---|---|---|", *rows, "")
    else:
        yield from ("No `config`.", "")


def _options(model: type[NodeOptions], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = f"{prefix}{info.alias or name}"
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, NodeOptions):
            yield from _options(inner, f"{key}.")
            continue
        text = (info.description or "").replace("|", "\\|")
        yield f"| `{key}` | {_kind(inner)} | {_default(info)} | {text} |"


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return (
        f"`{value}`" if value not in ([], {}, "") else {list: "`[]`", dict: "`{}`", str: "empty"}[type(value)]
    )


def _kind(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None:
        return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(
            annotation, "mapping"
        )
    if origin is list:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return "mapping"
    if origin.__name__ == "Literal":
        return ", ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in inner)
    if origin.__name__ == "Annotated":
        return _kind(inner[0])
    return " or ".join(_kind(part) for part in inner)


#: File, name of the part between `<!-- name: ... -->` and `<!-- end of name -->`, what makes it.
PARTS = (
    ("README.md", "node types", node_table),
    ("docs/workflow-file.md", "node types", node_pages),
)


def part(text: str, name: str) -> re.Match[str]:
    """The part of a page that is made from the code."""
    found = re.search(rf"(<!-- {name}: [^>]*-->\n)(.*?)(\n<!-- end of {name} -->)", text, re.DOTALL)
    if found is None:
        raise LookupError(f"no part {name!r}")
    return found


def write() -> None:
    for file, name, make in PARTS:
        path = ROOT / file
        text = path.read_text(encoding="utf-8")
        found = part(text, name)
        path.write_text(text[: found.start(2)] + make() + text[found.end(2) :], encoding="utf-8")


if __name__ == "__main__":
    write()
