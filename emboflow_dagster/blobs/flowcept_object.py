"""A blob as programs written for Flowcept expect it: metadata as attributes, the payload under ``data``."""

from collections.abc import Callable
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from emboflow_dagster.model.blob import BlobObject

if TYPE_CHECKING:
    from datetime import datetime

# Where the bytes are is no business of who asks for metadata.
POINTERS = frozenset({"_id", "data", "storage_ref", "grid_fs_file_id"})


class FlowceptObject:
    """One version of a blob: every field of :class:`BlobObject` as an attribute, and its payload.

    ``data`` is read, whole and verified, when it is asked for first; :meth:`open` streams instead.
    """

    def __init__(self, blob: BlobObject, open_: Callable[[BlobObject], IO[bytes]]) -> None:
        self.metadata = blob
        self._open = open_

    if TYPE_CHECKING:
        object_id: str
        version: int
        prev_version: int | None
        type: str
        task_id: str | None
        workflow_id: str | None
        custom_metadata: dict[str, Any]
        tags: list[str]
        created_at: datetime
        created_by: str
        updated_at: datetime
        updated_by: str
        object_size_bytes: int | None
        data_sha256: str | None
        data_hash_algo: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "metadata":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self.metadata, name)

    @property
    def object_type(self) -> str:
        """``type``, as newer Flowcepts call it (C-02)."""
        return self.metadata.type

    @property
    def storage_type(self) -> str:
        """``object_store``, ``in_object`` or ``gridfs``."""
        return self.metadata.storage_type.value

    @property
    def filename(self) -> str:
        """The name of a downloaded file: ``<object_id>.v<version>.bin``."""
        return filename(self.metadata)

    @cached_property
    def data(self) -> bytes:
        """The payload, verified.

        Raises:
            IntegrityError: Bytes are missing or are not what was recorded.
        """
        with self.open() as stream:
            return stream.read()

    def open(self) -> IO[bytes]:
        """A stream over the payload that is verified as it is read."""
        return self._open(self.metadata)

    def to_dict(self) -> dict[str, Any]:
        """Metadata that is not ``None``, the version in any case, never the payload (P-16)."""
        return to_dict(self.metadata)

    def __repr__(self) -> str:
        fields = (
            "object_id",
            "version",
            "type",
            "task_id",
            "workflow_id",
            "custom_metadata",
            "tags",
            "created_at",
            "updated_at",
            "object_size_bytes",
            "data_sha256",
        )
        shown = ", ".join(f"{name}={getattr(self.metadata, name)!r}" for name in fields)
        return f"FlowceptObject({shown})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowceptObject) and self.metadata == other.metadata

    __hash__ = None  # pyright: ignore[reportAssignmentType] - holds dicts, as what it stands for


def filename(blob: BlobObject) -> str:
    """The name of a version's file where it is downloaded (P-17)."""
    return f"{blob.object_id}.v{blob.version}.bin"


def to_dict(blob: BlobObject) -> dict[str, Any]:
    """A version's metadata without what is ``None``, with ``storage_type``; no payload, no pointer to one."""
    found = {
        name: value for name, value in blob.to_mongo().items() if value is not None and name not in POINTERS
    }
    return {**found, "upload_status": blob.upload_status.value, "storage_type": blob.storage_type.value}
