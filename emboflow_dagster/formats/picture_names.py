"""Sequences of pictures by their names: what counts up in a folder is one camera's frames, in that order."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from emboflow_dagster.formats.detect import Entry
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.media_places import Division, divide, is_numbered_camera

_DIGITS: Final = re.compile(r"\d+")
#: Digits of a stamp or a hash, not of a name.
_LONG: Final = 8
_MAX_NUMBER: Final = 15
#: Numbers that a warning names.
MAX_NAMED: Final = 10


def sequences_of(pictures: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Sequences by name, each in natural order: a folder, or what differs in the names of those in it.

    ``front_001.png`` and ``wrist_001.png`` of one folder are two; names that share nothing are one.
    """
    folders: dict[str, list[Entry]] = {}
    for entry in sorted(pictures, key=lambda entry: natural_key(entry.path)):
        folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    found: dict[str, list[Entry]] = {}
    for folder, entries in folders.items():
        parts: dict[str, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(_name(entry), []).append(entry)
        if len(parts) == 1 or 2 * len(parts) > len(entries) or not all(parts):
            found[folder] = entries
            continue
        for name, some in parts.items():
            found[f"{folder}/{name}" if folder else name] = some
    return found


def _name(entry: Entry) -> str:
    """What is left of a name without its number; nothing where no word is left.

    >>> [
    ...     _name(Entry(n, 0))
    ...     for n in ("front_0001.png", "0001_cam2.png", "1305031102.175304.png", "a1_0001.png")
    ... ]
    ['front', 'cam2', '', 'a1']
    """
    stem = entry.name.rpartition(".")[0]
    runs = list(_DIGITS.finditer(stem))
    if not runs:
        return stem
    last = runs[-1]
    if len(runs) > 1 and is_numbered_camera(stem[runs[-2].end() : last.start()]):
        last = runs[-2]
    rest = "".join(
        piece for piece in _pieces(stem, [run for run in runs if run is last or len(run[0]) >= _LONG])
    )
    name = re.sub(r"[_\-. ]{2,}", "_", rest).strip("_-. ")
    return name if any(char.isalpha() for char in name) else ""


def _pieces(text: str, without: "Sequence[re.Match[str]]") -> list[str]:
    at, found = 0, list[str]()
    for run in without:
        found.append(text[at : run.start()])
        at = run.end()
    return [*found, text[at:]]


def numbers_of(entries: Sequence[Entry]) -> list[int]:
    """The number in each name, ascending; empty where names hold no distinct numbers."""
    found: list[int] = []
    for entry in entries:
        runs = _DIGITS.findall(entry.name.rpartition(".")[0])
        if not runs or len(runs[-1]) > _MAX_NUMBER:  # a hash, not a number
            return []
        found.append(int(runs[-1]))
    return sorted(found) if len(set(found)) == len(found) else []


def missing_numbers(entries: Sequence[Entry]) -> int:
    """How many numbers between first and last are not there; 0 where names hold no distinct numbers."""
    found = numbers_of(entries)
    if not found:
        return 0
    gap = found[-1] - found[0] + 1 - len(found)
    # Stamps as names leave gaps everywhere: those are no missing frames.
    return gap if gap <= len(found) else 0


def named_gaps(entries: Sequence[Entry]) -> str:
    """The numbers that are missing, in words: ``4, 7 to 9``."""
    found = numbers_of(entries)
    gaps = [(a + 1, b - 1) for a, b in pairwise(found) if b > a + 1]
    told = [str(a) if a == b else f"{a} to {b}" for a, b in gaps[:MAX_NAMED]]
    return ", ".join(told) + (", ..." if len(gaps) > MAX_NAMED else "")


def episodes_of(sequences: dict[str, list[Entry]], by: str = "name", pattern: str | None = None) -> Division:
    """Which sequence is which episode and camera, as their names say.

    Where they say nothing, folders with equally many pictures are cameras of one episode, others an episode
    each.

    Raises:
        InvalidInputError: No sequence fits the pattern, or two have one place.
    """
    names = list(sequences)
    if by == "file":
        return divide(names, "file")
    division = divide(names, by, pattern, files=False)
    counts = {len(entries) for entries in sequences.values()}
    if by == "name" and pattern is None and division.is_guess and len(names) > 1 and len(counts) == 1:
        division = divide(names, "one", files=False)
        division.rule = "folders with equally many pictures are cameras of one episode"
    return division
