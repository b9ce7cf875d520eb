"""Every version's bytes are there and hash to what is recorded; versions and owners are whole."""

import json
from collections.abc import Callable
from typing import Any

from emboflow_dagster.blobs.listing import is_listing, payload_ref, read_listing
from emboflow_dagster.errors import EmboflowError, IntegrityError
from emboflow_dagster.model.storage import MANIFEST_TYPE, PATH_BUCKET, StorageRef
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.project.datasets import file_ref
from emboflow_dagster.project.verify.report import VerifyReport, View

CHUNK = 1 << 20
_OWNERS = {
    ("assets", "storageRef"),
    ("artifacts", "storageRef"),
    ("dataset_versions", "manifestRef"),
    ("run_tasks", "logRef"),
}
Tick = Callable[[int, int], None]


def check_payloads(view: View, report: VerifyReport, tick: Tick | None = None) -> None:
    """Read and hash every payload once, also those that listings and manifests name (I1, I5)."""
    seen: set[str] = set()
    for collection in ("objects", "object_history"):
        for raw in view.find(collection):
            for row in [raw, *raw.get("tail", [])]:
                _version(view, report, collection, row, seen, tick)


def _version(
    view: View, report: VerifyReport, collection: str, row: dict[str, Any], seen: set[str], tick: Tick | None
) -> None:
    name = f"{row['object_id']} version {row['version']}"
    stored = row.get("storage_ref")
    if not stored:
        report.add(
            "payload-missing", collection, row["_id"], "storage_ref", f"{name}: no payload is recorded"
        )
        return
    ref = StorageRef.model_validate(stored)
    if ref.sha256 != row["data_sha256"] or ref.size != row["object_size_bytes"]:
        report.add(
            "ref-mismatch",
            collection,
            row["_id"],
            "storage_ref",
            f"{name}: reference and record differ in hash or size",
        )
    if not _read(view, report, collection, row["_id"], name, ref, seen, tick):
        return
    try:
        for part, inner in _parts(view, ref):
            _read(view, report, collection, row["_id"], f"{name}: {part}", inner, seen, tick)
    except EmboflowError as error:
        report.add(error.kind.value, collection, row["_id"], "storage_ref", f"{name}: {error.message}")


def _parts(view: View, ref: StorageRef) -> list[tuple[str, StorageRef]]:
    if is_listing(ref):
        with view.blobs.open_ref(ref) as stream:
            entries = list(read_listing(stream))
        # Files of a folder registered in place are not in the store; they are checked with the asset.
        return [(e.path, payload_ref(ref, e)) for e in entries] if ref.bucket != PATH_BUCKET else []
    if ref.content_type == MANIFEST_TYPE:
        rows = json.loads(view.blobs.read_ref(ref))["files"]
        return [(row["path"], file_ref(ref, row["sha256"], row["size"])) for row in rows]
    return []


def _read(
    view: View,
    report: VerifyReport,
    collection: str,
    id_: str,
    name: str,
    ref: StorageRef,
    seen: set[str],
    tick: Tick | None,
) -> bool:
    if ref.uri in seen:
        return True
    seen.add(ref.uri)
    report.counts["payloads"] += 1
    report.counts["bytes"] += ref.size
    try:
        with view.blobs.open_ref(ref) as stream:
            while stream.read(CHUNK):
                pass
    except EmboflowError as error:
        kind = error.kind.value if isinstance(error, IntegrityError) else "unavailable"
        report.add(kind, collection, id_, "storage_ref", f"{name}: {error.message}")
        return False
    finally:
        if tick:
            tick(report.counts["payloads"], report.counts["bytes"])
    return True


def check_versions(view: View, report: VerifyReport) -> None:
    """Versions of a blob are 0 to head, each once (I2)."""
    with translated():
        for raw in view.find("objects", {"object_id": 1, "version": 1, "prev_version": 1, "tail": 1}):
            older = view.mongo["object_history"].find({"object_id": raw["object_id"]}, {"version": 1})
            numbers = {row["version"] for row in older} | {row["version"] for row in raw.get("tail", [])}
            if numbers != set(range(raw["version"])):
                missing = sorted(set(range(raw["version"])) - numbers)[:20]
                report.add(
                    "version-gap",
                    "objects",
                    raw["_id"],
                    "version",
                    f"head is {raw['version']}; missing {missing}",
                )
            expected = raw["version"] - 1 if raw["version"] else None
            if raw.get("prev_version") != expected:
                report.add(
                    "version-gap",
                    "objects",
                    raw["_id"],
                    "prev_version",
                    f"is {raw.get('prev_version')}; expected {expected}",
                )


def check_owners(view: View, report: VerifyReport) -> None:
    """An owned blob's owner refers to exactly that version, and the other way round (I8, I17)."""
    with translated():
        for raw in view.find(
            "objects",
            {"object_id": 1, "version": 1, "owner_record": 1, "owner_record_field": 1, "owner_record_id": 1},
        ):
            record, field, record_id = (
                raw.get("owner_record"),
                raw.get("owner_record_field"),
                raw.get("owner_record_id"),
            )
            if record_id is None or (record, field) not in _OWNERS:
                continue
            owner = view.mongo[str(record)].find_one({"_id": record_id}, {str(field): 1})
            ref = (owner or {}).get(str(field)) or {}
            if (ref.get("objectId"), ref.get("version")) != (raw["object_id"], raw["version"]):
                report.add(
                    "owner-mismatch",
                    "objects",
                    raw["_id"],
                    "owner_record_id",
                    f"{record} {record_id}.{field} does not refer to this version",
                )
        for record, field in sorted(_OWNERS - {("run_tasks", "logRef")}):
            for raw in view.find(record, {field: 1}):
                ref = raw.get(field) or {}
                if not ref.get("objectId"):
                    continue
                blob = view.mongo["objects"].find_one({"_id": ref["objectId"]}, {"owner_record_id": 1})
                if blob is not None and blob.get("owner_record_id") != raw["_id"]:
                    report.add(
                        "owner-mismatch",
                        record,
                        raw["_id"],
                        field,
                        f"blob {ref['objectId']} is owned by {blob.get('owner_record_id')!r}",
                    )
