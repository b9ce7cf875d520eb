"""Folders that are no known dataset, and folders of numpy arrays.

Every folder gets its true counts; a folder of ``.npy``/``.npz`` files gets the arrays' shapes from their
headers.
"""

from typing import Any

from emboflow_dagster.formats.archives.members import extension
from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.npy_header import NPY_MAGIC, Array
from emboflow_dagster.formats.report import Candidate, Probe

MAX_EXTENSIONS = 100
MAX_LOOKED_AT = 20_000


def folder_summary(source: Source) -> dict[str, Any]:
    """``files``, ``bytes`` and ``extensions`` of a folder.

    Extensions are lower case without the dot; a file without one counts under its own name. Beyond 100
    different ones the rest counts under ``""``.
    """
    counts: dict[str, int] = {}
    for entry in source.entries:
        ext = extension(entry.path)
        if ext not in counts and len(counts) >= MAX_EXTENSIONS:
            ext = ""
        counts[ext] = counts.get(ext, 0) + 1
    return {"files": len(source.entries), "bytes": source.size, "extensions": counts}


def matches(source: Source) -> Candidate | None:
    """Any folder; sure only where most of it is numpy arrays."""
    if not source.is_folder:
        return None
    arrays = _arrays(source)
    if arrays and 2 * len(arrays) >= len(source.entries):
        return Candidate("npy_folder", 0.6, (f"{len(arrays)} numpy arrays",))
    # Just above what an unknown input gets, so that a plain folder is counted; any real format is surer.
    return Candidate("unknown", 0.51, (f"a folder of {len(source.entries)} files",))


def probe(source: Source, report: Probe) -> None:
    """Count what is there and read the array headers."""
    report.structure.update(folder_summary(source))
    if not source.complete:
        report.warn("listing_truncated", "the folder has more files or levels than were listed")
    if not source.entries:
        report.warn("empty_folder", "the folder has no files")
    arrays = _arrays(source)
    if not arrays:
        if source.entries and not any(source.lfs_pointers()):
            report.warn("unknown_format", "no known dataset or recording in the folder")
        return
    report.recommend("preview")
    from emboflow_dagster.formats.npy_file import arrays_of, describe

    found: list[tuple[str, Array]] = []
    for entry in arrays:
        if len(found) >= MAX_LOOKED_AT:
            report.warn("listing_truncated", f"{len(arrays)} files of arrays; {MAX_LOOKED_AT} were looked at")
            break
        found += arrays_of(source.file(entry), entry.path, report)
    describe(found, report)


def _arrays(source: Source) -> list[Entry]:
    return [
        entry
        for entry in source.with_suffix(".npy", ".npz")
        if source.head_of(entry)[:6] == NPY_MAGIC or source.head_of(entry)[:2] == b"PK"
    ]


FORMAT = Format(names=("npy_folder", "unknown"), matches=matches, probe=probe)
