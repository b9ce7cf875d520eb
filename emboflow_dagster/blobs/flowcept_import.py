"""A Flowcept database comes over whole: same ids, same version numbers, bytes first, every damage reported.

Each version is one atomic step, so an import that died is a shorter object and goes on where it stopped. A
pickle comes over as the bytes it is; nothing is ever unpickled.

========================  ===========================================================================
found                     what becomes of it
========================  ===========================================================================
a version in the middle   a version without payload takes its number; reading it says so
that is lost
the first ones lost       the versions are kept from the first that is there
the newest lost           the newest that is there is the newest here
hash or size wrong        the bytes come over as they are, under their own hash, and it is reported
the id exists here        with another history: a conflict, left alone; with this one: continued
========================  ===========================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from emboflow_dagster.blobs.flowcept_payload import Found, LostError, measured, payload_of
from emboflow_dagster.blobs.flowcept_report import Code, TransferReport
from emboflow_dagster.blobs.flowcept_rows import LOST, Say, fields_of, id_here, request_of
from emboflow_dagster.blobs.homes import Homes, Placed
from emboflow_dagster.errors import AlreadyExistsError, ConflictError, NotFoundError
from emboflow_dagster.model.blob import BlobObject, StorageType, UploadStatus
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import IN_OBJECT_BYTES
from emboflow_dagster.mongo import object_import, objects
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.flowcept import FlowceptDatabase, SourceObject

Progress = Callable[[TransferReport], None]


@dataclass(frozen=True, slots=True)
class Importer:
    """Brings the objects of one Flowcept database into one workspace.

    ``home`` is for payloads that are not small ones from inside a document; those stay inside.
    """

    mongo: Mongo
    homes: Homes
    scope: Scope
    source: FlowceptDatabase
    report: TransferReport
    prefix: str = ""
    home: StorageType = StorageType.OBJECT_STORE

    def everything(self, progress: Progress | None = None) -> TransferReport:
        """Import every object; repeated, it adds what is new."""
        self.source.require()
        for found in self.source.objects():
            self.report.counts["objects"] += 1
            _OneObject(self, found).carry_over(progress)
        for object_id, versions in self.source.orphans():
            self.report.add(
                object_id,
                None,
                Code.HISTORY_ORPHAN,
                f"{versions} versions in object_history of an object that is not in objects",
            )
        return self.report


@dataclass(slots=True)
class _OneObject:
    to: Importer
    found: SourceObject
    head: int | None = None
    """The newest version here, ``None`` before there is one."""
    lost: list[BlobObject] = field(default_factory=list)
    """What takes the numbers between the head and the next version that is whole."""

    @property
    def key(self) -> str:
        return id_here(self.found.object_id, self.to.prefix)

    def say(self, version: int | None, code: Code, message: str) -> None:
        self.to.report.add(self.found.object_id, version, code, message)

    def carry_over(self, progress: Progress | None) -> None:
        if self.key != self.to.prefix + self.found.object_id:
            self.say(None, Code.ID_CHANGED, f"the id is not allowed here; now {self.key}")
        beyond = sorted(number for number in self.found.rows if number > self.found.head)
        if beyond:
            self.say(
                None, Code.HISTORY_BEYOND_HEAD, f"versions {beyond[:20]} are newer than {self.found.head}"
            )
        first = min(self.found.rows)
        if first > 0:
            self.say(None, Code.HISTORY_GAP, f"versions 0 to {first - 1} were not kept")
        try:
            self.head = self._here()
            for number in range(first, self.found.head + 1):
                self._version(number)
                if progress:
                    progress(self.to.report)
        except (ConflictError, AlreadyExistsError) as error:
            self.say(None, Code.CONFLICT, f"{error.message}; import it under other ids: a prefix")
            return
        if self.lost:
            here = "none came over" if self.head is None else f"{self.head} is the newest here"
            self.say(self.lost[0].version, Code.NEWEST_LOST, f"the versions from here on are lost; {here}")

    def _here(self) -> int | None:
        try:
            return objects.head(self.to.mongo, self.to.scope.workspace_id, self.key).version
        except NotFoundError:
            return None

    def _version(self, number: int) -> None:
        counts = self.to.report.counts
        counts["versions"] += 1
        places = self.found.rows.get(number, [])
        if not places:
            self.say(number, Code.HISTORY_GAP, "this version was not kept")
            self._lose(number, {}, Code.HISTORY_GAP)
            return
        if len(places) > 1:
            self.say(number, Code.HISTORY_DUPLICATE, f"{len(places)} rows; the first whole one came over")
        why: LostError | None = None
        for place in places:
            row = self.to.source.row(place)
            if self._is_here(number, row):
                counts["unchanged"] += 1
                return
            try:
                with self.to.homes.pending.writing():  # not collected before it is recorded
                    self._bring(number, row)
            except LostError as error:
                why = why or error
                continue
            counts["new"] += 1
            return
        if why is not None:
            self.say(number, why.code, why.message)
            self._lose(number, self.to.source.row(places[0]), why.code)

    def _is_here(self, number: int, row: dict[str, Any]) -> bool:
        if self.head is None or number > self.head:
            return False
        try:
            blob = objects.at_version(self.to.mongo, self.to.scope.workspace_id, self.key, number)
        except NotFoundError:
            return True  # before the first version that was whole when it came over
        if blob.request_id != request_of(row, self.found.object_id, number):
            raise ConflictError(f"{self.key} version {number} is here and is not the one of Flowcept")
        return True

    def _lose(self, number: int, row: dict[str, Any], code: Code) -> None:
        self.to.report.counts["lost"] += 1
        if self.head is not None and number <= self.head:
            return
        quiet: Say = lambda *_: None  # noqa: E731 - what is lost is reported once
        fields = fields_of(row, self.found.object_id, quiet)
        fields["custom_metadata"] = {**fields["custom_metadata"], LOST: code.value}
        self.lost.append(self._blob(number, row, fields, upload_status=UploadStatus.ANNOUNCED))

    def _bring(self, number: int, row: dict[str, Any]) -> None:
        say = partial(self.say, number)
        payload = payload_of(self.to.source, row, say)
        placed = self._place(payload)
        fields = fields_of(row, self.found.object_id, say)
        self._compare(row, placed, payload, say)
        self.to.report.counts["bytes"] += placed.size
        if self.head is None and self.lost:
            self.say(self.lost[0].version, Code.HISTORY_GAP, f"lost; versions are kept from {number} on")
            self.lost.clear()
        if not self.to.report.dry_run:
            blob = self._blob(
                number,
                row,
                fields,
                content_type=payload.content_type,
                object_size_bytes=placed.size,
                data_sha256=placed.sha256,
                storage_ref=placed.storage_ref,
                grid_fs_file_id=placed.grid_fs_file_id,
            )
            put = object_import.put_exactly(self.to.mongo, blob, data=placed.data, lost=self.lost)
            if not put.new:
                self.to.homes.discard(placed)
        self.head = number
        self.lost.clear()

    def _place(self, payload: Found) -> Placed:
        inside = payload.inside
        if self.to.report.dry_run:
            return Placed(*measured([inside] if inside is not None else payload.chunks))
        small = inside is not None and len(inside) <= IN_OBJECT_BYTES
        home = StorageType.IN_OBJECT if small else self.to.home
        return self.to.homes.place(home, payload.source, payload.content_type)

    def _compare(self, row: dict[str, Any], placed: Placed, payload: Found, say: Say) -> None:
        recorded, size = row.get("data_sha256"), row.get("object_size_bytes")
        if recorded is None:
            say(Code.HASH_MISSING, f"no hash was recorded; computed: {placed.sha256}")
        elif recorded != placed.sha256:
            say(Code.HASH_MISMATCH, f"recorded is {recorded}; the bytes have {placed.sha256}")
        odd = payload.content_type != "application/octet-stream"  # Flowcept counts characters, or keys
        if size is not None and size != placed.size and not odd:
            say(Code.SIZE_MISMATCH, f"recorded are {size} bytes; found {placed.size}")

    def _blob(self, number: int, row: dict[str, Any], fields: dict[str, Any], **more: Any) -> BlobObject:
        return BlobObject.checked(
            id=self.key,
            object_id=self.key,
            version=number,
            prev_version=number - 1 if number else None,
            workspace_id=self.to.scope.workspace_id,
            project_id=self.to.scope.project_id,
            request_id=request_of(row, self.found.object_id, number),
            **fields,
            **more,
        )
