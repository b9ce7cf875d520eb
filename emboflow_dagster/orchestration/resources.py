"""Where the database and the bytes are, as Dagster resources.

Left empty, every field means what the ``EMBOFLOW_*`` environment says, and without that the embedded
default. Write passwords as ``dg.EnvVar("EMBOFLOW_MONGO_URI")``: Dagster shows resource values.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.libraries import DagsterLibraryRegistry
from pydantic import Field

from emboflow_dagster.errors import ConfigurationError, ForbiddenError
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

DagsterLibraryRegistry.register("emboflow-dagster", version("emboflow-dagster"), is_dagster_package=False)


class MongoResource(dg.ConfigurableResource):
    """The MongoDB that remembers everything; a replica set."""

    uri: str | None = Field(
        default=None,
        description="mongodb:// URI of a replica set. Empty: EMBOFLOW_MONGO_URI, else the embedded server.",
    )
    database: str | None = Field(default=None, description="Database name. Empty: EMBOFLOW_DATABASE.")
    home: str | None = Field(
        default=None, description="Folder of the embedded server and local payloads. Empty: EMBOFLOW_HOME."
    )

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, by the names of :class:`~emboflow_dagster.project.Settings`."""
        home = _said(self.home)
        given = {
            "mongo_uri": _said(self.uri),
            "database": _said(self.database),
            "home": Path(home) if home else None,
        }
        return {name: value for name, value in given.items() if value is not None}


class ObjectStoreResource(dg.ConfigurableResource):
    """Where payloads are.

    For a bucket, with the S3 resource that a team has anyway; without one the standard AWS variables, files
    and roles say how to reach it::

        ObjectStoreResource(url="s3://recordings/emboflow", s3=S3Resource(region_name="eu-central-1"))
    """

    url: str | None = Field(
        default=None,
        description="file:///folder or s3://bucket/prefix. Empty: EMBOFLOW_OBJECT_STORE, else local.",
    )
    allow_gridfs: bool | None = Field(
        default=None,
        description="Whether payloads may be put into GridFS on request. Empty: EMBOFLOW_ALLOW_GRIDFS.",
    )
    # An `S3Resource` of dagster-aws, or nothing. Not named here: importing it costs most of a second.
    s3: dg.ResourceDependency[Any] = Field(  # pyright: ignore[reportAssignmentType] - Dagster has no optional one
        default=None, repr=False
    )

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, by the names of :class:`~emboflow_dagster.project.Settings`."""
        given = {"object_store": _said(self.url), "allow_gridfs": self.allow_gridfs}
        return {name: value for name, value in given.items() if value is not None}

    def client_maker(self) -> Callable[[], Any] | None:
        """What makes the S3 client when the first payload is asked for; ``None`` without an S3 resource."""
        return None if self.s3 is None else lambda: _client_of(self.s3)

    def fingerprint(self) -> str:
        """Changes with the S3 resource, and tells nothing of it: it holds credentials."""
        return "" if self.s3 is None else sha256(repr(self.s3).encode()).hexdigest()


class EmboFlowResource(dg.ConfigurableResource):
    """The handle :class:`~emboflow_dagster.project.EmboFlow`, opened for one step and always closed."""

    mongo: MongoResource
    object_store: ObjectStoreResource
    actor: str | None = Field(
        default=None, description="Who is recorded as the author. Empty: EMBOFLOW_ACTOR."
    )

    def __init__(self, **values: Any) -> None:
        # Dagster takes no default for a nested resource.
        super().__init__(**{"mongo": MongoResource(), "object_store": ObjectStoreResource(), **values})

    def settings(self, workspace: str | None = None, project: str | None = None) -> Settings:
        """What the environment says, with what was configured here on top."""
        given = {"workspace": workspace, "project": project, "actor": self.actor}
        overrides = {name: value for name, value in given.items() if value is not None}
        return Settings.from_env(**overrides, **self.mongo.overrides(), **self.object_store.overrides())

    @contextmanager
    def open(self, workspace: str | None = None, project: str | None = None) -> Iterator[EmboFlow]:
        """A handle on one project.

        Raises:
            UnavailableError: The database cannot be reached.
        """
        handle = self.connect(self.settings(workspace, project))
        try:
            yield handle
        finally:
            handle.close()

    def connect(self, settings: Settings) -> EmboFlow:
        """An open handle, to be closed by the caller."""
        return EmboFlow.open(settings, s3_client=self.object_store.client_maker())


class OpenHandle:
    """The same for a process that holds a handle already (runs without a daemon): opens nothing."""

    def __init__(self, handle: EmboFlow) -> None:
        self._handle = handle

    @contextmanager
    def open(self, workspace: str | None = None, project: str | None = None) -> Iterator[EmboFlow]:
        """The handle it was made with.

        Raises:
            ForbiddenError: A step asks for another project than the one that is open.
        """
        scope = self._handle.scope
        if (workspace, project) not in ((None, None), (scope.workspace_slug, scope.project_slug)):
            raise ForbiddenError(
                f"the open project is {scope.workspace_slug}/{scope.project_slug}, "
                f"the step is of {workspace}/{project}"
            )
        yield self._handle


def _client_of(resource: Any) -> Any:
    from dagster_aws.s3 import S3Resource

    if not isinstance(resource, S3Resource):
        raise ConfigurationError(
            f"ObjectStoreResource.s3: found a {type(resource).__name__}; needed is dagster_aws.s3.S3Resource"
        )
    # Reads environment variables, which outside of a Dagster process nobody has done yet.
    return resource.process_config_and_initialize().get_client()


def _said(value: str | None) -> str | None:
    """A field's text, also where no Dagster process has read its environment variable yet."""
    return value.get_value() if isinstance(value, dg.EnvVar) else value
