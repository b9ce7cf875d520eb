"""Manual labelling: tasks and what people answered."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from emboflow_dagster.model.base import (
    ActorId,
    Document,
    FreeForm,
    Id,
    Model,
    TypeName,
    UtcDatetime,
    sized_freeform,
)


class AnnotationTargetType(StrEnum):
    ASSET = "asset"
    DATASET_VERSION = "dataset_version"
    ARTIFACT = "artifact"


class TargetRef(Model):
    """What is labelled: a document, and which part of it."""

    id: Id
    selector: FreeForm | None = None


class AnnotationTaskStatus(StrEnum):
    OPEN = "open"
    IN_PROGRESS = "in_progress"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


#: What may follow what; the last three are for ever.
ANNOTATION_TRANSITIONS: Final[Mapping[AnnotationTaskStatus, frozenset[AnnotationTaskStatus]]] = (
    MappingProxyType(
        {
            AnnotationTaskStatus.OPEN: frozenset(
                {
                    AnnotationTaskStatus.IN_PROGRESS,
                    AnnotationTaskStatus.IN_REVIEW,
                    AnnotationTaskStatus.CANCELLED,
                }
            ),
            AnnotationTaskStatus.IN_PROGRESS: frozenset(
                {AnnotationTaskStatus.IN_REVIEW, AnnotationTaskStatus.CANCELLED}
            ),
            AnnotationTaskStatus.IN_REVIEW: frozenset(
                {
                    AnnotationTaskStatus.APPROVED,
                    AnnotationTaskStatus.REJECTED,
                    AnnotationTaskStatus.CANCELLED,
                }
            ),
            AnnotationTaskStatus.APPROVED: frozenset(),
            AnnotationTaskStatus.REJECTED: frozenset(),
            AnnotationTaskStatus.CANCELLED: frozenset(),
        }
    )
)
ANNOTATION_OPEN: Final = frozenset(status for status, after in ANNOTATION_TRANSITIONS.items() if after)


class AnnotationTask(Document):
    """Who labels and reviews what."""

    collection: ClassVar[str] = "annotation_tasks"
    prefix: ClassVar[str] = "ant"

    workspace_id: Id
    project_id: Id
    target_type: AnnotationTargetType
    target_ref: TargetRef
    label_type: TypeName
    status: AnnotationTaskStatus = AnnotationTaskStatus.OPEN
    assignee_ids: Annotated[list[Id], Field(max_length=100)] = Field(default_factory=list)
    reviewer_ids: Annotated[list[Id], Field(max_length=100)] = Field(default_factory=list)
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime


class AnnotationStatus(StrEnum):
    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"


class Annotation(Document):
    """One answer; a payload above 1 MiB is a blob that the payload names."""

    collection: ClassVar[str] = "annotations"
    prefix: ClassVar[str] = "ann"

    annotation_task_id: Id
    workspace_id: Id
    project_id: Id
    target_ref: TargetRef
    payload: Annotated[dict[str, Any], sized_freeform(1 << 20, max_items=200_000)]
    status: AnnotationStatus = AnnotationStatus.DRAFT
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime
