"""Everything that names a payload, over all workspaces: payloads are stored once for all of them.

Heads are read before their history: a version that moves there meanwhile is seen in one or the other. What
a writer adds after the beginning has payloads put after it, which are too young to be collected.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.listing import is_listing, read_listing
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.blobs.trees import reading
from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.storage import LISTING_TYPE, MANIFEST_TYPE, StorageRef
from emboflow_dagster.mongo import marks, objects
from emboflow_dagster.mongo.client import Mongo, Raw, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.project.gc.edges import PLACES, EdgeKind, Place
from emboflow_dagster.project.gc.liveness import FIELDS, Liveness, Verdict, releaser, value_at
from emboflow_dagster.project.gc.shards import Shards, digest_of, digest_of_file

BATCH: Final = 500
_PROJECTION: Final = dict.fromkeys((*FIELDS, *(f"tail.{name}" for name in FIELDS)), 1)
_UNREADABLE: Final = (EmboflowError, ValueError, KeyError, TypeError, AttributeError)


class Marking:
    """Walks over versions and records, and notes what each of them keeps."""

    def __init__(self, mongo: Mongo, blobs: Blobs, liveness: Liveness, shards: Shards) -> None:
        self.mongo = mongo
        self.blobs = blobs
        self.liveness = liveness
        self.shards = shards
        self.versions = 0
        self.tails = 0
        self._opened: set[bytes] = set()

    def versions_of_all(self, *, archive: bool) -> Iterator[list[Verdict]]:
        """Every version, judged and marked, some hundreds at a time.

        Args:
            archive: Also finish what an interrupted put left in an outbox.
        """
        with translated():
            for batch in self._pages("objects", {}, _PROJECTION):
                numbers = {raw["object_id"]: raw["version"] for raw in batch}
                rows = [row for raw in batch for row in (raw, *(raw.get("tail") or []))]
                twice = {(row["object_id"], row["version"]) for row in rows}  # in the tail and in history
                yield from self._judged(rows, numbers)
                for raw in batch:
                    if raw.get("tail"):
                        self.tails += 1
                        if archive:
                            objects.archive(self.mongo, raw["object_id"])
                older = {"object_id": {"$in": sorted(numbers)}}
                history = iter(self.mongo["object_history"].find(older, dict.fromkeys(FIELDS, 1)))
                while rows := list(islice(history, BATCH)):
                    once = [row for row in rows if (row["object_id"], row["version"]) not in twice]
                    yield from self._judged(once, numbers)

    def _judged(self, rows: list[Raw], heads: dict[str, int]) -> Iterator[list[Verdict]]:
        for start in range(0, len(rows), BATCH):
            verdicts = self.liveness.judge(rows[start : start + BATCH], heads)
            self.versions += len(verdicts)
            for verdict in verdicts:
                self._mark(verdict)
            yield verdicts

    def _mark(self, verdict: Verdict) -> None:
        row = verdict.row
        ref, file_id = row.get("storage_ref"), row.get("grid_fs_file_id")
        digest = digest_of(ref["key"]) if ref else digest_of_file(file_id) if file_id else None
        if digest is None or verdict.tombstone is not None:
            return
        if verdict.edges:
            self.shards.keep(digest, min(verdict.edges, key=_order).kind)
            if ref:
                self._inside(ref)
            return
        self.shards.let_go(
            digest,
            {
                "key": ref["key"] if ref else str(file_id),
                "name": verdict.name,
                "object_id": row["object_id"],
                "version": row["version"],
                "workspace_id": row["workspace_id"],
                "sha256": row.get("data_sha256"),
                "size": row.get("object_size_bytes"),
            },
        )

    def records(self) -> None:
        """Every reference in every record, and in the notes of temporary blobs."""
        for place in PLACES:
            said = dict.fromkeys(
                ("key", "contentType", "objectId", "version", "checksum", "size", "uri", "bucket")
            )
            fields = {f"{place.path}.{name}": 1 for name in said}
            there = {f"{place.path}.key": {"$type": "string"}}
            with translated():
                for batch in self._pages(place.collection, there, fields):
                    self._records(place, batch)

        for note in marks.every(self.mongo, Mark.TEMPORARY):
            ref = value_at(note, "ref")
            digest = digest_of(str(ref.get("key", "")))
            if digest is not None and note["expiresAt"] + self.liveness.grace > self.liveness.now:
                self.shards.keep(digest, EdgeKind.TEMPORARY)

    def _pages(self, name: str, filter_: Raw, fields: dict[str, int]) -> Iterator[list[Raw]]:
        """Documents in id order, page by page: no cursor stays open while a page is worked on."""
        after: Raw = {}
        while page := list(self.mongo[name].find({**filter_, **after}, fields).sort("_id", 1).limit(BATCH)):
            yield page
            after = {"_id": {"$gt": page[-1]["_id"]}}

    def _records(self, place: Place, batch: list[Raw]) -> None:
        refs = [(raw["_id"], value_at(raw, place.path)) for raw in batch]
        names = {
            f"{kind.value}:{name_of(ref['objectId'], ref['version'])}"
            for kind in (Mark.RELEASE, Mark.TOMBSTONE)
            for _, ref in refs
            if isinstance(ref.get("objectId"), str) and isinstance(ref.get("version"), int)
        }
        notes = {row["_id"]: row for row in self.mongo[META].find({"_id": {"$in": sorted(names)}})}
        for id_, ref in refs:
            version = f"{ref.get('objectId')}.v{ref.get('version')}"
            note = notes.get(f"{Mark.RELEASE.value}:{version}")
            digest = digest_of(ref["key"])
            if f"{Mark.TOMBSTONE.value}:{version}" in notes:
                continue  # a record that never changes, of what was forgotten
            if digest is None or (note and releaser(note) == (place.collection, place.field, id_)):
                continue  # what it let go itself is judged with the version
            self.shards.keep(digest, EdgeKind.RECORD)
            self._inside(ref)

    def _inside(self, raw: Raw) -> None:
        """What a folder's listing or a dataset's manifest names."""
        if raw.get("contentType") not in (LISTING_TYPE, MANIFEST_TYPE):
            return
        digest = digest_of(raw["key"])
        if digest is None or digest in self._opened:
            return
        self._opened.add(digest)
        for sha256 in named_inside(self.blobs, raw, skip=self._seen):
            self.shards.keep(bytes.fromhex(sha256)[: len(digest)], EdgeKind.LISTING)

    def _seen(self, sha256: str) -> bool:
        """Whether a page of a dataset version was opened before; what it names is kept then."""
        digest = digest_of(key_of(sha256))
        if digest is None or digest in self._opened:
            return digest is not None
        self._opened.add(digest)
        return False


def named_inside(blobs: Blobs, raw: Raw, *, skip: pages.Skip = lambda _: False) -> Iterable[str]:
    """The sha256 of every payload that a listing or manifest names, given the stored reference to it.

    Pages of a manifest's tree in ``skip`` are left out with what is below them.

    Raises:
        IntegrityError: It cannot be read, so what it names is not known.
    """
    try:
        ref = StorageRef.model_validate(
            {name: value for name, value in raw.items() if name not in ("objectId", "version")}
        )
        if is_listing(ref):
            with blobs.open_ref(ref) as stream:
                yield from (entry.sha256 for entry in read_listing(stream))
        elif ref.content_type == MANIFEST_TYPE:
            manifest = json.loads(blobs.read_ref(ref))
            rows: list[Any] = manifest["files"]
            yield from (str(row["sha256"]) for row in rows)
            root = pages.root_of(manifest)
            if root is not None:
                yield from (sha256 for _, sha256, _ in pages.named(reading(blobs, ref), root, skip=skip))
    except _UNREADABLE as error:
        if isinstance(error, EmboflowError) and not isinstance(error, IntegrityError):
            raise
        name = f"{raw['objectId']} version {raw.get('version')}" if raw.get("objectId") else raw.get("key")
        raise IntegrityError(
            f"{name}: cannot be read, so what it names is not known; nothing was collected ({error})",
            kind=error.kind if isinstance(error, IntegrityError) else ErrorKind.FILE_CORRUPT,
            hint="`emboflow verify` tells what is wrong; repair it, or withdraw that version",
        ) from error


def _order(edge: Any) -> int:
    return list(EdgeKind).index(edge.kind)
