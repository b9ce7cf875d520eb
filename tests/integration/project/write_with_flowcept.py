"""Flowcept 1.0.3 writes a database, good rows and its defects: run by the interpreter of `.flowcept-venv`.

Usage: python write_with_flowcept.py URI DATABASE FOLDER [read]

It makes settings of its own in FOLDER, so nothing of the machine's is read. Without "read" it writes first.
Prints, as JSON, what Flowcept itself reads back: for each object and version the sha256 of the payload.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

SETTINGS = """
flowcept_version: 1.0.3
log: {{log_file_level: disable, log_stream_level: disable}}
project: {{db_flush_mode: offline, dump_buffer: {{enabled: false}}}}
experiment: {{user: ada}}
mq: {{enabled: false}}
kv_db: {{enabled: false}}
databases:
  lmdb: {{enabled: false}}
  mongodb: {{enabled: true, uri: "{uri}", db: "{database}", create_collection_index: true}}
"""


def main(uri: str, database: str, folder: str, only: str = "") -> None:
    settings = Path(folder) / "settings.yaml"
    settings.write_text(SETTINGS.format(uri=uri, database=database))
    os.environ["FLOWCEPT_SETTINGS_PATH"] = str(settings)
    os.environ["MONGO_URI"] = uri
    os.environ["MONGO_ENABLED"] = "true"
    os.chdir(folder)
    from flowcept import Flowcept
    from flowcept.commons.flowcept_dataclasses.blob_object import BlobObject

    def save(payload, object_id, *, kind="artifact", inside=False, pickle=False, control=True, **more):
        blob = BlobObject(object_id=object_id, object_type=kind, workflow_id="wf-1", **more)
        Flowcept.db._insert_or_update_object(
            blob,
            payload,
            save_data_in_collection=inside,
            pickle=pickle,
            control_version=control,
        )

    if only != "read":
        write(Flowcept, save)
    sys.stdout.write(json.dumps(readback(Flowcept)))


def write(flowcept, save):
    for number in range(4):
        save(b"in-object %d" % number, "inside", inside=True, custom_metadata={"n": number}, tags=["t"])
        save(b"gridfs %d " % number * 200_000, "outside", kind="ml_model", task_id=f"task-{number}")
    flowcept.db.update_object_metadata("outside", custom_metadata={"stage": "best"}, tags=["best"])
    save(b"snapshot", "data", kind="dataset")
    save({"weights": [1, 2, 3]}, "pickled", inside=True, pickle=True)
    save("text without a hash", "text", inside=True)
    save({"a": {"b": 1}}, "not-bytes", inside=True)
    for number in range(3):
        save(b"uncontrolled %d" % number, "uncontrolled", control=False)
    save(b"mixed 0", "mixed")
    save(b"mixed 1", "mixed", control=False)
    save(b"mixed 2", "mixed")
    save(b"mixed 3", "mixed")
    save(b"old, inside", "moved-out", inside=True)
    save(b"new, outside", "moved-out")
    save(b"old, outside", "moved-in")
    save(b"new, inside", "moved-in", inside=True)
    save(b"", "empty", inside=True)
    save(b"an id of its own", "a name: with/odd characters", custom_metadata={"a.b": 1, "nan": float("nan")})


def readback(flowcept):
    found = {}
    for object_id in sorted(doc["object_id"] for doc in flowcept.db.blob_object_query({})):
        for row in flowcept.db.get_object_history(object_id):
            try:
                data = flowcept.db.get_blob_object(object_id, version=row["version"]).data
            except ValueError as error:
                found.setdefault(object_id, {})[row["version"]] = {"error": str(error)}
                continue
            plain = data if isinstance(data, bytes) else json.dumps(data).encode()
            found.setdefault(object_id, {})[row["version"]] = {
                "sha256": hashlib.sha256(plain).hexdigest(),
                "type": row["object_type"],
                "custom_metadata": str(row["custom_metadata"]),
                "tags": row["tags"],
                "recorded": row["data_sha256"],
                "created_at": row["created_at"],
                "updated_at": row["updated_at"],
                "storage_type": row["storage_type"],
            }
    return found


if __name__ == "__main__":
    main(*sys.argv[1:5])
