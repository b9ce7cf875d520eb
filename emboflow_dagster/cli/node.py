"""`emboflow node`: the kinds of work a workflow can be made of."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from emboflow_dagster.cli import output
from emboflow_dagster.cli.state import noun, verb

if TYPE_CHECKING:
    from emboflow_dagster.runtime.node import NodeType

app = noun("Node types: what workflows are made of. Needs no database.")


@verb(app, "list", example="emboflow node list")
def list_() -> None:
    """Every node type of this installation."""
    from emboflow_dagster.runtime.registry import node_types

    found = sorted(node_types(), key=lambda t: t.id)
    output.emit(
        [_value(t) for t in found],
        lambda: output.table(
            ("TYPE", "TITLE?", "PRODUCES?", "DESCRIPTION"),
            [(t.id, t.title, t.produces, t.description.partition(". ")[0].rstrip(".")) for t in found],
        ),
    )


@verb(app, "show", example="emboflow node show quality-report")
def show(
    node: Annotated[str, typer.Argument(metavar="TYPE", help="Id or alias of a node type.")],
) -> None:
    """One node type and the options its `config` takes."""
    from emboflow_dagster.runtime.registry import node_types

    found = node_types().require(node)
    value = _value(found)

    def page() -> None:
        output.pairs(
            [
                ("type", output.styled(f"{found.id}@{found.version}", "bold")),
                ("title", found.title),
                ("about", found.description),
                ("category", found.category.value),
                ("also called", ", ".join(found.aliases) or None),
                ("takes", ", ".join(value["accepts"]) if value["accepts"] is not None else "any artifact"),
                ("needs", ", ".join(value["requiresArtifact"]) or None),
                ("produces", found.produces),
                ("role", "source" if found.source else "sink" if found.sink else None),
            ]
        )
        schema = value["options"]
        rows = [
            (name, _kind(row, schema), row.get("default"), row.get("description"))
            for name, row in schema.get("properties", {}).items()
        ]
        if rows:
            output.table(("OPTION", "TYPE", "DEFAULT", "MEANING"), rows, title="config")

    output.emit(value, page)


def _value(node: "NodeType") -> dict[str, Any]:
    return {
        "id": node.id,
        "version": node.version,
        "title": node.title,
        "description": node.description,
        "category": node.category.value,
        "aliases": list(node.aliases),
        "accepts": None if node.accepts is None else sorted(node.accepts),
        "requiresArtifact": sorted(node.requires_artifact),
        "produces": node.produces,
        "narrowing": node.narrowing.value if node.narrowing else None,
        "source": node.source,
        "sink": node.sink,
        "codeHook": node.code_hook,
        "options": node.options.model_json_schema(by_alias=True),
    }


def _kind(row: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of an option in words, out of its JSON schema."""
    if "$ref" in row:
        name = row["$ref"].rpartition("/")[2]
        return _kind(schema.get("$defs", {}).get(name, {}), schema) or name
    if "anyOf" in row:
        return " or ".join(dict.fromkeys(_kind(part, schema) for part in row["anyOf"]))
    if "enum" in row:
        return ", ".join(str(word) for word in row["enum"])
    if "const" in row:
        return str(row["const"])
    if row.get("type") == "array":
        return f"list of {_kind(row.get('items', {}), schema) or 'anything'}"
    return str(row.get("type", "anything"))
