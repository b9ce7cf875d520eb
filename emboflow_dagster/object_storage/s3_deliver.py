"""Files under names of their own in somebody's bucket: streamed, checked by the server, the last one last.

A delivery is no store of payloads: its objects have the names that its readers look for. What is there
already is not sent again, so an interrupted delivery is gone on with.
"""

import hashlib
import mimetypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.object_storage.payload import opened
from emboflow_dagster.object_storage.s3 import S3ObjectStore
from emboflow_dagster.object_storage.s3_bucket import Bucket, ClientMaker, metadata_of
from emboflow_dagster.object_storage.s3_checksum import checksum_for
from emboflow_dagster.object_storage.s3_source import PART_BYTES, of_file
from emboflow_dagster.object_storage.s3_upload import give_up, upload

SCHEME: Final = "s3://"
_NAMED: Final = 3


def deliver_files(
    url: str,
    files: Sequence[tuple[str, Path]],
    *,
    client: ClientMaker | None = None,
    tick: Callable[[int, int], None] = lambda _sent, _of: None,
) -> int:
    """Put files below `s3://bucket/prefix`, the last one only when all others are there.

    The last file says that a delivery is complete; one that is there is removed before another is sent.

    Args:
        url: Where to.
        files: Names below the prefix, and the files.
        client: Makes the S3 client; by default the standard AWS variables, files and roles say how.
        tick: Called with bytes done and in all.

    Returns:
        How many files were sent; the others were there.

    Raises:
        InvalidInputError: The URL is none, or other files are below the prefix.
        UnavailableError: The bucket cannot be reached.
        ConfigurationError: Kind `store-refused`: credentials, bucket or endpoint.
    """
    bucket, prefix = _place(url, client)
    _check_free(bucket, prefix, {name for name, _ in files})
    total = sum(path.stat().st_size for _, path in files)
    done = sent = 0
    last = f"{prefix}{files[-1][0]}"
    for name, path in files:
        key, sha256 = f"{prefix}{name}", _sha256(path)
        if not _is_there(bucket, key, path, sha256):
            if not sent and key != last:
                bucket.ask("delete_object", Key=last)
            _put(bucket, key, path, sha256)
            sent += 1
        done += path.stat().st_size
        tick(done, total)
    return sent


def deliver_file(url: str, path: Path, *, client: ClientMaker | None = None) -> bool:
    """Put one file at `s3://bucket/key`; whether it was sent (it is not when it is there already).

    Raises:
        InvalidInputError: The URL is none.
        UnavailableError: The bucket cannot be reached.
        ConfigurationError: Kind `store-refused`: credentials, bucket or endpoint.
    """
    bucket, prefix = _place(url, client)
    key, sha256 = prefix.removesuffix("/"), _sha256(path)
    if _is_there(bucket, key, path, sha256):
        return False
    _put(bucket, key, path, sha256)
    return True


def _place(url: str, client: ClientMaker | None) -> tuple[Bucket, str]:
    try:
        store = S3ObjectStore.from_url(url)
    except EmboflowError as error:
        text = error.message.replace("EMBOFLOW_OBJECT_STORE", "the output")
        raise InvalidInputError(text, kind=error.kind, hint="write s3://bucket/prefix") from None
    if not store.prefix:
        raise InvalidInputError(
            "the output is a whole bucket", kind=ErrorKind.URI, hint="name a prefix: s3://bucket/prefix"
        )
    return Bucket(store.bucket, client), f"{store.prefix}/"


def _check_free(bucket: Bucket, prefix: str, names: set[str]) -> None:
    strange: list[str] = []
    for row in bucket.pages("list_objects_v2", "Contents", Prefix=prefix):
        if row["Key"].removeprefix(prefix) not in names:
            strange.append(row["Key"])
            if len(strange) >= _NAMED:
                break
    if strange:
        raise InvalidInputError(
            f"s3://{bucket.name}/{prefix} holds what is not of this delivery: {', '.join(strange)}",
            kind=ErrorKind.DUPLICATE,
            hint="choose a prefix of its own; nothing was sent",
        )


def _is_there(bucket: Bucket, key: str, path: Path, sha256: str) -> bool:
    head = bucket.head(key)
    if head is None or head["ContentLength"] != path.stat().st_size:
        return False
    return metadata_of(head).get("sha256") == sha256


def _put(bucket: Bucket, key: str, path: Path, sha256: str) -> None:
    checksum = checksum_for(bucket.client()[1])
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    how: dict[str, Any] = {"ContentType": content_type, "Metadata": {"sha256": sha256}}
    if path.stat().st_size <= PART_BYTES:
        content = path.read_bytes()
        bucket.ask("put_object", Key=key, Body=content, **how, **checksum.header(checksum.of(content)))
    else:
        with opened(path) as file:
            parts = of_file(file, checksum)
            try:
                upload(bucket, key, parts, content_type=content_type, metadata={"sha256": parts.sha256})
            except KeyboardInterrupt:
                # Nobody sees the parts of an upload to somebody else's bucket; no `gc` of ours comes there.
                give_up(bucket, key)
                raise
    if not _is_there(bucket, key, path, sha256):
        raise IntegrityError(f"s3://{bucket.name}/{key} is not what was sent", kind=ErrorKind.HASH_MISMATCH)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
