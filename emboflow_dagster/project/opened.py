"""What every part of a handle needs: the open database, the store, the scope."""

from dataclasses import dataclass
from functools import cached_property

from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.object_storage.store import ObjectStore
from emboflow_dagster.project.gc.keeping import KeptBlobs
from emboflow_dagster.project.settings import Settings
from emboflow_dagster.project.tenancy import open_scope


@dataclass(frozen=True)
class Opened:
    """One deployment opened at one scope."""

    settings: Settings
    mongo: Mongo
    store: ObjectStore
    scope: Scope

    @cached_property
    def blobs(self) -> KeptBlobs:
        """Versioned payloads of the scope."""
        return KeptBlobs(
            self.mongo,
            self.store,
            self.scope,
            allow_gridfs=self.settings.allow_gridfs,
            max_bytes=self.settings.max_blob_bytes,
        )

    def at(self, workspace: str, project: str) -> "Opened":
        """The same deployment at another scope that exists; shares the connection.

        Raises:
            NotFoundError: There is no such project.
        """
        settings = self.settings.scoped(workspace, project)
        scope = open_scope(self.mongo, workspace, project, settings.actor, create=False)
        return Opened(settings, self.mongo, self.store, scope)
