"""Which entries of dataset versions are the same episode, however it was edited, merged or made again."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emboflow_dagster.blobs.pages import Located
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.project.dataset_changes import Which

_NS: Final = 10**9
_PART: Final = re.compile(r"-\d+$")
Source = tuple[str, str | None, str | None]
"""Asset, path in it, and place there: what an episode was made of."""


@dataclass(frozen=True, slots=True)
class Match:
    """Says of an entry whether it is one of the episodes.

    It is, when it has the same data, or is a piece or a copy of it by its id, or was made of the same place
    of the same recording. Pieces that were not named and whose time is another one (``spared``, by their
    data) are not; of episodes without stamps that is not known, so all of their pieces are.
    """

    ids: frozenset[str]
    contents: frozenset[str]
    sources: frozenset[Source]
    spared: frozenset[str]

    def __call__(self, entry: dict[str, Any]) -> bool:
        """Whether the entry is one of them."""
        if entry["content"] in self.contents:
            return True
        if entry["content"] in self.spared:
            return False
        return family(entry["id"]) in self.ids or source_of(entry) in self.sources

    def to_json(self) -> dict[str, Any]:
        """As the tombstone keeps it."""
        return {
            "ids": sorted(self.ids),
            "contents": sorted(self.contents),
            "sources": [list(source) for source in sorted(self.sources, key=str)],
            "spared": sorted(self.spared),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Match":
        """As it was kept."""
        sources = frozenset((s[0], s[1], s[2]) for s in row["sources"])
        return cls(frozenset(row["ids"]), frozenset(row["contents"]), sources, frozenset(row["spared"]))


def family(id_: str) -> str:
    """The id of which parts and copies have a number more."""
    return _PART.sub("", id_)


def source_of(entry: dict[str, Any]) -> Source | None:
    """What it was made of, where that is known."""
    source = entry["source"]
    return (source["assetId"], source["path"], source["ref"]) if source["assetId"] else None


def chosen(
    episodes: Iterable[Located], which: Sequence[Which], *, fps: float
) -> tuple[Match, list[dict[str, Any]]]:
    """What ``which`` (places or ids) name in a version: the rule, and the entries with their places.

    Args:
        episodes: Of the version.
        which: Places or ids.
        fps: Frames per second.

    Raises:
        InvalidInputError: An episode is named that is not there.
    """
    wanted, left = set(which), set(which)
    mine: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for one in episodes:
        entry = one.entry
        named = wanted & {one.index, entry["id"]}
        left -= named
        if named:
            mine.append({"episode": one.index, **entry})
        else:
            others.append({name: entry[name] for name in ("id", "content", "source", "t0Ns", "length")})
    if left:
        names = ", ".join(str(one) for one in sorted(left, key=str)[:5])
        raise InvalidInputError(f"episode {names}: there is none; nothing was forgotten")
    ids = {family(entry["id"]) for entry in mine}
    contents = {entry["content"] for entry in mine}
    spared = {
        other["content"]
        for other in others
        if family(other["id"]) in ids
        and all(_apart(other, entry, fps) for entry in mine if family(entry["id"]) == family(other["id"]))
    }
    # A piece of a recording that other episodes were made of too tells nothing.
    shared = {source_of(other) for other in others if family(other["id"]) not in ids}
    sources = {source for entry in mine if (source := source_of(entry)) and source not in shared}
    return Match(frozenset(ids), frozenset(contents), frozenset(sources), frozenset(spared - contents)), mine


def _apart(a: dict[str, Any], b: dict[str, Any], fps: float) -> bool:
    """Whether two pieces of a recording are known to have no moment in common; frames end half-way."""
    if a["t0Ns"] is None or b["t0Ns"] is None:
        return False
    first, second = sorted((a, b), key=lambda entry: entry["t0Ns"])
    return bool(first["t0Ns"] + (first["length"] - 0.5) * _NS / fps <= second["t0Ns"])
