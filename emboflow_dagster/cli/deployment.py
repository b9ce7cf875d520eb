"""The deployment a command works on: what the environment and the command line name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.cli import progress, state
from emboflow_dagster.errors import ErrorKind, InvalidInputError, ObjectNotFoundError, shown

if TYPE_CHECKING:
    from emboflow_dagster.project.handle import EmboFlow
    from emboflow_dagster.project.settings import Settings

_SHORT_ID: Final = re.compile(r"^([a-z]+)_([0-9A-HJKMNP-TV-Z]{8})$")


def settings() -> "Settings":
    """Settings of the environment; the command line wins.

    Raises:
        InvalidInputError: A name is not allowed.
    """
    from emboflow_dagster.project.settings import Settings

    said = state.current()
    return Settings.from_env(workspace=said.workspace, project=said.project, actor=said.actor)


def has_database() -> bool:
    """Whether there is a database already: asking for something of the project would make none."""
    from emboflow_dagster.mongo.embedded.place import Place

    chosen = settings()
    return chosen.mongo_uri is not None or Place(chosen.home).instance() is not None


@contextmanager
def opened(*, to_check: bool = False) -> "Iterator[EmboFlow]":
    """The open handle; the embedded database is started when it has to be.

    Args:
        to_check: Nothing is made that is not there.
    """
    from emboflow_dagster.project.handle import EmboFlow

    with progress.waiting("opening the database"):
        handle = EmboFlow.open(settings(), to_check=to_check)
    with handle:
        try:
            yield handle
        except ObjectNotFoundError as error:
            if error.hint is None:
                from emboflow_dagster.cli.blob_hint import hint_for

                error.hint = hint_for(handle, error.message)
            raise


def full_id(documents: Any, text: str) -> str:
    """The id that the end of an id means, as tables on a terminal show it; any other text as it is.

    Args:
        documents: The scoped collection to look in.
        text: What was typed.

    Raises:
        InvalidInputError: Several ids end so (kind ``ambiguous``).
    """
    found = _SHORT_ID.match(text)
    if found is None:
        return text
    rows = documents.find({"_id": {"$regex": f"^{found[1]}_.*{found[2]}$"}}, limit=2)
    if len(rows) > 1:
        raise InvalidInputError(
            f"{shown(text)}: several ids end so", kind=ErrorKind.AMBIGUOUS, hint="use the whole id"
        )
    return rows[0].id if rows else text
