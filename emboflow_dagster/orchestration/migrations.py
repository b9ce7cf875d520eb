"""Dagster's migration scripts, read once a process.

Each opening of one of its SQLite files (a home has some, and each run one) asks Alembic for the newest
revision, and Alembic imports some ninety scripts to tell: a quarter of the processor time of a step that does
little. They do not change while a process lives, so what was read first is what is read.
"""

from functools import wraps
from typing import Any


def remember() -> None:
    """From now on scripts of one place are read once; safe to repeat."""
    from dagster._core.storage.sql import ScriptDirectory  # pyright: ignore[reportPrivateImportUsage] - Alembic's

    # Not Dagster's own: the one public call through which it, and Alembic itself, come by the scripts.
    read = ScriptDirectory.from_config
    if hasattr(read, "__wrapped__"):
        return
    known: dict[tuple[tuple[str, str], ...], ScriptDirectory] = {}

    @wraps(read)
    def from_config(config: Any) -> ScriptDirectory:
        said = config.file_config.items(config.config_ini_section)
        # Which of Dagster's files says it is all the same; what it says relative to itself is in the others.
        place = tuple(sorted(row for row in said if row[0] != "here"))
        found = known.get(place)
        if found is None:
            found = known[place] = read(config)
        return found

    ScriptDirectory.from_config = staticmethod(from_config)


def read_all() -> None:
    """Read Dagster's own now, for the processes that are forked from this one."""
    remember()
    from dagster._core.storage.runs.sqlite import sqlite_run_storage  # Dagster's own, not public
    from dagster._core.storage.sql import ScriptDirectory, get_alembic_config  # pyright: ignore[reportPrivateImportUsage]

    ScriptDirectory.from_config(get_alembic_config(sqlite_run_storage.__file__)).as_revision_number("head")
