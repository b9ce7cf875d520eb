"""Ours: the blob store of a project, in the home that the options name."""

import tempfile
from pathlib import Path
from typing import IO, Any


class Side:
    """Put and verified read through the public handle."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        from emboflow_dagster.orchestration.payloads.routing import Handlers
        from emboflow_dagster.project.handle import EmboFlow
        from emboflow_dagster.project.settings import Settings

        settings = Settings.from_env(home=folder, mongo_uri=options["mongo"], database=options["database"])
        self.home = options.get("home", "object_store")
        self.arrow = options.get("frames") == "arrow"
        self.takes = "bytes" if self.home == "in_object" else "file"
        self.ef = EmboFlow.open(settings)
        self._handlers = Handlers()

    def versions(self) -> str:
        from emboflow_dagster import __version__

        return f"emboflow-dagster {__version__}"

    def put(self, source: bytes | Path, name: str) -> list[Any]:
        blob = self.ef.blobs.put(source, object_id=name, home=self.home)
        return [blob.object_id, blob.version]

    def get(self, handle: list[Any]) -> IO[bytes]:
        return self.ef.blobs.open(*handle)

    def newest(self, name: str) -> IO[bytes]:
        return self.ef.blobs.open(name)

    def put_frame(self, frame: Any, name: str) -> list[Any]:
        """As the IO manager stores one."""
        from emboflow_dagster.orchestration.payloads.handler import Draft

        with Draft(format="arrow" if self.arrow else "parquet") as draft:
            payload = self._handlers.dump(frame, draft)
            blob = self.ef.blobs.put(
                payload.source,
                object_id=name,
                content_type=payload.content_type,
                serializer=payload.serializer,
                home=self.home,
            )
        return [blob.object_id, blob.version]

    def get_frame(self, handle: list[Any]) -> Any:
        """As the IO manager loads one."""
        from emboflow_dagster.orchestration.payloads.handler import Stored

        blob = self.ef.blobs.get(*handle)
        stored = Stored(
            content_type=blob.content_type,
            serializer=blob.serializer,
            size=blob.size,
            opener=lambda: self.ef.blobs.open_blob(blob),
            scratch=lambda: Path(tempfile.mkdtemp()),
            local=self.ef.blobs.local_path(self.ef.blobs.ref(blob)),
        )
        return self._handlers.load(stored)

    def damage(self, handle: list[Any]) -> bool:
        if self.home == "object_store":
            blob = self.ef.blobs.get(*handle)
            path = self.ef.blobs.local_path(self.ef.blobs.ref(blob))
            assert path is not None  # noqa: S101 - a folder
            content = bytearray(path.read_bytes())
            content[105] ^= 0xFF
            path.chmod(0o644)
            path.write_bytes(content)
            return True
        raw = self.ef.mongo["objects"].find_one({"_id": handle[0]}) or {}
        if "data" not in raw:
            return False
        content = bytearray(raw["data"])
        content[105] ^= 0xFF
        self.ef.mongo["objects"].update_one({"_id": handle[0]}, {"$set": {"data": bytes(content)}})
        return True

    def clean(self, names: list[str]) -> None:
        self.ef.mongo["objects"].delete_many({"object_id": {"$in": names}})
        self.ef.mongo["object_history"].delete_many({"object_id": {"$in": names}})
        for key in list(self.ef.store.iter_keys()):
            self.ef.store.delete(key)
