"""Asks before what cannot be taken back: the plan is shown, and a name typed; scripts say `--yes`."""

import contextlib
import sys
from collections.abc import Callable

from emboflow_dagster.cli import output
from emboflow_dagster.errors import ErrorKind, InvalidInputError


def ask(word: str, what: str, plan: Callable[[], None]) -> None:
    """Go on only if a person types ``word``.

    The plan and the question are on standard error: standard output has the result alone.

    Args:
        word: What has to be typed.
        what: What is done then, as "...s": "destroys the bytes of 2 episodes".
        plan: Prints what it would do.

    Raises:
        InvalidInputError: Something else was typed, or nobody can be asked (kind ``usage``).
    """
    require_person(what)
    with contextlib.redirect_stdout(sys.stderr):
        plan()
    sys.stderr.write(f"\nthis {what} and cannot be undone; type {output.clean(word)} to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != word:
        raise InvalidInputError("that is not its name; nothing was done", hint="--yes does it without asking")


def require_person(what: str) -> None:
    """Refuse where standard input is no terminal.

    Raises:
        InvalidInputError: Nobody can be asked (kind ``usage``).
    """
    if not sys.stdin.isatty():
        raise InvalidInputError(
            f"this {what} and cannot be undone, and nobody can be asked: standard input is no terminal; "
            "nothing was done",
            kind=ErrorKind.USAGE,
            hint="--dry-run shows what it would do, --yes does it without asking",
        )
