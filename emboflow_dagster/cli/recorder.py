"""`emboflow recorder`: brings documents in line with Dagster, faster than the daemon's sensor looks."""

import time
from typing import Annotated

import typer

from emboflow_dagster.cli import output, state
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "recorder", example="emboflow recorder --once")(recorder)


def recorder(
    once: Annotated[bool, typer.Option("--once", help="Look once and end, instead of going on.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="S", help="Look every S seconds.")
    ] = 0.5,
) -> None:
    """Settle what no step could write itself: killed workers, ended Dagster runs, lost leases.

    The daemon does the same every 10 s. Any number of them may run beside each other.
    """
    if state.current().json and not once:
        raise typer.BadParameter("prints a value only with --once", param_hint="'--json'")
    from emboflow_dagster.orchestration import instance as dagster_instance
    from emboflow_dagster.orchestration.recorder import record

    with opened() as ef, dagster_instance.opened(ef.settings.dagster_home) as instance:
        while True:
            written = record(ef, instance)
            if once:
                break
            for line in written:
                output.note(line)
            time.sleep(every)
    output.emit({"written": written}, lambda: output.lines(written or ["nothing was left open"]))
