"""Flowcept 1.0.3: versioned blobs in GridFS or inside the document, as its own API stores them."""

import json
import os
from pathlib import Path
from typing import Any


class Side:
    """The database API with its indexes made, as its consumer makes them."""

    takes = "bytes"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.inside = options["inside"]
        mongodb = {"enabled": True, "uri": options["mongo"], "db": options["database"]}
        path = folder / "settings.yaml"
        path.write_text(json.dumps({"databases": {"mongodb": mongodb, "lmdb": {"enabled": False}}}))
        os.environ["FLOWCEPT_SETTINGS_PATH"] = str(path)
        from flowcept.commons.daos.docdb_dao.docdb_dao_base import DocumentDBDAO
        from flowcept.commons.flowcept_dataclasses.blob_object import BlobObject
        from flowcept.flowcept_api.db_api import DBAPI

        self.dao: Any = DocumentDBDAO.get_instance(create_indices=True)
        self.database: Any = self.dao._db  # noqa: SLF001 - to damage and to clean
        self.api: Any = DBAPI()
        self.blob: Any = BlobObject

    def versions(self) -> str:
        from importlib.metadata import version

        return f"flowcept {version('flowcept')}"

    def put(self, source: Any, name: str) -> str:
        blob = self.blob(object_id=name)
        self.api._insert_or_update_object(  # noqa: SLF001 - what its public aliases call
            blob, source, save_data_in_collection=self.inside, control_version=True
        )
        return name

    def after_put(self, name: str) -> list[Any]:
        """A put does not say which version it made: looked up when the clock has stopped."""
        row = self.database["objects"].find_one({"object_id": name}, {"version": 1})
        return [name, row["version"]]

    def get(self, handle: list[Any]) -> Any:
        return self.api.get_blob_object(handle[0], handle[1]).data

    def newest(self, name: str) -> Any:
        return self.api.get_blob_object(name).data

    def every(self, name: str) -> list[list[Any]]:
        """A put does not say which version it made: all that the API lists, newest and history."""
        return [[name, row["version"]] for row in self.api.get_object_history(name)]

    def damage(self, handle: list[Any]) -> bool:
        row = self.database["objects"].find_one({"object_id": handle[0]})
        if self.inside:
            content = bytearray(row["data"])
            content[105] ^= 0xFF
            self.database["objects"].update_one({"_id": row["_id"]}, {"$set": {"data": bytes(content)}})
            return True
        chunk = self.database["fs.chunks"].find_one({"files_id": row["grid_fs_file_id"], "n": 0})
        content = bytearray(chunk["data"])
        content[105] ^= 0xFF
        self.database["fs.chunks"].update_one({"_id": chunk["_id"]}, {"$set": {"data": bytes(content)}})
        return True

    def clean(self, names: list[str]) -> None:
        del names
        for collection in ("objects", "object_history", "fs.files", "fs.chunks"):
            self.database[collection].delete_many({})
