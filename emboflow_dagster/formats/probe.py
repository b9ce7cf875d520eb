"""Look into a file or folder: ranked formats, what it holds, what is wrong with it, what to do next.

Callers run this in a child process with memory and time limits: formats parse bytes that anybody may have
made.
"""

from pathlib import Path

from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.formats.detect import NAME_ONLY, Format, Source, formats, is_lfs_pointer, open_source
from emboflow_dagster.formats.report import Candidate, Probe

MAX_LFS_WARNINGS = 50

# Where an empty file is damage. Elsewhere it is ordinary (__init__.py, .gitkeep, a database's -wal).
RECORDING_SUFFIXES = (".active", ".bag", ".csv", ".db3", ".h5", ".hdf5", ".mcap", ".npy", ".npz", ".parquet")
PICTURE_SUFFIXES = (".avi", ".jpeg", ".jpg", ".mkv", ".mov", ".mp4", ".png", ".stl", ".urdf", ".webm")
MORE_PICTURES = (".bmp", ".exr", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
ARCHIVE_SUFFIXES = (".7z", ".gz", ".tar", ".tfrecord", ".zip")
DATA_SUFFIXES = frozenset((*RECORDING_SUFFIXES, *PICTURE_SUFFIXES, *MORE_PICTURES, *ARCHIVE_SUFFIXES))


def probe_path(path: Path, *, asset_type: str | None = None) -> Probe:
    """What the file or folder is and holds.

    Never raises for the content: garbage gives the candidate ``unknown`` and a warning, a parser that fails
    gives a warning and whatever it had found before.

    Args:
        path: A file, or a folder.
        asset_type: What the asset was registered as; shown in ``raw``, and never believed over the content.
    """
    probe = Probe()
    try:
        source = open_source(path, asset_type)
    except OSError as error:
        probe.suggest("unknown", 1.0, "the path cannot be read")
        probe.warn("unreadable", f"cannot be read: {error.strerror or error}")
        probe.recommend("filter")
        return probe
    probe.raw |= {
        "kind": "folder" if source.is_folder else "file",
        "size": source.size,
        "fileCount": len(source.entries) if source.is_folder else 1,
        "assetType": asset_type,
    }
    if not source.complete:
        text = f"the folder is larger or deeper than is listed; {len(source.entries)} files were looked at"
        probe.warn("listing_truncated", text)
    _warn_of_stand_ins(source, probe)
    best = _rank(source, probe)
    if best is None:
        _report_unknown(source, probe)
    else:
        _run(best, source, probe)
        _warn_of_others(best, source, probe)
    if not probe.recommended_next_nodes:
        probe.recommend("filter" if probe.format == "unknown" else "quality-report")
    return probe


def format_of(path: Path) -> str:
    """The surest format by signature and names, without probing; ``unknown`` where none is."""
    try:
        found = _rank(open_source(path), ranked := Probe())
    except OSError:
        return "unknown"
    return "unknown" if found is None else ranked.format


def _warn_of_stand_ins(source: Source, probe: Probe) -> None:
    if not source.is_folder:
        if source.size == 0:
            probe.warn("empty_file", "the file has no bytes")
        elif is_lfs_pointer(source.head):
            text = "a Git LFS pointer stands for the file; fetch it with `git lfs pull` and register it again"
            probe.warn("git_lfs_pointer", text)
        return
    pointers = list(source.lfs_pointers())
    for name in pointers[:MAX_LFS_WARNINGS]:
        probe.warn(
            "git_lfs_pointer", "a Git LFS pointer, not the file itself; `git lfs pull` fetches it", name
        )
    if len(pointers) > MAX_LFS_WARNINGS:
        probe.warn("git_lfs_pointer", f"{len(pointers) - MAX_LFS_WARNINGS} more Git LFS pointers")
    probe.raw["lfsPointers"] = len(pointers)
    for entry in source.entries:
        if entry.size == 0 and entry.suffix in DATA_SUFFIXES:
            probe.warn("empty_file", "the file has no bytes", entry.path)


def _rank(source: Source, probe: Probe) -> Format | None:
    """Add every format's candidate; the surest format, if it is surer than ``unknown``."""
    best: tuple[Format, Candidate] | None = None
    for entry in formats():
        try:
            candidate = entry.matches(source)
        except Exception as error:  # noqa: BLE001 - a detector's failure must not hide the other formats
            probe.warn("parser_failed", f"looking for {'/'.join(entry.names)}: {_cause(error)}")
            continue
        if candidate is None:
            continue
        probe.suggest(candidate.format, candidate.confidence, *candidate.evidence)
        if candidate.confidence > (best[1].confidence if best else NAME_ONLY):
            best = (entry, candidate)
    return best[0] if best else None


def _run(entry: Format, source: Source, probe: Probe) -> None:
    try:
        entry.probe(source, probe)
    except MemoryError:
        raise  # the child's limit: its parent says so better than a half report
    except OSError as error:
        probe.warn("unreadable", f"reading stopped: {_cause(error)}")
    except EmboflowError as error:
        codes = {ErrorKind.FILE_TRUNCATED: "truncated", ErrorKind.EXTRA_MISSING: "extra_missing"}
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        probe.warn(codes.get(error.kind, "unreadable"), text)
    except Exception as error:  # noqa: BLE001 - bytes that nobody foresaw end as a report, never as a traceback
        code = "truncated" if isinstance(error, EOFError) else "unreadable"
        probe.warn(code, f"the {probe.format} parser failed: {_cause(error)}")


def _warn_of_others(best: Format, source: Source, probe: Probe) -> None:
    """A folder of recordings is read as one container: say which files of another stand beside."""
    if not source.is_folder or best.parts is None:
        return
    for other in formats():
        candidate = None if other is best or other.parts is None else other.matches(source)
        if candidate is None or other.parts is None or candidate.confidence <= NAME_ONLY:
            continue
        read = {name for _, name, _ in best.parts(source)}
        names = [name for _, name, _ in other.parts(source) if name not in read]
        if names:
            text = f"{len(names)} recordings of {candidate.format} are left out ({', '.join(names[:3])}"
            text += f"{', ...' if len(names) > 3 else ''}); `asset register --each` takes each by itself"  # noqa: PLR2004
            probe.warn("mixed_containers", text)


def _report_unknown(source: Source, probe: Probe) -> None:
    if source.is_folder:
        evidence = f"none of {len(source.entries)} files has a known signature or layout"
    else:
        evidence = "empty" if source.size == 0 else f"starts with {source.head[:8].hex(' ')}"
    probe.suggest("unknown", NAME_ONLY, evidence)
    if source.is_folder and not source.entries:
        probe.warn("empty_folder", "the folder holds no file")
    elif not probe.codes & {"empty_file", "git_lfs_pointer"}:
        probe.warn("unknown_format", f"no known format: {evidence}")
    if source.is_folder:
        extensions: dict[str, int] = {}
        for entry in source.entries:
            extensions[entry.suffix] = extensions.get(entry.suffix, 0) + 1
        top = dict(sorted(extensions.items(), key=lambda item: (-item[1], item[0]))[:100])
        probe.structure |= {"files": len(source.entries), "bytes": source.size, "extensions": top}
    else:
        probe.structure |= {"bytes": source.size}


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
