"""Documents in Flowcept 1.0.3's exact shape, as seen in a database that it wrote: good ones, and its defects.

`test_flowcept_real.py` has Flowcept itself write the same; this is what every machine can test.
"""

import hashlib
from typing import Any

from bson.objectid import ObjectId
from gridfs import GridFS
from pymongo.database import Database

CREATED = 1795704338.543922
PICKLED = b"\x80\x04\x95\x18\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x07weights\x94]\x94(K\x01K\x02K\x03es."


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Writer:
    """Puts rows where Flowcept puts them."""

    def __init__(self, database: Database[Any]) -> None:
        self.database = database
        self.files = GridFS(database)

    def head(self, object_id: str, version: int, **fields: Any) -> None:
        """A document of `objects`: what is not said is not there."""
        row = {"object_id": object_id, "version": version, "workflow_id": "wf-1", "object_type": "artifact"}
        times = {"created_at": CREATED, "updated_at": CREATED + version}
        by = {"created_by": "ada", "updated_by": "ada", "prev_version": version - 1 if version else None}
        self.database["objects"].insert_one({**row, **times, **by, **fields})

    def older(self, object_id: str, version: int, **fields: Any) -> None:
        """A document of `object_history`: what is not said is null."""
        names = ("task_id", "custom_metadata", "tags", "object_size_bytes", "data_sha256", "data_hash_algo")
        self.database["object_history"].insert_one(
            {
                "object_id": object_id,
                "version": version,
                "created_at": CREATED,
                "created_by": "ada",
                "updated_at": CREATED + version,
                "updated_by": "ada",
                "prev_version": version - 1 if version else None,
                "source": "objects_snapshot",
                "workflow_id": "wf-1",
                "object_type": "artifact",
                **dict.fromkeys(names),
                **fields,
            }
        )

    def inside(self, content: bytes, **more: Any) -> dict[str, Any]:
        """The payload fields of `save_data_in_collection=True`."""
        return {"data": content, **self._recorded(content), **more}

    def outside(self, content: bytes, **more: Any) -> dict[str, Any]:
        """The payload fields of the default."""
        return {"grid_fs_file_id": self.files.put(content), **self._recorded(content), **more}

    def _recorded(self, content: bytes) -> dict[str, Any]:
        return {
            "object_size_bytes": len(content),
            "data_sha256": sha(content),
            "data_hash_algo": "sha256",
        }


#: What must be read back here: object, version and payload.
GOOD = {
    ("inside", 0): b"in-object 0",
    ("inside", 1): b"in-object 1",
    ("inside", 2): b"in-object 2",
    ("outside", 0): b"gridfs 0 " * 100_000,
    ("outside", 1): b"gridfs 1 " * 100_000,
    ("outside", 2): b"gridfs 1 " * 100_000,  # metadata alone changed
    ("data", 0): b"snapshot",
    ("pickled", 0): PICKLED,
    ("empty", 0): b"",
    ("seed-spelling", 0): b"x",
}
DEFECTS = {
    ("text", 0): "Gelenk über 90°".encode(),
    ("not-bytes", 0): b'{"a": {"b": {"$numberInt": "1"}}}',
    ("uncontrolled", 2): b"uncontrolled 2",
    ("mixed", 1): b"mixed 1",
    ("mixed", 2): b"mixed 2",
    ("moved-out", 0): b"old, inside",
    ("moved-out", 1): b"new, outside",
    ("moved-in", 0): b"old, outside",
    ("moved-in", 1): b"new, inside",
    ("a-name-with-odd-characters-a4735498b12f", 0): b"an id of its own",
    ("altered", 0): b"these are other bytes",
    ("gap", 0): b"gap 0",
    ("gap", 2): b"gap 2",
    ("lost-middle", 0): b"middle 0",
    ("lost-middle", 2): b"middle 2",
    ("lost-first", 1): b"first 1",
    ("lost-newest", 0): b"newest 0",
    ("twice", 0): b"twice 0",
    ("twice", 1): b"twice 1",
    ("beyond", 0): b"beyond 0",
    ("epochless", 0): b"no times",
}


def write_good(to: Writer) -> None:
    """What Flowcept does well."""
    for number in range(3):
        row = to.inside(b"in-object %d" % number, custom_metadata={"n": number}, tags=["t"])
        (to.head if number == 2 else to.older)("inside", number, **row)
    first = to.outside(b"gridfs 0 " * 100_000, object_type="ml_model", task_id="task-0")
    second = to.outside(b"gridfs 1 " * 100_000, object_type="ml_model", task_id="task-1")
    to.older("outside", 0, **first)
    to.older("outside", 1, **second)
    to.head("outside", 2, **second, custom_metadata={"stage": "best"}, tags=["best"])
    to.head("data", 0, **to.outside(b"snapshot"), object_type="dataset")  # type: ignore[misc]
    to.head("pickled", 0, **to.inside(PICKLED), pickle=True)
    to.head("empty", 0, **to.inside(b""))
    row = {"object_id": "seed-spelling", "version": 0, "type": "embedding_index", "created_at": CREATED}
    to.database["objects"].insert_one({**row, "updated_at": CREATED, **to.inside(b"x")})


def write_defects(to: Writer) -> None:
    """What Flowcept gets wrong, and what happens to databases."""
    to.head("text", 0, data="Gelenk über 90°", object_size_bytes=15)
    to.head("not-bytes", 0, data={"a": {"b": 1}}, object_size_bytes=1)
    row = to.outside(b"uncontrolled 2")
    to.database["objects"].insert_one(
        {"object_id": "uncontrolled", "version": 2, "created_at": CREATED, **row}
    )
    to.older("mixed", 1, **to.outside(b"mixed 1"), prev_version=None)  # type: ignore[misc]
    to.head("mixed", 2, **to.outside(b"mixed 2"))
    to.older("moved-out", 0, **to.inside(b"old, inside"))
    to.head("moved-out", 1, data=b"old, inside", **to.outside(b"new, outside"))
    old = to.outside(b"old, outside")
    to.older("moved-in", 0, **old)
    to.head("moved-in", 1, **{**old, **to.inside(b"new, inside")})
    to.head(
        "a name: with/odd characters",
        0,
        **to.outside(b"an id of its own"),
        custom_metadata={"a.b": 1, "nan": float("nan")},
    )
    to.head("altered", 0, **{**to.inside(b"as they were"), "data": b"these are other bytes"})
    to.older("gap", 0, **to.inside(b"gap 0"))
    to.head("gap", 2, **to.inside(b"gap 2"))
    to.older("lost-middle", 0, **to.inside(b"middle 0"))
    to.older("lost-middle", 1, **{**to.outside(b"middle 1"), "grid_fs_file_id": ObjectId()})
    to.head("lost-middle", 2, **to.inside(b"middle 2"))
    to.older("lost-first", 0, data_sha256=sha(b"gone"))
    to.head("lost-first", 1, **to.inside(b"first 1"))
    to.older("lost-newest", 0, **to.inside(b"newest 0"))
    broken = to.outside(bytes(600_000))
    to.database["fs.chunks"].delete_one({"files_id": broken["grid_fs_file_id"], "n": 1})
    to.head("lost-newest", 1, **broken)
    to.head("all-lost", 0, data_sha256=sha(b"gone"))
    to.older("twice", 0, data_sha256=sha(b"twice 0"))
    to.older("twice", 0, **to.inside(b"twice 0"))
    to.head("twice", 1, **to.inside(b"twice 1"))
    to.older("beyond", 0, **to.inside(b"of an object that was deleted"))
    to.older("beyond", 3, **to.inside(b"likewise"))
    to.head("beyond", 0, **to.inside(b"beyond 0"))
    to.older("deleted", 0, **to.inside(b"of an object that was deleted"))
    to.database["objects"].insert_one(
        {"object_id": "epochless", "campaign_id": "c", **to.inside(b"no times")}
    )
