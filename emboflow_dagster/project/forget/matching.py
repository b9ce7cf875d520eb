"""Which entries of dataset versions are the same episode, however it was edited, merged or made again."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from emboflow_dagster.blobs.forgotten_match import Match, family, source_of
from emboflow_dagster.blobs.pages import Located
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.project.dataset_changes import Which

_NS: Final = 10**9


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
