"""Managed outputs: what a task, a run, a probe or a person produced."""

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import Field

from emboflow_dagster.model.base import ActorId, Document, Id, Model, Summary, TypeName, UtcDatetime
from emboflow_dagster.model.storage import StorageRef

PREVIEW_BUNDLE: Final = "preview_bundle"
QUALITY_REPORT: Final = "quality_report"
NORMALIZED_DATASET_PACKAGE: Final = "normalized_dataset_package"
DELIVERY_PACKAGE: Final = "delivery_package"
TRAINING_CONFIG_PACKAGE: Final = "training_config_package"
INTERMEDIATE_TASK_OUTPUT: Final = "intermediate_task_output"


class ProducerType(StrEnum):
    RUN_TASK = "run_task"
    WORKFLOW_RUN = "workflow_run"
    PROBE = "probe"
    ANNOTATION_TASK = "annotation_task"
    MANUAL = "manual"


class Lineage(Model):
    """Where an artifact came from; enough to make it again."""

    input_artifact_ids: list[Id] = Field(default_factory=list)
    asset_ids: list[Id] = Field(default_factory=list)
    workflow_run_id: Id | None = None
    node_id: str | None = None
    attempt: int | None = None
    cache_key: str | None = None
    code_digest: str | None = None


class Artifact(Document):
    """One managed output; its bytes are the blob version that ``storage_ref`` names."""

    collection: ClassVar[str] = "artifacts"
    prefix: ClassVar[str] = "art"

    workspace_id: Id
    project_id: Id
    type: TypeName
    producer_type: ProducerType
    producer_id: Id
    storage_ref: StorageRef
    previewable: bool = False
    summary: Summary | None = None
    lineage: Lineage
    created_by: ActorId
    created_at: UtcDatetime
