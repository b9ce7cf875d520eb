"""Raw inputs and what looking into them found."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.base import (
    ActorId,
    Document,
    Id,
    Int64,
    Model,
    Summary,
    UtcDatetime,
    sized_freeform,
)
from emboflow_dagster.model.storage import BlobRef, StorageRef
from emboflow_dagster.model.text import check_name, refuse

MAX_TOP_LEVEL_PATHS = 100
MAX_WARNINGS = 200
RAW_REPORT_BYTES = 256 << 10


class AssetType(StrEnum):
    RAW_FILE = "raw_file"
    ARCHIVE = "archive"
    FOLDER = "folder"
    VIDEO_COLLECTION = "video_collection"
    STANDARD_DATASET = "standard_dataset"
    ROSBAG = "rosbag"
    HDF5_DATASET = "hdf5_dataset"
    OBJECT_STORAGE_PREFIX = "object_storage_prefix"


class AssetSourceType(StrEnum):
    UPLOAD = "upload"
    IMPORT = "import"
    REGISTERED_PATH = "registered_path"
    OBJECT_STORAGE = "object_storage"


class AssetStatus(StrEnum):
    REGISTERED = "registered"
    PROBING = "probing"
    READY = "ready"
    FAILED = "failed"
    ARCHIVED = "archived"


class Asset(Document):
    """A raw uploaded or imported input. Its file listing, when it has one, is a blob: see ``storage_ref``."""

    collection: ClassVar[str] = "assets"
    prefix: ClassVar[str] = "ast"

    workspace_id: Id
    project_id: Id
    type: AssetType
    source_type: AssetSourceType
    display_name: Annotated[str, Field(min_length=1, max_length=300)]
    status: AssetStatus = AssetStatus.REGISTERED
    storage_ref: StorageRef
    size_bytes: Int64
    file_count: Int64
    top_level_paths: Annotated[
        list[Annotated[str, Field(max_length=512)]], Field(max_length=MAX_TOP_LEVEL_PATHS)
    ] = Field(default_factory=list)
    detected_formats: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=32)] = Field(
        default_factory=list
    )
    summary: Summary | None = None
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime

    @field_validator("display_name", mode="before")
    @classmethod
    def _visible(cls, value: object) -> str:
        return check_name(value, "", 300)

    @field_validator("top_level_paths")
    @classmethod
    def _inside(cls, value: list[str]) -> list[str]:
        for path in value:
            if ".." in path.split("/"):
                raise refuse(ErrorKind.PATH_TRAVERSAL, "", "'..' is not allowed")
        return value


class FormatCandidate(Model):
    """One guess at the format: how sure, and why."""

    format: Annotated[str, Field(min_length=1, max_length=64)]
    confidence: Annotated[float, Field(ge=0, le=1)]
    evidence: list[str] = Field(default_factory=list)


class ProbeWarning(Model):
    """One thing that is odd, missing or wrong; ``code`` is stable."""

    code: Annotated[str, Field(min_length=1, max_length=64)]
    message: Annotated[str, Field(max_length=2000)]
    path: Annotated[str, Field(max_length=1024)] | None = None


class AssetProbeReport(Document):
    """What one look into an asset found. Append-only: looking again adds ``report_version + 1``."""

    collection: ClassVar[str] = "asset_probe_reports"
    prefix: ClassVar[str] = "prb"

    asset_id: Id
    report_version: Annotated[int, Field(ge=1)]
    detected_format_candidates: list[FormatCandidate]
    # Topic and dataset names are keys here and may hold dots.
    structure_summary: Annotated[dict[str, Any], sized_freeform(RAW_REPORT_BYTES, map_keys=True)]
    warnings: Annotated[list[ProbeWarning], Field(max_length=MAX_WARNINGS)] = Field(default_factory=list)
    truncated: bool = False
    recommended_next_nodes: list[str] = Field(default_factory=list)
    raw_report: Annotated[dict[str, Any], sized_freeform(RAW_REPORT_BYTES, map_keys=True)]
    created_at: UtcDatetime

    @property
    def format(self) -> str:
        """The best guess, or ``unknown``."""
        return self.detected_format_candidates[0].format if self.detected_format_candidates else "unknown"

    @property
    def raw_report_ref(self) -> BlobRef | None:
        """The blob that holds the whole report, when it is too large for the document (R-108)."""
        ref = self.raw_report.get("ref")
        if (
            set(self.raw_report) != {"ref"}
            or not isinstance(ref, dict)
            or set(ref) != {"objectId", "version"}
        ):
            return None
        return BlobRef.model_validate(ref)

    @field_validator("detected_format_candidates")
    @classmethod
    def _ranked(cls, value: list[FormatCandidate]) -> list[FormatCandidate]:
        return sorted(value, key=lambda c: -c.confidence)
