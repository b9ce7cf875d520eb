"""Which records `ef.cud` may write, and what each kind of change means for a collection. One table.

Free writing is for documents that people fill in: assets of uploads, artifacts made by hand, annotations and
their tasks, datasets, custom nodes, storage connections. What follows from work or belongs to the deployment
has a verb of its own, and :data:`VERBS` names it.

Source: requirements R-421..R-424; conflicts C-12 and C-13; spec/parity.md P-60 for the names of actions.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from emboflow_dagster.model.annotation import AnnotationTaskStatus
from emboflow_dagster.model.collections import COLLECTIONS, Reference
from emboflow_dagster.model.dataset import DATASET_VERSION_TRANSITIONS

#: Filled in by the layer in every document, never by a caller.
GIVEN: Final = frozenset({"_id", "workspaceId", "projectId", "createdBy", "createdAt", "updatedAt"})


class Record(NamedTuple):
    """How the records of one collection are written."""

    create: str | None
    """The audit action of a new record; ``None``: there is another way to make one."""
    update: str | None = None
    """... of a changed one; ``None``: it never changes."""
    deactivate: str | None = None
    """... of one that is put out of use."""
    inactive: str | None = None
    """The status that means out of use."""
    kept: frozenset[str] = frozenset()
    """Fields that the library alone writes."""
    references: tuple[Reference, ...] = ()
    """References below the top of a document, beside those of its collection."""
    emptied: Mapping[str, Any] = {}
    """Blob field to the value it has when its blob went elsewhere; absent: it cannot be without one."""
    defaults: Mapping[str, Any] = {}
    transitions: Mapping[str, frozenset[str]] | None = None
    """Which status follows which; ``None``: any."""


RECORDS: Final[Mapping[str, Record]] = {
    "assets": Record(
        create="asset.register",
        update="asset.update",
        deactivate="asset.archive",
        inactive="archived",
        kept=frozenset({"status", "detectedFormats", "sizeBytes", "fileCount"}),
        defaults={"sourceType": "upload"},
    ),
    "artifacts": Record(
        create="artifact.create",
        references=(
            Reference("lineage.inputArtifactIds", "artifacts"),
            Reference("lineage.assetIds", "assets"),
            Reference("lineage.workflowRunId", "workflow_runs", optional=True),
        ),
        defaults={"producerType": "manual", "lineage": {}},
    ),
    "datasets": Record(
        create="dataset.create",
        update="dataset.update",
        deactivate="dataset.archive",
        inactive="archived",
        kept=frozenset({"status", "latestVersionId"}),
    ),
    "dataset_versions": Record(
        create=None,
        update="dataset.deprecate",
        deactivate="dataset.withdraw",
        inactive="withdrawn",
        transitions={
            before.value: frozenset(after.value for after in row)
            for before, row in DATASET_VERSION_TRANSITIONS.items()
        },
    ),
    "annotation_tasks": Record(
        create="annotation_task.create",
        update="annotation_task.update",
        deactivate="annotation_task.cancel",
        inactive="cancelled",
        # Approving has a verb: who did it, and over what, is in the audit log, and a run may go on.
        transitions={
            before.value: frozenset(after.value for after in AnnotationTaskStatus) - {"approved"}
            for before in AnnotationTaskStatus
            if before is not AnnotationTaskStatus.APPROVED
        },
    ),
    "annotations": Record(
        create="annotation.create",
        update="annotation.update",
        deactivate="annotation.reject",
        inactive="rejected",
        emptied={"payload": {}},
    ),
    "custom_nodes": Record(
        create="node.create",
        update="node.update",
        deactivate="node.disable",
        inactive="archived",
    ),
    "storage_connections": Record(
        create="storage.create",
        update="storage.update",
        deactivate="storage.disable",
        inactive="disabled",
    ),
}

#: What is not written freely, and what writes it instead.
VERBS: Final[Mapping[str, str]] = {
    "users": "are made when a handle is first opened for them",
    "workspaces": "are made when a handle is first opened for them",
    "memberships": "are made when a handle is first opened for them",
    "projects": "are made when a handle is first opened for them",
    "asset_probe_reports": "are written by ef.assets.probe",
    "dataset_versions": "are written by a node of type publish-dataset",
    "workflow_definitions": "are written by ef.workflows.publish",
    "workflow_definition_versions": "are written by ef.workflows.publish",
    "workflow_runs": "are written by ef.runs.request, and moved by the run itself",
    "run_tasks": "are written by ef.runs.request, and moved by ef.tasks.work",
    "plugins": "are installed, not written",
    "audit_logs": "are written with what they record",
    "objects": "are written by ef.blobs.put",
    "object_history": "are written by ef.blobs.put",
}

# Kinds of targets and producers to the collections that hold them.
TARGETS: Final = {"asset": "assets", "dataset_version": "dataset_versions", "artifact": "artifacts"}
PRODUCERS: Final = {
    "run_task": "run_tasks",
    "workflow_run": "workflow_runs",
    "probe": "asset_probe_reports",
    "annotation_task": "annotation_tasks",
}


def is_out_of_use(collection: str, document: Mapping[str, Any]) -> bool:
    """Whether a stored record was deactivated."""
    row = RECORDS.get(collection)
    return row is not None and row.inactive is not None and document.get("status") == row.inactive


def references_of(collection: str, document: Mapping[str, Any]) -> tuple[Reference, ...]:
    """Every reference that a record has, beside its scope and its blobs.

    Some depend on what it says: the producer of an artifact, the target of an annotation task.
    """
    row = COLLECTIONS[collection]
    found = [r for r in row.references if r.field not in GIVEN]
    found += RECORDS[collection].references
    producer = PRODUCERS.get(str(document.get("producerType")))
    if collection == "artifacts" and producer is not None:
        found.append(Reference("producerId", producer))
    target = TARGETS.get(str(document.get("targetType")))
    if collection == "annotation_tasks" and target is not None:
        found.append(Reference("targetRef.id", target))
    return tuple(found)
