"""A long payload in parts: several at once, each checked by the server, taken up again where it broke off.

Whoever puts the same payload at the same time joins the same upload: equal keys mean equal parts.
"""

import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, UnavailableError
from emboflow_dagster.object_storage.s3_bucket import ATTEMPTS, IN_FLIGHT, PAUSE_S, Bucket, metadata_of
from emboflow_dagster.object_storage.s3_errors import UNSUPPORTED, UPLOAD_GONE, Refusal
from emboflow_dagster.object_storage.s3_source import PART_BYTES, Parts

#: What in-flight parts may take of memory; of larger parts fewer are sent at once, at least one.
IN_FLIGHT_BYTES: Final = IN_FLIGHT * PART_BYTES
_CANDIDATES: Final = 3  # uploads of one key that are looked into


def upload(bucket: Bucket, name: str, parts: Parts, *, content_type: str, metadata: dict[str, str]) -> None:
    """Bring a surveyed source under its final name, whole or not at all.

    What is interrupted (killed, disconnected) stays with the server; the next put of the payload goes on with
    it, and `gc` ends what nobody goes on with. What cannot be gone on with is aborted.

    Args:
        bucket: Where to.
        name: The object's name in it.
        parts: What.
        content_type: MIME type.
        metadata: The object's, which the caller recognises a finished one by.

    Raises:
        InvalidInputError: The source changed meanwhile; nothing is under the name.
        UnavailableError: The store cannot be reached.
        ConfigurationError: Kind `store-refused`.
    """
    work = _Upload(bucket, name, parts, {"ContentType": content_type, "Metadata": metadata})
    for attempt in range(1, ATTEMPTS + 1):
        if attempt > 1 and work.finished():
            return
        try:
            work.run()
        except (
            Refusal
        ):  # somebody completed or aborted the upload meanwhile, or our own completion was not heard
            time.sleep(PAUSE_S * 2**attempt)
            continue
        if work.finished():
            return
    raise UnavailableError(
        f"bucket {bucket.name}: the upload of {name} was ended by somebody else again and again",
        hint="does something abort uploads that are in progress, a lifecycle rule of a day perhaps?",
    )


def uploads(bucket: Bucket, prefix: str) -> Iterator[dict[str, Any]]:
    """The rows of the uploads that have not ended, as far as the server lists them."""
    try:
        yield from bucket.pages(
            "list_multipart_uploads", "Uploads", but=UPLOAD_GONE | UNSUPPORTED, Prefix=prefix
        )
    except Refusal:
        return  # it has no such listing, or (rclone) says so of an empty one


def give_up(bucket: Bucket, name: str) -> None:
    """End the uploads of one name, as far as the server listens: who gave them up is not coming back."""
    with suppress(EmboflowError, Refusal):
        for row in list(uploads(bucket, name)):
            if row["Key"] == name:
                with suppress(Refusal):
                    bucket.ask("abort_multipart_upload", Key=name, UploadId=row["UploadId"], but=UPLOAD_GONE)


class _Upload:
    def __init__(self, bucket: Bucket, name: str, parts: Parts, how: dict[str, Any]) -> None:
        self._bucket = bucket
        self._name = name
        self._parts = parts
        self._how = how
        self._numbers = range(1, len(parts.checksums) + 1)

    def finished(self) -> bool:
        """Whether the object is there as it should be."""
        head = self._bucket.head(self._name)
        return (
            head is not None
            and head["ContentLength"] == self._parts.size
            and self._how["Metadata"].items() <= metadata_of(head).items()
        )

    def run(self) -> None:
        """Find or begin the upload, send what it lacks, complete it."""
        upload_id, sent = self._found() or self._begun()
        try:
            sent |= self._send(upload_id, [number for number in self._numbers if number not in sent])
            self._ask(
                "complete_multipart_upload",
                upload_id,
                MultipartUpload={"Parts": [sent[n] for n in self._numbers]},
            )
        except UnavailableError:
            with suppress(EmboflowError):
                if self.finished():  # it was completed, and the answer lost
                    return
            raise  # to be gone on with
        except Refusal as refusal:
            if (
                refusal.code in UNSUPPORTED
            ):  # rclone replaces no part that is there: this upload leads nowhere
                with suppress(EmboflowError, Refusal):
                    self._ask("abort_multipart_upload", upload_id)
            raise
        except Exception:
            with suppress(EmboflowError, Refusal):
                self._ask("abort_multipart_upload", upload_id)
            raise

    def _begun(self) -> tuple[str, dict[int, Any]]:
        made = self._bucket.ask(
            "create_multipart_upload", Key=self._name, **self._how, **self._parts.checksum.upload()
        )
        return made["UploadId"], {}

    def _found(self) -> tuple[str, dict[int, Any]] | None:
        """An upload of the same payload in parts of the same size, and its parts that are right."""
        listed = uploads(self._bucket, self._name)
        algorithm = self._parts.checksum.upload().get("ChecksumAlgorithm")
        same = [
            row
            for row in listed
            if row["Key"] == self._name and (row.get("ChecksumAlgorithm") or None) == algorithm
        ]
        same.sort(key=lambda row: row.get("Initiated") or datetime.min.replace(tzinfo=UTC), reverse=True)
        for row in same[:_CANDIDATES]:
            with suppress(Refusal):
                rows = list(self._listed(row["UploadId"]))
                if all(self._fits(part) for part in rows):
                    return row["UploadId"], {
                        part["PartNumber"]: self._completed(part["PartNumber"], part["ETag"])
                        for part in rows
                        if self._parts.checksum.listed(part) == self._parts.checksums[part["PartNumber"] - 1]
                    }
        return None

    def _listed(self, upload_id: str) -> Iterator[dict[str, Any]]:
        return self._bucket.pages("list_parts", "Parts", but=UPLOAD_GONE, Key=self._name, UploadId=upload_id)

    def _fits(self, part: dict[str, Any]) -> bool:
        number = part["PartNumber"]
        return number in self._numbers and part["Size"] == self._parts.length(number)

    def _send(self, upload_id: str, missing: list[int]) -> dict[int, Any]:
        """Send parts, a few at once; the first failure ends it, and no other part is begun."""
        size = self._parts.part_bytes
        count = max(1, min(IN_FLIGHT, IN_FLIGHT_BYTES // size, len(missing)))
        buffers: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(count):
            buffers.put(bytearray(size))

        def send(number: int) -> tuple[int, Any]:
            buffer = buffers.get()
            try:
                block = self._parts.read(number, buffer)
                header = self._parts.checksum.header(self._parts.checksums[number - 1])
                made = self._ask("upload_part", upload_id, PartNumber=number, Body=block, **header)
            finally:
                buffers.put(buffer)
            return number, self._completed(number, made["ETag"])

        with ThreadPoolExecutor(count, thread_name_prefix="s3-put") as pool:
            try:
                return dict(pool.map(send, missing))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _completed(self, number: int, tag: str) -> dict[str, Any]:
        checksum = self._parts.checksum.completed(self._parts.checksums[number - 1])
        return {"PartNumber": number, "ETag": tag, **checksum}

    def _ask(self, operation: str, upload_id: str, **arguments: Any) -> Any:
        but = UPLOAD_GONE | UNSUPPORTED if operation == "upload_part" else UPLOAD_GONE
        return self._bucket.ask(operation, but=but, Key=self._name, UploadId=upload_id, **arguments)
