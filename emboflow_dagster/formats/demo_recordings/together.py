"""Which recordings can become one dataset: those whose episodes have the same features.

A dataset has one schema. Of a folder with many robots in it the largest group of recordings that share one is
taken; the others are named with what they have instead.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

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
        frames: Frames that these have together, topics at the rate they were looked at with.
        features: Feature name to its width; ``observation.images.<name>`` to the pictures' shape.
    """

    members: tuple[str, ...]
    fps: float
    episodes: int
    frames: int
    features: Mapping[str, Any]


class _Member(NamedTuple):
    """One recording's part in a group."""

    key: str
    episodes: int
    frames: int
    rate: float | None


def look_at(recordings: list[dict[str, Any]], fps: float) -> list[dict[str, Any]]:
    """The features of every episode of every recording; runs in a child process, JSON in and out.

    Args:
        recordings: ``{"key", "path", "format"}`` each.
        fps: The grid for topics, which decides what is dense enough.

    Returns:
        ``{"key", "schemas": [{"features", "episodes", "frames"}], "rate", "reasons"}`` each; ``rate`` is what
        the recording itself gives, or null.
    """
    return [_look_at_one(recording, fps) for recording in recordings]


def _look_at_one(recording: Mapping[str, Any], fps: float) -> dict[str, Any]:
    from emboflow_dagster.formats.canonical import from_bags, from_hdf5

    path = Path(recording["path"])
    skipped: list[dict[str, Any]] = []
    counts: dict[str, list[int]] = {}
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
            count = counts.setdefault(key, [0, 0])
            count[0] += 1
            count[1] += episode.length
    except (EmboflowError, OSError) as error:
        reasons.append(error.message if isinstance(error, EmboflowError) else str(error))
    reasons += [str(item["reason"]) for item in skipped]
    return {
        "key": recording["key"],
        "schemas": [
            {"features": json.loads(key), "episodes": episodes, "frames": frames}
            for key, (episodes, frames) in counts.items()
        ],
        "rate": rate,
        "reasons": list(dict.fromkeys(reasons))[:10],
    }


def largest_group(looked: Sequence[Mapping[str, Any]]) -> Group | None:
    """The group with the most recordings, of equals the one with the most episodes, frames, then the first.

    ``None`` where no recording has an episode.
    """
    groups: dict[str, list[_Member]] = {}
    for row in looked:
        for schema in row["schemas"]:
            key = json.dumps(schema["features"], sort_keys=True)
            member = _Member(row["key"], schema["episodes"], schema["frames"], row["rate"])
            groups.setdefault(key, []).append(member)
    candidates = [_one_rate(key, rows) for key, rows in groups.items()]
    return max(candidates, key=lambda g: (len(g.members), g.episodes, g.frames), default=None)


def _one_rate(key: str, rows: list[_Member]) -> Group:
    """The group without the recordings whose own rate differs from that of most."""
    rates = [row.rate for row in rows if row.rate]
    alike = {rate: sum(abs(rate - other) <= RATE_TOLERANCE * other for other in rates) for rate in rates}
    fps = max(rates, key=lambda rate: alike[rate], default=DEFAULT_FPS)
    kept = [row for row in rows if not row.rate or abs(row.rate - fps) <= RATE_TOLERANCE * row.rate]
    return Group(
        members=tuple(row.key for row in kept),
        fps=fps,
        episodes=sum(row.episodes for row in kept),
        frames=sum(row.frames for row in kept),
        features=json.loads(key),
    )
