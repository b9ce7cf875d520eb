"""RLDS episodes as the checks see them: numbers alone. They hold no time, index or statistics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.formats.canonical.from_rlds import episodes
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.episodes import DeclaredCounts
from emboflow_dagster.formats.quality.view import EpisodeView

#: What cannot be asked of RLDS.
NOT_RLDS: Final = frozenset(
    ("sync_age", "time_monotonic", "gaps", "timestamp_grid", "rate_jitter", "index_integrity", "zero_width")
) | {"stats_recompute", "empty_topics"}


def feed_rlds(path: Path, structure: Mapping[str, Any], checks: Mapping[str, Check]) -> bool:
    """Give every check the numbers of every record; whether the dataset declares a count.

    Args:
        path: A shard, or the folder with the shards.
        structure: Its probe report's ``structureSummary``.
        checks: By name.
    """
    skipped: list[dict[str, Any]] = []
    counted = 0
    for number, episode in enumerate(episodes(path, videos=False, skipped=skipped)):
        counted += 1
        view = EpisodeView(
            ref=f"record {number}",
            length=episode.length,
            vectors=episode.features,
            actions=tuple(n for n, spec in episode.specs.items() if spec.kind == "action"),
            states=tuple(n for n, spec in episode.specs.items() if spec.kind == "state"),
        )
        for check in checks.values():
            check.take(view)
    splits = (structure.get("declared") or {}).values()
    found = [split.get("episodes") for split in splits if isinstance(split, Mapping)]
    declared = sum(n for n in found if isinstance(n, int)) if found else None
    counts = checks.get(DeclaredCounts.name)
    if isinstance(counts, DeclaredCounts):
        counts.declared = 0
        counts.compare("episodes", declared, counted)
    return declared is not None
