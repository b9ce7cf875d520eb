"""The state of the code location: the catalog it was built from, kept beside Dagster's own records.

Content-addressed: an unchanged catalog is not stored twice, and a run that was planned with one version
finds exactly that version again. Dagster's storage for it is reached here and nowhere else.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)
from dagster._core.storage.defs_state.base import DefsStateStorage, set_defs_state_storage
from dagster.components.utils.defs_state import DefsStateConfig

from emboflow_dagster.orchestration.catalog import Catalog, digest, write_catalog


@contextmanager
def storage() -> Iterator[DefsStateStorage | None]:
    """Where states are kept, or ``None`` outside of any Dagster instance.

    Some ways of executing never enter the instance (Celery workers): then it is entered here.
    """
    current = DefsStateStorage.get()
    if current is not None or not os.environ.get("DAGSTER_HOME"):
        yield current
        return
    with dg.DagsterInstance.get() as instance, set_defs_state_storage(instance.defs_state_storage):
        yield instance.defs_state_storage


def is_first_load(key: str) -> bool:
    """Whether definitions are being made, rather than made again for a run that pins their version.

    ``dagster job execute`` says that it makes them again, and pins nothing.
    """
    context = DefinitionsLoadContext.get()
    first = context.load_type is DefinitionsLoadType.INITIALIZATION
    return first or context.get_defs_key_state_info(key) is None


def use(key: str, version: str) -> None:
    """Build the definitions of this load from a version that was just stored."""
    DefinitionsLoadContext.get().add_defs_state_info(key, version)


@contextmanager
def path_of(config: DefsStateConfig, root: Path) -> Iterator[Path | None]:
    """The state this load is bound to, as a file; ``None`` when none was ever stored."""
    with DefinitionsLoadContext.get().state_path(config, DefsStateStorage.get(), root) as path:
        yield path


def store(key: str, catalog: Catalog, where: DefsStateStorage) -> str:
    """Keep a catalog as the newest state; returns its version, the digest of its content."""
    version = digest(catalog)
    # Dagster reads, changes and writes back its one record of newest versions.
    with _one_at_a_time():
        if where.get_latest_version(key) != version:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "state"
                write_catalog(catalog, path)
                where.upload_state_from_path(key, version, path)
    return version


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    home = Path(os.environ.get("DAGSTER_HOME") or tempfile.gettempdir())
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".emboflow-state.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
