"""Gives a canonical dataset version back, after every file was checked against its recorded sha256."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError, NotFoundError, shown
from emboflow_dagster.formats.canonical.schema import (
    EPISODES_FILE,
    FRAMES_FILE,
    INDEX_COLUMNS,
    MANIFEST_FILE,
    RAW_INDEX_FILE,
    SCHEMA_VERSION,
    TASKS_FILE,
    Manifest,
)
from emboflow_dagster.formats.canonical.writer import file_sha256

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class CanonicalDataset:
    """An opened dataset version; nothing is kept in memory but the manifest."""

    def __init__(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        self.manifest = manifest
        self._files = dict(files)

    @property
    def features(self) -> list[str]:
        """Names of the vector features, in the order of the columns."""
        schema = self._parquet(FRAMES_FILE).schema_arrow
        return [name for name in schema.names if name not in INDEX_COLUMNS]

    @property
    def fps(self) -> float:
        """Frames per second of the grid."""
        return float(self.manifest.document["fps"])

    def path(self, name: str) -> Path:
        """Where a file of the manifest is.

        Raises:
            NotFoundError: The dataset has no such file.
        """
        if name not in self._files:
            raise NotFoundError(f"the dataset has no file {shown(name)}")
        return self._files[name]

    def episodes(self) -> Iterator[dict[str, Any]]:
        """One dict per episode, as in `episodes.parquet`, statistics included."""
        parquet = self._parquet(EPISODES_FILE)
        for batch in parquet.iter_batches(batch_size=256):
            yield from batch.to_pylist()

    def tasks(self) -> list[str]:
        """The tasks, by their index."""
        return self._parquet(TASKS_FILE).read(columns=["task"]).column("task").to_pylist()

    def frames(self, episode_index: int | None = None, columns: list[str] | None = None) -> "pa.Table":
        """The frames of one episode, or of all, in order."""
        import pyarrow.parquet as pq

        filters = None if episode_index is None else [("episode_index", "==", episode_index)]
        # Opened by us: a folder named `a=b` above the file must not become a column.
        with self.path(FRAMES_FILE).open("rb") as stream:
            return pq.read_table(stream, columns=columns, filters=filters)

    def vector(self, feature: str, episode_index: int) -> "np.ndarray":
        """One feature of one episode as float32 ``(length, dim)``."""
        import numpy as np

        column = self.frames(episode_index, [feature]).column(feature).combine_chunks()
        return np.asarray(column.flatten()).reshape(len(column), -1)

    def stats(self) -> dict[str, dict[str, list[Any]]]:
        """``min max mean std count`` of each feature over the whole dataset."""
        return self.manifest.document["stats"]

    def raw_streams(self) -> "pa.Table | None":
        """Samples of the streams kept at their own rate, ``None`` where there are none."""
        return self._parquet(RAW_INDEX_FILE).read() if RAW_INDEX_FILE in self._files else None

    def _parquet(self, name: str) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path(name))


def open_canonical(source: "Path | Mapping[str, Path]") -> CanonicalDataset:
    """Open a dataset version and verify every file of its manifest.

    Args:
        source: Its folder, or the manifest's paths (and ``manifest.json``) to files anywhere on disk.

    Raises:
        NotFoundError: No manifest.
        InvalidInputError: The manifest is not of ``emboflow-canonical/1`` or names a path outside the folder.
        IntegrityError: A file is missing, or its size or sha256 is not the recorded one.
    """
    manifest_path = source / MANIFEST_FILE if isinstance(source, Path) else source.get(MANIFEST_FILE)
    if manifest_path is None or not manifest_path.is_file():
        raise NotFoundError(f"no {MANIFEST_FILE}: not a canonical dataset", kind=ErrorKind.PAYLOAD_MISSING)
    manifest = read_manifest(manifest_path)
    files: dict[str, Path] = {}
    for entry in manifest.files:
        name = entry["path"]
        path = source / name if isinstance(source, Path) else source.get(name)
        if path is None or not path.is_file():
            raise IntegrityError(f"{name} is missing", kind=ErrorKind.PAYLOAD_MISSING)
        size = path.stat().st_size
        if size != entry["size"]:
            text = f"{name}: {size} bytes, recorded are {entry['size']}"
            raise IntegrityError(text, kind=ErrorKind.SIZE_MISMATCH)
        if (digest := file_sha256(path)) != entry["sha256"]:
            raise IntegrityError(f"{name}: sha256 {digest}, recorded is {entry['sha256']}")
        files[name] = path
    for name in (FRAMES_FILE, EPISODES_FILE, TASKS_FILE):
        if name not in files:
            raise IntegrityError(f"the manifest does not name {name}", kind=ErrorKind.PAYLOAD_MISSING)
    return CanonicalDataset(manifest, files)


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, its paths checked, its files not.

    Raises:
        InvalidInputError: Not JSON, another schema, or a path that leads outside.
    """
    payload = path.read_bytes()
    try:
        document = json.loads(payload)
    except ValueError as error:
        raise InvalidInputError(f"{MANIFEST_FILE} is not JSON: {error}") from error
    found = document.get("schemaVersion") if isinstance(document, dict) else None
    if found != SCHEMA_VERSION:
        raise InvalidInputError(f"schemaVersion is {shown(found)}, expected {SCHEMA_VERSION!r}")
    for entry in document.get("files", []):
        parts = PurePosixPath(entry["path"])
        if parts.is_absolute() or ".." in parts.parts:
            raise InvalidInputError(
                f"{MANIFEST_FILE} names {shown(entry['path'])}, outside of the dataset",
                kind=ErrorKind.PATH_TRAVERSAL,
            )
    return Manifest(document=document, sha256=hashlib.sha256(payload).hexdigest())
