"""The least that does the same: a file, its sha256, fsync; reading it and hashing it."""

import hashlib
import os
from pathlib import Path
from typing import IO, Any, Self

CHUNK = 1 << 20


class Side:
    """One after the other, as one would write it."""

    takes = "file"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        del options
        self.folder = folder

    def versions(self) -> str:
        import platform

        return f"Python {platform.python_version()}"

    def put(self, source: Path, name: str) -> list[str]:
        sha256 = hashlib.sha256()
        target = self.folder / name
        with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
            while chunk := file.read(CHUNK):
                sha256.update(chunk)
                out.write(chunk)
            os.fsync(out.fileno())
        return [name, sha256.hexdigest()]

    def get(self, handle: list[str]) -> IO[bytes]:
        return Hashing(self.folder / handle[0], handle[1])

    def put_frame(self, frame: Any, name: str) -> list[str]:
        frame.to_parquet(self.folder / name)
        with (self.folder / name).open("rb") as file:
            os.fsync(file.fileno())
        return [name]

    def get_frame(self, handle: list[str]) -> Any:
        import pandas as pd

        return pd.read_parquet(self.folder / handle[0])

    def clean(self, names: list[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


class Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, path: Path, sha256: str) -> None:
        self._file = path.open("rb", buffering=0)
        self._expected = sha256
        self._sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._sha256.update(chunk)
        if (not chunk or size < 0) and self._sha256.hexdigest() != self._expected:
            raise ValueError("other bytes than were stored")
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
