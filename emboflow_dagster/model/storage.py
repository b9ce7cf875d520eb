"""References to bytes: where they are and what they must hash to. Never the bytes themselves."""

import re
from typing import Annotated, Any, Final, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pydantic import Field, ValidationError, model_validator

from emboflow_dagster.errors import ErrorKind, shown
from emboflow_dagster.model.base import Checksum, Int64, Model, invalid
from emboflow_dagster.model.text import (
    CHECKSUM_PATTERN,
    OBJECT_ID_PATTERN,
    check_object_id,
    check_rel_path,
    check_version,
    refuse,
)

CONTENT_TYPE_PATTERN = (
    r"^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*(; ?[a-z]+=[\w.-]+)*$"
)
LISTING_TYPE = "application/vnd.emboflow.listing+jsonl"
MANIFEST_TYPE = "application/vnd.emboflow.manifest+json"
# Bucket of things that stay where they are on this machine's disk.
PATH_BUCKET = "path"
LOCAL_BUCKET = "local"
MAX_SIZE = 1 << 50
# Payloads inside a document: the server's validator holds the same bound (C-03).
IN_OBJECT_BYTES = 256 << 10
# Source: AWS, "General purpose bucket naming rules".
_BUCKET: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]|(?<![.-])\.(?![.-])){1,61}[a-z0-9]")
_BUCKET_PREFIXES: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_BUCKET_SUFFIXES: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
# Letters, digits, "-._~", separators and control characters, percent-encoded.
_NEEDLESS: Final = re.compile(
    r"%(?:[01][0-9A-F]|2[DEF]|3[0-9]|4[1-9A-F]|5[0-9ACF]|6[1-9A-F]|7[0-9AEF])", re.IGNORECASE
)
_FIELDS: Final = frozenset({"bucket", "key", "uri", "checksum", "contentType", "size", "objectId", "version"})


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
        check_bucket(self.bucket)
        parts = _split(self.uri)
        path = unquote(parts.path).lstrip("/")
        if not (path == self.key or path.endswith("/" + self.key)) or (
            parts.scheme == "s3" and parts.netloc != self.bucket
        ):
            raise refuse(ErrorKind.URI, "uri", "the URI does not end in the key of this bucket")
        return self


def check_bucket(value: object, path: str = "bucket") -> str:
    """A bucket's name as S3 allows it: 3-63 of ``a-z0-9.-``, no address, no reserved prefix or suffix."""
    if (
        type(value) is not str
        or not _BUCKET.fullmatch(value)
        or re.fullmatch(r"\d+(\.\d+){3}", value)
        or value.startswith(_BUCKET_PREFIXES)
        or value.endswith(_BUCKET_SUFFIXES)
    ):
        raise refuse(ErrorKind.BUCKET, path, f"found {shown(value)}; a bucket is 3-63 of a-z 0-9 . -")
    return value


def _split(uri: str) -> SplitResult:
    """The parts of a ``file`` or ``s3`` URI without login, query, parameters or fragment."""
    if not uri.isprintable() or " " in uri:  # `urlsplit` would drop some of them unseen
        raise refuse(
            ErrorKind.URI, "uri", f"found {shown(uri)}; a URI has no white space or control characters"
        )
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise refuse(ErrorKind.URI, "uri", f"found {shown(uri)}; {error}") from None
    rooted = parts.path.startswith("/") and not parts.netloc
    if parts.scheme not in ("file", "s3") or (parts.scheme == "file" and not rooted):
        raise refuse(ErrorKind.URI_SCHEME, "uri", f"found {shown(uri)}; allowed are file:/// and s3://")
    if "@" in parts.netloc:
        raise refuse(ErrorKind.URI_USERINFO, "uri", "a login does not belong into a reference")
    if parts.query or parts.fragment or ";" in parts.path:
        raise refuse(ErrorKind.URI_QUERY, "uri", "a reference has no query, parameters or fragment")
    return parts


def check_storage_ref(raw: object, path: str = "") -> StorageRef:
    """A reference that somebody else wrote, checked part by part before it is one of ours.

    Args:
        raw: A dict with ``bucket`` and ``key``, or ``uri``, or all three; ``checksum``, ``contentType`` and
            ``size``; perhaps ``objectId`` and ``version``. Stored field names.
        path: Where it stands, for the messages.

    Raises:
        InvalidInputError: With the first thing that is wrong, coded.

    Source: requirements R-320..R-328; corpus category "paths and storage refs".
    """
    if type(raw) is not dict:
        raise refuse(ErrorKind.REF_TYPE, path, f"found {shown(raw)}; a reference is a mapping")
    given: dict[Any, Any] = dict(raw)
    for name in given:
        if name not in _FIELDS:
            raise refuse(
                ErrorKind.REF_FIELD, path, f"found {shown(name)}; known are {', '.join(sorted(_FIELDS))}"
            )
    if "uri" in given:
        given |= _from_uri(given)
    check_bucket(given.get("bucket"))
    check_key(given.get("key"))
    given.setdefault("uri", uri_of(f"s3://{given['bucket']}", given["key"]))
    _details(given)
    try:
        return StorageRef.model_validate(given)
    except ValidationError as error:
        raise invalid(error, path or "storageRef") from None


def _from_uri(given: dict[Any, Any]) -> dict[str, Any]:
    uri = given["uri"]
    if type(uri) is not str:
        raise refuse(ErrorKind.URI, "uri", f"found {shown(uri)}; a URI is a string")
    parts = _split(uri)
    if _NEEDLESS.search(parts.path):
        raise refuse(
            ErrorKind.PATH_ENCODED, "uri", f"found {shown(uri)}; only what needs it is percent-encoded"
        )
    if parts.scheme == "s3":
        check_bucket(parts.netloc)
    bucket = parts.netloc if parts.scheme == "s3" else given.get("bucket", PATH_BUCKET)
    whole = key = check_key(unquote(parts.path).removeprefix("/"))
    # A store of files has a folder of its own before the keys.
    if parts.scheme == "file" and type(given.get("key")) is str and whole.endswith("/" + given["key"]):
        key = given["key"]
    if given.get("bucket", bucket) != bucket or given.get("key", key) != key:
        raise refuse(ErrorKind.URI, "uri", f"found {shown(uri)}; bucket and key say otherwise")
    return {"bucket": bucket, "key": key}


def _details(given: dict[Any, Any]) -> None:
    """What is there is judged before what is missing, so that the code names the worse fault."""
    for there in (True, False):
        for name, kind, fine, needed in (
            ("checksum", ErrorKind.HASH, _is_checksum, "sha256: and 64 of 0-9 a-f"),
            ("size", ErrorKind.SIZE, _is_size, "an int from 0 to 2**50"),
            ("contentType", ErrorKind.CONTENT_TYPE, _is_content_type, "a type such as text/csv"),
        ):
            if (name in given) is there and not fine(given.get(name)):
                raise refuse(kind, name, f"found {shown(given.get(name))}; needed is {needed}")
    if given.get("objectId") is not None:
        check_object_id(given["objectId"], "objectId")
    if given.get("version") is not None:
        check_version(given["version"])


def _is_checksum(value: object) -> bool:
    return type(value) is str and re.fullmatch(CHECKSUM_PATTERN[1:-1], value) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_content_type(value: object) -> bool:
    return type(value) is str and re.fullmatch(CONTENT_TYPE_PATTERN[1:-1], value) is not None


class BlobRef(Model):
    """A reference to one version of one blob: the pair that ownership is about (C-09)."""

    object_id: Annotated[str, Field(pattern=OBJECT_ID_PATTERN, max_length=128)]
    version: Annotated[int, Field(ge=0)]


def check_key(key: object) -> str:
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
