"""Questions about many blobs at once; only the newest versions are asked, and no payload is read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING

from emboflow_dagster.mongo.client import Mongo, Raw, translated

#: What no question brings back: bytes, and what the outbox keeps.
HIDDEN: Final = {"data": 0, "tail": 0, "request_ids": 0, "put_id": 0, "first_kept": 0}
_PAGE: Final = 200
_NEWEST: Final = (("updated_at", DESCENDING), ("_id", DESCENDING))


def query(
    mongo: Mongo,
    workspace_id: str,
    filter_: Mapping[str, Any],
    *,
    limit: int = 0,
    sort: Sequence[tuple[str, int]] = _NEWEST,
) -> list[Raw]:
    """Heads of the workspace that match a checked filter, the latest written first; ``limit`` 0 is all."""
    scoped = {"$and": [{"workspace_id": workspace_id}, dict(filter_)]}
    with translated():
        return list(mongo["objects"].find(scoped, HIDDEN).sort(list(sort)).limit(limit))


def every(mongo: Mongo, workspace_id: str) -> Iterator[Raw]:
    """Every head of the workspace, in order of its id, a page in memory at a time."""
    after = ""
    while True:
        with translated():
            rows = list(
                mongo["objects"]
                .find({"workspace_id": workspace_id, "_id": {"$gt": after}}, HIDDEN)
                .sort("_id", ASCENDING)
                .limit(_PAGE)
            )
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1]["_id"]


def summary(mongo: Mongo, workspace_id: str, filter_: Mapping[str, Any]) -> Raw:
    """Counts by type and by home, linkage, versions and sizes (bytes), computed by the server (P-19)."""
    home: Raw = {
        "$switch": {
            "branches": [
                {"case": {"$eq": [{"$type": "$storage_ref"}, "object"]}, "then": "object_store"},
                {
                    "case": {"$in": [{"$type": "$grid_fs_file_id"}, ["string", "objectId"]]},
                    "then": "gridfs",
                },
            ],
            "default": "in_object",
        }
    }
    numbers: Raw = {
        "_id": None,
        "total_objects": {"$sum": 1},
        "task_linked": {"$sum": _there("$task_id")},
        "workflow_linked": {"$sum": _there("$workflow_id")},
        "max_version": {"$max": "$version"},
        "total_size_bytes": {"$sum": "$object_size_bytes"},
        "avg_size_bytes": {"$avg": "$object_size_bytes"},
        "max_size_bytes": {"$max": "$object_size_bytes"},
    }
    pipeline: list[Raw] = [
        {"$match": {"$and": [{"workspace_id": workspace_id}, dict(filter_)]}},
        {
            "$facet": {
                "by_type": [{"$sortByCount": "$type"}],
                "by_storage": [{"$sortByCount": home}],
                "numbers": [{"$group": numbers}],
            }
        },
    ]
    with translated():
        found = next(iter(mongo["objects"].aggregate(pipeline)))
    totals = found["numbers"][0] if found["numbers"] else dict.fromkeys(numbers, 0)
    if not found["numbers"]:
        totals |= dict.fromkeys(("max_version", "total_size_bytes", "avg_size_bytes", "max_size_bytes"))
    del totals["_id"]
    return {
        **totals,
        "by_type": {row["_id"]: row["count"] for row in found["by_type"]},
        "by_storage": {row["_id"]: row["count"] for row in found["by_storage"]},
    }


def _there(field: str) -> Raw:
    return {"$cond": [{"$eq": [{"$ifNull": [field, None]}, None]}, 0, 1]}
