"""Every version's bytes are there and hash to what is recorded; versions and owners are whole."""

import json
from collections.abc import Callable
from typing import Any, Final

from emboflow_dagster.blobs.listing import is_listing, payload_ref, read_listing
from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError
from emboflow_dagster.model.asset import Asset, AssetSourceType
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.collections import BLOB_FIELDS
from emboflow_dagster.model.records import is_out_of_use
from emboflow_dagster.model.storage import MANIFEST_TYPE, StorageRef
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.marks import name_of
from emboflow_dagster.project.asset_files import check_in_place
from emboflow_dagster.project.gc.tombstones import collected_names
from emboflow_dagster.project.verify.report import VerifyReport, View
from emboflow_dagster.project.verify.uploads import was_let_go

CHUNK: Final = 1 << 20
Tick = Callable[[int, int], None]
# A listing or manifest with sound bytes may still be no listing or manifest.
_UNREADABLE: Final = (EmboflowError, ValueError, KeyError, TypeError, AttributeError)


def check_payloads(view: View, report: VerifyReport, tick: Tick | None = None) -> None:
    """Read and hash every payload once, also those that listings and manifests name (I1, I5)."""
    payloads = _Payloads(view, report, tick)
    for collection in ("objects", "object_history"):
        for raw in view.sound(collection):
            payloads.version(collection, raw["_id"], raw)
            for row in raw.get("tail") or []:
                payloads.version(collection, raw["_id"], row)
    for raw in view.sound("assets"):
        asset = Asset.from_mongo(raw)
        if asset.source_type == AssetSourceType.REGISTERED_PATH:
            payloads.in_place(asset)


class _Payloads:
    """Looks at each payload once and says what is wrong with it for every version that needs it."""

    def __init__(self, view: View, report: VerifyReport, tick: Tick | None) -> None:
        self.view = view
        self.report = report
        self.tick = tick
        everywhere = view.everything
        self.collected = collected_names(view.mongo, None if everywhere else view.workspace_id)
        self.known: dict[tuple[str, str, int], tuple[str, str] | None] = {}
        """Key, sha256 and size to what is wrong: code and message."""
        rows = view.sound("assets", {"sourceType": 1, "storageRef.objectId": 1})
        self.in_place_listings = {
            row["storageRef"].get("objectId")
            for row in rows
            if row["sourceType"] == AssetSourceType.REGISTERED_PATH.value
        }

    def version(self, collection: str, id_: str, row: Any) -> None:
        """One version of a blob."""

        def add(code: str, field: str, message: str) -> None:
            self.report.add(code, collection, id_, field, message)

        try:
            blob = BlobObject.from_mongo(row)
        except _UNREADABLE as error:
            add("document-invalid", "tail", str(error))
            return
        name = f"{blob.object_id} version {blob.version}"
        if not blob.completed:  # an upload that was announced: nothing to read yet
            return
        if name_of(blob.object_id, blob.version) in self.collected:
            self.report.counts["collected"] += 1
            return
        ref = blob.storage_ref
        if ref is None:
            self.elsewhere(blob, add)
            return
        if ref.sha256 != blob.data_sha256:
            add("ref-mismatch", "data_sha256", f"{name}: is not the hash of storage_ref")
        if ref.size != blob.object_size_bytes:
            add("ref-mismatch", "object_size_bytes", f"{name}: is not the size of storage_ref")
        wrong = self.read(ref)
        if wrong is not None:
            add(wrong[0], "storage_ref", f"{name}: {wrong[1]}")
            return
        try:
            for part, inner in self.parts(blob.object_id, ref):
                wrong = self.read(inner)
                if wrong is not None:
                    add(wrong[0], "storage_ref", f"{name}: {part}: {wrong[1]}")
        except _UNREADABLE as error:
            add(ErrorKind.FILE_CORRUPT.value, "storage_ref", f"{name}: is no {ref.content_type}: {error}")

    def elsewhere(self, blob: BlobObject, add: Callable[[str, str, str], None]) -> None:
        """A version whose bytes are not in the object store: they belong to it alone."""
        self.count(blob.size)
        try:
            with self.view.blobs.open_blob(blob) as stream:
                while stream.read(CHUNK):
                    pass
        except EmboflowError as error:
            kind = error.kind if isinstance(error, IntegrityError) else ErrorKind.UNAVAILABLE
            add(kind.value, "grid_fs_file_id" if blob.grid_fs_file_id else "data", error.message)

    def parts(self, object_id: str, ref: StorageRef) -> list[tuple[str, StorageRef]]:
        """The payloads that a listing or manifest names."""
        if is_listing(ref):
            with self.view.blobs.open_ref(ref) as stream:
                entries = list(read_listing(stream))
            # Files of a folder registered in place are not in the store; they are checked with the asset.
            kept = object_id in self.in_place_listings
            return [] if kept else [(e.path, payload_ref(ref, e.sha256, e.size)) for e in entries]
        if ref.content_type == MANIFEST_TYPE:
            rows = json.loads(self.view.blobs.read_ref(ref))["files"]
            return [(row["path"], payload_ref(ref, row["sha256"], row["size"])) for row in rows]
        return []

    def read(self, ref: StorageRef) -> tuple[str, str] | None:
        """What is wrong with a payload, ``None`` when it is sound."""
        key = (ref.key, ref.sha256, ref.size)
        if key not in self.known:
            self.count(ref.size)
            self.known[key] = self._read(ref)
        return self.known[key]

    def _read(self, ref: StorageRef) -> tuple[str, str] | None:
        try:
            with self.view.blobs.open_ref(ref) as stream:
                while stream.read(CHUNK):
                    pass
        except EmboflowError as error:
            kind = error.kind if isinstance(error, IntegrityError) else ErrorKind.UNAVAILABLE
            return kind.value, error.message
        return None

    def in_place(self, asset: Asset) -> None:
        """The files of an asset that were left where they are."""
        self.count(asset.size_bytes)
        try:
            for error in check_in_place(self.view.blobs, asset):
                self.report.add(error.kind.value, "assets", asset.id, "storageRef", error.message)
        except _UNREADABLE:  # its listing, reported with the blob
            pass

    def count(self, size: int) -> None:
        """One more payload of so many bytes."""
        self.report.counts["payloads"] += 1
        self.report.counts["bytes"] += size
        if self.tick:
            self.tick(self.report.counts["payloads"], self.report.counts["bytes"])


def check_versions(view: View, report: VerifyReport) -> None:
    """Versions of a blob are 0 to head, each once (I2)."""
    shape = {"object_id": 1, "version": 1, "prev_version": 1}
    with translated():
        for raw in view.sound("objects", {**shape, "tail": 1, "first_kept": 1}):
            older = view.mongo["object_history"].find({"object_id": raw["object_id"]}, {"version": 1})
            rows = [*older, *(row for row in raw.get("tail") or [] if isinstance(row, dict))]
            numbers = {row.get("version") for row in rows}
            kept = isinstance(raw.get("tail"), list)  # else only the newest is (C-08)
            expected = set(range(raw.get("first_kept") or 0, raw["version"])) if kept else set()
            if numbers != expected:
                missing = sorted(expected - numbers)[:20]
                report.add(
                    "version-gap",
                    "objects",
                    raw["_id"],
                    "version",
                    f"head is {raw['version']}; missing {missing}",
                )
            _previous(report, "objects", raw)
        for raw in view.sound("object_history", shape):
            _previous(report, "object_history", raw)


def _previous(report: VerifyReport, collection: str, raw: dict[str, Any]) -> None:
    expected = raw["version"] - 1 if raw["version"] else None
    if raw.get("prev_version") != expected:
        report.add(
            "version-gap",
            collection,
            raw["_id"],
            "prev_version",
            f"is {raw.get('prev_version')}; expected {expected}",
        )


def check_owners(view: View, report: VerifyReport) -> None:
    """An owned blob's owner refers to exactly that version, and the other way round (I8, I17)."""
    with translated():
        for raw in view.sound("objects"):
            _owner_of(view, report, raw)
        for record, field in BLOB_FIELDS:
            for raw in view.sound(record, {field: 1, "status": 1}):
                _owned_by(view, report, record, field, raw)


def _owner_of(view: View, report: VerifyReport, raw: dict[str, Any]) -> None:
    record, field, record_id = (
        raw.get("owner_record"),
        raw.get("owner_record_field"),
        raw.get("owner_record_id"),
    )
    if record_id is None or (record, field) not in BLOB_FIELDS:
        return
    owner = view.mongo[str(record)].find_one({"_id": record_id}, {str(field): 1})
    ref = _reference((owner or {}).get(str(field)))
    found = (ref.get("objectId"), ref.get("version"))
    if found != (raw["object_id"], raw["version"]):
        report.add(
            "owner-mismatch",
            "objects",
            raw["_id"],
            "owner_record_id",
            f"{record} {record_id}.{field} does not refer to version {raw['version']}",
        )


def _reference(value: Any) -> dict[str, Any]:
    """What a field refers to; a probe report that fits its document refers to nothing."""
    if not isinstance(value, dict):
        return {}
    inner = value.get("ref")
    return inner if isinstance(inner, dict) and "objectId" not in value else value


def _owned_by(view: View, report: VerifyReport, record: str, field: str, raw: dict[str, Any]) -> None:
    ref = _reference(raw[field])
    object_id, version = ref.get("objectId"), ref.get("version")
    if object_id is None:
        return
    head = view.mongo["objects"].find_one({"_id": object_id})
    if head is None:  # reported as a reference without an end
        return
    rows = [head, *(row for row in head.get("tail") or [] if isinstance(row, dict))]
    blob = next((row for row in rows if row.get("version") == version), None) or view.mongo[
        "object_history"
    ].find_one({"object_id": object_id, "version": version})
    if blob is None:
        message = f"version is {version!r}; blob {object_id} has no such version"
        report.add("ref-not-found", record, raw["_id"], f"{field}.version", message)
    elif blob.get("owner_record_id") != raw["_id"]:
        if is_out_of_use(record, raw) and was_let_go(view, blob):
            return
        message = f"blob {object_id} version {version} is owned by {blob.get('owner_record_id')!r}"
        report.add("owner-mismatch", record, raw["_id"], field, message)
    elif f"sha256:{blob.get('data_sha256')}" != ref.get("checksum", f"sha256:{blob.get('data_sha256')}"):
        message = f"checksum is not that of blob {object_id} version {version}"
        report.add("ref-mismatch", record, raw["_id"], f"{field}.checksum", message)
