"""Look inside an archive: unpacked into a folder of its own in bounded size, and probed there as a folder is.

Only members without a fault are written (:func:`~emboflow_dagster.formats.archives.members.faults`), as
plain files, by their own names below the folder; neither library's extraction is called. An archive in the
archive is looked into once more, one in that is only listed.
"""

import stat
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.archives.members import Listing, faults
from emboflow_dagster.formats.archives.walk import members
from emboflow_dagster.formats.detect import read_head, signature
from emboflow_dagster.formats.report import Probe

MAX_BYTES = 512 * 1024 * 1024
MAX_FILES = 5_000
MAX_DEPTH = 2
MAX_NESTED = 20
MAX_STRUCTURE = 100
MAX_RECORDINGS = 50
#: Without zstd: the files of a recording are packed with it, one by one.
ARCHIVES = frozenset({"zip", "gzip", "bzip2", "xz", "7z", "tar"})
PIECE = 256 * 1024
#: Faults that say nothing about where a member is written.
_HARMLESS = frozenset({"archive_nested", "archive_path_backslash", "archive_mode"})
_ORDINARY = frozenset({"unknown_format", "empty_folder", "listing_truncated"})
_depth: ContextVar[int] = ContextVar("archives around this one", default=0)


def look_inside(path: Path, kind: str, listing: Listing, report: Probe) -> dict[str, Any] | None:
    """What the archive's content is, as a probe of the unpacked folder says.

    Warnings of the content are added to ``report`` with ``inside`` before them.

    Args:
        path: The archive.
        kind: As :func:`~emboflow_dagster.formats.archive.list_archive` names it.
        listing: Its listing.
        report: Of the archive.

    Returns:
        ``format``, ``structure``, ``files`` (that were looked at), ``leftOut`` (members that were not
        written) and ``recordings`` (each of ``name``, ``assetType`` and ``format``); ``skipped`` with the
        reason where it was not opened; ``None`` below two archives.
    """
    depth = _depth.get()
    if depth >= MAX_DEPTH:
        return None
    if listing.size > MAX_BYTES or listing.members > MAX_FILES:
        return {"skipped": f"more than {MAX_BYTES >> 20} MiB or {MAX_FILES} files"}
    if not listing.complete or any(code == "archive_bomb" for code, _, _ in listing.problems):
        return {"skipped": "damaged or not to be trusted"}
    from emboflow_dagster.formats.probe import probe_path

    token = _depth.set(depth + 1)
    try:
        with tempfile.TemporaryDirectory(prefix="emboflow-inside-") as name:
            folder = Path(name)
            written, left_out = _unpack(path, kind, folder)
            only = next(iter(folder.iterdir()), None) if written == 1 else None
            inside = probe_path(only if only is not None and only.is_file() else folder)
            deeper = _only_folder(folder)
            if inside.format == "unknown" and deeper != folder:
                inside = probe_path(deeper)
            recordings = _recordings(folder)
            within = _nested(folder) if depth + 1 < MAX_DEPTH and "inside" not in inside.structure else {}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the listing stands, whatever a member's bytes are
        return {"skipped": f"unpacking stopped: {type(error).__name__}: {error}"[:300]}
    finally:
        _depth.reset(token)
    for warning in inside.warnings:
        if warning.code not in _ORDINARY:
            report.warn(warning.code, f"inside: {warning.message}", warning.path)
    structure = inside.to_json()["structureSummary"]
    return {
        "format": inside.format,
        "structure": {key: _cut(value) for key, value in structure.items()},
        "files": written,
        "leftOut": left_out,
        "recordings": recordings,
    } | ({"nested": within} if within else {})


def _only_folder(folder: Path) -> Path:
    """The folder around everything is passed over, as often as there is one."""
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _recordings(folder: Path) -> list[dict[str, str]]:
    """What would be an asset each, once it is unpacked."""
    from emboflow_dagster.errors import InvalidInputError
    from emboflow_dagster.formats.demo_recordings.find import find_recordings
    from emboflow_dagster.formats.probe import format_of

    try:
        found = find_recordings(folder)
    except InvalidInputError:
        return []
    return [
        {
            "name": "." if one.path == folder else one.name,
            "assetType": one.asset_type,
            "format": format_of(one.path),
        }
        for one in found[:MAX_RECORDINGS]
    ]


def _nested(folder: Path) -> dict[str, Any]:
    """The archives among other files: what each is, and what is in it."""
    from emboflow_dagster.formats.probe import probe_path

    found: dict[str, Any] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if len(found) >= MAX_NESTED:
            break
        if signature(read_head(file)) in ARCHIVES:
            probe = probe_path(file)
            inside = probe.structure.get("inside") or {}
            found[file.relative_to(folder).as_posix()] = {
                "format": probe.format,
                "members": probe.structure.get("members"),
                "uncompressedBytes": probe.structure.get("uncompressedBytes"),
                "inside": inside.get("format"),
            }
    return found


def _cut(value: Any) -> Any:
    """Long lists and mappings in part: the report is about the archive."""
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in list(value.items())[:MAX_STRUCTURE]}
    return value[:MAX_STRUCTURE] if isinstance(value, list) else value


def _unpack(path: Path, kind: str, folder: Path) -> tuple[int, int]:
    """Write the members that have no fault: how many were, how many were not."""
    written = left_out = 0
    budget = MAX_BYTES
    for member, content in members(path, kind):
        if member.is_folder:
            continue
        alone = kind in ("gzip", "bzip2", "xz", "zstd") and member.name == path.name
        name = f"{path.name}.unpacked" if alone else member.name
        parts = [part for part in name.split("/") if part not in ("", ".")]
        wrong = {code for code, _ in faults(member)} - _HARMLESS
        plain = stat.S_IFMT(member.mode) in (0, stat.S_IFREG)
        target = folder.joinpath(*parts)
        if wrong or not plain or content is None or not parts or target.exists() or written >= MAX_FILES:
            left_out += 1
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            left_out += 1
            continue
        with target.open("xb") as file:
            while piece := content.read(PIECE):
                budget -= len(piece)
                if budget < 0:
                    raise ValueError("it unpacks to more bytes than it announces")
                file.write(piece)
        written += 1
    return written, left_out
