"""Versions and owners of blobs are whole."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from emboflow_dagster.model.collections import BLOB_FIELDS
from emboflow_dagster.model.records import is_out_of_use
from emboflow_dagster.mongo.client import Raw, translated
from emboflow_dagster.project.verify.report import VerifyReport, View
from emboflow_dagster.project.verify.uploads import was_let_go

_BATCH: Final = 500
_SHAPE: Final = {"object_id": 1, "version": 1, "prev_version": 1}


def check_versions(view: View, report: VerifyReport) -> None:
    """Versions of a blob are 0 to head, each once (I2)."""
    older = _Older(view)
    with translated():
        for raw in view.sound("objects", {**_SHAPE, "tail.version": 1, "first_kept": 1}):
            tail = raw.get("tail")
            numbers = {row.get("version") for row in tail or [] if isinstance(row, dict)}
            numbers |= older.of(raw)
            # Without a tail only the newest is kept (C-08).
            first = raw.get("first_kept") or 0
            expected = set(range(first, raw["version"])) if isinstance(tail, list) else set()
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
        for raw in view.sound("object_history", _SHAPE):
            _previous(report, "object_history", raw)


class _Older:
    """The numbers in the history, read once beside the heads: both come in the order of their ids."""

    def __init__(self, view: View) -> None:
        self._view = view
        rows = view.mongo["object_history"].find(
            view.limits("object_history"), {"_id": 0, "object_id": 1, "version": 1}
        )
        self._rows: Iterator[Raw] = iter(rows.sort([("object_id", 1), ("version", 1)]))
        self._next: Raw | None = next(self._rows, None)

    def of(self, head: Raw) -> set[Any]:
        object_id = head["object_id"]
        if object_id != head["_id"]:  # out of order
            rows = self._view.mongo["object_history"].find({"object_id": object_id}, {"version": 1})
            return {row.get("version") for row in rows}
        found: set[Any] = set()
        while self._next is not None and str(self._next.get("object_id")) <= object_id:
            if self._next.get("object_id") == object_id:
                found.add(self._next.get("version"))
            self._next = next(self._rows, None)
        return found


def _previous(report: VerifyReport, collection: str, raw: Raw) -> None:
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
    shape = {"object_id": 1, "version": 1, "owner_record": 1, "owner_record_field": 1, "owner_record_id": 1}
    with translated():
        for batch in _batches(view.sound("objects", shape)):
            _owners_of(view, report, batch)
        for record, field in BLOB_FIELDS:
            for batch in _batches(view.sound(record, {field: 1, "status": 1})):
                _owned_by(view, report, record, field, batch)


def _batches(rows: Iterable[Raw]) -> Iterator[list[Raw]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _owners_of(view: View, report: VerifyReport, batch: list[Raw]) -> None:
    by_field: dict[tuple[str, str], list[Raw]] = defaultdict(list)
    for raw in batch:
        place = (str(raw.get("owner_record")), str(raw.get("owner_record_field")))
        if raw.get("owner_record_id") is not None and place in BLOB_FIELDS:
            by_field[place].append(raw)
    for (record, field), blobs in by_field.items():
        ids = [raw["owner_record_id"] for raw in blobs]
        owners = {row["_id"]: row for row in view.mongo[record].find({"_id": {"$in": ids}}, {field: 1})}
        for raw in blobs:
            ref = _reference(owners.get(raw["owner_record_id"], {}).get(field))
            if (ref.get("objectId"), ref.get("version")) != (raw["object_id"], raw["version"]):
                report.add(
                    "owner-mismatch",
                    "objects",
                    raw["_id"],
                    "owner_record_id",
                    f"{record} {raw['owner_record_id']}.{field} does not refer to version {raw['version']}",
                )


def _reference(value: Any) -> dict[str, Any]:
    """What a field refers to; a probe report that fits its document refers to nothing."""
    if not isinstance(value, dict):
        return {}
    inner = value.get("ref")
    return inner if isinstance(inner, dict) and "objectId" not in value else value


def _owned_by(view: View, report: VerifyReport, record: str, field: str, batch: list[Raw]) -> None:
    refs = [(raw, ref) for raw in batch if (ref := _reference(raw.get(field))).get("objectId") is not None]
    blob_of = _finder(view, [(ref["objectId"], ref.get("version")) for _, ref in refs])
    for raw, ref in refs:
        object_id, version = ref["objectId"], ref.get("version")
        known, blob = blob_of(object_id, version)
        if not known:  # reported as a reference without an end
            continue
        if blob is None:
            message = f"version is {version!r}; blob {object_id} has no such version"
            report.add("ref-not-found", record, raw["_id"], f"{field}.version", message)
        elif blob.get("owner_record_id") != raw["_id"]:
            if is_out_of_use(record, raw) and was_let_go(view, blob):
                continue
            message = f"blob {object_id} version {version} is owned by {blob.get('owner_record_id')!r}"
            report.add("owner-mismatch", record, raw["_id"], field, message)
        elif f"sha256:{blob.get('data_sha256')}" != ref.get("checksum", f"sha256:{blob.get('data_sha256')}"):
            message = f"checksum is not that of blob {object_id} version {version}"
            report.add("ref-mismatch", record, raw["_id"], f"{field}.checksum", message)


def _finder(view: View, pairs: list[tuple[Any, Any]]) -> Callable[[Any, Any], tuple[bool, Raw | None]]:
    """Looks up many versions at once: whether the blob is there, and the version."""
    shape = {"object_id": 1, "version": 1, "owner_record_id": 1, "data_sha256": 1}
    ids = [object_id for object_id, _ in pairs]
    tail = {f"tail.{name}": 1 for name in shape if name != "object_id"}
    heads = {row["_id"]: row for row in view.mongo["objects"].find({"_id": {"$in": ids}}, {**shape, **tail})}
    found: dict[tuple[Any, Any], Raw] = {}
    for object_id, head in heads.items():
        for row in (head, *(row for row in head.get("tail") or [] if isinstance(row, dict))):
            found[(object_id, row.get("version"))] = row
    rest = [pair for pair in pairs if pair[0] in heads and pair not in found]
    if rest:
        older = [{"object_id": object_id, "version": version} for object_id, version in rest]
        for row in view.mongo["object_history"].find({"$or": older}, shape):
            found.setdefault((row["object_id"], row["version"]), row)
    return lambda object_id, version: (object_id in heads, found.get((object_id, version)))
