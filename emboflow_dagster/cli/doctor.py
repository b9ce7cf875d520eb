"""`emboflow doctor`: whether this machine and its settings can work, one row a check."""

from typing import TYPE_CHECKING

import typer

from emboflow_dagster.cli import output, progress
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import ConfigurationError

if TYPE_CHECKING:
    from emboflow_dagster.cli.checkup import Check


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "doctor", example="emboflow doctor --json")(doctor)


def doctor() -> None:
    """Check Python, packages, mongod, database, object store and Dagster; changes nothing.

    Exit 1 when a check fails.
    """
    from emboflow_dagster.cli.checkup import checkup

    with progress.waiting("checking"):
        checks = checkup()
    failed = [check for check in checks if check.status == "fail"]
    value = {"ok": not failed, "checks": [check.to_json() for check in checks]}
    output.emit(value, lambda: _page(checks))
    if failed:
        raise ConfigurationError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(c.name for c in failed)}",
            hint=failed[0].hint,
        )


def _page(checks: "list[Check]") -> None:
    output.table(("CHECK", "STATUS", "FOUND"), [(c.name, c.status, c.found) for c in checks])
    for check in checks:
        if check.hint and check.status != "pass":
            output.note(f"{check.name}: {check.hint}")
