"""`emboflow blob owner`, `transfer` and `release`: whose a blob is, and how that changes."""

from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import figures, output
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.blobs.owner import Owner
    from emboflow_dagster.model.storage import BlobRef
    from emboflow_dagster.project.handle import EmboFlow

Id = Annotated[str, typer.Argument(metavar="BLOB", help="Object id of a blob.")]
Version = Annotated[
    int | None, typer.Option("--version", min=0, metavar="N", help="Version number; else the newest.")
]
_PLACE = 3


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun."""
    verb(app, "owner", example="emboflow blob owner obj_01JD0000000000000000000001")(owner)
    verb(
        app,
        "transfer",
        example="emboflow blob transfer obj_01JD0000000000000000000001 "
        "--to annotations.ann_01JD0000000000000000000001.payload",
    )(transfer)
    verb(app, "release", example="emboflow blob release obj_01JD0000000000000000000001")(release)


def owner(object_id: Id, version: Version = None) -> None:
    """Which record owns a version, is meant to, or let it go."""
    with opened() as ef:
        found = ef.blobs.owner(object_id, version)
    output.emit(found.to_json(), lambda: _page(found))


def transfer(
    object_id: Id,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="COLLECTION.ID.FIELD", help="The record that gets it, and in which of its fields."
        ),
    ],
    replacement: Annotated[
        str | None,
        typer.Option(
            "--replacement",
            metavar="BLOB[@N]",
            help="What the old owner has instead, where its field cannot be empty: a blob without owner.",
        ),
    ] = None,
) -> None:
    """Make another record the owner of a blob's newest version. What that had in the field is let go."""
    place = to.split(".")
    if len(place) != _PLACE:
        raise typer.BadParameter(
            f"found {to!r}; needed is COLLECTION.ID.FIELD, for example assets.ast_1.storageRef",
            param_hint="'--to'",
        )
    with opened() as ef:
        instead = None if replacement is None else _named(ef, replacement)
        ef.blobs.transfer(object_id, to=(place[0], place[1], place[2]), replacement=instead)
        found = ef.blobs.owner(object_id)
    output.emit(found.to_json(), lambda: _page(found))


def release(object_id: Id, version: Version = None) -> None:
    """Let a version of a record that is out of use go; others may claim it until gc collects it."""
    with opened() as ef:
        released = ef.blobs.release(object_id, version)
        found = ef.blobs.owner(object_id, released.version)
    output.emit(found.to_json(), lambda: _page(found))


def _named(ef: "EmboFlow", text: str) -> "BlobRef":
    from emboflow_dagster.model.storage import BlobRef

    object_id, at, number = text.partition("@")
    if at and not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(
            f"found {text!r}; needed is BLOB or BLOB@N, N a version number", param_hint="'--replacement'"
        )
    version = int(number) if at else ef.blobs.get(object_id).version
    return BlobRef(object_id=object_id, version=ef.blobs.get(object_id, version).version)


_SAID = {
    "owned": "owned",
    "intended": "meant for a record that has not claimed it",
    "let_go": "let go: collected after the grace, unless it is claimed again",
    "free": "nobody's: a record becomes its owner by naming it",
}


def _page(found: "Owner") -> None:
    place = ".".join(part for part in (found.record, found.record_id, found.field) if part)
    output.pairs(
        [
            ("blob", output.styled(found.object_id, "bold")),
            ("version", f"{found.version}{'' if found.newest else ' (superseded)'}"),
            ("status", _SAID[found.status.value]),
            ("let go by" if found.status.value == "let_go" else "record", place or None),
            ("name", found.name),
            ("since", f"{figures.moment(found.since)} by {found.by}" if found.since else None),
            ("reason", found.reason),
        ]
    )
