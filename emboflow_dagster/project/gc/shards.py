"""What is kept and what may go, on disk: small files for each shard, so that memory is bounded by one.

A payload's shard is the first byte of its sha256. Kept payloads are rows of half a digest and the kind of
what keeps them; half is enough, since two of a kind only keep each other. Versions that nothing keeps are
lines of JSON.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from emboflow_dagster.project.gc.edges import EdgeKind

SHARDS: Final = tuple(f"{number:02x}" for number in range(256))
_DIGEST: Final = re.compile(r"(?:^|/)sha256/([0-9a-f]{2})/([0-9a-f]{62})$")
_HALF: Final = 16
_ROW: Final = _HALF + 1
_BUFFER: Final = 1 << 16
_KINDS: Final = tuple(EdgeKind)


def digest_of(key: str) -> bytes | None:
    """The half digest that a payload's key stands for; ``None`` for a key of something else."""
    found = _DIGEST.search(key)
    return bytes.fromhex(found[1] + found[2])[:_HALF] if found else None


def digest_of_file(file_id: object) -> bytes:
    """The same for a file in GridFS."""
    return hashlib.sha256(f"gridfs:{file_id}".encode()).digest()[:_HALF]


class Shards:
    """The files of one collection; gone when the block ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="gc-", dir=folder))
        self._kept: dict[int, bytearray] = {}
        self._lines: dict[tuple[str, int], list[str]] = {}
        self._waiting = 0
        self.marked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, digest: bytes, kind: EdgeKind) -> None:
        """Something names this payload."""
        row = digest + bytes((_KINDS.index(kind),))
        self._kept.setdefault(digest[0], bytearray()).extend(row)
        self.marked += 1
        self._waited(_ROW)

    def let_go(self, digest: bytes, version: dict[str, Any]) -> None:
        """A version of this payload that nothing keeps."""
        self._line("gone", digest, version)

    def see(self, digest: bytes, file: dict[str, Any]) -> None:
        """A file that is there, in a home that is not listed shard by shard."""
        self._line("seen", digest, file)

    def _line(self, kind: str, digest: bytes, row: dict[str, Any]) -> None:
        line = json.dumps(row, separators=(",", ":"))
        self._lines.setdefault((kind, digest[0]), []).append(line)
        self._waited(len(line))

    def _waited(self, size: int) -> None:
        self._waiting += size
        if self._waiting > 256 * _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        for shard, rows in self._kept.items():
            with self._file("kept", shard).open("ab") as file:
                file.write(rows)
        for (kind, shard), lines in self._lines.items():
            with self._file(kind, shard).open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        self._kept.clear()
        self._lines.clear()
        self._waiting = 0

    def kept(self, shard: str) -> dict[bytes, EdgeKind]:
        """The payloads of a shard that something names, each with the first of its kinds."""
        path = self._file("kept", int(shard, 16))
        found: dict[bytes, int] = {}
        if path.exists():
            rows = path.read_bytes()
            for start in range(0, len(rows), _ROW):
                digest, kind = rows[start : start + _HALF], rows[start + _HALF]
                found[digest] = min(kind, found.get(digest, kind))
        return {digest: _KINDS[kind] for digest, kind in found.items()}

    def gone(self, shard: str) -> dict[str, list[dict[str, Any]]]:
        """The versions of a shard that nothing keeps, by the key (or file) of their payload."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self._read("gone", shard):  # one that moved to the history meanwhile is there twice
            found.setdefault(row["key"], {})[row["name"]] = row
        return {key: list(versions.values()) for key, versions in found.items()}

    def seen(self, shard: str) -> Iterator[dict[str, Any]]:
        """The files of a shard that :meth:`see` was told of."""
        return self._read("seen", shard)

    def _read(self, kind: str, shard: str) -> Iterator[dict[str, Any]]:
        path = self._file(kind, int(shard, 16))
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def _file(self, kind: str, shard: int) -> Path:
        return self._folder / f"{kind}-{shard:02x}"


def leftover(folder: Path) -> Iterator[Path]:
    """The folders of collections that were interrupted."""
    if folder.is_dir():
        yield from (path for path in folder.glob("gc-*") if path.is_dir())
