"""Which files of a folder are one recording: a recorder may split one, and a folder may hold many.

Files that a ``metadata.yaml`` lists are one. Of others, those are one whose names differ in a number that
counts up (``run_0.mcap run_1.mcap``, ``run_2024-05-01-10-00-00_0.bag ...``) and that follow one another
without a pause. Every other file is a recording of its own.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.detect import recording_of
from emboflow_dagster.formats.path_pattern import PathPattern
from emboflow_dagster.formats.recording import Facts, Part
from emboflow_dagster.formats.topics import TopicTable

Division = Literal["recording", "file", "one", "name"]

#: The next file of a split recording begins at most so long after the one before it ...
MAX_PAUSE_NS: Final = 1_000_000_000
#: ... or after as many of the densest topic's own longest pauses, but never after so long.
USUAL_PAUSES: Final = 2
LONGEST_PAUSE_NS: Final = 60_000_000_000
#: Messages are written as they come: the last of a file may be a little later than the first of the next one.
MAX_OVERLAP_NS: Final = 100_000_000
#: Pairs of recordings that are named.
MAX_OVERLAPS: Final = 20

_SUFFIXES: Final = (".active", ".zstd", ".zst", ".bag", ".db3", ".mcap")
_COUNTED: Final = re.compile(r"(.*)[_-](\d{1,5})\Z", re.DOTALL)
_DATE: Final = re.compile(r"[_-]?\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\Z")
#: What people call episodes: such a number counts those, not the pieces of one.
_EPISODE: Final = re.compile(
    r"(?:^|[^a-z])(?:episode|ep|demo|demonstration|traj|trajectory|trial|rollout|attempt)\Z", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Recording:
    """Files that were recorded as one, in their order.

    Attributes:
        name: The folder of its ``metadata.yaml`` (``.`` for the asset's own), else its files' names.
        parts: The files.
    """

    name: str
    parts: tuple[Part, ...]


class Times(NamedTuple):
    """First and last stamp of a file (ns, ``None`` without a message), its densest topic's longest pause."""

    start_ns: int | None
    end_ns: int | None
    pause_ns: int

    @classmethod
    def of(cls, table: TopicTable) -> "Times":
        """Of what was counted in a file."""
        pauses = [topic.max_gap_ns for topic in table.topics.values() if topic.count > 1]
        return cls(table.start_ns, table.end_ns, min(pauses, default=0))


def recordings_in(path: Path, by: Division = "recording", pattern: str | None = None) -> list[Recording]:
    """The recordings of a bag, MCAP or folder, in the natural order of their names.

    Args:
        path: The asset.
        by: ``recording`` finds them as this module says, ``file`` takes every file, ``one`` all files
            together, ``name`` those as one whose names have the same ``{episode}`` in `pattern`.
        pattern: Of the names.

    Raises:
        InvalidInputError: No file fits the pattern.
        OSError: A file cannot be read.
    """
    parts, described = recording_of(path)
    if by == "file":
        return [Recording(part[1], (part,)) for part in parts]
    if by == "one" or len(parts) < 2:  # noqa: PLR2004 - nothing to divide
        return [Recording(".", tuple(parts))] if parts else []
    if by == "name":
        return _by_name(parts, PathPattern(pattern or ""))
    return divided(parts, described, _measured)


def divided(
    parts: Sequence[Part], described: Mapping[str, str], times: Callable[[Part], Times]
) -> list[Recording]:
    """Parts of a folder as the recordings that they are.

    Args:
        parts: In split order.
        described: Name of a part to the folder (with a slash, or empty) whose ``metadata.yaml`` lists it.
        times: Asked of files whose names count up.
    """
    units: dict[str, list[Part]] = {}
    order: list[list[Part]] = []
    for part in parts:
        folder = described.get(part[1])
        if folder is not None and folder in units:
            units[folder].append(part)
            continue
        before = order[-1] if order else None
        if folder is None and before and _follows(before[-1], part, times):
            before.append(part)
            continue
        order.append([part])
        if folder is not None:
            units[folder] = order[-1]
    return [Recording(_name(unit, described), tuple(unit)) for unit in order]


def _name(unit: Sequence[Part], described: Mapping[str, str]) -> str:
    folder = described.get(unit[0][1])
    if folder is not None:
        return folder.rstrip("/") or "."
    return ",".join(name for _, name, _ in unit)


def _by_name(parts: Sequence[Part], pattern: PathPattern) -> list[Recording]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        if (place := pattern.match(part[1])) is not None:
            found.setdefault(place.episode, []).append(part)
    if not found:
        text = f"no file fits {shown(pattern.text)}; there are {', '.join(name for _, name, _ in parts[:5])}"
        raise InvalidInputError(text, kind=ErrorKind.INPUT_MISSING)
    return [Recording(",".join(name for _, name, _ in unit), tuple(unit)) for unit in found.values()]


def _follows(before: Part, part: Part, times: Callable[[Part], Times]) -> bool:
    first, second = _counted(before[1]), _counted(part[1])
    if first is None or second is None or first[0] != second[0] or second[1] != first[1] + 1:
        return False
    return follows(times(before), times(part))


def follows(before: Times, after: Times) -> bool:
    """Whether a file may be the next piece of a split recording, by its time; one without messages may."""
    if before.end_ns is None or after.start_ns is None or before.start_ns is None:
        return True
    pause = after.start_ns - before.end_ns
    longest = max(MAX_PAUSE_NS, min(LONGEST_PAUSE_NS, USUAL_PAUSES * max(before.pause_ns, after.pause_ns)))
    return -MAX_OVERLAP_NS <= pause <= longest and after.start_ns >= before.start_ns


def _counted(path: str) -> tuple[str, int] | None:
    """What the names of a split recording have in common, and the number of this file.

    >>> _counted("a/x_2024-05-01-10-00-00_1.bag"), _counted("run_3.db3.zstd"), _counted("episode_3.mcap")
    (('a/x', 1), ('run', 3), None)
    """
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    folder, slash, name = path.rpartition("/")
    match = None if _DATE.search(name) else _COUNTED.match(name)
    if match is None or _EPISODE.search(match[1]):
        return None
    return f"{folder}{slash}{_DATE.sub('', match[1])}", int(match[2])


def _measured(part: Part) -> Times:
    table = TopicTable()
    path, _, reader = part
    for message in reader(path, Facts(), lambda _: False):
        table.topic(message.connection.topic, message.connection.type).seen(message.stamp_ns)
    return Times.of(table)


def overlaps(spans: Iterable[tuple[str, int | None, int | None]]) -> list[tuple[str, str, float]]:
    """Recordings that share a time, and for how many seconds: each with one that began before it.

    >>> overlaps([("a", 0, 5_000_000_000), ("b", 3_000_000_000, 9_000_000_000), ("c", None, None)])
    [('a', 'b', 2.0)]
    """
    timed = sorted((start, end, name) for name, start, end in spans if start is not None and end is not None)
    found: list[tuple[str, str, float]] = []
    last: tuple[int, str] | None = None
    for start, end, name in timed:
        if last is not None and start < last[0]:
            found.append((last[1], name, (min(end, last[0]) - start) / 1e9))
        if last is None or end > last[0]:
            last = (end, name)
    return found
