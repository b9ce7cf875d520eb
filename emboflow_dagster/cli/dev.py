"""`emboflow dev`: database, webserver, code server and daemon as one foreground process."""

from pathlib import Path
from typing import Annotated

import typer

from emboflow_dagster.cli import output, state
from emboflow_dagster.cli.deployment import settings
from emboflow_dagster.cli.state import verb


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "dev", example="emboflow dev --port 3000")(dev)


def dev(
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            min=1,
            max=65_535,
            metavar="N",
            help="The webserver's port; else 3000 or the next free.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where it listens.")] = "127.0.0.1",
    workspace_file: Annotated[
        Path | None,
        typer.Option(
            "--workspace-file",
            metavar="FILE",
            help="What Dagster loads; else workspace.yaml of this folder, else the package itself.",
        ),
    ] = None,
) -> None:
    """Run everything until ctrl-c: database, Dagster webserver, code server and daemon.

    With --json the URL is printed as one value once everything answers.
    """
    from emboflow_dagster.orchestration.dev import run_dev

    said = state.current()

    def ready(url: str) -> None:
        if said.json:
            output.emit({"url": url}, lambda: None)

    status = run_dev(
        settings(),
        port=port,
        host=host,
        workspace_file=workspace_file,
        say=output.note if said.json else lambda line: output.lines([line]),
        ready=ready,
    )
    if status:
        raise typer.Exit(status)
