"""Which recordings can become one dataset: those whose episodes have the same features.

A dataset has one schema. Of a folder with many robots in it the largest group of recordings that share one is
taken; the others are named with what they have instead.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError

DEFAULT_FPS: Final = 20.0
"""For recordings that give no rate by themselves; topics are sampled on this grid."""
RATE_TOLERANCE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Group:
    """Recordings that share a schema.

    Attributes:
        members: Their keys, in the order in which they were given.
        fps: Frames per second of the dataset.
        episodes: Episodes with that schema.
        features: Feature name to its width; ``observation.images.<name>`` to the pictures' shape.
    """

    members: tuple[str, ...]
    fps: float
    episodes: int
    features: Mapping[str, Any]


def look_at(recordings: list[dict[str, Any]], fps: float) -> list[dict[str, Any]]:
    """The features of every episode of every recording; runs in a child process, JSON in and out.

    Args:
        recordings: ``{"key", "path", "format"}`` each.
        fps: The grid for topics, which decides what is dense enough.

    Returns:
        ``{"key", "schemas": [{"features", "episodes"}], "rate", "reasons"}`` each; ``rate`` is what the
        recording itself gives, or null.
    """
    return [_look_at_one(recording, fps) for recording in recordings]


def _look_at_one(recording: Mapping[str, Any], fps: float) -> dict[str, Any]:
    from emboflow_dagster.formats.canonical import from_bags, from_hdf5

    path = Path(recording["path"])
    skipped: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    rate = None
    reasons: list[str] = []
    try:
        if str(recording["format"]).startswith("hdf5"):
            rate = from_hdf5.suggested_fps(path)
            episodes = from_hdf5.episodes(path, skipped=skipped)
        else:
            episodes = from_bags.episodes(path, fps=fps, skipped=skipped)
        for episode in episodes:
            features = {name: spec.dim for name, spec in episode.specs.items()}
            pictures = {f"observation.images.{n}": list(c.shape) for n, c in episode.cameras.items()}
            key = json.dumps({**features, **pictures}, sort_keys=True)
            counts[key] = counts.get(key, 0) + 1
    except (EmboflowError, OSError) as error:
        reasons.append(error.message if isinstance(error, EmboflowError) else str(error))
    reasons += [str(item["reason"]) for item in skipped]
    return {
        "key": recording["key"],
        "schemas": [{"features": json.loads(key), "episodes": count} for key, count in counts.items()],
        "rate": rate,
        "reasons": list(dict.fromkeys(reasons))[:10],
    }


def largest_group(looked: Sequence[Mapping[str, Any]]) -> Group | None:
    """The group with the most recordings, of equals the one with the most episodes, then the first.

    ``None`` where no recording has an episode.
    """
    groups: dict[str, list[tuple[str, int, float | None]]] = {}
    for row in looked:
        for schema in row["schemas"]:
            key = json.dumps(schema["features"], sort_keys=True)
            groups.setdefault(key, []).append((row["key"], schema["episodes"], row["rate"]))
    candidates = [_one_rate(key, rows) for key, rows in groups.items()]
    return max(candidates, key=lambda group: (len(group.members), group.episodes), default=None)


def _one_rate(key: str, rows: list[tuple[str, int, float | None]]) -> Group:
    """The group without the recordings whose own rate differs from that of most."""
    rates = [rate for _, _, rate in rows if rate]
    fps = max(
        rates, key=lambda r: sum(abs(r - other) <= RATE_TOLERANCE * other for other in rates), default=None
    )
    chosen = fps or DEFAULT_FPS
    kept = [
        (name, count) for name, count, rate in rows if not rate or abs(rate - chosen) <= RATE_TOLERANCE * rate
    ]
    return Group(tuple(name for name, _ in kept), chosen, sum(count for _, count in kept), json.loads(key))
