"""LeRobot datasets 2.0, 2.1 and 3.0: counted from their tables and videos, compared with what they declare.

Public datasets of this kind are wrong in many ways at once (cameras declared and absent, templates that do
not resolve, counts that do not match, stamps that do not start at zero, double index columns): each has its
warning.
"""

import re
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.formats.detect import Entry, Format, Source, signature
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.lerobot_checks import (
    FRAME_TOLERANCE,
    MAX_NAMED,
    check_clips,
    check_episodes,
    check_rate,
    check_tasks,
    check_widths,
)
from emboflow_dagster.formats.lerobot_folder import all_roots, outermost, own, roots
from emboflow_dagster.formats.lerobot_info import INFO, VERSIONS, Info, read_info
from emboflow_dagster.formats.lerobot_meta import Listed
from emboflow_dagster.formats.lerobot_tables import (
    INDEX_COLUMNS,
    REQUIRED,
    Tables,
    fits,
    number_in,
    read_tables,
)
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.video_file import SIGNATURES, SUFFIXES, VideoFacts, measure_video

MAX_LENGTHS = 500
#: Where LeRobot 1.x says what it is.
OLD_INFO: Final = "meta_data/info.json"
_SHOWN: Final = ("episodes", "frames", "fps", "features", "robotType", "hasActions", "cameras")
#: Frames over all videos that are decoded to compare them with the rows.
MAX_DECODED = 50_000
STAMP_TOLERANCE = 1e-4
_NUMBER = re.compile(r"\d+")


def matches(source: Source) -> Candidate | None:
    """A folder with ``meta/info.json``, or with folders that have it; what it says decides the version."""
    if not source.is_folder:
        return None
    found = roots(source)
    versions: dict[str, int] = {}
    for root in found:
        info = read_info(_place(source, root) / INFO)
        if info is not None and info.version is not None:
            versions[info.version] = versions.get(info.version, 0) + 1
    if versions:
        version = max(versions, key=lambda name: versions[name])
        where = INFO if found == [""] else f"{found[0]}/{INFO}"
        evidence = f"{where} says codebase_version {version}"
        several = () if len(found) == 1 else (f"{len(found)} datasets in folders",)
        return Candidate(VERSIONS[version], 0.95 if found == [""] else 0.9, (evidence, *several))
    if found:
        return Candidate("unknown", 0.85, (f"{INFO} without a known codebase_version",))
    if any(entry.path == OLD_INFO for entry in source.entries):
        return Candidate("unknown", 0.85, (f"{OLD_INFO} of LeRobot 1.x",))
    return None


def probe(source: Source, report: Probe) -> None:
    """Count, compare, and name every disagreement; of several datasets each by itself."""
    every = all_roots(source)
    found = outermost(every)
    if not found:
        text = "LeRobot 1.x keeps its rows as Arrow; lerobot's own converter makes 2.0 of it"
        report.warn("unrecognised_schema", text, OLD_INFO)
        return
    if len(found) == 1:
        _probe(own(source, found[0], every), report)
        if found[0]:
            report.structure["root"] = found[0]
        inner = [root for root in every if root not in found]
        if inner:
            text = f"{len(inner)} more datasets stand inside of it and are not read: {', '.join(inner[:5])}"
            report.warn("multiple_recordings", text)
        return
    text = f"{len(found)} datasets: {', '.join(found[:5])}"
    report.warn("multiple_recordings", text)
    parts: dict[str, Any] = {}
    for root in found:
        part = Probe()
        _probe(own(source, root, every), part)
        parts[root] = {name: part.structure[name] for name in _SHOWN} | {
            "format": VERSIONS.get((read_info(source.path / root / INFO) or Info(None, {})).version or "")
        }
        for warning in part.warnings:
            report.warn(warning.code, warning.message, f"{root}/{warning.path or ''}".rstrip("/"))
        report.recommend(*part.recommended_next_nodes)
    agreed = {str(part["fps"]) for part in parts.values()}
    robots = {str(part["robotType"]) for part in parts.values()}
    first = parts[found[0]]
    report.structure.update(
        {
            "datasets": parts,
            "episodes": sum(part["episodes"] for part in parts.values()),
            "frames": sum(part["frames"] for part in parts.values()),
            "fps": first["fps"] if len(agreed) == 1 else None,
            "robotType": first["robotType"] if len(robots) == 1 else None,
            "features": first["features"],
            "hasActions": all(part["hasActions"] for part in parts.values()),
            "cameras": sorted({camera for part in parts.values() for camera in part["cameras"]}),
        }
    )


def _place(source: Source, root: str) -> Path:
    return source.path / root if root else source.path


def _probe(source: Source, report: Probe) -> None:
    info = read_info(source.path / INFO) or Info(None, {})
    data = _data(source)
    files = ((entry.path, source.file(entry)) for entry in data)
    tables = read_tables(files, fps=info.fps, one_episode=info.version != "v3.0")
    for name, error in tables.unreadable:
        report.warn("unreadable", f"not readable as parquet: {error}", name)
    if info.version is None:
        found = sorted(str(name) for name in info.document)[:20]
        said = f"unknown codebase_version {info.said_version}" if info.said_version else "no codebase_version"
        report.warn("unrecognised_schema", f"{said}; it has {', '.join(found)}", INFO)
    if not isinstance(info.document.get("features"), dict):
        report.warn("unrecognised_schema", "features are not declared", INFO)
    if not data:
        report.warn("missing_data", "no parquet file below data/", "data")
    _check_meta(source, info, report)
    listed = check_episodes(source, info, tables, report)
    _check_columns(info, tables, report)
    check_widths(info, tables, report)
    _check_counts(source, info, tables, report)
    check_tasks(source, info, tables, report)
    watched: dict[str, VideoFacts] = {}
    videos = _check_videos(source, info, tables, listed, report, watched)
    check_rate(info, tables, report, watched)
    if info.version in ("v2.0", "v2.1"):
        _check_templates(source, info, tables, report)
    lengths = {str(index): tables.lengths[index] for index in sorted(tables.lengths)[:MAX_LENGTHS]}
    state, action = info.features.get("observation.state"), info.features.get("action")
    report.structure.update(
        {
            "episodes": len(tables.lengths),
            "frames": tables.rows,
            "episodeLengths": lengths,
            "fps": info.fps,
            "features": info.features,
            "columns": tables.columns,
            "declared": info.declared(),
            "videos": videos,
            "videoFiles": {path: _video_entry(facts) for path, facts in list(watched.items())[:MAX_LENGTHS]},
            "meta": _meta_files(source),
            "robotType": info.document.get("robot_type"),
            "hasActions": "action" in tables.columns,
            "stateDim": _width(state),
            "actionDim": _width(action),
            "cameras": [n for n, f in info.features.items() if f["dtype"] in ("video", "image")],
        }
    )
    report.recommend("quality-report", "preview")


def _width(feature: "dict[str, object] | None") -> int | None:
    shape = feature.get("shape") if feature else None
    return shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else None


def _video_entry(facts: VideoFacts) -> dict[str, object]:
    return {
        "codec": facts.codec,
        "width": facts.width,
        "height": facts.height,
        "fps": facts.fps,
        "frames": facts.frames,
    }


def _meta_files(source: Source) -> dict[str, Any]:
    """Which files and folders stand directly below ``meta``, and the lines of each ``.jsonl`` there."""
    has: dict[str, bool] = {}
    lines: dict[str, int] = {}
    for entry in source.entries:
        folder, _, name = entry.path.partition("/")
        if folder != "meta" or len(has) >= MAX_NAMED:
            continue
        has[name.partition("/")[0]] = True
        if entry.suffix == ".jsonl" and "/" not in name:
            with source.file(entry).open("rb") as stream:
                lines[name] = sum(bool(line.strip()) for line in stream)
    return {"has": has, "lines": lines}


def _data(source: Source) -> list[Entry]:
    found = [entry for entry in source.with_suffix(".parquet") if entry.path.startswith("data/")]
    return sorted(found, key=lambda entry: natural_key(entry.path))


def _check_meta(source: Source, info: Info, report: Probe) -> None:
    names = {entry.path for entry in source.entries}
    if info.version == "v3.0":
        if not any(name.startswith("meta/episodes/") and name.endswith(".parquet") for name in names):
            report.warn("missing_episode_meta", "no parquet file below meta/episodes", "meta/episodes")
        stats = "meta/stats.json"
    else:
        if "meta/episodes.jsonl" not in names:
            report.warn("missing_episode_meta", "no meta/episodes.jsonl", "meta/episodes.jsonl")
        stats = "meta/episodes_stats.jsonl" if info.version == "v2.1" else "meta/stats.json"
    if stats not in names:
        report.warn("missing_stats", f"no {stats}", stats)


def _check_columns(info: Info, tables: Tables, report: Probe) -> None:
    if not tables.columns:
        return
    for name in REQUIRED:
        if name not in tables.columns:
            report.warn("missing_column", "no such column in the data", name)
    for name, column in tables.types.items():
        declared = "int64" if name in INDEX_COLUMNS else info.features.get(name, {}).get("dtype")
        if not fits(declared, column):
            report.warn("dtype_mismatch", f"expected {declared}, the data has {column}", name)
    for name in sorted(tables.mixed):
        report.warn("dtype_mismatch", "the files have different types for it", name)
    for name, feature in info.features.items():
        if feature["dtype"] != "video" and name not in tables.columns:
            report.warn("declared_feature_without_data", "declared, and no such column in the data", name)
    late = [index for index, stamp in sorted(tables.first_stamp.items()) if abs(stamp) > STAMP_TOLERANCE]
    if late:
        text = (
            f"{len(late)} episodes do not start at 0 s; the first starts at {tables.first_stamp[late[0]]:g} s"
        )
        report.warn("timestamps_not_from_zero", text, f"episode {late[0]}")
    for index in sorted(tables.not_increasing)[:MAX_NAMED]:
        report.warn("time_not_monotonic", "stamps do not strictly increase", f"episode {index}")


def _check_counts(source: Source, info: Info, tables: Tables, report: Probe) -> None:
    if not tables.columns:
        return
    counted = {"total_episodes": len(tables.lengths), "total_frames": tables.rows}
    tasks = next(iter(source.named("tasks.jsonl")), None)
    if tasks is not None and tasks.path == "meta/tasks.jsonl":
        lines = source.file(tasks).read_bytes().splitlines()
        counted["total_tasks"] = sum(bool(line.strip()) for line in lines)
    for name, count in counted.items():
        declared = info.integer(name)
        if declared is not None and declared != count:
            report.warn("declared_count_mismatch", f"{name} says {declared}, counted {count}", INFO)
    splits = info.document.get("splits")
    for name, text in splits.items() if isinstance(splits, dict) else ():
        end = str(text).partition(":")[2]
        if end.isdecimal() and len(end) < 10 and int(end) > len(tables.lengths):  # noqa: PLR2004 - a count
            message = f"split {name} is {text}, the data has {len(tables.lengths)} episodes"
            report.warn("declared_count_mismatch", message, INFO)


def _check_templates(source: Source, info: Info, tables: Tables, report: Probe) -> None:
    template = info.template("data_path")
    names = {entry.path for entry in source.entries}
    if template is None or not tables.lengths:
        return
    absent = [i for i in sorted(tables.lengths) if info.resolve(template, i) not in names]
    if absent:
        found = info.resolve(template, absent[0])
        text = f"{template} gives {found} for episode {absent[0]}, which is not there; {len(absent)} such"
        report.warn("path_template_mismatch", text, INFO)


def _check_videos(
    source: Source,
    info: Info,
    tables: Tables,
    listed: Listed,
    report: Probe,
    files: dict[str, VideoFacts],
) -> dict[str, int]:
    """Which videos there are, and whether they have as many frames as the rows.

    Fills ``files`` with what was decoded. Returns files per camera.
    """
    videos = [e for e in source.with_suffix(*SUFFIXES) if signature(source.head_of(e)) in SIGNATURES]
    found = {name: [e for e in videos if f"/{name}/" in f"/{e.path}"] for name in info.videos}
    per_episode = info.version != "v3.0"
    rows: dict[str, int] = {}
    if not per_episode:
        names = {name: {_file_of(e, name): e.path for e in entries} for name, entries in found.items()}
        rows = check_clips(info, tables, listed, report, names)
    decoded = 0
    for name, entries in found.items():
        if not entries:
            report.warn("declared_feature_without_data", "declared as a video, and no file has it", name)
            continue
        if per_episode:
            of = {_episode_of(entry): entry for entry in entries}
            rows |= {of[index].path: length for index, length in tables.lengths.items() if index in of}
            if len(entries) < len(tables.lengths):
                text = f"{len(tables.lengths) - len(entries)} of {len(tables.lengths)} episodes have no video"
                report.warn("missing_videos", text, name)
            if tables.lengths and (alone := [e for i, e in sorted(of.items()) if i not in tables.lengths]):
                text = f"{len(alone)} videos are of episodes that have no rows; the first is {alone[0].path}"
                report.warn("missing_data", text, name)
        for entry in entries:
            facts = _decoded(source, entry, report, files) if decoded < MAX_DECODED else None
            if facts is None:
                continue
            decoded += facts.frames
            shown = rows.get(entry.path)
            if shown is not None and abs(shown - facts.frames) > FRAME_TOLERANCE and facts.complete:
                text = f"{facts.frames} frames for {shown} rows"
                report.warn("declared_frames_mismatch", text, entry.path)
    listed_files = {entry.path for entries in found.values() for entry in entries}
    for entry in videos:  # declared or not: what is there is looked at
        if entry.path not in listed_files and decoded < MAX_DECODED:
            facts = _decoded(source, entry, report, files)
            decoded += facts.frames if facts else 0
    declared = info.integer("total_videos")
    total = sum(map(len, found.values()))
    if declared is not None and declared != total and "missing_videos" not in report.codes and info.videos:
        report.warn("declared_count_mismatch", f"total_videos says {declared}, counted {total}", INFO)
    report.raw["decodedVideoFrames"] = report.raw.get("decodedVideoFrames", 0) + decoded
    return {name: len(entries) for name, entries in found.items()}


def _file_of(entry: Entry, feature: str) -> tuple[int, int]:
    """Chunk and number of a long file, -1 where its path has none."""
    inside = entry.path.replace(f"{feature}/", "", 1).rpartition(".")[0]
    numbers = [int(n) for n in _NUMBER.findall(inside) if len(n) < 16]  # noqa: PLR2004 - no hash
    return (numbers[-2], numbers[-1]) if len(numbers) > 1 else (-1, -1)


def _decoded(source: Source, entry: Entry, report: Probe, files: dict[str, VideoFacts]) -> VideoFacts | None:
    try:
        facts = measure_video(source.file(entry), max_frames=MAX_DECODED)
    except ValueError as error:
        report.warn("corrupt_video", f"not readable: {error}", entry.path)
        return None
    files[entry.path] = facts
    if facts.errors:
        report.warn("corrupt_video", f"{facts.errors} errors while decoding", entry.path)
    if facts.freezes:
        count = sum(length for _, length in facts.freezes)
        text = f"{count} of {facts.frames} frames repeat the one before them"
        report.warn("video_freeze", text, entry.path)
    return facts


def _episode_of(entry: Entry) -> int:
    found = number_in(entry.name)
    return -1 if found is None else found


FORMAT = Format(names=tuple(VERSIONS.values()), matches=matches, probe=probe)
