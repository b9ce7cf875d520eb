"""`emboflow audit`: who did what."""

from typing import Annotated

import typer

from emboflow_dagster.cli import figures, output
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.options import Limit
from emboflow_dagster.cli.state import noun, verb

app = noun("The audit log: who did what, chained so that a missing row shows.")


@verb(app, "list", example="emboflow audit list --action asset.register")
def list_(
    action: Annotated[
        str | None,
        typer.Option("--action", metavar="ACTION", help="Only one action, such as asset.register."),
    ] = None,
    resource: Annotated[
        str | None, typer.Option("--resource", metavar="ID", help="Only about the document with this id.")
    ] = None,
    limit: Limit = 100,
) -> None:
    """The rows of the workspace, newest first."""
    with opened() as ef:
        rows = ef.audit.list(action=action, resource_id=resource, limit=limit)
    output.emit(
        [row.to_json() for row in rows],
        lambda: output.listing(
            (">NO", "ACTION", "ACTOR", "ON?", "ID", "WHEN?"),
            [
                (
                    row.metadata.get("sequence"),
                    row.action,
                    row.actor_id,
                    row.resource_type,
                    row.resource_id,
                    figures.age(row.created_at),
                )
                for row in rows
            ],
            empty="no such row",
            limit=limit,
        ),
    )
