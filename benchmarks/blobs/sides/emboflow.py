"""Ours: the blob store of a project, in the home that the options name."""

import io
from pathlib import Path
from typing import IO, Any


class Side:
    """Put and verified read through the public handle."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        from emboflow_dagster.project.handle import EmboFlow
        from emboflow_dagster.project.settings import Settings

        settings = Settings.from_env(home=folder, mongo_uri=options["mongo"], database=options["database"])
        self.home = options.get("home", "object_store")
        self.arrow = options.get("frames") == "arrow"
        self.takes = "bytes" if self.home == "in_object" else "file"
        self.ef = EmboFlow.open(settings)

    def versions(self) -> str:
        from emboflow_dagster import __version__

        return f"emboflow-dagster {__version__}"

    def put(self, source: bytes | Path, name: str) -> list[Any]:
        blob = self.ef.blobs.put(source, object_id=name, home=self.home)
        return [blob.object_id, blob.version]

    def get(self, handle: list[Any]) -> IO[bytes]:
        return self.ef.blobs.open(*handle)

    def put_frame(self, frame: Any, name: str) -> list[Any]:
        if self.arrow:
            import pyarrow as pa

            out = pa.BufferOutputStream()
            table = pa.Table.from_pandas(frame)
            with pa.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table)
            return self.put(memoryview(out.getvalue()), name)  # type: ignore[arg-type] - bytes-like
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        return self.put(buffer.getbuffer(), name)  # type: ignore[arg-type] - bytes-like

    def get_frame(self, handle: list[Any]) -> Any:
        import pandas as pd
        import pyarrow as pa

        content = self.ef.blobs.read(*handle)
        if self.arrow:
            return pa.ipc.open_file(pa.BufferReader(content)).read_all().to_pandas()
        return pd.read_parquet(pa.BufferReader(content))

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
