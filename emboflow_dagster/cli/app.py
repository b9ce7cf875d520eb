"""All commands together, and the one place that executes a command line."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from emboflow_dagster.cli import (
    annotation,
    artifact,
    asset,
    audit,
    blob,
    dataset,
    demo,
    dev,
    doctor,
    gc,
    init,
    mongo,
    node,
    recorder,
    run,
    schedule,
    sync,
    task,
    verify,
    worker,
    workflow,
)
from emboflow_dagster.cli.failures import INTERRUPTED
from emboflow_dagster.cli.state import with_globals

NAME: Final = "emboflow"
NOUNS: Final = {
    "asset": asset,
    "dataset": dataset,
    "workflow": workflow,
    "run": run,
    "schedule": schedule,
    "task": task,
    "artifact": artifact,
    "annotation": annotation,
    "blob": blob,
    "node": node,
    "audit": audit,
    "mongo": mongo,
}
_PANELS: Final = {
    **dict.fromkeys(("asset", "dataset", "artifact", "annotation", "blob"), "Data"),
    **dict.fromkeys(("workflow", "run", "schedule", "task", "node", "worker", "recorder"), "Work"),
}
_OTHERS: Final = "Installation"
#: Commands without a noun, each with ``register(app)``.
VERBS: Final = (init, doctor, demo, dev, verify, gc, sync, worker, recorder)

app = typer.Typer(
    name=NAME,
    help="Robot recordings, workflows, dataset versions and artifacts: kept in MongoDB, run by Dagster.",
    epilog="Start: emboflow doctor, emboflow asset register demo.mcap --type rosbag, emboflow dev",
    subcommand_metavar="COMMAND [OPTIONS]",
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
@with_globals
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Before any command."""
    from emboflow_dagster import __version__
    from emboflow_dagster.cli import output

    if version:
        output.emit({"version": __version__}, lambda: output.lines([f"{NAME} {__version__}"]))
        raise typer.Exit
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


for _name, _module in NOUNS.items():
    app.add_typer(_module.app, name=_name, rich_help_panel=_PANELS.get(_name, _OTHERS))
for _module in VERBS:
    _module.register(app)
for _command in app.registered_commands:
    _command.rich_help_panel = _PANELS.get(_command.name or "", _OTHERS)


def execute(arguments: Sequence[str]) -> int:
    """Execute one command line; failures are raised.

    Returns:
        The exit status.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """
    status = typer.main.get_command(app).main(list(arguments), prog_name=NAME, standalone_mode=False)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0
