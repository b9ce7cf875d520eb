"""`emboflow sync`: a running Dagster shows what was published."""

from typing import Annotated

import typer

from emboflow_dagster.cli import output, progress
from emboflow_dagster.cli.deployment import settings
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import UnavailableError


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "sync", example="emboflow sync --url http://dagster.local:3000")(sync)


def sync(
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="The webserver; else the one that `emboflow dev` runs."),
    ] = None,
) -> None:
    """Let the running Dagster webserver load its code location anew."""
    from emboflow_dagster.orchestration.sync import sync as reload

    with progress.waiting("reloading"):
        report = reload(settings().dagster_home, url=url)
    output.emit(report.to_json(), lambda: output.lines([report.message]))
    if report.url is not None and not report.reloaded:
        raise UnavailableError(f"{report.url} was not reloaded: {report.message}")
