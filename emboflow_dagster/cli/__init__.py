"""The `emboflow` command: one module a noun; :func:`main` is the console script.

Exit 0 done, 1 the operation failed, 2 wrong usage, 130 interrupted. An error is one line on stderr.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["exit_status", "main"]


def main() -> NoReturn:
    """The console script."""
    sys.exit(exit_status(sys.argv[1:]))


def exit_status(arguments: Sequence[str]) -> int:
    """Execute one command line and return its exit status; never raises."""
    from emboflow_dagster.cli import failures, output, state

    state.reset()
    output.prepare_streams()
    try:
        from emboflow_dagster.cli.app import execute

        status = execute(list(arguments))
        output.flush()
    except BaseException as error:  # noqa: BLE001 - every end of a command has its line and its status
        return failures.report(error, debug=state.current().debug or "--debug" in arguments)
    return status
