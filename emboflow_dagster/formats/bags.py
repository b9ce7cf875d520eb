"""What the bag formats share: finding the files of a recording, and reading all of them into a report."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.formats.bag_recordings import MAX_OVERLAPS, Times, divided, overlaps
from emboflow_dagster.formats.decoding import Decoder, UndecodableError, UnsupportedEncodingError
from emboflow_dagster.formats.detect import Source, signature
from emboflow_dagster.formats.recording import Connection, Facts, Part
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.topics import TopicTable

_DIGITS = re.compile(r"(\d+)")

#: Recordings that a report lists.
MAX_RECORDINGS = 200
RULE = (
    "files that one metadata.yaml lists are one recording, and so are files whose names count up and that "
    "follow one another without a pause; every other file is one of its own"
)
#: Stamps before 1973 are of a clock that has no date.
NO_EPOCH_NS = 100_000_000_000_000_000

DAMAGE = frozenset({"truncated", "unindexed", "corrupt", "trailing_bytes", "unapplied_wal"})
"""Warnings of a recording that a copy of all that is readable would not have."""


def match_files(source: Source, format_name: str, magic: str, suffixes: tuple[str, ...]) -> Candidate | None:
    """A candidate where the file, or files of the folder, start with the container's signature.

    Args:
        source: What is probed.
        format_name: The format to name.
        magic: A name of :data:`~emboflow_dagster.formats.detect.SIGNATURES`.
        suffixes: How such files are named; a name alone is weak evidence.
    """
    if not source.is_folder:
        if signature(source.head) == magic:
            return Candidate(format_name, 0.95, (f"the file starts with the {magic} signature",))
        if source.size and source.path.suffix.lower() in suffixes:
            evidence = (f"the name ends with {source.path.suffix}", f"no {magic} signature")
            return Candidate(format_name, 0.2, evidence)
        return None
    named = source.with_suffix(*suffixes)
    genuine = [entry for entry in named if signature(source.head_of(entry)) == magic]
    if genuine:
        share = sum(entry.size for entry in genuine) / max(source.size, 1)
        evidence = f"{len(genuine)} files start with the {magic} signature ({share:.0%} of the bytes)"
        return Candidate(format_name, round(0.6 + 0.3 * share, 3), (evidence,))
    if any(entry.size for entry in named):
        evidence = f"{len(named)} files are named {' or '.join(suffixes)}, none has the {magic} signature"
        return Candidate(format_name, 0.2, (evidence,))
    return None


def bag_files(source: Source, magic: str, *suffixes: str) -> list[tuple[Path, str]]:
    """The recording's files with that signature and their names relative to the source, in split order."""
    if not source.is_folder:
        return [(source.path, source.path.name)]
    found = [e.path for e in source.with_suffix(*suffixes) if signature(source.head_of(e)) == magic]
    return [(source.path / name, name) for name in sorted(found, key=split_order)]


def split_order(name: str) -> list[tuple[int, int | str]]:
    """Sorts ``bag_2`` before ``bag_10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _DIGITS.split(name) if part]


def probe_recording(
    probe: Probe, parts: Sequence[Part], described: Mapping[str, str] | None = None
) -> list[Facts]:
    """Read every file once; fill structure, warnings and recommendations.

    ``structure`` gets the statistics of :class:`~emboflow_dagster.formats.topics.TopicTable`, ``files``
    {name: messages}, ``declared`` (of a single file) and ``encodings`` {encoding: topics}; ``raw["files"]``
    what each file says of itself. Of several files ``division`` says which episodes they would become:
    {by, rule, episodes, recordings {name: {files, messageCount, startNs, endNs, durationNs}}}. Where a file
    is damaged, ``recoverable`` says how many ``messages``, ``bytes`` (of their content) and ``seconds`` (from
    the first to the last) can be read.

    Args:
        probe: The report.
        parts: The files in split order.
        described: See :attr:`~emboflow_dagster.formats.detect.Format.described`.
    """
    whole = TopicTable()
    tables: dict[str, TopicTable] = {}
    checker = DecodeCheck()
    files: dict[str, int] = {}
    all_facts: list[Facts] = []
    details = probe.raw.setdefault("files", {})
    for path, name, reader in parts:
        facts = Facts()
        all_facts.append(facts)
        table = tables[name] = TopicTable()
        try:
            for message in reader(path, facts, checker.wanted):
                connection = message.connection
                table.topic(connection.topic, connection.type).seen(message.stamp_ns)
                if message.data is not None:
                    checker.check(connection, message.data)
        except OSError as error:
            facts.warn("unreadable", f"reading stopped: {error.strerror or error}", name)
        for connection in facts.connections:
            table.topic(connection.topic, connection.type)
        files[name] = table.count
        whole.absorb(table)
        details[name] = {**facts.details, "declared": facts.declared}
        for warning in facts.warnings:
            path_in_source = name if warning.path == path.name else warning.path
            probe.warn(warning.code, warning.message, path_in_source)
    declared = all_facts[0].declared if len(all_facts) == 1 else {}
    probe.structure |= {**whole.structure(), "files": files, "declared": dict(declared)}
    probe.structure["encodings"] = _encodings(connection for f in all_facts for connection in f.connections)
    whole.warn(probe)
    checker.warn(probe)
    if len(parts) > 1:
        _divide(probe, parts, described or {}, tables)
    if probe.codes & DAMAGE:
        probe.structure["recoverable"] = recoverable = {
            "messages": whole.count,
            "bytes": sum(facts.payload_bytes for facts in all_facts),
            "seconds": (probe.structure["durationNs"] or 0) / 1e9,
        }
        if recoverable["messages"]:
            probe.recommend("recover")
    if whole.count:
        probe.recommend("quality-report", "preview")
        if checker.decoded:
            probe.recommend("normalize", "publish-dataset")
    else:
        probe.recommend("filter")
    return all_facts


def _divide(
    probe: Probe, parts: Sequence[Part], described: Mapping[str, str], tables: Mapping[str, TopicTable]
) -> None:
    """Say which recordings the files are, and which of those were made at the same time."""
    found = divided(parts, described, lambda part: Times.of(tables[part[1]]))
    rows: dict[str, dict[str, Any]] = {}
    for recording in found:
        names = [name for _, name, _ in recording.parts]
        starts = [start for name in names if (start := tables[name].start_ns) is not None]
        ends = [end for name in names if (end := tables[name].end_ns) is not None]
        rows[recording.name] = {
            "files": len(names),
            "messageCount": sum(tables[name].count for name in names),
            "startNs": min(starts, default=None),
            "endNs": max(ends, default=None),
            "durationNs": max(ends) - min(starts) if starts else None,
        }
    probe.structure["division"] = {
        "by": "recording",
        "rule": RULE,
        "episodes": len(rows),
        "recordings": dict(list(rows.items())[:MAX_RECORDINGS]),
    }
    if len(rows) == 1:
        return
    text = f"{len(rows)} recordings: each becomes an episode; `split: {{by: one}}` makes one of all"
    probe.warn("multiple_recordings", text)
    shared = overlaps((name, row["startNs"], row["endNs"]) for name, row in rows.items())
    for first, second, seconds in shared[:MAX_OVERLAPS]:
        text = f"recorded at the same time as {first} for {seconds:.3f} s{_clock(rows[second]['startNs'])}"
        probe.warn("overlapping_recordings", text, second)
    if len(shared) > MAX_OVERLAPS:
        text = f"{len(shared) - MAX_OVERLAPS} more recordings overlap in time"
        probe.warn("overlapping_recordings", text)


def _clock(start_ns: int) -> str:
    return " (by a clock that began anew, as of a simulation)" if start_ns < NO_EPOCH_NS else ""


class DecodeCheck:
    """Decodes the first message of every connection and remembers what failed."""

    def __init__(self) -> None:
        self._seen: set[Connection] = set()
        self.decoded: set[str] = set()
        self.failed: dict[str, UndecodableError] = {}
        self.misfits: set[str] = set()
        self.missing: ConfigurationError | None = None

    def wanted(self, connection: Connection) -> bool:
        """Whether a message of this connection is still to be decoded."""
        return connection not in self._seen

    def check(self, connection: Connection, data: bytes) -> None:
        """Decode one message; a failure is kept for :meth:`warn`."""
        self._seen.add(connection)
        try:
            decoder = Decoder(connection)
            decoder(data)
        except ConfigurationError as error:
            self.missing = error
        except UndecodableError as error:
            self.failed.setdefault(connection.topic, error)
        else:
            self.decoded.add(connection.topic)
            if decoder.fallback:
                self.misfits.add(connection.topic)

    def warn(self, probe: Probe) -> None:
        """One warning per topic that could not be decoded as declared."""
        if self.missing:
            text = f"messages are counted, but not decoded: {self.missing.message} ({self.missing.hint})"
            probe.warn("extra_missing", text)
        for topic in sorted(self.misfits):
            text = "the recorded message definition does not fit the messages; the standard one does"
            probe.warn("definition_mismatch", text, topic)
        for topic, error in self.failed.items():
            unsupported = isinstance(error, UnsupportedEncodingError)
            code = "unsupported_serialization" if unsupported else "undecodable_topics"
            probe.warn(code, f"messages are counted but cannot be decoded: {error.message}", topic)


def _encodings(connections: Iterable[Connection]) -> dict[str, int]:
    topics: dict[str, set[str]] = {}
    for connection in connections:
        topics.setdefault(connection.encoding or "unknown", set()).add(connection.topic)
    return {encoding: len(names) for encoding, names in sorted(topics.items())}
