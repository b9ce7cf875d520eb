"""One command line from its words to its exit status."""

from collections.abc import Sequence

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
