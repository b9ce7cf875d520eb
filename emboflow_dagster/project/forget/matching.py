"""Which entries of dataset versions are the same episode, however it was edited, merged or made again."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from emboflow_dagster.blobs.forgotten_match import Match, family, source_of, videos_of
from emboflow_dagster.blobs.forgotten_place import Place, place_of
from emboflow_dagster.blobs.forgotten_trace import trace_of, traced
from emboflow_dagster.blobs.listing import is_listing
from emboflow_dagster.blobs.pages import Located
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.dataset_changes import Which
from emboflow_dagster.project.opened import Opened

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
    films: set[tuple[int, str]] = set()
    for one in episodes:
        entry = one.entry
        named = wanted & {one.index, entry["id"]}
        left -= named
        if named:
            mine.append({"episode": one.index, **entry})
        else:
            told = {name: entry[name] for name in ("id", "content", "source", "t0Ns", "length")}
            others.append({**told, "trace": trace_of(entry["length"], entry.get("stats"))})
            films |= set(videos_of(entry))
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
    # Numbers and pictures that an episode beside it has too do not tell them apart.
    found = [trace_of(entry["length"], entry.get("stats")) for entry in mine]
    traces = [
        trace
        for trace in found
        if trace and not any(o["content"] not in contents and traced(o["trace"], [trace]) for o in others)
    ]
    videos = {video for entry in mine for video in videos_of(entry)} - films
    match = Match(
        frozenset(ids),
        frozenset(contents),
        frozenset(sources),
        frozenset(spared - contents),
        traces=tuple(traces),
        videos=frozenset(videos),
    )
    return match, mine


def placed(opened: Opened, match: Match, episodes: Sequence[dict[str, Any]]) -> Match:
    """The rule with the places of the episodes, by the bytes of their recordings.

    Args:
        opened: The deployment and scope.
        match: The rule as :func:`chosen` gives it.
        episodes: As the tombstone tells them.
    """
    assets: Documents[Asset] = Documents(opened.mongo, opened.scope, Asset)
    names = sorted({one["source"]["assetId"] for one in episodes if one["source"]["assetId"]})
    found = {asset.id: asset for asset in assets.find({"_id": {"$in": names}}, limit=0)}
    places: set[Place] = set()
    for episode in episodes:
        asset = found.get(str(episode["source"]["assetId"]))
        if asset is None:
            continue
        top = asset.top_level_paths or []
        name = top[0] if len(top) == 1 and not is_listing(asset.storage_ref) else None
        place = place_of(asset.storage_ref.sha256, name, episode)
        # What other episodes were made of too is no place of this one; a span of time is its own.
        if place.start is not None or source_of(episode) in match.sources:
            places.add(place)
    return replace(match, places=match.places | places)


def copies(opened: Opened, shas: Collection[str]) -> dict[str, str]:
    """Asset id to sha256 of all assets of the project that have such bytes, under whatever name."""
    if not shas:
        return {}
    assets: Documents[Asset] = Documents(opened.mongo, opened.scope, Asset)
    found = assets.find({"storageRef.checksum": {"$in": sorted(f"sha256:{sha}" for sha in shas)}}, limit=0)
    return {asset.id: asset.storage_ref.sha256 for asset in found}


def _apart(a: dict[str, Any], b: dict[str, Any], fps: float) -> bool:
    """Whether two pieces of a recording are known to have no moment in common; frames end half-way."""
    if a["t0Ns"] is None or b["t0Ns"] is None:
        return False
    first, second = sorted((a, b), key=lambda entry: entry["t0Ns"])
    return bool(first["t0Ns"] + (first["length"] - 0.5) * _NS / fps <= second["t0Ns"])
