"""The `emboflow` command: one module a noun; :func:`main` is the console script.

Exit 0 done, 1 the operation failed, 2 wrong usage, 130 interrupted. An error is one line on stderr.
"""

import sys
from gc import set_threshold  # `gc` is a module of this package
from importlib import import_module
from typing import Final, NoReturn

__all__ = ["main"]

# Looking for garbage among what is imported, which all stays, was a ninth of what a run by command costs.
_GARBAGE: Final = (100_000, 50, 100)


def main() -> NoReturn:
    """The console script."""
    set_threshold(*_GARBAGE)
    try:
        # By name: the modules of this package import it, and it imports none of them.
        command_line = import_module("emboflow_dagster.cli.command_line")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    command_line.leave(command_line.exit_status(sys.argv[1:]))
    raise AssertionError("unreachable")
