"""ArcticDB over LMDB: bytes as pickles, frames as they are; versioned."""

from pathlib import Path
from typing import Any


class Side:
    """One library."""

    takes = "bytes"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import arcticdb

        self.module: Any = arcticdb
        self.arctic: Any = arcticdb.Arctic(f"lmdb://{folder}?map_size=24GB")
        make = self.arctic.get_library if options.get("joins") else self.arctic.create_library
        self.library: Any = make("bench")

    def versions(self) -> str:
        from importlib.metadata import version

        return f"arcticdb {version('arcticdb')}"

    def put(self, source: Any, name: str) -> list[Any]:
        return [name, self.library.write_pickle(name, source).version]

    def get(self, handle: list[Any]) -> Any:
        return self.library.read(handle[0], as_of=handle[1]).data

    def newest(self, name: str) -> Any:
        return self.library.read(name).data

    def put_frame(self, frame: Any, name: str) -> list[Any]:
        return [name, self.library.write(name, frame).version]

    get_frame = get

    def clean(self, names: list[str]) -> None:
        for name in names:
            if self.library.has_symbol(name):
                self.library.delete(name)
