"""One command line from its words to its exit status."""

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from emboflow_dagster.cli import failures, output, state


def exit_status(arguments: Sequence[str]) -> int:
    """Execute a command line; what fails is said on stderr, nothing is raised."""
    state.reset()
    output.prepare_streams()
    try:
        from emboflow_dagster.cli.app import execute

        status = execute(list(arguments))
        output.flush()
    except BaseException as error:  # noqa: BLE001 - every end of a command has its line and its status
        return failures.report(error, debug=state.current().debug or "--debug" in arguments)
    return status


def leave(status: int) -> NoReturn:
    """End the process, at once where nothing is left to be done.

    The database driver's threads look up twice a second, and an orderly exit waits for them; then it takes
    apart what was imported, a quarter of the processor time of a run by command. What is registered for the
    end of the process is done all the same: Dagster and temporary folders rely on it.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if not all(thread.daemon for thread in others):
        sys.exit(status)
    # Not public, and the same since Python 2: it does them in their order, and says what fails.
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
