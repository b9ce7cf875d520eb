"""The rule by which an entry of a dataset version is an episode that was forgotten, even if made again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.blobs.forgotten_trace import Trace, trace_of

_PART: Final = re.compile(r"-\d+$")
Source = tuple[str, str | None, str | None]
"""Asset, path in it, and place there: what an episode was made of."""


@dataclass(frozen=True, slots=True)
class Match:
    """Says of an entry whether it is one of the episodes.

    It is, when it has the same data, or is a piece or a copy of it by its id, or was made of the same place
    of the same recording, or of one of the same bytes, or has the same numbers (an export that was made into
    episodes again), or the same video file. Pieces that were not named and whose time is another
    one (``spared``, by their data) are not; of episodes without stamps that is not known, so all of their
    pieces are.
    """

    ids: frozenset[str]
    contents: frozenset[str]
    sources: frozenset[Source]
    spared: frozenset[str]
    places: frozenset[Place] = frozenset()
    traces: tuple[Trace, ...] = ()
    videos: frozenset[tuple[int, str]] = frozenset()
    """Frames and sha256 of each video file."""
    recordings: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Asset id to the sha256 of its bytes, of those that a place is in."""

    def __call__(self, entry: Mapping[str, Any], fps: float | None = None) -> bool:
        """Whether the entry is one of them; ``fps`` is the rate of its version."""
        if entry["content"] in self.contents:
            return True
        if entry["content"] in self.spared:
            return False
        return (
            family(entry["id"]) in self.ids
            or source_of(entry) in self.sources
            or self._is_there(entry, self.recordings.get(str(entry["source"]["assetId"])), fps)
            or self._is_alike(entry)
        )

    def _is_alike(self, entry: Mapping[str, Any]) -> bool:
        length = int(entry["length"])
        same = [trace for trace in self.traces if trace.length == length]
        if same and (mine := trace_of(length, entry.get("stats"))) and any(map(mine.is_of, same)):
            return True
        return bool(self.videos) and bool(self.videos & set(videos_of(entry)))

    def _is_there(self, entry: Mapping[str, Any], sha256: str | None, fps: float | None) -> bool:
        return sha256 is not None and any(
            place.sha256 == sha256 and place.has(entry["source"], entry["t0Ns"], entry["length"], fps)
            for place in self.places
        )

    def knowing(self, recordings: Mapping[str, str]) -> "Match":
        """The same rule where these assets have these bytes."""
        return replace(self, recordings={**self.recordings, **recordings})

    def to_json(self) -> dict[str, Any]:
        """As the tombstone keeps it."""
        return {
            "ids": sorted(self.ids),
            "contents": sorted(self.contents),
            "sources": [list(source) for source in sorted(self.sources, key=str)],
            "spared": sorted(self.spared),
            "places": sorted((place.to_json() for place in self.places), key=str),
            "traces": [trace.to_json() for trace in self.traces],
            "videos": sorted(list(video) for video in self.videos),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Match":
        """As it was kept."""
        sources = frozenset((s[0], s[1], s[2]) for s in row["sources"])
        places = frozenset(Place.of(place) for place in row.get("places", ()))
        return cls(
            frozenset(row["ids"]),
            frozenset(row["contents"]),
            sources,
            frozenset(row["spared"]),
            places,
            tuple(Trace.of(trace) for trace in row.get("traces", ())),
            frozenset((int(frames), str(sha256)) for frames, sha256 in row.get("videos", ())),
        )


def family(id_: str) -> str:
    """The id of which parts and copies have a number more."""
    return _PART.sub("", id_)


def source_of(entry: Mapping[str, Any]) -> Source | None:
    """What it was made of, where that is known."""
    source = entry["source"]
    return (source["assetId"], source["path"], source["ref"]) if source["assetId"] else None


def videos_of(entry: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Frames and sha256 of each of its video files."""
    files = entry.get("files")
    if not isinstance(files, Mapping):
        return []
    return [
        (int(entry["length"]), str(file["sha256"]))
        for kind, file in files.items()
        if kind.startswith("videos/")
    ]
