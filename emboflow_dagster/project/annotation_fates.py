"""What becomes of an episode, and of what was said about it, from one dataset version to another.

Nothing is written for it: a version never changes and names every episode by hash, so it is found again by
comparing two trees, of which pages that both have are not read (decision 42).
"""

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Page
from emboflow_dagster.project.annotation_places import located, seconds
from emboflow_dagster.project.dataset_content import Content
from emboflow_dagster.project.forget.matching import family

_LABELS: Final = ("tasks", "success", "flags")
_NS: Final = 10**9
_NEAR: Final = 1e-6


class State(StrEnum):
    """What an annotation is at a version."""

    VALID = "valid"
    """The episode is the same, by its hash and its labels; or somebody confirmed it."""
    STALE = "stale"
    """The episode is there and is another."""
    REMOVED = "removed"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Spot:
    """An episode of a version (place and id), and the time in it in seconds; ``None``: all of it."""

    episode: int | None = None
    id: str | None = None
    start: float | None = None
    stop: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is printed."""
        return {"episode": self.episode, "episodeId": self.id, "from": self.start, "to": self.stop}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one place in an episode; ``spot`` is where it is now, or would be if confirmed."""

    state: State
    reason: str = ""
    spot: Spot | None = None


Found = tuple[int, dict[str, Any]]


class Comparison:
    """From one version to another; both are open."""

    def __init__(self, before: Content, after: Content) -> None:
        self._before = before
        self._after = after

    def whole(self) -> Fate:
        """What becomes of what was said about all of the version."""
        if self._before.root.sha256 == self._after.root.sha256:
            return Fate(State.VALID, spot=Spot())
        return Fate(State.STALE, "the version holds other episodes", Spot())

    def fate(self, episode: int | str, start: float | None, stop: float | None) -> Fate:
        """What becomes of ``start`` to ``stop`` (seconds; ``None``: all) of an episode of the older version.

        Raises:
            IntegrityError: A page is missing or damaged.
        """
        place = self._place(episode)
        if place is None:
            return Fate(State.REMOVED, "the version that it was said of has no such episode")
        at, page = self._page_at(place)
        if page.sha256 in self._new_leaves:
            now = self._new_leaves[page.sha256] + place - at
            id_ = self._entry(page, place - at)["id"]
            return Fate(State.VALID, spot=Spot(now, id_, start, stop))
        return self._looked_up(self._entry(page, place - at), start, stop)

    def _looked_up(self, old: Mapping[str, Any], start: float | None, stop: float | None) -> Fate:
        now = self._now(old)
        parts = self._parts(old)
        if now is None and not parts:
            return Fate(State.REMOVED, "the episode is not in it")
        if now is None or now[1]["content"] != old["content"]:
            near = parts or ([now] if now is not None else [])
            return Fate(State.STALE, _why(old, now, parts), self._moved(old, near, start, stop))
        spot = Spot(now[0], now[1]["id"], start, stop)
        labels = [name for name in _LABELS if now[1][name] != old[name]]
        if labels:
            return Fate(State.STALE, f"relabelled: {', '.join(labels)}", spot)
        return Fate(State.VALID, spot=spot)

    def _now(self, old: Mapping[str, Any]) -> Found | None:
        """The same one: by its id, else the same data, else the same place of a recording."""
        for key, value in _known_by(old):
            found = self._new_by[key].get(value)
            if found:
                return next((one for one in found if one[1]["content"] == old["content"]), found[0])
        return None

    def _parts(self, old: Mapping[str, Any]) -> list[Found]:
        """Pieces of it that were made since; empty when it is whole."""
        near = self._new_by["family"].get(family(old["id"]), [])
        fresh = [one for one in near if one[1]["id"] == old["id"] or one[1]["id"] not in self._old_ids]
        return [] if any(one[1]["content"] == old["content"] for one in fresh) else fresh

    def _moved(
        self, old: Mapping[str, Any], parts: Iterable[Found], start: float | None, stop: float | None
    ) -> Spot | None:
        """Where that time is now, when stamps (or an equal length) tell; in none of the parts: ``None``."""
        parts = list(parts)
        if start is None:
            return Spot(parts[0][0], parts[0][1]["id"]) if len(parts) == 1 else None
        end = start if stop is None else stop
        for place, entry in parts:
            if old["t0Ns"] is not None and entry["t0Ns"] is not None:
                ahead = (entry["t0Ns"] - old["t0Ns"]) / _NS
            elif entry["length"] == old["length"]:
                ahead = 0.0
            else:
                continue
            first, last = start - ahead, end - ahead
            if first >= -_NEAR and last <= seconds(entry, self._after) + _NEAR:
                return Spot(place, entry["id"], round(max(first, 0.0), 9), round(last, 9))
        return None

    # ------------------------------------------------------------------------------------------- the trees

    def _place(self, episode: int | str) -> int | None:
        if isinstance(episode, int):
            return episode if episode < self._before.root.episodes else None
        found = located(self._before, episode)
        return None if found is None else found.index

    def _page_at(self, place: int) -> tuple[int, Page]:
        number = bisect.bisect_right(self._old_starts, place) - 1
        return self._old_leaves[number]

    def _entry(self, page: Page, number: int) -> dict[str, Any]:
        return pages.parsed(pages.lines(page, self._before.read(page.sha256, page.size))[number])

    @cached_property
    def _old_leaves(self) -> list[tuple[int, Page]]:
        return list(pages.episode_pages(self._before.read, self._before.root))

    @cached_property
    def _old_starts(self) -> list[int]:
        return [start for start, _ in self._old_leaves]

    @cached_property
    def _new_leaves(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for start, page in pages.episode_pages(self._after.read, self._after.root):
            found.setdefault(page.sha256, start)
        return found

    @cached_property
    def _old_ids(self) -> frozenset[str]:
        """Ids of the episodes in pages that the newer version does not have."""
        return frozenset(one.entry["id"] for one in self._before.episodes(skip=self._new_leaves.__contains__))

    @cached_property
    def _new_by(self) -> dict[str, dict[Any, list[Found]]]:
        """The episodes in pages that the older version does not have, by what they are known by."""
        common = {page.sha256 for _, page in self._old_leaves}
        found: dict[str, dict[Any, list[Found]]] = defaultdict(dict)
        for start, page in pages.episode_pages(self._after.read, self._after.root):
            if page.sha256 in common:
                continue
            for place, line in enumerate(pages.lines(page, self._after.read(page.sha256, page.size)), start):
                entry = pages.parsed(line)
                for key, value in (*_known_by(entry), ("family", family(entry["id"]))):
                    found[key].setdefault(value, []).append((place, entry))
        return found


def _known_by(entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    known = [("id", entry["id"]), ("content", entry["content"])]
    source = tuple(entry["source"].values())
    return [*known, ("source", source)] if any(source) else known


def _why(old: Mapping[str, Any], now: Found | None, parts: list[Found]) -> str:
    if len(parts) > 1:
        return f"split into {len(parts)}"
    entry = now[1] if now is not None else parts[0][1]
    if entry["length"] < old["length"]:
        return f"trimmed: {old['length']} to {entry['length']} frames"
    return "its data is another"
