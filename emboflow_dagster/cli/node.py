"""`emboflow node`: the kinds of work a workflow can be made of, and a project's own ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import figures, output
from emboflow_dagster.cli.deployment import has_database, opened
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from emboflow_dagster.model.plugin import CustomNode
    from emboflow_dagster.runtime.node import NodeType
    from emboflow_dagster.runtime.registry import NodeTypes

app = noun("Node types: what workflows are made of, and the project's own (`--custom`).")
Custom = Annotated[
    str, typer.Argument(metavar="NODE", help="Slug or id of a node of this project.", show_default=False)
]
_CUSTOM: Final = "custom:"


@verb(app, "list", example="emboflow node list")
def list_(
    *,
    custom: Annotated[
        bool, typer.Option("--custom", help="The project's own nodes instead; needs the database.")
    ] = False,
) -> None:
    """Every node type of this installation; with --custom those of the project."""
    from emboflow_dagster.runtime.registry import node_types

    if custom:
        _list_custom()
        return
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

    own = None
    if (builtin := node_types().get(node)) is None and (node.startswith(_CUSTOM) or has_database()):
        from emboflow_dagster.runtime import custom_node

        with opened() as ef:
            own = ef.nodes.find(node)
        if own is not None:
            builtin = custom_node.node_type(custom_node.frozen(own))
    found = builtin or node_types().require(node)
    value = _value(found) | ({} if own is None else {"customNode": own.to_json()})

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
                *(_custom_pairs(own) if own else ()),
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
        "executor": node.executor.value,
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


@verb(app, "register", example="emboflow node register urdf-check.yaml")
def register(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The node: YAML or JSON.")],
) -> None:
    """Register a node of this project: an image or a Dockerfile, and its contract."""
    with opened() as ef:
        done = ef.nodes.register(file)
    said = "unchanged" if done.unchanged else "registered; workflows of this project can use it"
    output.emit(done.node.to_json(), lambda: _page(done.node, said))


@verb(app, "disable", example="emboflow node disable urdf-check")
def disable(node: Custom) -> None:
    """Refuse a node of this project to new runs."""
    with opened() as ef:
        found = ef.nodes.disable(node)
    output.emit(found.to_json(), lambda: _page(found, "no new run can use it"))


@verb(app, "enable", example="emboflow node enable urdf-check")
def enable(node: Custom) -> None:
    """Let new runs use a node of this project again."""
    with opened() as ef:
        found = ef.nodes.enable(node)
    output.emit(found.to_json(), lambda: _page(found, "new runs can use it"))


def known_types() -> "NodeTypes":
    """What workflows can be made of: where there is a database, the project's own nodes, too."""
    from emboflow_dagster.runtime.registry import node_types

    if not has_database():
        return node_types()
    try:
        with opened(to_check=True) as ef:
            return ef.nodes.types()
    except (UnavailableError, ConfigurationError):
        return node_types()


def _list_custom() -> None:
    with opened() as ef:
        found = ef.nodes.list()
    rows = [
        (n.slug, n.name, n.category.value, n.status.value, n.source.kind, figures.age(n.updated_at))
        for n in found
    ]
    output.emit(
        [n.to_json() for n in found],
        lambda: output.listing(
            ("NODE", "NAME", "CATEGORY", "STATUS", "SOURCE", "CHANGED"),
            rows,
            empty="no node of its own: `emboflow node register FILE` makes one",
        ),
    )


def _page(node: "CustomNode", said: str) -> None:
    output.pairs(
        [("type", output.styled(node.definition_id, "bold")), ("name", node.name), *_custom_pairs(node)]
    )
    output.note(said)


def _custom_pairs(node: "CustomNode") -> list[tuple[str, Any]]:
    from emboflow_dagster.runtime.custom_node import image_of

    return [
        ("id", node.id),
        ("status", node.status.value),
        ("source", node.source.kind),
        ("image", image_of(node)),
        ("outputs", ", ".join(node.contract.outputs) or None),
        ("changed", figures.moment(node.updated_at)),
    ]
