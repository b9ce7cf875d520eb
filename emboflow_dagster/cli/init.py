"""`emboflow init`: collections, validators and indexes as this release needs them."""

import typer

from emboflow_dagster.cli import output, progress
from emboflow_dagster.cli.deployment import settings
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import ConfigurationError, ErrorKind


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "init", example="emboflow init")(init)


def init() -> None:
    """Make the database ready, or repair what drifted; safe to repeat.

    Exit 1 when something is in the way.
    """
    from emboflow_dagster.mongo.setup import set_up
    from emboflow_dagster.project.handle import EmboFlow, open_database

    found = settings()
    with progress.waiting("setting the database up"):
        # Opening a handle sets a fresh database up by itself: here what was done is to be told.
        mongo = open_database(found)
        try:
            report = set_up(mongo)
        finally:
            mongo.close()
        EmboFlow.open(found).close()

    def page() -> None:
        for word, names in (("created", report.created), ("repaired", report.repaired)):
            output.lines(f"{word} {name}" for name in names)
        output.lines([f"{report.unchanged} collections, validators and indexes were as they should be"])
        if report.conflicts:
            output.table(("CONFLICT",), [(text,) for text in report.conflicts])

    output.emit(report.to_json(), page)
    if report.conflicts:
        raise ConfigurationError(
            f"{len(report.conflicts)} cannot be repaired: {report.conflicts[0]}",
            kind=ErrorKind.INDEX,
            hint="the documents that are in the way have to be changed first",
        )
