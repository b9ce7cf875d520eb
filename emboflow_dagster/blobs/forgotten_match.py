"""The rule by which an entry of a dataset version is an episode that was forgotten, even if made again."""

import re
from dataclasses import dataclass
from typing import Any, Final

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
