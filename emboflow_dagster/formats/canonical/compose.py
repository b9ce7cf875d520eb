"""A version becomes the documented folder again: one table of all frames, one of all episodes, the videos."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.blobs.pages import files_of
from emboflow_dagster.formats.canonical import tables
from emboflow_dagster.formats.canonical.episode_files import TASK_PLACE, read_table, row_of
from emboflow_dagster.formats.canonical.schema import (
    EPISODES_FILE,
    FRAMES_FILE,
    INDEX_COLUMNS,
    MANIFEST_FILE,
    RAW_INDEX_FILE,
    TASKS_FILE,
    FeatureSpec,
)
from emboflow_dagster.formats.canonical.writer import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa

#: The version's own manifest, byte for byte; the folder's has the files of the folder.
VERSION_MANIFEST = "version/manifest.json"

Fetch = Callable[[Mapping[str, Any], Path], Path]
"""Brings the payload of ``{"sha256", "size"}`` to a path."""


def compose(
    version: bytes, episodes: Iterable[dict[str, Any]], fetch: Fetch, out: Path, *, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Write the folder of a version; memory holds one episode and one row group.

    Args:
        version: The version's manifest.
        episodes: The line of every episode, in order.
        fetch: Brings payloads.
        out: The folder; nothing of a canonical dataset is in it.
        extra: Files that are in it when the last episode is read, and belong to it (the pages).

    Returns:
        The folder's manifest, which is written last: a folder that has one is complete.
    """
    manifest = json.loads(version)
    run = _Run(manifest, fetch, out)
    try:
        for entry in episodes:
            run.add(entry)
    finally:
        run.close()
    here: list[tuple[str, int | None]] = [(name, None) for name in dict.fromkeys((*extra, VERSION_MANIFEST))]
    for file in manifest["files"]:
        if not file["path"].startswith("version/"):
            fetch(file, out / file["path"])
            here.append((file["path"], file.get("rows")))
    (out / VERSION_MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (out / VERSION_MANIFEST).write_bytes(version)
    files = [*run.files, *(_file(out, name, rows) for name, rows in here)]
    document = {
        **{key: value for key, value in manifest.items() if key != "columns"},
        "files": sorted(files, key=lambda file: file["path"]),
        "version": {"path": VERSION_MANIFEST, "sha256": hashlib.sha256(version).hexdigest()},
    }
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    (out / MANIFEST_FILE).write_bytes(text.encode())
    return document


class _Run:
    """The open tables of one folder."""

    def __init__(self, manifest: Mapping[str, Any], fetch: Fetch, out: Path) -> None:
        self.out = out
        self.files: list[dict[str, Any]] = []
        self._fps = float(manifest["fps"])
        self._columns: list[str] = manifest["columns"]
        self._specs = dict.fromkeys(self._columns, FeatureSpec(()))
        self._fetch = fetch
        self._tasks: dict[str, int] = {}
        self._open: dict[str, tables.TableFile] = {}
        self._count = self._frames = 0
        out.mkdir(parents=True, exist_ok=True)

    def add(self, entry: dict[str, Any]) -> None:
        """Append one episode at the next place."""
        for kind, file in files_of(entry):
            if kind == "frames":
                self._add_frames(entry, self._read(file))
            elif kind == "raw":
                self._add_raw(self._read(file))
            else:
                path = f"{kind}/episode_{self._count:06d}.mp4"
                self._fetch(file, self.out / path)
                self.files.append({"path": path, **file})
        import pyarrow as pa

        schema = tables.episodes_schema(self._specs)
        row = row_of(entry, self._count, self._frames)
        self._table(EPISODES_FILE, schema).add(pa.Table.from_pylist([row], schema=schema))
        self._count += 1
        self._frames += entry["length"]

    def close(self) -> None:
        """Finish the tables; the tasks are known only now."""
        import pyarrow as pa

        if self._count:
            schema = tables.tasks_schema()
            rows = pa.table([list(self._tasks.values()), list(self._tasks)], schema=schema)
            self._table(TASKS_FILE, schema).add(rows)
        for name, table in self._open.items():
            table.close()
            self.files.append(_file(self.out, name, table.rows))

    def _read(self, file: Mapping[str, Any]) -> "pa.Table":
        path = self._fetch(file, self.out / f".{file['sha256']}")
        try:
            return read_table(path)
        finally:
            path.unlink()

    def _add_frames(self, entry: Mapping[str, Any], rows: "pa.Table") -> None:
        import numpy as np
        import pyarrow as pa

        n = rows.num_rows
        number = np.arange(n, dtype=np.int64)
        tasks = np.array([self._tasks.setdefault(task, len(self._tasks)) for task in entry["tasks"]])
        places = (
            np.asarray(rows.column(TASK_PLACE).combine_chunks())
            if TASK_PLACE in rows.column_names
            else np.zeros(n, np.int64)
        )
        placed = {
            "episode_index": np.full(n, self._count, dtype=np.int64),
            "frame_index": number,
            "index": number + self._frames,
            "timestamp": number / self._fps,
            "task_index": tasks[places].astype(np.int64),
        }
        before = [name for name in INDEX_COLUMNS if name != "valid"]
        order = [*before, *self._columns, "valid"]
        schema = pa.schema(
            [
                *(tables.frames_schema({}).field(name) for name in before),
                *(rows.schema.field(name) for name in self._columns),
                tables.frames_schema({}).field("valid"),
            ]
        )
        columns = [pa.array(placed[name]) if name in placed else rows.column(name) for name in order]
        self._table(FRAMES_FILE, schema).add(pa.table(columns, schema=schema))

    def _add_raw(self, rows: "pa.Table") -> None:
        import numpy as np
        import pyarrow as pa

        schema = tables.raw_index_schema()
        number = pa.array(np.full(rows.num_rows, self._count, dtype=np.int64))
        columns = [number if name == "episode_index" else rows.column(name) for name in schema.names]
        self._table(RAW_INDEX_FILE, schema).add(pa.table(columns, schema=schema))

    def _table(self, name: str, schema: "pa.Schema") -> tables.TableFile:
        if name not in self._open:
            self._open[name] = tables.TableFile(self.out / name, schema)
        return self._open[name]


def _file(out: Path, name: str, rows: int | None) -> dict[str, Any]:
    path = out / name
    return {"path": name, "sha256": file_sha256(path), "size": path.stat().st_size, "rows": rows}
