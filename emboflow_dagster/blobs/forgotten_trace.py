"""An episode known by its numbers: an export that comes back has other files, ids, stamps and names.

The statistics of its features say which numbers they are; pages have them, so no payload is read. Names are
left out: exports rename features. Kept is a hash a feature: a tombstone must not tell the numbers.
"""

import hashlib
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Fewer frames are alike too easily.
MIN_FRAMES: Final = 4
_OF: Final = ("min", "max", "mean", "std", "q10", "q50", "q90")
_HASH: Final = 32  # digits


@dataclass(frozen=True, slots=True)
class Trace:
    """The numbers of one episode.

    Attributes:
        length: Frames.
        features: A hash of each feature that moves; one that stands still tells nothing.
    """

    length: int
    features: frozenset[str]

    def is_of(self, other: "Trace") -> bool:
        """Whether both are of one episode: more than half of the features of the one with fewer are.

        Half is not enough: the same actions replayed are another episode.
        """
        fewer = min(len(self.features), len(other.features))
        return self.length == other.length and 2 * len(self.features & other.features) > fewer > 0

    def to_json(self) -> list[Any]:
        """As tombstones keep it and a child process is told it; see :meth:`of`."""
        return [self.length, sorted(self.features)]

    @classmethod
    def of(cls, row: Collection[Any]) -> "Trace":
        """As it was kept."""
        length, features = row
        return cls(int(length), frozenset(map(str, features)))


def trace_of(length: int, stats: Mapping[str, Mapping[str, Any]] | None) -> Trace | None:
    """The trace of an episode, or ``None`` where its numbers do not tell it from others.

    Args:
        length: Its frames.
        stats: Feature to its statistics, as a page has them.
    """
    if length < MIN_FRAMES or not stats:
        return None
    features = frozenset(one for said in stats.values() if (one := _hash(said)) is not None)
    return Trace(length, features) if features else None


def traced(trace: Trace | None, known: Iterable[Trace]) -> bool:
    """Whether a trace is one of the known ones."""
    return trace is not None and any(trace.is_of(one) for one in known)


def _hash(said: Mapping[str, Any]) -> str | None:
    rows = [said.get(name) or () for name in _OF]
    low, high = rows[:2]
    if not low or any(not isinstance(value, int | float) for row in rows for value in row):
        return None
    if list(low) == list(high):
        return None
    digest = hashlib.sha256()
    try:
        for row in rows:
            digest.update(struct.pack("<i", len(row)))
            # In 32 bits: numbers that were added in another order are the same, and so is a zero below zero.
            digest.update(b"".join(struct.pack("<f", float(value) + 0.0) for value in row))
    except OverflowError:  # no number of 32 bits: no feature of ours
        return None
    return digest.hexdigest()[:_HASH]
