"""Folders that are no known dataset, and folders of numpy arrays.

Every folder gets its true counts; a folder of ``.npy``/``.npz`` files gets the arrays' shapes from their
headers, which are read without unpickling anything.
"""

import ast
import struct
from typing import Any

from emboflow_dagster.formats.archives.members import extension
from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.report import Candidate, Probe

MAX_EXTENSIONS = 100
MAX_ARRAYS = 500
NPY_MAGIC = b"\x93NUMPY"


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
    found: dict[str, Any] = {}
    for entry in arrays[:MAX_ARRAYS]:
        header = npy_header(source.head_of(entry)) if entry.suffix == ".npy" else {}
        if header is None:
            report.warn("corrupt", "not a readable numpy header", entry.path)
        elif header:
            found[entry.path] = header
            _check_size(entry, header, report)
    report.structure["arrays"] = found
    report.structure["arrayCount"] = len(arrays)


def npy_header(head: bytes) -> dict[str, Any] | None:
    """``shape`` and ``dtype`` from the first bytes of an ``.npy`` file, ``None`` for no such header.

    Source: numpy.lib.format, versions 1.0 to 3.0.
    """
    if len(head) < 12 or head[:6] != NPY_MAGIC:  # noqa: PLR2004 - magic, version, length
        return None
    wide = head[6] >= 2  # noqa: PLR2004 - version 2 widened the length field
    size = struct.unpack_from("<I" if wide else "<H", head, 8)[0]
    start = 12 if wide else 10
    try:
        header = ast.literal_eval(head[start : start + size].decode("latin-1").strip())
        shape = [int(length) for length in header["shape"]]
        return {"shape": shape, "dtype": str(header["descr"]), "dataOffset": start + size}
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return None


def _check_size(entry: Entry, header: dict[str, Any], report: Probe) -> None:
    item = "".join(char for char in header["dtype"][2:] if char.isdigit())
    offset = header.pop("dataOffset")
    if header["dtype"][:2] == "|O" or not item:
        report.warn("pickled_array", "object arrays are pickles: they are never opened", entry.path)
        return
    expected = int(item) * (4 if header["dtype"][1] == "U" else 1)
    for length in header["shape"]:
        expected *= length
    if entry.size < offset + expected:
        report.warn("truncated", f"{entry.size - offset} bytes of {expected} declared", entry.path)


def _arrays(source: Source) -> list[Entry]:
    return [
        entry
        for entry in source.with_suffix(".npy", ".npz")
        if source.head_of(entry)[:6] == NPY_MAGIC or source.head_of(entry)[:2] == b"PK"
    ]


FORMAT = Format(names=("npy_folder", "unknown"), matches=matches, probe=probe)
