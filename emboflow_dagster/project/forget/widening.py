"""From the versions that have an episode to what else it came from: an export that was registered again."""

from dataclasses import replace
from typing import Any, Final

from emboflow_dagster.blobs.forgotten_match import Match, source_of
from emboflow_dagster.blobs.forgotten_place import is_messages
from emboflow_dagster.blobs.forgotten_trace import trace_of
from emboflow_dagster.project.forget.matching import placed
from emboflow_dagster.project.forget.survey import Survey
from emboflow_dagster.project.forget.tombstone import told_of
from emboflow_dagster.project.opened import Opened

#: Of one tombstone, which is one document.
MAX_TRACES: Final = 4_000


def widened(opened: Opened, match: Match, found: Survey) -> Match:
    """The rule with the recordings and the numbers of every version that was found to have the episodes.

    Args:
        opened: The deployment and scope.
        match: The rule so far.
        found: What it found.
    """
    sources, traces = set(match.sources), list(match.traces)
    told: list[dict[str, Any]] = []
    for entry, fps in found.entries.values():
        trace = trace_of(entry["length"], entry.get("stats"))
        if trace is not None and trace not in traces and len(traces) < MAX_TRACES:
            traces.append(trace)
        source = source_of(entry)
        if source is None or source in match.sources:
            continue
        told.append(told_of({"episode": None, **entry}, fps))
        if not is_messages(source[2]):  # of those a span of time is the place
            sources.add(source)
    wider = replace(match, sources=frozenset(sources), traces=tuple(traces))
    return placed(opened, wider, told) if told else wider
