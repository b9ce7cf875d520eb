"""An object that is put again counts as put now: copied onto itself by the server, no byte moves here."""

from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.object_storage.s3_bucket import Bucket, server_time
from emboflow_dagster.object_storage.s3_errors import MISSING, TAKEN, UNSUPPORTED, Refusal

#: Younger objects count as put lately as they are. `gc` must spare what is younger than this, at least.
FRESH: Final = timedelta(hours=1)
#: The most that one copy takes, and the ranges that longer objects are copied in.
MAX_COPY_BYTES: Final = 5 << 30
RANGE_BYTES: Final = 1 << 30
#: What a copy with new metadata does not take over by itself.
_KEPT: Final = (
    "ContentType",
    "Metadata",
    "StorageClass",
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
)
_NOT_COPIED: Final = MISSING | TAKEN | UNSUPPORTED


def refresh(bucket: Bucket, name: str, head: dict[str, Any]) -> bool:
    """Make an object's time now, unless it is young; ``False`` when it has to be put again.

    It is gone meanwhile, or the server does not copy.

    Args:
        bucket: Where.
        name: The object.
        head: What was found of it.
    """
    if server_time(head) - head["LastModified"] < FRESH:
        return True
    kept = {field: head[field] for field in _KEPT if head.get(field)}
    source = {"CopySource": {"Bucket": bucket.name, "Key": name}, "CopySourceIfMatch": head["ETag"]}
    try:
        if head["ContentLength"] <= MAX_COPY_BYTES:
            bucket.ask(
                "copy_object", but=_NOT_COPIED, Key=name, MetadataDirective="REPLACE", **source, **kept
            )
        else:
            _in_ranges(bucket, name, head["ContentLength"], source, kept)
    except Refusal:
        return False
    return True


def _in_ranges(bucket: Bucket, name: str, size: int, source: dict[str, Any], kept: dict[str, Any]) -> None:
    upload_id = bucket.ask("create_multipart_upload", Key=name, **kept)["UploadId"]
    try:
        parts = []
        for number, start in enumerate(range(0, size, RANGE_BYTES), 1):
            range_ = f"bytes={start}-{min(start + RANGE_BYTES, size) - 1}"
            made = bucket.ask(
                "upload_part_copy",
                but=_NOT_COPIED,
                Key=name,
                UploadId=upload_id,
                PartNumber=number,
                CopySourceRange=range_,
                **source,
            )["CopyPartResult"]
            if not made.get("ETag"):  # rclone answers as if it had
                raise Refusal("NotImplemented")
            checksums = {field: value for field, value in made.items() if field.startswith("Checksum")}
            parts.append({"PartNumber": number, "ETag": made["ETag"], **checksums})
        bucket.ask(
            "complete_multipart_upload", Key=name, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )
    except BaseException:
        with suppress(EmboflowError):
            bucket.ask("abort_multipart_upload", Key=name, UploadId=upload_id)
        raise
