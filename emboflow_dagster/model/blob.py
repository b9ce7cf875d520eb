"""Blobs: versioned payloads and who owns them. snake_case in MongoDB, as Flowcept's page says (C-01).

The latest version of an object is a document of ``objects``; its predecessors are in
``object_history``, or for a moment in the head's ``tail`` on their way there (the outbox,
spec/reliability.md finding 1).

Where the bytes of a version are follows from its one pointer (C-03): ``storage_ref`` in the object
store, ``grid_fs_file_id`` in GridFS, neither in the document itself (field ``data``, which is never
part of :class:`BlobObject`).
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.base import FreeForm, Id, UtcDatetime, invalid, plain_values
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.text import OBJECT_ID_PATTERN, SHA256_PATTERN, refuse


class UploadStatus(StrEnum):
    ANNOUNCED = "announced"
    WRITTEN = "written"
    COMPLETED = "completed"


class StorageType(StrEnum):
    """The home of a version's bytes; the words are Flowcept's where it has them."""

    OBJECT_STORE = "object_store"
    IN_OBJECT = "in_object"
    GRIDFS = "gridfs"


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
    object_size_bytes: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    data_sha256: Annotated[str, Field(pattern=SHA256_PATTERN)] | None = None
    data_hash_algo: str = "sha256"
    content_type: str = "application/octet-stream"
    serializer: str | None = None
    storage_ref: StorageRef | None = None
    grid_fs_file_id: str | None = None
    upload_status: UploadStatus = UploadStatus.COMPLETED
    owner_record: str | None = None
    owner_record_field: str | None = None
    owner_record_id: str | None = None
    workspace_id: Id
    project_id: Id | None = None
    request_id: str | None = None
    """Whose repetition makes no second version (decision 9)."""

    @property
    def storage_type(self) -> StorageType:
        """Where the bytes are."""
        if self.storage_ref is not None:
            return StorageType.OBJECT_STORE
        return StorageType.GRIDFS if self.grid_fs_file_id is not None else StorageType.IN_OBJECT

    @property
    def sha256(self) -> str:
        """The hex digest of the payload.

        Raises:
            IntegrityError: The upload is not complete.
        """
        if self.data_sha256 is None:
            raise self._incomplete()
        return self.data_sha256

    @property
    def size(self) -> int:
        """The payload's length in bytes.

        Raises:
            IntegrityError: The upload is not complete.
        """
        if self.object_size_bytes is None:
            raise self._incomplete()
        return self.object_size_bytes

    @property
    def completed(self) -> bool:
        """Whether all bytes are there; only then it can be read."""
        return self.upload_status is UploadStatus.COMPLETED

    def require_completed(self) -> None:
        """Say so when the upload is not complete.

        Raises:
            IntegrityError: It is not.
        """
        if not self.completed:
            raise self._incomplete()

    def _incomplete(self) -> IntegrityError:
        return IntegrityError(
            f"{self.object_id} version {self.version}: the upload is {self.upload_status}, not completed",
            kind=ErrorKind.BLOB_INCOMPLETE,
            hint="upload its bytes, or announce a new blob",
        )

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, given: Any) -> Any:
        return plain_values(cls, given)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.completed and (self.data_sha256 is None or self.object_size_bytes is None):
            raise refuse(ErrorKind.BLOB_INCOMPLETE, "data_sha256", "a completed blob has a hash and a size")
        if self.storage_ref is not None and self.grid_fs_file_id is not None:
            raise refuse(ErrorKind.REF_FIELD, "storage_ref", "the bytes of a version have one home")
        return self

    @classmethod
    def checked(cls, **fields: Any) -> Self:
        """A new document, or one error that names every wrong field."""
        try:
            return cls.model_validate(fields, by_name=True)
        except ValidationError as error:
            raise invalid(error, cls.collection) from None

    @classmethod
    def from_mongo(cls, raw: dict[str, Any]) -> Self:
        """A stored version; the outbox, the bytes and unknown fields are left aside."""
        try:
            fields = {key: value for key, value in raw.items() if key != "data"}
            if type(fields.get("grid_fs_file_id")).__name__ == "ObjectId":  # in what Flowcept wrote
                fields["grid_fs_file_id"] = str(fields["grid_fs_file_id"])
            return cls.model_validate(fields, extra="ignore", by_alias=True)
        except ValidationError as error:
            raise invalid(error, cls.collection) from None

    def to_mongo(self) -> dict[str, Any]:
        """As MongoDB stores it."""
        return self.model_dump(by_alias=True)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it; there is no payload in it."""
        return self.model_dump(by_alias=True, mode="json")
