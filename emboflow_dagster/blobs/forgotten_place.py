"""Where in a recording a forgotten episode is: known by the recording's bytes, under whatever name."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

FORGOTTEN: Final = "forgotten (episode-forgotten): `emboflow dataset forgotten` says by whom and why"
"""Why it is left out where it would be made."""
_NS: Final = 10**9
_PART: Final = re.compile(r"^part \d+: ")
#: Arrays that a hook made of an episode are numbered anew: their file says nothing of the recording.
_COMPUTED: Final = re.compile(r"^\d{6}\.npz$")


@dataclass(frozen=True, slots=True)
class Place:
    """One place in a recording.

    Attributes:
        sha256: Of the recording's bytes.
        path: File in it, several with commas, or a folder; ``None`` where it is one file or not known.
        ref: What the episode is called in that file; ``None`` for whatever is made of it: messages have no
            episodes, so other topics, another rate or another split are other names for the same time.
        start: First moment (ns) of the messages that are meant, ``None`` for all of them.
        stop: The moment after the last.
    """

    sha256: str
    path: str | None
    ref: str | None
    start: int | None = None
    stop: int | None = None

    def has(
        self, source: Mapping[str, Any], t0: int | None = None, length: int = 0, fps: float | None = None
    ) -> bool:
        """Whether an episode was made of it; one without a time may have been.

        Args:
            source: Its ``path`` and ``ref``; that of the recording was compared before.
            t0: Its first stamp in ns.
            length: Its frames.
            fps: Their rate; without it the first moment alone is looked at.
        """
        path, ref = source.get("path"), source.get("ref")
        if path is not None and _COMPUTED.match(path):
            path = None
        same_file = self.path is None or path is None or _share_a_file(self.path, path)
        if self.ref is not None:
            return (same_file and not {*self.ref.split(",")}.isdisjoint((ref or "").split(","))) or bool(
                ref in _of_several(self.path, self.ref) or self.ref in _of_several(path, ref)
            )
        if not same_file:
            return False
        if self.start is None or self.stop is None or t0 is None:
            return True
        stop = t0 + 1 if fps is None else t0 + max(1, int((length - 0.5) * _NS / fps))
        return t0 < self.stop and self.start < stop

    def to_json(self) -> list[Any]:
        """As a child process is told it; see :meth:`of`."""
        return [self.sha256, self.path, self.ref, self.start, self.stop]

    @classmethod
    def of(cls, row: Collection[Any]) -> "Place":
        """As it was told."""
        return cls(*row)


def place_of(sha256: str, name: str | None, episode: Mapping[str, Any]) -> Place:
    """Where an episode of a version was made.

    Args:
        sha256: Of its recording.
        name: What the recording's one file is called; ``None`` where it is a folder.
        episode: ``source``, and where they are known ``t0Ns`` and ``seconds``.
    """
    source = episode["source"]
    path, ref = source.get("path"), source.get("ref")
    inner = None if path is None or path == name or _COMPUTED.match(path) else str(path)
    t0, seconds = episode.get("t0Ns"), episode.get("seconds")
    if not is_messages(ref):
        return Place(sha256, inner, ref)
    if t0 is None or seconds is None:
        return Place(sha256, inner, None)
    return Place(sha256, inner, None, int(t0), int(t0 + max(1, seconds * _NS)))


def _share_a_file(first: str, second: str) -> bool:
    """Whether what is called so has a file in common: several have commas, a folder has those in it."""
    return any(
        a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")
        for a in first.split(",")
        for b in second.split(",")
    )


def _of_several(path: str | None, ref: str | None) -> set[str]:
    """What hooks call an episode where it is of one of several files."""
    return set() if path is None else {f"{PurePosixPath(path).name}:{ref}", f"{path}:{ref}"}


def is_messages(ref: str | None) -> bool:
    """Whether an episode is a span of messages, by what it is called: the topics that it was made of."""
    topics = _PART.sub("", ref or "").split(",")
    return all(topic.startswith("/") and len(topic) > 1 for topic in topics)
