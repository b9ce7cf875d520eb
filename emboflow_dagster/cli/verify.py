"""`emboflow verify`: every promise held against what is really stored."""

from typing import Annotated

import typer

from emboflow_dagster.cli import output, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

MAX_ROWS = 200


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "verify", example="emboflow verify --all")(verify)


def verify(
    all_: Annotated[
        bool, typer.Option("--all", help="Every workspace of the database, not only this one.")
    ] = False,
) -> None:
    """Check documents, references, numbers, ownership, audit chain and payloads. Exit 1 for any problem."""
    with opened(to_check=True) as ef, progress.waiting("verifying"):
        if not (all_ or ef.scope.workspace_id):
            output.note(f"there is no workspace {ef.scope.workspace_slug}: all of them are checked")
        report = ef.verify(all=all_)
    counted = ", ".join(f"{name} {count}" for name, count in sorted(report.counts.items()) if count)

    def page() -> None:
        if report.problems:
            output.table(
                ("CODE", "COLLECTION", "ID", "FIELD", "PROBLEM"),
                [
                    (output.styled(p.code, "red"), p.collection, p.id, p.field, p.message)
                    for p in report.problems[:MAX_ROWS]
                ],
            )
            if len(report.problems) > MAX_ROWS:
                output.note(f"and {len(report.problems) - MAX_ROWS} more; --json shows all")
        found = "everything is as it should be" if report.ok else f"{len(report.problems)} problems"
        output.pairs([("looked at", counted or "nothing"), ("found", output.styled(found, "bold"))])

    output.emit(report.to_json(), page)
    if not report.ok:
        raise typer.Exit(1)
