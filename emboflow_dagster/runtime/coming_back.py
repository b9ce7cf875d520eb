"""Looks for forgotten episodes in a package that is about to be registered; runs in a child process."""

from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.forgotten_match import Match

MAX_TOLD: Final = 1_000


def found(path: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The episodes in a package that one of the rules is about.

    Args:
        path: The folder or archive.
        rules: As :meth:`~emboflow_dagster.blobs.forgotten_match.Match.to_json` gives them.

    Returns:
        ``rule`` (its place), ``episode`` and ``id``, at most 1,000.
    """
    from emboflow_dagster.formats.exports.coming_back import episodes

    matches = [Match.from_json(rule) for rule in rules]
    known: dict[tuple[tuple[str, str], ...], list[Match]] = {}
    told: list[dict[str, Any]] = []
    for entry, sources in episodes(Path(path)):
        key = tuple(sorted(sources.items()))
        if key not in known:
            known[key] = [match.knowing(sources) for match in matches]
        for place, match in enumerate(known[key]):
            if match(entry):
                told.append({"rule": place, "episode": entry.get("episode"), "id": entry["id"]})
                break
        if len(told) == MAX_TOLD:
            break
    return told
