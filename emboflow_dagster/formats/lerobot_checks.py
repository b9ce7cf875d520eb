"""What the metadata of a LeRobot dataset say of its episodes, tasks and rate, against its rows and videos."""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.detect import Source
from emboflow_dagster.formats.lerobot_info import INFO, Info
from emboflow_dagster.formats.lerobot_meta import (
    EPISODE_TABLES,
    EPISODES,
    TASKS,
    Listed,
    read_episodes,
    read_task_lines,
    read_task_table,
)
from emboflow_dagster.formats.lerobot_tables import Tables
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.formats.video_file import VideoFacts

MAX_NAMED = 20
FRAME_TOLERANCE = 2
#: Two rates that differ by less, as a share, are one.
RATE_TOLERANCE = 0.02


def check_episodes(source: Source, info: Info, tables: Tables, report: Probe) -> Listed:
    """Each episode that is listed has rows, and the other way; their lengths, and gaps in their numbers."""
    where = EPISODE_TABLES.rstrip("/") if info.version == "v3.0" else EPISODES
    try:
        listed = read_episodes(source, info)
    except InvalidInputError as error:
        report.warn("unreadable", error.message, where)
        listed = Listed()
    said, counted = listed.episodes, tables.lengths
    if said:
        _name(
            report,
            "missing_episode_meta",
            where,
            counted.keys() - said.keys(),
            "have rows and are not listed",
        )
        _name(report, "missing_data", where, said.keys() - counted.keys(), "are listed and have no rows")
    _name(report, "metadata_mismatch", where, listed.twice, "are listed more than once")
    wrong = [
        (i, m.length) for i, m in sorted(said.items()) if m.length not in (None, counted.get(i, m.length))
    ]
    if wrong:
        index, length = wrong[0]
        text = (
            f"{len(wrong)} lengths differ; episode {index} has {counted[index]} rows, {length} are declared"
        )
        report.warn("declared_frames_mismatch", text, where)
    if counted:
        span = max(counted) - min(counted) + 1
        if span > len(counted) or min(counted) > 0:
            text = f"{len(counted)} episodes are numbered {min(counted)} to {max(counted)}"
            report.warn("episode_index_gap", text, "data")
    _name(report, "interleaved_episodes", "data", tables.scattered, "have rows that are not together")
    if tables.unnumbered:
        report.warn("missing_data", f"{tables.unnumbered} rows have no episode_index", "episode_index")
    _check_first_rows(listed, tables, report, where)
    return listed


def _check_first_rows(listed: Listed, tables: Tables, report: Probe, where: str) -> None:
    before, wrong = 0, []
    for index in sorted(tables.lengths):
        meta = listed.episodes.get(index)
        if meta is not None and meta.first_row not in (None, before):
            wrong.append(index)
        before += tables.lengths[index]
    _name(report, "metadata_mismatch", where, wrong, "do not begin at the row that dataset_from_index says")


def check_tasks(source: Source, info: Info, tables: Tables, report: Probe) -> None:
    """The tasks that rows name are there, and the two files that may say them agree."""
    lines = read_task_lines(source.path)
    try:
        table = read_task_table(source.path)
    except InvalidInputError as error:
        report.warn("unreadable", error.message, TASKS[1])
        table = {}
    if lines and table and lines != table:
        report.warn("metadata_mismatch", f"{TASKS[0]} and {TASKS[1]} say different tasks", TASKS[0])
    known = (table or lines) if info.version == "v3.0" else (lines or table)
    if tables.columns and not known:
        report.warn("metadata_missing", "no task is known by its index", TASKS[info.version == "v3.0"])
    elif absent := sorted(tables.tasks - known.keys()):
        text = f"{len(absent)} tasks that rows name are not listed; the first is {absent[0]}"
        report.warn("metadata_mismatch", text, "task_index")


def check_rate(info: Info, tables: Tables, report: Probe, files: Mapping[str, VideoFacts]) -> None:
    """The declared rate, that of the stamps, and that of the videos are one."""
    if info.fps is None:
        report.warn("metadata_mismatch", "fps is no number above 0", INFO)
        return
    if tables.unit != "s":
        report.warn("timestamp_unit", f"stamps are in {tables.unit}, lerobot reads seconds", "timestamp")
    if tables.unreadable_stamps:
        report.warn("invalid_stamp", "stamps are no times, or not finite", "timestamp")
    off = {i: step for i, step in tables.steps_s.items() if step > 0 and not _same(1 / step, info.fps)}
    if off:
        index, step = min(off.items())
        text = f"{len(off)} episodes have another rate than {info.fps:g}; episode {index} has {1 / step:.4g}"
        report.warn("fps_mismatch", text, "timestamp")
    for path, facts in files.items():
        rate = float(Fraction(facts.fps)) if facts.fps else None
        if rate and facts.frames > 1 and not _same(rate, info.fps):
            report.warn("fps_mismatch", f"the video runs at {rate:.4g} fps, declared are {info.fps:g}", path)


def _same(rate: float, fps: float) -> bool:
    return abs(rate - fps) <= RATE_TOLERANCE * fps


def check_widths(info: Info, tables: Tables, report: Probe) -> None:
    """Lists hold as many numbers as their features' shapes say."""
    for name, count in tables.values.items():
        feature = info.features.get(name, {})
        shape = feature.get("shape")
        if feature.get("dtype") in ("image", "video", "string") or not isinstance(shape, list) or not shape:
            continue
        if not all(isinstance(size, int) and size > 0 for size in shape) or name in tables.mixed:
            continue
        if tables.rows and count != tables.rows * math.prod(shape):
            text = f"declared {shape}, the data has {count / tables.rows:.4g} numbers a row"
            report.warn("shape_mismatch", text, name)


def check_clips(
    info: Info,
    tables: Tables,
    listed: Listed,
    report: Probe,
    names: Mapping[str, Mapping[tuple[int, int], str]],
) -> dict[str, int]:
    """The parts of long videos (3.0) that are an episode's: as long as its rows, and nobody else's.

    Args:
        info: The dataset.
        tables: Its rows.
        listed: What is listed of its episodes.
        report: Gets the warnings.
        names: Feature to the chunk and number of each of its files, and the file's path.

    Returns:
        Rows by the path of the file that shows them.
    """
    rows: dict[str, int] = {}
    fps = info.fps
    for feature in info.videos:
        absent, long, spans = [], [], dict[tuple[int, int], list[tuple[float, float, int]]]()
        for index, length in tables.lengths.items():
            meta = listed.episodes.get(index)
            clip = meta.clips.get(feature) if meta else None
            path = names.get(feature, {}).get(clip[:2]) if clip else None
            if meta is None or clip is None or path is None:
                absent.append(index)
                continue
            rows[path] = rows.get(path, 0) + length
            if fps is None:
                continue
            end = meta.ends.get(feature)
            if end is not None and abs((end - clip[2]) * fps - length) > FRAME_TOLERANCE:
                long.append(index)
            spans.setdefault(clip[:2], []).append((clip[2], clip[2] + length / fps, index))
        if listed.episodes and names.get(feature):
            _name(report, "missing_videos", feature, absent, "have no part of a video")
        _name(
            report,
            "metadata_mismatch",
            feature,
            long,
            "have a part of a video of another length",
        )
        shared = [index for parts in spans.values() for index in _overlapping(parts, 0.5 / (fps or 1))]
        _name(
            report,
            "metadata_mismatch",
            feature,
            shared,
            "have a part of a video that others have too",
        )
    return rows


def _overlapping(parts: list[tuple[float, float, int]], tolerance: float) -> list[int]:
    found, last = [], -math.inf
    for start, end, index in sorted(parts):
        if start < last - tolerance:
            found.append(index)
        last = max(last, end)
    return found


def _name(report: Probe, code: str, where: str, episodes: Iterable[int], what: str) -> None:
    found = sorted(episodes)
    if found:
        first = ", ".join(str(index) for index in found[:5])
        report.warn(code, f"{len(found)} episodes {what}: {first}{', ...' if len(found) > 5 else ''}", where)  # noqa: PLR2004
