"""The handle: one deployment, one scope, everything a user, a command or a Dagster step does with them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.audit import AuditLog
from emboflow_dagster.model.base import Document
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.mongo.client import Mongo, connect
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.setup import SetupReport, is_current, set_up
from emboflow_dagster.object_storage.store import open_store
from emboflow_dagster.project.annotations import Annotations
from emboflow_dagster.project.artifacts import Artifacts
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.changes import Change
from emboflow_dagster.project.cud import cud
from emboflow_dagster.project.datasets import Datasets
from emboflow_dagster.project.gc.keeping import KeptBlobs
from emboflow_dagster.project.gc.report import GcReport
from emboflow_dagster.project.nodes import Nodes
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.runs import Runs
from emboflow_dagster.project.schedules import Schedules
from emboflow_dagster.project.settings import Settings
from emboflow_dagster.project.tasks import Tasks
from emboflow_dagster.project.tenancy import open_scope, scope_to_check
from emboflow_dagster.project.ticking import Ticking
from emboflow_dagster.project.verify import Budget, VerifyReport, scrub, verify
from emboflow_dagster.project.workflows import Workflows

#: Folder in the home where streams are kept on their way to S3.
SPOOL: Final = "tmp"


class EmboFlow:
    """One project's data, runs and bytes.

    Example:
        .. code-block:: python

            with EmboFlow.from_env(workspace="acme", project="pick-place", actor="user:ada") as ef:
                asset = ef.assets.register("arm.mcap", type="rosbag")
                print(ef.assets.probe(asset.id).format)
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.settings = opened.settings
        self.mongo = opened.mongo
        self.store = opened.store
        self.scope = opened.scope

    @classmethod
    def from_env(
        cls,
        *,
        workspace: str | None = None,
        project: str | None = None,
        actor: str | None = None,
        home: Path | str | None = None,
    ) -> Self:
        """Open what the environment names; arguments win.

        Raises:
            InvalidInputError: A name is not allowed.
            ConfigurationError: The server or this machine cannot work; the hint says what to change.
            UnavailableError: No server answers.
        """
        return cls.open(Settings.from_env(workspace=workspace, project=project, actor=actor, home=home))

    @classmethod
    def open(
        cls, settings: Settings, *, to_check: bool = False, s3_client: Callable[[], Any] | None = None
    ) -> Self:
        """Open a deployment: the database (started when it is the embedded one), its collections, a scope.

        Args:
            settings: The deployment and the scope in it.
            to_check: For `verify`: no workspace, project or user is made that is not there.
            s3_client: Makes the client for an object store at ``s3://`` when the first payload is asked for;
                by default the standard AWS variables, files and roles say how.
        """
        mongo = open_database(settings)
        try:
            if not is_current(mongo):
                set_up(mongo)
            find = scope_to_check if to_check else open_scope
            scope = find(mongo, settings.workspace, settings.project, settings.actor)
            store = open_store(settings.object_store, client=s3_client, spool=settings.home / SPOOL)
            return cls(Opened(settings, mongo, store, scope))
        except BaseException:
            mongo.close()
            raise

    def at(self, workspace: str, project: str) -> "EmboFlow":
        """The same deployment at another scope; shares the connection."""
        return EmboFlow(self._opened.at(workspace, project))

    def close(self) -> None:
        """Give the connections back."""
        self.mongo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def blobs(self) -> KeptBlobs:
        """Versioned payloads."""
        return self._opened.blobs

    @cached_property
    def assets(self) -> Assets:
        """Raw assets and their probe reports."""
        return Assets(self._opened)

    @cached_property
    def datasets(self) -> Datasets:
        """Datasets and their versions."""
        return Datasets(self._opened)

    @cached_property
    def workflows(self) -> Workflows:
        """Workflows and their versions."""
        return Workflows(self._opened, self._request_run)

    @cached_property
    def runs(self) -> Runs:
        """Runs."""
        return Runs(self._opened, self.assets, self.workflows, self._work_task)

    @cached_property
    def tasks(self) -> Tasks:
        """Tasks of runs."""
        return Tasks(self._opened, self.assets, self.artifacts, self.runs)

    @cached_property
    def schedules(self) -> Schedules:
        """When workflows run by themselves."""
        return Schedules(self._opened, self.workflows)

    @cached_property
    def ticking(self) -> Ticking:
        """What the ticks of schedules do; for the daemon."""
        return Ticking(self._opened, self.schedules, self.runs)

    @cached_property
    def artifacts(self) -> Artifacts:
        """What runs produced."""
        return Artifacts(self._opened)

    @cached_property
    def annotations(self) -> Annotations:
        """What people label, submit, approve and reject."""
        return Annotations(self._opened, self.runs.recorder)

    @cached_property
    def nodes(self) -> Nodes:
        """The project's own node types."""
        return Nodes(self._opened)

    @cached_property
    def audit(self) -> "Audit":
        """Who did what."""
        return Audit(self._opened)

    def cud(self, changes: Sequence[Change], *, request_id: str | None = None) -> list[Document]:
        """Create, update and put out of use up to 100 records in one transaction, all or nothing.

        Blobs that they name become theirs in the same transaction. With ``request_id`` a request can be
        repeated by somebody who does not know whether it was done. See
        :func:`~emboflow_dagster.project.cud.cud` for what is returned and refused.
        """
        return cud(self._opened, changes, request_id=request_id)

    def init(self) -> SetupReport:
        """Make or repair collections, validators and indexes; says what it did."""
        return set_up(self.mongo)

    def verify(
        self,
        *,
        all: bool = False,  # noqa: A002 - the contract's word
        resume: bool = False,
        quarantine: bool = True,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        since: datetime | None = None,
        workers: int | None = None,
        tick: Callable[[int, int], None] | None = None,
    ) -> VerifyReport:
        """Check every invariant, bytes included, over this workspace; with ``all`` over every workspace.

        A workspace that is not there (any more) cannot be looked through: then all are.

        Args:
            all: Every workspace of the database.
            resume: Go on reading payloads where an interrupted verification stopped.
            quarantine: Set aside what is damaged; a later read of it is refused at once.
            max_bytes: Stop reading payloads after so many bytes; ``complete`` is then false.
            max_seconds: Likewise after so many seconds.
            since: Read only payloads of versions stored at or after this moment.
            workers: Threads that read payloads; by default one a core.
            tick: Called with payloads and bytes read so far.

        Raises:
            InvalidInputError: A bound is not above zero.
        """
        return verify(
            self._opened,
            everything=all or not self.scope.workspace_id,
            resume=resume,
            budget=Budget(max_bytes, max_seconds, since),
            quarantine=quarantine,
            workers=workers,
            tick=tick,
        )

    def scrub(
        self,
        *,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        workers: int | None = None,
        tick: Callable[[int, int], None] | None = None,
    ) -> VerifyReport:
        """Read the next slice of this workspace's payloads and set aside what is damaged.

        Every slice goes on where the one before stopped; after the last payload it begins anew.

        Args:
            max_bytes: The slice's size in bytes; without any bound all payloads are read.
            max_seconds: Likewise in seconds.
            workers: Threads that read; by default one a core.
            tick: Called with payloads and bytes read so far.

        Raises:
            InvalidInputError: A bound is not above zero.
        """
        return scrub(self._opened, budget=Budget(max_bytes, max_seconds), workers=workers, tick=tick)

    def gc(
        self,
        *,
        dry_run: bool = False,
        grace_s: float = 24 * 3600,
        force: bool = False,
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> GcReport:
        """Take away what nothing needs, over all workspaces; see :func:`project.gc.collect.gc`.

        The grace is in seconds.
        """
        from emboflow_dagster.project.gc.collect import gc

        return gc(self._opened, dry_run=dry_run, grace_s=grace_s, force=force, progress=progress)

    def catalog(self, *, all_projects: bool = False) -> dict[str, Any]:
        """What the orchestrator needs to define assets and jobs, as JSON values."""
        from emboflow_dagster.project.catalog import catalog

        return catalog(self._opened, all_projects=all_projects)

    def _request_run(self, workflow: str, **how: Any) -> WorkflowRun:
        return self.runs.request(workflow, **how)

    def _work_task(self, run_id: str, node_id: str, worker: str) -> object:
        return self.tasks.work(run_id, node_id, worker=worker)


class Audit:
    """The audit log of one workspace; read only, rows are written with what they record."""

    def __init__(self, opened: Opened) -> None:
        self.documents: Documents[AuditLog] = Documents(opened.mongo, opened.scope, AuditLog)

    def list(
        self, *, action: str | None = None, resource_id: str | None = None, limit: int = 100
    ) -> list[AuditLog]:
        """Rows, newest first."""
        filter_ = {"action": action, "resourceId": resource_id}
        return self.documents.find({k: v for k, v in filter_.items() if v is not None}, limit=limit)


def open_database(settings: Settings) -> Mongo:
    """Connect; with no URI, to the embedded server of the home, started when it does not run.

    Raises:
        ConfigurationError: Standalone or weak server, or no ``mongod`` that can run here.
        UnavailableError: No server answers.
    """
    if settings.mongo_uri is not None:
        return connect(settings.mongo_uri, settings.database)
    from emboflow_dagster.mongo import embedded

    for attempt in (1, 2):
        server = embedded.ensure(settings.home)
        try:
            return connect(server.uri, settings.database)
        except EmboflowError:
            # It may have been killed between being found and being used.
            if attempt == 2:  # noqa: PLR2004 - the second time it is something else
                raise
    raise AssertionError("unreachable")
