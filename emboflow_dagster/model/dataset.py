"""Datasets and their immutable versions."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from emboflow_dagster.model.base import ActorId, Document, Id, Slug, Summary, TypeName, UtcDatetime
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.text import TAG_PATTERN

CANONICAL_SCHEMA: Final = "emboflow-canonical/1"


class DatasetStatus(StrEnum):
    DRAFT = "draft"
    ACTIVE = "active"
    ARCHIVED = "archived"


class Dataset(Document):
    """A dataset's identity; its content is in its versions."""

    collection: ClassVar[str] = "datasets"
    prefix: ClassVar[str] = "ds"

    workspace_id: Id
    project_id: Id
    name: Slug
    type: TypeName
    status: DatasetStatus = DatasetStatus.DRAFT
    latest_version_id: Id | None = None
    summary: Summary | None = None
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime


class DatasetVersionStatus(StrEnum):
    AVAILABLE = "available"
    DEPRECATED = "deprecated"
    WITHDRAWN = "withdrawn"


# The only field of a version that moves, and only this way (C-13).
DATASET_VERSION_TRANSITIONS: Final = {
    DatasetVersionStatus.AVAILABLE: frozenset({DatasetVersionStatus.DEPRECATED}),
    DatasetVersionStatus.DEPRECATED: frozenset({DatasetVersionStatus.WITHDRAWN}),
    DatasetVersionStatus.WITHDRAWN: frozenset[DatasetVersionStatus](),
}


class DatasetVersion(Document):
    """One immutable snapshot of a dataset.

    A version is never edited: a change is a new version whose ``parent_version_id`` points here. The
    manifest lives in object storage; only its reference is kept. ``stats`` holds numbers only
    (episodes, frames, bytes, durationSec).
    """

    collection: ClassVar[str] = "dataset_versions"
    prefix: ClassVar[str] = "dsv"

    dataset_id: Id
    workspace_id: Id
    project_id: Id
    source_asset_id: Id | None = None
    parent_version_id: Id | None = None
    version_tag: Annotated[str, Field(pattern=TAG_PATTERN)]
    canonical_schema_version: Annotated[str, Field(min_length=1, max_length=64)]
    manifest_ref: StorageRef
    stats: dict[str, int | float] = Field(default_factory=dict)
    summary: Summary | None = None
    status: DatasetVersionStatus = DatasetVersionStatus.AVAILABLE
    created_by: ActorId
    created_at: UtcDatetime
