"""The collections as data: which document each holds, what is unique, what is indexed, what refers to what.

One place to read the database's shape; `emboflow init`, the scope and `emboflow verify` all follow it.

Source: requirements R-039, R-311..R-319 and R-329..R-347; conflict C-18 (uniqueness).
"""

from enum import StrEnum
from typing import Final, NamedTuple

from pydantic import BaseModel

from emboflow_dagster.model.annotation import Annotation, AnnotationTask
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.asset import Asset, AssetProbeReport
from emboflow_dagster.model.audit import AuditLog
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.model.plugin import CustomNode, Plugin, StorageConnection
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion
from emboflow_dagster.model.workspace import Membership, Project, User, Workspace

SCHEMA_VERSION: Final = 3
#: Ways in to a run that are many values of ``triggeredBy``: the word, a colon, a name.
WAYS_IN: Final = ("user", "schedule", "sensor", "retry", "system")
META: Final = "_emboflow_meta"
#: What tasks left, by what they were given; see runtime/cache.py.
CACHE: Final = "_emboflow_cache"


class Reach(StrEnum):
    """How far a collection's documents are shared."""

    PLATFORM = "platform"  #: no workspace: users, workspaces
    WORKSPACE = "workspace"  #: of one workspace
    PROJECT = "project"  #: of one project in one workspace
    PARENT = "parent"  #: as far as the document it belongs to


class Reference(NamedTuple):
    """``field`` of a document holds the id of a document of ``target``; lists hold several."""

    field: str
    target: str
    optional: bool = False


class Index(NamedTuple):
    """One index; ``partial`` limits it to documents that match, as field, operator and value."""

    keys: tuple[str, ...]
    unique: bool = False
    partial: tuple[tuple[str, str, object], ...] = ()
    part: str = ""
    """What ``partial`` picks, in a word, where several indexes have the same keys."""

    @property
    def partial_filter(self) -> dict[str, dict[str, object]]:
        """``partial`` as MongoDB takes it; empty for an index over everything."""
        found: dict[str, dict[str, object]] = {}
        for field, operator, value in self.partial:
            found.setdefault(field, {})[operator] = list(value) if isinstance(value, tuple) else value
        return found

    @property
    def name(self) -> str:
        """Stable, so that a renamed index is a visible change."""
        keys = [key.lstrip("-") for key in self.keys]
        return "_".join([*keys, *(["unique"] if self.unique else []), *([self.part] if self.part else [])])


class Collection(NamedTuple):
    """One collection: its document, its reach, its parent, its indexes, its references."""

    name: str
    document: type[BaseModel]
    reach: Reach
    unique: tuple[tuple[str, ...], ...] = ()
    compound: tuple[tuple[str, ...], ...] = ()
    references: tuple[Reference, ...] = ()
    parent: Reference | None = None
    immutable: frozenset[str] = frozenset()
    """Fields no update may name; ``{"*"}``: all of them."""
    blobs: tuple[str, ...] = ()
    """Fields of the blob type: what they name is owned by the record (R-423)."""

    @property
    def fields(self) -> frozenset[str]:
        """The stored names of the document's fields."""
        return frozenset(
            info.serialization_alias or info.alias or name
            for name, info in self.document.model_fields.items()
        )


_ALWAYS: Final = ("workspaceId", "projectId", "status", "createdAt")
_FROZEN: Final = frozenset({"_id", "workspaceId", "projectId", "createdBy", "createdAt"})
_WORKSPACE: Final = Reference("workspaceId", "workspaces")
_PROJECT: Final = Reference("projectId", "projects")
_ALL: Final = frozenset({"*"})

COLLECTIONS: Final[dict[str, Collection]] = {
    row.name: row
    for row in (
        Collection("users", User, Reach.PLATFORM, unique=(("email",),)),
        Collection(
            "workspaces",
            Workspace,
            Reach.PLATFORM,
            unique=(("slug",),),
            references=(Reference("ownerId", "users"),),
        ),
        Collection(
            "memberships",
            Membership,
            Reach.WORKSPACE,
            unique=(("workspaceId", "projectId", "userId"),),
            compound=(("workspaceId", "userId"),),
            references=(
                _WORKSPACE,
                Reference("projectId", "projects", optional=True),
                Reference("userId", "users"),
            ),
            immutable=frozenset({"_id", "workspaceId", "createdAt"}),
        ),
        Collection(
            "projects",
            Project,
            Reach.WORKSPACE,
            unique=(("workspaceId", "slug"),),
            references=(_WORKSPACE,),
            immutable=_FROZEN,
        ),
        Collection(
            "assets",
            Asset,
            Reach.PROJECT,
            compound=(("projectId", "type", "createdAt"), ("projectId", "displayName")),
            references=(_WORKSPACE, _PROJECT),
            immutable=_FROZEN,
            blobs=("storageRef",),
        ),
        Collection(
            "asset_probe_reports",
            AssetProbeReport,
            Reach.PARENT,
            unique=(("assetId", "reportVersion"),),
            references=(Reference("assetId", "assets"),),
            parent=Reference("assetId", "assets"),
            immutable=_ALL,
            blobs=("rawReport",),
        ),
        Collection(
            "datasets",
            Dataset,
            Reach.PROJECT,
            unique=(("projectId", "name"),),
            references=(
                _WORKSPACE,
                _PROJECT,
                Reference("latestVersionId", "dataset_versions", optional=True),
            ),
            immutable=_FROZEN,
        ),
        Collection(
            "custom_nodes",
            CustomNode,
            Reach.PROJECT,
            unique=(("projectId", "slug"), ("projectId", "definitionId")),
            references=(_WORKSPACE, _PROJECT),
            immutable=_FROZEN | {"definitionId"},
        ),
        Collection(
            "dataset_versions",
            DatasetVersion,
            Reach.PROJECT,
            unique=(("datasetId", "versionTag"),),
            compound=(("datasetId", "createdAt"),),
            references=(
                _WORKSPACE,
                _PROJECT,
                Reference("datasetId", "datasets"),
                Reference("sourceAssetId", "assets", optional=True),
                Reference("parentVersionId", "dataset_versions", optional=True),
            ),
            immutable=_ALL,
            blobs=("manifestRef",),
        ),
        Collection(
            "workflow_definitions",
            WorkflowDefinition,
            Reach.PROJECT,
            unique=(("projectId", "slug"),),
            references=(_WORKSPACE, _PROJECT),
            immutable=_FROZEN | {"slug"},
        ),
        Collection(
            "workflow_definition_versions",
            WorkflowDefinitionVersion,
            Reach.PROJECT,
            unique=(("workflowDefinitionId", "versionNumber"),),
            references=(_WORKSPACE, _PROJECT, Reference("workflowDefinitionId", "workflow_definitions")),
            immutable=_ALL,
        ),
        Collection(
            "workflow_runs",
            WorkflowRun,
            Reach.PROJECT,
            compound=(("projectId", "createdAt"), ("workflowDefinitionId", "status"), ("dagsterRunIds",)),
            references=(
                _WORKSPACE,
                _PROJECT,
                Reference("workflowDefinitionId", "workflow_definitions"),
                Reference("workflowVersionId", "workflow_definition_versions"),
                Reference("assetIds", "assets"),
                Reference("retryOfRunId", "workflow_runs", optional=True),
            ),
            immutable=_FROZEN | {"runtimeSnapshot", "assetIds", "workflowVersionId", "triggeredBy", "config"},
        ),
        Collection(
            "run_tasks",
            RunTask,
            Reach.PARENT,
            unique=(("workflowRunId", "nodeId"),),
            references=(
                Reference("workflowRunId", "workflow_runs"),
                Reference("workflowVersionId", "workflow_definition_versions"),
                Reference("assetIds", "assets"),
                Reference("outputArtifactIds", "artifacts"),
            ),
            parent=Reference("workflowRunId", "workflow_runs"),
            immutable=frozenset({"_id", "workflowRunId", "nodeId", "nodeType", "createdAt"}),
        ),
        Collection(
            "artifacts",
            Artifact,
            Reach.PROJECT,
            compound=(("producerType", "producerId"),),
            references=(_WORKSPACE, _PROJECT),
            immutable=_ALL,
            blobs=("storageRef",),
        ),
        Collection(
            "annotation_tasks",
            AnnotationTask,
            Reach.PROJECT,
            compound=(("projectId", "status"),),
            references=(
                _WORKSPACE,
                _PROJECT,
                Reference("assigneeIds", "users"),
                Reference("reviewerIds", "users"),
            ),
            immutable=_FROZEN,
        ),
        Collection(
            "annotations",
            Annotation,
            Reach.PROJECT,
            compound=(("annotationTaskId", "createdAt"),),
            references=(_WORKSPACE, _PROJECT, Reference("annotationTaskId", "annotation_tasks")),
            immutable=_FROZEN,
            blobs=("payload",),
        ),
        Collection(
            "plugins",
            Plugin,
            Reach.WORKSPACE,
            unique=(("scope", "workspaceId", "name"),),
            references=(Reference("workspaceId", "workspaces", optional=True),),
            immutable=frozenset({"_id", "workspaceId", "scope", "createdAt"}),
        ),
        Collection(
            "storage_connections",
            StorageConnection,
            Reach.WORKSPACE,
            unique=(("workspaceId", "name"),),
            references=(_WORKSPACE,),
            immutable=frozenset({"_id", "workspaceId", "createdBy", "createdAt"}),
        ),
        Collection(
            "audit_logs",
            AuditLog,
            Reach.WORKSPACE,
            compound=(("workspaceId", "createdAt"), ("workspaceId", "metadata.sequence")),
            references=(_WORKSPACE, Reference("projectId", "projects", optional=True)),
            immutable=_ALL,
        ),
        Collection(
            "objects",
            BlobObject,
            Reach.WORKSPACE,
            unique=(("object_id",),),
            compound=(
                ("workspace_id", "updated_at"),
                ("workflow_id",),
                ("task_id",),
                ("data_sha256",),
                ("storage_ref.key",),
            ),
            references=(
                Reference("workspace_id", "workspaces"),
                Reference("project_id", "projects", optional=True),
            ),
        ),
        Collection(
            "object_history",
            BlobObject,
            Reach.WORKSPACE,
            unique=(("object_id", "version"),),
            compound=(("created_at",), ("workspace_id",), ("data_sha256",), ("storage_ref.key",)),
            references=(Reference("workspace_id", "workspaces"),),
            immutable=_ALL,
        ),
    )
}

# Who refers to this blob? Asked by gc and `why-kept`; free-form fields seldom hold a reference.
_REFERRING: Final = {
    "assets": ("storageRef",),
    "asset_probe_reports": ("rawReport", "rawReport.ref"),
    "dataset_versions": ("manifestRef",),
    "run_tasks": ("logRef",),
    "artifacts": ("storageRef",),
    "annotations": ("payload", "payload.ref"),
}

# Newest first, a page at a time: without `_id` in the index the server reads and sorts the whole project.
_PAGED: Final = ("assets", "workflow_runs", "artifacts")
_PAGES: Final[dict[str, tuple[Index, ...]]] = dict.fromkeys(
    _PAGED, (Index(("projectId", "createdAt", "_id")),)
)
# Indexes that no requirement lists.
_MORE: Final = {
    # What came since a schedule looked last.
    "assets": (Index(("projectId", "updatedAt")),),
    # What was said of the versions of a dataset, or confirmed for them.
    "annotations": (
        Index(("targetRef.id", "createdAt")),
        Index(
            ("targetRef.selector.held.versionId",),
            partial=(("targetRef.selector.held.versionId", "$type", "string"),),
        ),
    ),
    # The schedules in workflow files, asked every few seconds; few versions have one.
    "workflow_definition_versions": (
        Index(
            ("projectId", "runtimeGraph.schedule.cron"),
            partial=(("runtimeGraph.schedule.cron", "$type", "string"),),
        ),
    ),
    "workflow_runs": (
        # The queue, and what is not over, are polled for ever: as small as what is going on.
        Index(("projectId", "status", "createdAt", "_id"), partial=(("finishedAt", "$eq", None),)),
        # The history by each filter, newest first, no row read that is not shown; the first counts, too.
        Index(("projectId", "workspaceId", "status", "createdAt", "_id")),
        Index(("workflowDefinitionId", "createdAt", "_id")),
        Index(("workflowDefinitionId", "status", "createdAt", "_id")),
        Index(("workflowVersionId", "createdAt", "_id")),
        Index(("projectId", "triggeredBy", "createdAt", "_id")),
        Index(("assetIds", "createdAt", "_id")),
        # Few runs have a label.
        Index(("projectId", "config.label", "createdAt", "_id"), partial=(("config.label", "$gt", ""),)),
        # A way in is many values of one field: each run is in one of these at most.
        *(
            Index(
                ("projectId", "createdAt", "_id"),
                partial=(("triggeredBy", "$gte", f"{way}:"), ("triggeredBy", "$lt", f"{way};")),
                part=way,
            )
            for way in WAYS_IN
        ),
    ),
    # What of a run is not done, or went wrong; tasks that succeeded, nearly all, are not in it.
    "run_tasks": (
        Index(
            ("workflowRunId", "status", "nodeId"),
            partial=(("status", "$in", ("pending", "queued", "running", "failed", "cancelled")),),
        ),
    ),
    # Was this request carried out long ago? Few versions have one.
    "object_history": (Index(("object_id", "request_id"), partial=(("request_id", "$type", "string"),)),),
}


def indexes_of(collection: Collection) -> list[Index]:
    """Every index a collection must have, most specific first, without doubles."""
    rows = [Index(keys, unique=True) for keys in collection.unique]
    rows += [Index(keys) for keys in collection.compound]
    rows += _PAGES.get(collection.name, ())
    rows += _MORE.get(collection.name, ())
    for path in _REFERRING.get(collection.name, ()):
        rows.append(Index((f"{path}.objectId",), partial=((f"{path}.objectId", "$type", "string"),)))
    rows += [Index((field,)) for field in _ALWAYS if field in collection.fields]
    unique = {row.keys for row in rows if row.unique}
    return [
        row for i, row in enumerate(rows) if row.unique or (row.keys not in unique and row not in rows[:i])
    ]


#: Records that own the blob which the field names, as (collection, field).
BLOB_FIELDS: Final = tuple((row.name, field) for row in COLLECTIONS.values() for field in row.blobs)
