"""References to bytes: where they are and what they must hash to. Never the bytes themselves."""

import re
from typing import Annotated, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field, model_validator

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.base import Checksum, Int64, Model
from emboflow_dagster.model.text import OBJECT_ID_PATTERN, check_rel_path, refuse

CONTENT_TYPE_PATTERN = (
    r"^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*(; ?[a-z]+=[\w.-]+)*$"
)
LISTING_TYPE = "application/vnd.emboflow.listing+jsonl"
MANIFEST_TYPE = "application/vnd.emboflow.manifest+json"
# Bucket of things that stay where they are on this machine's disk.
PATH_BUCKET = "path"
LOCAL_BUCKET = "local"
MAX_SIZE = 1 << 50


def uri_of(root: str, key: str) -> str:
    """The URI of ``key`` below a store's root URI; the one rule both directions use."""
    return f"{root.rstrip('/')}/{quote(key, safe='/')}"


class StorageRef(Model):
    """One payload: bucket and key, the URI they make, its hash, type and size in bytes.

    ``object_id`` and ``version`` name the blob when the payload is one.

    Source: EmboFlow "Object Storage References"; requirements R-320..R-328.
    """

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,62}$")]
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    uri: Annotated[str, Field(min_length=1, max_length=4096)]
    checksum: Checksum
    content_type: Annotated[str, Field(pattern=CONTENT_TYPE_PATTERN, max_length=255)]
    size: Int64
    object_id: Annotated[str, Field(pattern=OBJECT_ID_PATTERN, max_length=128)] | None = None
    version: Annotated[int, Field(ge=0)] | None = None

    @property
    def sha256(self) -> str:
        """The bare hex digest of ``checksum``."""
        return self.checksum.removeprefix("sha256:")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key.startswith("/") or ".." in self.key.split("/") or len(self.key.encode()) > 1024:  # noqa: PLR2004
            raise refuse(
                ErrorKind.PATH_TRAVERSAL, "key", "a key is relative, without '..', at most 1024 bytes"
            )
        if self.size > MAX_SIZE:
            raise refuse(ErrorKind.SIZE, "size", f"found {self.size}; at most 2**50 bytes")
        parts = urlsplit(self.uri)
        if parts.scheme not in ("file", "s3"):
            raise refuse(ErrorKind.URI_SCHEME, "uri", f"found {parts.scheme!r}; allowed are file and s3")
        path = unquote(parts.path).lstrip("/")
        if not (path == self.key or path.endswith("/" + self.key)) or (
            parts.scheme == "s3" and parts.netloc != self.bucket
        ):
            raise refuse(ErrorKind.URI, "uri", "the URI does not end in the key of this bucket")
        return self


class BlobRef(Model):
    """A reference to one version of one blob: the pair that ownership is about (C-09)."""

    object_id: Annotated[str, Field(pattern=OBJECT_ID_PATTERN, max_length=128)]
    version: Annotated[int, Field(ge=0)]


def check_key(key: str) -> str:
    """A key inside a bucket, as strict as a relative path."""
    return check_rel_path(key, "key")


def object_id_for(*parts: str) -> str:
    """The blob id of a place in the asset graph: its parts joined by dots.

    >>> object_id_for("acme", "pick-place", "artifacts", "triage", "probe")
    'acme.pick-place.artifacts.triage.probe'
    """
    import hashlib

    plain = ".".join(re.sub(r"[^A-Za-z0-9_-]", "-", part).strip("-") or "x" for part in parts)
    if len(plain) <= 128:  # noqa: PLR2004 - the limit of object ids
        return plain
    return f"{plain[:87].rstrip('.-')}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:40]}"
