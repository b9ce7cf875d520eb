"""Back out into a database that Flowcept reads: the same documents, large payloads in GridFS.

Older versions first, the head last; repeated, nothing is written twice. What the target has that is not ours
is never overwritten.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from emboflow_dagster.blobs.flowcept_report import Code, TransferReport
from emboflow_dagster.blobs.flowcept_rows import flowcept_id, row_of
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import IntegrityError
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.mongo.flowcept import FlowceptDatabase
from emboflow_dagster.mongo.gridfs import CHUNK_BYTES

Progress = Callable[[TransferReport], None]
_PAGE: Final = 100
_BLOCK: Final = 16 * CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes blobs of one workspace into one Flowcept database."""

    blobs: Blobs
    target: FlowceptDatabase
    report: TransferReport

    def everything(self, heads: Iterator[BlobObject], progress: Progress | None = None) -> TransferReport:
        """Export each object with its history."""
        if not self.report.dry_run:
            self.target.prepare()
        for head in heads:
            self.report.counts["objects"] += 1
            self._object(head, progress)
        return self.report

    def _object(self, head: BlobObject, progress: Progress | None) -> None:
        if self._conflicts(head):
            return
        for blob in self._history(head):
            self.report.counts["versions"] += 1
            self._version(blob, head=blob.version == head.version)
            if progress:
                progress(self.report)

    def _history(self, head: BlobObject) -> Iterator[BlobObject]:
        """Versions, the head last: until it is there, Flowcept sees what it saw before."""
        below = head.version
        while page := self.blobs.history(head.object_id, below=below, limit=_PAGE):
            yield from page
            below = page[-1].version
        yield head

    def _conflicts(self, head: BlobObject) -> bool:
        name = flowcept_id(head)
        there = self.target.head(name)
        if there is None:
            return False
        version = int(there.get("version") or 0)
        ours = next(iter(self.blobs.history(head.object_id, below=version + 1, limit=1)), None)
        recorded = there.get("data_sha256")
        same = ours is not None and ours.version == version and recorded in (None, ours.data_sha256)
        if same and version <= head.version:
            return False
        self.report.add(
            name, version, Code.CONFLICT, "Flowcept has an object of that id with another history; left alone"
        )
        return True

    def _version(self, blob: BlobObject, *, head: bool) -> None:
        counts, name = self.report.counts, flowcept_id(blob)
        if not blob.completed:
            counts["lost"] += 1
            self.report.add(name, blob.version, Code.INCOMPLETE, f"the upload is {blob.upload_status}")
            return
        try:
            payload = self._payload(blob)
        except IntegrityError as error:
            counts["lost"] += 1
            self.report.add(name, blob.version, Code.DAMAGED, error.message)
            return
        counts["new"] += 1
        counts["bytes"] += blob.size
        if self.report.dry_run:
            return
        row = {**row_of(blob, head=head), **payload}
        if head:
            self.target.write_head(row)
        else:
            self.target.write_version(row)

    def _payload(self, blob: BlobObject) -> dict[str, Any]:
        with self.blobs.open_blob(blob) as stream:
            if blob.storage_type is StorageType.IN_OBJECT:
                return {"data": stream.read()}
            if self.report.dry_run:
                while stream.read(_BLOCK):
                    pass
                return {}
            file_id, upload = self.target.upload(flowcept_id(blob), blob.sha256, blob.size)
            if upload is not None:
                try:
                    for block in _blocks(stream):
                        upload.write(memoryview(block))
                    upload.finish()
                except BaseException:
                    upload.abort()
                    raise
            return {"grid_fs_file_id": file_id}


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Whole chunks, as an upload takes them."""
    rest = bytearray()
    while piece := stream.read(_BLOCK - len(rest)):
        rest += piece
        if len(rest) == _BLOCK:
            yield bytes(rest)
            rest.clear()
    if rest:
        yield bytes(rest)
