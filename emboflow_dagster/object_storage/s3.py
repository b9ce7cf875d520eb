"""Payloads in a bucket of S3, or of a server that speaks its protocol.

::

    s3://<bucket>/<prefix>/sha256/ab/cdef...   one object a payload, named by its hash, also in its metadata
    a multipart upload of such a name          being put; whatever is old of these was left by a crash

An object under its final name is whole, and the server checked it on arrival. A read relies on nothing: it
hashes (decision 0010). Long for a module because a home has all of its verbs in one place.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from emboflow_dagster.errors import ConfigurationError, EmboflowError, NotFoundError, UnavailableError
from emboflow_dagster.model.storage import check_bucket, check_key, uri_of
from emboflow_dagster.model.text import check_rel_path
from emboflow_dagster.object_storage.disk import naming_failures
from emboflow_dagster.object_storage.payload import (
    PREFIX,
    STALE_AFTER_S,
    ObjectStat,
    Source,
    StaleUpload,
    StoredObject,
    filling,
    from_stream,
    key_of,
    opened,
    rejoined,
)
from emboflow_dagster.object_storage.pump import Digest
from emboflow_dagster.object_storage.s3_bucket import ATTEMPTS, Bucket, ClientMaker, metadata_of, server_time
from emboflow_dagster.object_storage.s3_checksum import Checksum, checksum_for
from emboflow_dagster.object_storage.s3_copy import refresh
from emboflow_dagster.object_storage.s3_errors import TAKEN, UNSUPPORTED, UPLOAD_GONE, Refusal
from emboflow_dagster.object_storage.s3_read import HashingObject, WrongSizeError, ranges, there, wrong_size
from emboflow_dagster.object_storage.s3_source import PART_BYTES, Parts, of_file, of_memory, of_stream
from emboflow_dagster.object_storage.s3_upload import upload, uploads
from emboflow_dagster.object_storage.verified import VerifiedReader, mismatch, part_of

MAX_PREFIX_BYTES: Final = 512
_KEY: Final = re.compile(rf"{PREFIX}/[0-9a-f]{{2}}/[0-9a-f]{{62}}")


class S3ObjectStore:
    """A content-addressed prefix of a bucket.

    Args:
        bucket: The bucket's name.
        prefix: Where in it; ``""`` for its top.
        client: Makes the S3 client; by default the standard AWS variables, files and roles say how.
        spool: Folder for streams while they are put; the system's for temporary files by default.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, client: ClientMaker | None = None, spool: Path | None = None
    ) -> None:
        self.bucket = check_bucket(bucket)
        self.prefix = check_rel_path(prefix, "prefix") if prefix else ""
        self._root = f"{self.prefix}/" if self.prefix else ""
        self._s3 = Bucket(bucket, client)
        self._spool = spool
        self._conditional = True

    def __repr__(self) -> str:
        return f"S3ObjectStore({self.url!r})"

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @classmethod
    def from_url(
        cls, url: str, *, client: ClientMaker | None = None, spool: Path | None = None
    ) -> "S3ObjectStore":
        """The store of `s3://bucket/prefix`.

        Raises:
            ConfigurationError: It is no such URL, or the bucket or prefix could be none.
        """
        hint = "write s3://bucket or s3://bucket/prefix; credentials and endpoint come from AWS_* variables"
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = None
        if parts is None or "@" in parts.netloc or ":" in parts.netloc or "?" in url or "#" in url:
            raise ConfigurationError("EMBOFLOW_OBJECT_STORE is no bucket with a prefix", hint=hint)
        prefix = parts.path.removeprefix("/").removesuffix("/")
        try:
            if len(prefix) > MAX_PREFIX_BYTES:
                raise ConfigurationError(f"the prefix has more than {MAX_PREFIX_BYTES} characters")
            return cls(parts.netloc, prefix, client=client, spool=spool)
        except EmboflowError as error:
            raise ConfigurationError(
                f"EMBOFLOW_OBJECT_STORE: {error.message}", kind=error.kind, hint=hint
            ) from None

    # -------------------------------------------------------------------------------------------- put

    def put(self, source: Source, *, content_type: str, replace: bool = False) -> StoredObject:
        """Store a payload durably; see :meth:`ObjectStore.put`.

        Up to 8 MiB in one request. Longer ones are read twice: for their hash, and, unless they are there
        already, to be sent in parts; a stream is kept in a temporary file in between.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            content = memoryview(source).cast("B") if isinstance(source, memoryview) else memoryview(source)
            if len(content) <= PART_BYTES:
                return self._put_block(bytes(content), content_type, replace=replace)
            return self._put_parts(of_memory(content, self._checksum()), content_type, replace=replace)
        if isinstance(source, Path):
            with opened(source) as file:
                start = memoryview(bytearray(PART_BYTES))
                if (filled := from_stream(file)(start)) < PART_BYTES:
                    return self._put_block(bytes(start[:filled]), content_type, replace=replace)
                del start
                return self._put_parts(of_file(file, self._checksum()), content_type, replace=replace)
        with filling(source) as fill:
            start = memoryview(bytearray(PART_BYTES))
            if (filled := fill(start)) < PART_BYTES:
                return self._put_block(bytes(start[:filled]), content_type, replace=replace)
            with of_stream(rejoined(start, fill), self._checksum(), self._spool) as parts:
                del start
                return self._put_parts(parts, content_type, replace=replace)

    def _checksum(self) -> Checksum:
        return checksum_for(self._s3.client()[1])

    def _put_block(self, content: bytes, content_type: str, *, replace: bool) -> StoredObject:
        digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
        checksum = self._checksum()
        whole: dict[str, Any] = {
            "Key": self._name(key_of(digest.sha256)),
            "Body": content,
            "ContentType": content_type,
            "Metadata": {"sha256": digest.sha256},
            **checksum.header(checksum.of(content)),
        }
        unless_there = not replace
        for _ in range(ATTEMPTS):
            how = {"IfNoneMatch": "*"} if unless_there and self._conditional else {}
            try:
                self._s3.ask("put_object", but=TAKEN | UNSUPPORTED, **whole, **how)
            except Refusal as refusal:
                if refusal.code in UNSUPPORTED:
                    self._conditional = False
                elif self._kept(digest):
                    # There before, or our own put, whose answer was lost.
                    return self._stored(digest, young=False)
                else:
                    unless_there = False  # damaged, or gone since: the good copy takes its place
            else:
                return self._stored(digest, young=True)
        raise UnavailableError(
            f"bucket {self.bucket}: {whole['Key']} could not be put: others put and remove it"
        )

    def _put_parts(self, parts: Parts, content_type: str, *, replace: bool) -> StoredObject:
        digest = Digest(parts.sha256, parts.size)
        there = not replace and self._kept(digest)
        if not there:
            name, metadata = self._name(key_of(digest.sha256)), {"sha256": digest.sha256}
            upload(self._s3, name, parts, content_type=content_type, metadata=metadata)
        return self._stored(digest, young=not there)

    def _kept(self, digest: Digest) -> bool:
        """Whether the payload is there already; then it is as good as put now."""
        name = self._name(key_of(digest.sha256))
        head = self._s3.head(name)
        if head is None or head["ContentLength"] != digest.size:
            return False
        if metadata_of(head).get("sha256") != digest.sha256:
            return False  # put there by other means: what it is nobody knows without reading it
        return refresh(self._s3, name, head)

    def _stored(self, digest: Digest, *, young: bool) -> StoredObject:
        key = key_of(digest.sha256)
        return StoredObject(self.bucket, key, self.uri_of(key), digest.sha256, digest.size, young=young)

    # ------------------------------------------------------------------------------------------- read

    def open(
        self, key: str, *, sha256: str, size: int, offset: int = 0, length: int | None = None
    ) -> VerifiedReader:
        """A verified stream; see :meth:`ObjectStore.open`. Goes on by itself where a connection broke."""
        return VerifiedReader(HashingObject(self._s3, self._name(key), key, sha256, size, offset, length))

    def read_all(self, key: str, *, sha256: str, size: int) -> bytes:
        """The whole verified payload."""
        with HashingObject(self._s3, self._name(key), key, sha256, size) as stream:
            return stream.readall()

    def get_to(self, key: str, path: Path, *, sha256: str, size: int) -> Path:
        """Copy the verified payload to ``path``, several ranges at once; see :meth:`ObjectStore.get_to`."""
        name, part = self._name(key), part_of(path)
        if size == 0:
            self.read_all(key, sha256=sha256, size=size)
        with naming_failures(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            out = io.FileIO(part, "x")
        try:
            with out, there(key, sha256):
                found = self._fetch(name, out, path.parent, size)
                if found != (sha256, size):  # a proxy on the way may have altered it: once more
                    with naming_failures(path.parent):
                        out.seek(0)
                        out.truncate()
                    found = self._fetch(name, out, path.parent, size)
                if found.size != size:
                    raise wrong_size(self._s3, name, key, found.size, sha256, size)
                if found.sha256 != sha256:
                    raise mismatch(key, found.sha256, found.size, sha256, size)
            with naming_failures(path.parent):
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _fetch(self, name: str, out: io.FileIO, folder: Path, size: int) -> Digest:
        """Write an object to a file, and hash it beside; of one of another size only that is found out."""
        digest = hashlib.sha256()
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="sha256") as hasher:
                for block in ranges(self._s3, name, size):
                    hashed = hasher.submit(digest.update, block)
                    with naming_failures(folder):
                        rest = block
                        while rest:
                            rest = rest[out.write(rest) :]
                    hashed.result()
        except WrongSizeError as wrong:
            return Digest("", wrong.found)
        return Digest(digest.hexdigest(), size)

    # ------------------------------------------------------------------------------------------- keys

    def path_of(self, key: str) -> None:
        """No file of this machine."""
        check_key(key)

    def uri_of(self, key: str) -> str:
        """`s3://bucket/prefix/key`, percent-encoded."""
        return uri_of(f"s3://{self.bucket}", self._name(key))

    def exists(self, key: str) -> bool:
        """Whether there is a payload under the key."""
        return self._s3.head(self._name(key)) is not None

    def stat(self, key: str) -> ObjectStat:
        """Size and time of the last put, by the server's clock; see :meth:`ObjectStore.stat`."""
        head = self._s3.head(self._name(key))
        if head is None:
            raise NotFoundError(f"there is no payload {key}")
        return ObjectStat(key, head["ContentLength"], head["LastModified"].astimezone(UTC))

    def delete(self, key: str) -> bool:
        """Remove a payload; whether there was one."""
        name = self._name(key)
        if self._s3.head(name) is None:
            return False
        self._s3.ask("delete_object", Key=name)
        return True

    def iter_keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with ``prefix``, in order, 1,000 in memory at a time."""
        start = f"{PREFIX}/"
        if prefix.startswith(start) or start.startswith(prefix):
            within = max(prefix, start, key=len)
            for row in self._s3.pages("list_objects_v2", "Contents", Prefix=self._root + within):
                key = row["Key"][len(self._root) :]
                if _KEY.fullmatch(key):  # whatever else somebody put there is not ours to touch
                    yield key

    def stale_uploads(self, *, older_than_s: float = STALE_AFTER_S) -> list[StaleUpload]:
        """Multipart uploads that did not go on; see :meth:`ObjectStore.stale_uploads`.

        Some servers list only the uploads of one exact key, or none; those end old ones by themselves.
        """
        stale: list[StaleUpload] = []
        for row in uploads(self._s3, f"{self._root}{PREFIX}/"):
            name, upload_id = row["Key"], row["UploadId"]
            try:
                reply = self._s3.ask("list_parts", but=UPLOAD_GONE, Key=name, UploadId=upload_id, MaxParts=1)
                parts = list(
                    self._s3.pages("list_parts", "Parts", but=UPLOAD_GONE, Key=name, UploadId=upload_id)
                )
            except Refusal:
                continue  # it ended while we looked
            moved = max((part["LastModified"] for part in parts), default=row["Initiated"])
            if server_time(reply) - moved > timedelta(seconds=older_than_s):
                size = sum(part["Size"] for part in parts)
                stale.append(StaleUpload(name[len(self._root) :], _utc(row["Initiated"]), size, upload_id))
        return stale

    def abort_upload(self, stale: StaleUpload) -> None:
        """End an upload and free its parts; see :meth:`ObjectStore.abort_upload`."""
        name = self._name(stale.name)
        with suppress(Refusal):
            self._s3.ask("abort_multipart_upload", but=UPLOAD_GONE, Key=name, UploadId=stale.upload_id)

    def check(self) -> str:
        """Which bucket is used and where; see :meth:`ObjectStore.check`."""
        return f"{self.url}: {self._s3.answers()} answers"

    def _name(self, key: str) -> str:
        return self._root + check_key(key)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
