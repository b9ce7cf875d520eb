"""Where an annotation of a dataset version is bound to: the version, the episode by its hash, the time in it.

The binding is what the annotation's ``targetRef`` says: the version is its ``id``, and ``selector`` has
``episode`` (id), ``episodePlace``, ``episodeSha256`` and ``from``, ``to`` (seconds from the episode's start).
Who confirmed it for a later version is one more row of ``selector.held``, which says the same (decision 42).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Located
from emboflow_dagster.errors import InvalidInputError, shown
from emboflow_dagster.model.annotation import Annotation
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.project.dataset_content import Content

HELD: Final = "held"
_NAMES: Final = ("episodePlace", "episode", "episodeId")
_NEAR: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Bound:
    """A version, the episode in it, and the time in that; ``None``: all of it."""

    version_id: str
    episode: int | str | None = None
    """Its place, or its id where the place was not said."""
    start: float | None = None
    """Seconds from the start of the episode."""
    stop: float | None = None
    by: str | None = None
    """Who confirmed it; ``None`` for the binding that the annotation was made with."""


def bounds_of(annotation: Annotation) -> list[Bound]:
    """What an annotation was bound to and what it was confirmed for since, the newest first."""
    selector = annotation.target_ref.selector or {}
    rows = [_bound(annotation.target_ref.id, selector, None)]
    held = selector.get(HELD)
    rows += [
        _bound(row["versionId"], row, str(row.get("by")))
        for row in (held if isinstance(held, list) else ())
        if isinstance(row, dict) and isinstance(row.get("versionId"), str)
    ]
    return rows[::-1]


def made_of(versions: Iterable[DatasetVersion]) -> dict[str, str]:
    """By the artifact that a version was published from: the version, the oldest one of several."""
    found: dict[str, str] = {}
    for version in sorted(versions, key=lambda version: version.created_at):
        package = (version.summary or {}).get("packageArtifactId")
        if isinstance(package, str):
            found.setdefault(package, version.id)
    return found


def bounds_at(annotation: Annotation, made: Mapping[str, str]) -> list[Bound]:
    """:func:`bounds_of`; what was said of a package is said of the version that it became.

    A version has every episode of the package that it was published from, in the same order.

    Args:
        annotation: Of a version or of an artifact.
        made: As :func:`made_of` gives it.
    """
    return [
        replace(bound, version_id=made.get(bound.version_id, bound.version_id))
        for bound in bounds_of(annotation)
    ]


def _bound(version_id: str, said: Mapping[str, Any], by: str | None) -> Bound:
    start, stop = (float(said[k]) if _is_number(said.get(k)) else None for k in ("from", "to"))
    return Bound(version_id, episode_of(said), start, stop, by)


def bind(
    content: Content, episode: int | str, start: float | None = None, stop: float | None = None
) -> dict[str, Any]:
    """The fields of a selector that bind an annotation to an episode of a version.

    Args:
        content: The version.
        episode: Place (from 0) or id.
        start: Seconds from the episode's start; ``None``: the whole episode.
        stop: Likewise; ``None``: the moment ``start``.

    Raises:
        InvalidInputError: There is no such episode, or the time is none of it.
    """
    found = located(content, episode)
    if found is None:
        raise InvalidInputError(
            f"episode {shown(episode)}: there is none; there are 0 to {content.root.episodes - 1}",
            hint="a place from 0, or an id (ep_...)",
        )
    entry = found.entry
    bound = {"episode": entry["id"], "episodePlace": found.index, "episodeSha256": entry["content"]}
    if start is None:
        if stop is not None:
            raise InvalidInputError("to: without from it is no time")
        return bound
    end, last = start if stop is None else stop, seconds(entry, content)
    if not (math.isfinite(start) and 0 <= start <= end <= last + _NEAR):
        raise InvalidInputError(
            f"episode {found.index}: found {start:g} to {end:g} s; it has 0 to {last:g} s",
        )
    return {**bound, "from": start, "to": end}


def seconds(entry: Mapping[str, Any], content: Content) -> float:
    """How long an episode is."""
    return float(entry["length"]) / float(content.manifest["fps"])


def located(content: Content, episode: int | str) -> Located | None:
    """An episode by its place, for which one page is read, or by its id."""
    if isinstance(episode, str):
        return next((one for one in content.episodes() if one.entry["id"] == episode), None)
    for start, page in pages.episode_pages(content.read, content.root):
        if start <= episode < start + page.episodes:
            return Located(episode, pages.lines(page, content.read(page.sha256, page.size))[episode - start])
    return None


def episode_of(selector: Mapping[str, Any]) -> int | str | None:
    """The one episode that a selector names; ``None``: none, or several."""
    return next((selector[key] for key in _NAMES if _is_which(selector.get(key))), None)


def times_of(selector: Mapping[str, Any]) -> Iterator[float | None]:
    """``from`` and ``to`` of a selector.

    Raises:
        InvalidInputError: One is no number.
    """
    for key in ("from", "to"):
        value = selector.get(key)
        if value is not None and not _is_number(value):
            raise InvalidInputError(f"{key}: found {shown(value)}; seconds from the episode's start")
        yield None if value is None else float(value)


def _is_which(value: object) -> bool:
    return isinstance(value, str) or (type(value) is int and value >= 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
