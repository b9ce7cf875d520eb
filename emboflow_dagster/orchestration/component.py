"""``EmboFlowWorkflows``: the component that turns what MongoDB holds into definitions.

Making definitions and reading the database are two steps. :meth:`write_state_to_path` reads the catalog;
:meth:`build_defs_from_state` needs the file alone, so run workers and steps never ask the database what
they are, and a code location loads when the database is down.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig

from emboflow_dagster.errors import EmboflowError, ErrorKind, UnavailableError
from emboflow_dagster.mongo.embedded.place import Place as EmbeddedPlace
from emboflow_dagster.orchestration import state
from emboflow_dagster.orchestration.catalog import (
    Catalog,
    catalog_of,
    empty_catalog,
    read_catalog,
    write_catalog,
)
from emboflow_dagster.orchestration.definitions import definitions_from_catalog
from emboflow_dagster.orchestration.io_manager import BlobIOManager
from emboflow_dagster.orchestration.narrow import of_this_process
from emboflow_dagster.orchestration.nodes import IO_MANAGER, RESOURCE
from emboflow_dagster.orchestration.resources import EmboFlowResource
from emboflow_dagster.orchestration.scrub import Budget
from emboflow_dagster.orchestration.specs import EmboFlowTranslator
from emboflow_dagster.project.handle import EmboFlow

logger: Final = logging.getLogger("emboflow")
DEFAULT_KEY: Final = "EmboFlowWorkflows"
T = TypeVar("T")


@dataclass
class EmboFlowWorkflows(dg.StateBackedComponent, dg.Resolvable):
    """Every published workflow, raw input and dataset of one database as Dagster definitions.

    In ``defs.yaml``::

        type: emboflow_dagster.EmboFlowWorkflows
        attributes: {}

    Args:
        workspace: Only this workspace; all by default.
        project: Only this project of it; all by default. A location for each project keeps each small.
        refresh_on_load: Read the database whenever the location is loaded or reloaded, and fall back to
            the last known state when it does not answer.
        defs_state: Where the state is kept; versioned, so that a queued run executes the definitions it
            was planned with.
        scrub_cron: When the scrubber runs by itself; else ``EMBOFLOW_SCRUB_CRON``, else every night at 3.
            Its schedule is stopped until it is turned on.
        scrub_max_bytes: What one run of it reads of each workspace at most, in bytes; else
            ``EMBOFLOW_SCRUB_MAX_BYTES``, else 100 GiB.
        scrub_max_seconds: Likewise in seconds; else ``EMBOFLOW_SCRUB_MAX_SECONDS``, else an hour.
        narrow: In the processes of a run, build only what its job executes. Right unless Python code of the
            same code location looks for workflows' jobs or assets while it is loaded.
    """

    workspace: str | None = None
    project: str | None = None
    refresh_on_load: bool = True
    defs_state: ResolvedDefsStateConfig = field(
        default_factory=lambda: DefsStateConfigArgs(
            management_type=DefsStateConfigArgs.versioned_state_storage().management_type,
            refresh_if_dev=False,
        )
    )
    scrub_cron: str | None = None
    scrub_max_bytes: int | None = None
    scrub_max_seconds: float | None = None
    narrow: bool = False

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """The state's key: one for each selection of projects."""
        scope = "/".join(part or "*" for part in (self.workspace, self.project))
        return DefsStateConfig.from_args(self.defs_state, default_key=f"{DEFAULT_KEY}[{scope}]")

    def translator(self) -> EmboFlowTranslator:
        """Override to change groups, kinds, owners or descriptions."""
        return EmboFlowTranslator()

    def resources(self) -> dict[str, Any]:
        """``emboflow`` and ``emboflow_io_manager``, from the environment; override to say it in code."""
        return {RESOURCE: EmboFlowResource(), IO_MANAGER: BlobIOManager()}

    def scrub(self) -> Budget:
        """How much the scrubber reads, and when: the attributes, else the environment."""
        said = Budget.from_env()
        return Budget(
            self.scrub_max_bytes or said.max_bytes,
            self.scrub_max_seconds or said.max_seconds,
            self.scrub_cron or said.cron,
        )

    # ------------------------------------------------------------------------------------- the state

    def read_database(self) -> Catalog:
        """The catalog as it is now.

        Raises:
            EmboflowError: The database cannot be reached or is not usable.
        """
        settings = self.resources()[RESOURCE].settings(self.workspace, self.project)
        if settings.mongo_uri is None and EmbeddedPlace(settings.home).instance() is None:
            # Loading definitions makes no database: the first `emboflow` command does.
            return empty_catalog()
        with EmboFlow.open(settings) as ef:
            return self.selected(catalog_of(ef, all_projects=True))

    def selected(self, catalog: Catalog) -> Catalog:
        """The part of a catalog that this component shows."""
        workspaces = [
            {
                **workspace,
                "projects": [
                    project for project in workspace["projects"] if self.project in (None, project["slug"])
                ],
            }
            for workspace in catalog["workspaces"]
            if self.workspace in (None, workspace["slug"])
        ]
        return {**catalog, "workspaces": workspaces}  # pyright: ignore[reportReturnType] - built from one

    def write_state_to_path(self, state_path: Path) -> None:
        """Read the database and write the catalog."""
        write_catalog(self.read_database(), state_path)

    async def refresh_state(self, project_root: Path) -> str:
        """Read the database and keep the catalog, unless it is the one that is kept already."""
        del project_root
        with state.storage() as storage:
            if storage is None:
                raise UnavailableError(
                    "no Dagster instance: the state of the code location cannot be kept",
                    hint="set DAGSTER_HOME",
                )
            return state.store(self.defs_state_config.key, self.read_database(), storage)

    # ----------------------------------------------------------------------------- the definitions

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions: refreshed when made, pinned when made again for a run."""
        config = self.defs_state_config
        with state.storage() as storage:
            if storage is None:
                return self._defs(self._now_or_nothing())
            if self.refresh_on_load and state.is_first_load(config.key):
                version = _attempt(lambda: state.store(config.key, self.read_database(), storage))
                if isinstance(version, EmboflowError):
                    known = storage.get_latest_version(config.key)
                    _warn(version, "using the last known state" if known else "no state is known yet")
                else:
                    state.use(config.key, version)
            with state.path_of(config, context.project_root) as path:
                return self.build_defs_from_state(context, path)

    def build_defs_from_state(
        self,
        context: dg.ComponentLoadContext,  # noqa: ARG002 - the interface of Dagster
        state_path: Path | None,
    ) -> dg.Definitions:
        """The definitions of a stored catalog; an empty location when none was ever stored."""
        return self._defs(read_catalog(state_path) if state_path else empty_catalog())

    def _now_or_nothing(self) -> Catalog:
        found = _attempt(self.read_database)
        if isinstance(found, EmboflowError):
            _warn(found, "nothing is shown")
            return empty_catalog()
        return found

    def _defs(self, catalog: Catalog) -> dg.Definitions:
        return definitions_from_catalog(
            catalog,
            resources=self.resources(),
            translator=self.translator(),
            scrub=self.scrub(),
            needed=of_this_process() if self.narrow else None,
        )


def _attempt(action: Callable[[], T]) -> T | EmboflowError:
    try:
        return action()
    except EmboflowError as error:
        # A location that does not load takes the page with the reason down with it.
        return error


def _warn(error: EmboflowError, consequence: str) -> None:
    cause = "MongoDB is not reachable" if error.kind is ErrorKind.UNAVAILABLE else "MongoDB cannot be used"
    logger.warning("%s, %s: error[%s]: %s", cause, consequence, error.kind.value, error.message)
