"""Probe reports of any size: what a document cannot hold goes to a blob, whole, before anything refers to it.

A recording with ten thousand topics, or with an HDF5 group called ``$x``, is looked into like any other:
``structureSummary`` keeps as much as fits, and ``rawReport`` is ``{"ref": {"objectId", "version"}}``.

Source: requirements R-105, R-106, R-108; reliability.md finding 6.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.asset import MAX_WARNINGS, RAW_REPORT_BYTES, AssetProbeReport
from emboflow_dagster.model.freeform import MAX_DEPTH, check_freeform
from emboflow_dagster.mongo.client import Mongo, Session, translated

MAX_ITEMS: Final = 20_000
_TEXT_CHARS: Final = 500
# Items kept of each list and mapping; the first that fits is taken.
_CUTS: Final = (5_000, 2_000, 500, 200, 100, 50, 20, 5, 1)


def store_probe(blobs: Blobs, probe: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's JSON as the document can hold it; the payload of a large one is put first.

    Args:
        blobs: Where the whole report goes when it does not fit.
        probe: ``detectedFormatCandidates``, ``structureSummary``, ``warnings``, ``truncated``,
            ``recommendedNextNodes``, ``rawReport``.
    """
    structure, raw = probe["structureSummary"], probe["rawReport"]
    if _fits(structure) and _fits(raw):
        return dict(probe)
    blob = blobs.put(
        json.dumps(probe, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace"),
        type="probe_report",
        content_type="application/json",
        owner=("asset_probe_reports", "rawReport"),
    )
    warning = {
        "code": "listing_truncated",
        "message": f"the structure is listed in part; all of it is in blob {blob.object_id}",
    }
    return {
        **probe,
        "structureSummary": structure if _fits(structure) else bounded(structure),
        "rawReport": {"ref": {"objectId": blob.object_id, "version": blob.version}},
        "warnings": [*probe["warnings"], warning][:MAX_WARNINGS],
    }


def newest_report_ids(
    mongo: Mongo, asset_ids: Collection[str], session: Session | None = None
) -> dict[str, str]:
    """Asset id to the id of its newest probe report; assets without one are left out."""
    stages: list[dict[str, Any]] = [
        {"$match": {"assetId": {"$in": sorted(set(asset_ids))}}},
        {"$sort": {"assetId": 1, "reportVersion": 1}},
        {"$group": {"_id": "$assetId", "report": {"$last": "$_id"}}},
    ]
    with translated():
        rows = mongo[AssetProbeReport.collection].aggregate(stages, session=session)
        return {row["_id"]: row["report"] for row in rows}


def bounded(value: Mapping[str, Any]) -> dict[str, Any]:
    """As much of a structure as a document holds: long lists and mappings cut, refused keys spelled anew."""
    for items in _CUTS:
        cut = _cut(value, items, 1)
        if _fits(cut):
            return cut
    return {}


def _fits(value: Any) -> bool:
    try:
        check_freeform(value, max_bytes=RAW_REPORT_BYTES, max_items=MAX_ITEMS, map_keys=True)
    except InvalidInputError:
        return False
    return True


def _cut(value: Any, items: int, depth: int) -> Any:
    if isinstance(value, Mapping):
        kept = list(value.items())[:items] if depth < MAX_DEPTH else []
        return {_key(key): _cut(item, items, depth + 1) for key, item in kept}
    if isinstance(value, list):
        kept = value[:items] if depth < MAX_DEPTH else []
        return [_cut(item, items, depth + 1) for item in kept]
    if isinstance(value, str):
        return value if len(value) <= _TEXT_CHARS else f"{value[:_TEXT_CHARS]}…"
    return value


def _key(key: str) -> str:
    short = key if len(key) <= _TEXT_CHARS else f"{key[:_TEXT_CHARS]}…"
    # MongoDB reads a leading "$", in any of its forms, as an operator.
    try:
        check_freeform({short: 0}, map_keys=True)
    except InvalidInputError:
        return f"_{short}".replace("\0", "_").encode("utf-8", "replace").decode()
    return short
