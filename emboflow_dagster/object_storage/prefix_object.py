"""One object of a prefix that belongs to others, brought as it was listed or not at all.

The request carries the tag that the listing had, so the server itself refuses an object that was replaced
since; what arrives is held against its size, against the tag where that is an MD5, and against the checksum
that the server keeps of it.
"""

import contextlib
import hashlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, UnavailableError, shown
from emboflow_dagster.object_storage.disk import naming_failures
from emboflow_dagster.object_storage.s3_bucket import PAUSE_S, Bucket
from emboflow_dagster.object_storage.s3_errors import MISSING, Refusal, is_broken
from emboflow_dagster.object_storage.s3_read import BREAKS, BYTES_A_BREAK, CHUNK_BYTES

_OTHER: Final = frozenset({"PreconditionFailed", "412", "InvalidRange", "416"})
_MD5: Final = re.compile(r"[0-9a-f]{32}")
HINT: Final = "register the prefix again, under another name or instead of this one, and probe it"


@dataclass(frozen=True, slots=True)
class Listed:
    """One object: its key relative to the prefix, its bytes, and the server's tag of its content."""

    path: str
    size: int
    etag: str


class _AlteredError(Exception):
    """What arrived is not what the server has."""


def bring(bucket: Bucket, key: str, found: Listed, target: Path) -> None:
    """Write the object ``key`` to the file ``target``, which is made; see :meth:`Prefix.bring`."""
    for again in (True, False):
        try:
            with naming_failures(target):
                _bring(bucket, key, found, target)
        except _AlteredError as error:
            target.unlink(missing_ok=True)
            if again:  # a bit may have flipped on the way
                continue
            raise IntegrityError(
                f"object {shown(found.path)}: {error}",
                hint="read it again; when this comes back, it is damaged in the object store",
            ) from None
        except Refusal as refusal:
            target.unlink(missing_ok=True)
            if refusal.code in _OTHER:
                raise changed(found, "it was replaced") from None
            bucket.check()  # or it is the bucket that is missing
            raise IntegrityError(
                f"object {shown(found.path)} is gone since it was listed",
                kind=ErrorKind.PAYLOAD_MISSING,
                hint=HINT,
            ) from None
        else:
            return


def changed(found: Listed, what: str) -> IntegrityError:
    """The error about an object that is another one now."""
    then = f"tag {found.etag}, {found.size} bytes"
    return IntegrityError(
        f"object {shown(found.path)} changed since it was listed ({then}): {what}",
        kind=ErrorKind.OBJECT_CHANGED,
        hint=HINT,
    )


def _bring(bucket: Bucket, key: str, found: Listed, target: Path) -> None:
    # Made of many parts an object has a tag that is no MD5; encrypted with a key of the customer's likewise.
    md5 = hashlib.md5(usedforsecurity=False) if _MD5.fullmatch(found.etag) else None
    at, breaks = 0, BREAKS + found.size // BYTES_A_BREAK
    with target.open("wb") as file:
        while True:
            part = {"Range": f"bytes={at}-"} if at else {"ChecksumMode": "ENABLED"}
            reply = bucket.ask("get_object", but=MISSING | _OTHER, Key=key, IfMatch=f'"{found.etag}"', **part)
            tag = str(reply.get("ETag") or found.etag).strip('"')
            if tag != found.etag:  # some servers take no notice of the condition
                reply["Body"].close()
                raise changed(found, f"its tag is {tag} now")
            if reply.get("ServerSideEncryption", "AES256") != "AES256" or reply.get("SSECustomerAlgorithm"):
                md5 = None
            if not at and reply["ContentLength"] != found.size:
                reply["Body"].close()
                raise changed(found, f"it has {reply['ContentLength']} bytes")
            with contextlib.closing(reply["Body"]) as body:
                while block := _read(body):
                    file.write(block)
                    at += len(block)
                    if md5 is not None:
                        md5.update(block)
            if at >= found.size:
                break
            if breaks == 0:
                raise UnavailableError(
                    f"bucket {bucket.name}: {shown(found.path)} broke off again and again, "
                    f"last at byte {at} of {found.size}",
                    hint="is the network sound? run it again later",
                )
            breaks -= 1
            time.sleep(PAUSE_S)
    if at != found.size:
        raise changed(found, f"it has {at} bytes")
    if md5 is not None and md5.hexdigest() != found.etag:
        raise _AlteredError(f"arrived with MD5 {md5.hexdigest()}, its tag is {found.etag}")


def _read(body: Any) -> bytes:
    """The next block; nothing where the connection broke off or the object ends."""
    try:
        return body.read(CHUNK_BYTES)
    except Exception as error:
        from botocore.exceptions import FlexibleChecksumError

        if isinstance(error, FlexibleChecksumError):
            raise _AlteredError(str(error)) from None
        if not is_broken(error):
            raise
        return b""
