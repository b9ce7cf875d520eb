"""Takes the bytes of buried versions out of the database: those that are in a document or in GridFS.

A payload in the object store is destroyed as one; of a version that has its bytes in itself they are taken
away here, and its document stays, with the hash. MongoDB keeps what was overwritten in its oplog and in free
pages of its files until it needs the room: the tombstone says so.
"""

from collections.abc import Iterable
from typing import Any, Final

from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.client import Mongo, Raw, translated

_NOTHING: Final = b""
_FILE: Final = "grid_fs_file_id"


def erase(mongo: Mongo, rows: Iterable[dict[str, Any]]) -> int:
    """Empty them; how many had bytes in the database. Repeated, it finds nothing.

    Args:
        mongo: The open database.
        rows: ``objectId`` and ``version`` of versions that have their tombstones.
    """
    done = 0
    for row in rows:
        object_id, version = str(row["objectId"]), int(row["version"])
        head = {"_id": object_id}
        places: list[tuple[str, Raw, str, list[Raw] | None]] = [
            ("objects", {**head, "version": version}, "", None),
            ("objects", {**head, "tail.version": version}, "tail.$[one].", [{"one.version": version}]),
            ("object_history", {"_id": f"{object_id}.v{version}"}, "", None),
        ]
        for name, which, prefix, filters in places:
            done += _erased(mongo, name, which, prefix, filters)
    return done


def _erased(mongo: Mongo, name: str, which: Raw, prefix: str, filters: list[Raw] | None) -> int:
    fields = dict.fromkeys((f"{prefix.replace('$[one].', '')}{field}" for field in ("data", _FILE)), 1)
    with translated():
        found = mongo[name].find_one(which, {**fields, "tail.version": 1})
        if found is None:
            return 0
        rows = [found] if filters is None else found["tail"]
        if filters is not None:
            version = filters[0]["one.version"]
            rows = [row for row in rows if row["version"] == version]
        held = [row for row in rows if row.get("data") or row.get(_FILE)]
        for row in held:
            if row.get("data"):
                change = {"$set": {f"{prefix}data": _NOTHING}}
                mongo[name].update_one(which, change, array_filters=filters)
            if row.get(_FILE) and not _named_elsewhere(mongo, row[_FILE]):
                gridfs.delete(mongo, row[_FILE])
    return len(held)


def _named_elsewhere(mongo: Mongo, file_id: object) -> bool:
    """Whether more than one version names a file: bytes that were put as another one's are its file too."""
    count = sum(mongo[name].count_documents({_FILE: file_id}) for name in ("objects", "object_history"))
    return count + mongo["objects"].count_documents({f"tail.{_FILE}": file_id}) > 1
