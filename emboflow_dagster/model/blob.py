"""Blobs: versioned payloads and who owns them. snake_case in MongoDB, as Flowcept's page says (C-01).

The latest version of an object is a document of ``objects``; its predecessors are in
``object_history``, or for a moment in the head's ``tail`` on their way there (the outbox,
spec/reliability.md finding 1).
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from emboflow_dagster.model.base import FreeForm, Id, UtcDatetime, invalid, plain_values
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.text import OBJECT_ID_PATTERN, SHA256_PATTERN


class UploadStatus(StrEnum):
    ANNOUNCED = "announced"
    WRITTEN = "written"
    COMPLETED = "completed"


class BlobObject(BaseModel):
    """The metadata of one version of one payload.

    Source: Flowcept "Blob Data Schema" (R-387..R-417), Voedger ownership (R-418..R-430).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=AliasGenerator())
    collection: ClassVar[str] = "objects"
    prefix: ClassVar[str] = "obj"

    id: Annotated[str, Field(min_length=1, max_length=160, validation_alias="_id", serialization_alias="_id")]
    object_id: Annotated[str, Field(pattern=OBJECT_ID_PATTERN, max_length=128)]
    version: Annotated[int, Field(ge=0)]
    prev_version: Annotated[int, Field(ge=0)] | None = None
    type: Annotated[str, Field(min_length=1, max_length=64)]
    task_id: str | None = None
    workflow_id: str | None = None
    custom_metadata: FreeForm = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    created_at: UtcDatetime
    created_by: str
    updated_at: UtcDatetime
    updated_by: str
    object_size_bytes: Annotated[int, Field(ge=0, lt=2**63)]
    data_sha256: Annotated[str, Field(pattern=SHA256_PATTERN)]
    data_hash_algo: str = "sha256"
    content_type: str = "application/octet-stream"
    serializer: str | None = None
    storage_ref: StorageRef | None = None
    upload_status: UploadStatus = UploadStatus.COMPLETED
    owner_record: str | None = None
    owner_record_field: str | None = None
    owner_record_id: str | None = None
    workspace_id: Id
    project_id: Id | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, given: Any) -> Any:
        return plain_values(cls, given)

    @classmethod
    def checked(cls, **fields: Any) -> Self:
        """A new document, or one error that names every wrong field."""
        try:
            return cls.model_validate(fields, by_name=True)
        except ValidationError as error:
            raise invalid(error, cls.collection) from None

    @classmethod
    def from_mongo(cls, raw: dict[str, Any]) -> Self:
        """A stored version; the outbox and unknown fields are left aside."""
        try:
            return cls.model_validate(raw, extra="ignore", by_alias=True)
        except ValidationError as error:
            raise invalid(error, cls.collection) from None

    def to_mongo(self) -> dict[str, Any]:
        """As MongoDB stores it."""
        return self.model_dump(by_alias=True)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it; there is no payload in it."""
        return self.model_dump(by_alias=True, mode="json")
