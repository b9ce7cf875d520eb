"""Quality of a recording, a demonstration file, a dataset or videos, as measurements with thresholds.

Every check says how much of the input it could look at. A report whose checks resolved nothing has the
verdict ``unresolved``: an audit that saw nothing is never clean. What was measured can be kept as a table
(:mod:`~emboflow_dagster.formats.quality.evidence`), which other thresholds judge without a second reading.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.canonical.from_arrays import FORMAT as ARRAYS
from emboflow_dagster.formats.canonical.from_arrays import is_folder
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import MANIFEST_FILE
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality.blank import BlankFrames
from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.episodes import EPISODE_CHECKS, DeclaredCounts
from emboflow_dagster.formats.quality.evidence import ORDER, Rules, Thresholds, row_json
from emboflow_dagster.formats.quality.lag import ActionLag
from emboflow_dagster.formats.quality.streams import EmptyTopics, measure_streams
from emboflow_dagster.formats.quality.time import TIME_CHECKS, Gaps, RateJitter, SyncAge, TimeMonotonic
from emboflow_dagster.formats.quality.values import VALUE_CHECKS, NanInf
from emboflow_dagster.formats.quality.video import VIDEO_CHECKS, VideoExists, VideoFps
from emboflow_dagster.formats.quality.view import EpisodeView
from emboflow_dagster.formats.report import json_safe

__all__ = ["ALL_CHECKS", "CHECKS", "STANDARD_RULES", "quality_report"]

REPORT_VERSION = 2
ALL_CHECKS: dict[str, type[Check]] = {
    check.name: check
    for check in (
        DeclaredCounts,
        SyncAge,
        *TIME_CHECKS,
        *VALUE_CHECKS,
        ActionLag,
        *EPISODE_CHECKS,
        EmptyTopics,
        *VIDEO_CHECKS,
        BlankFrames,
    )
}
CHECKS = tuple(ALL_CHECKS)
#: The specification's thresholds: check to metric to rule.
STANDARD_RULES: dict[str, Rules] = {name: check.rules for name, check in ALL_CHECKS.items()}
#: What each check asks, in words.
TITLES: dict[str, str] = {name: check.title for name, check in ALL_CHECKS.items()}

_VIDEOS = frozenset(check.name for check in (*VIDEO_CHECKS, BlankFrames))
_STREAMS = frozenset(
    check.name for check in (DeclaredCounts, SyncAge, TimeMonotonic, Gaps, RateJitter, NanInf, EmptyTopics)
)
#: What can be asked of an HDF5 file: it has no grid, no stored indices, no statistics, no video files.
_NOT_HDF5 = (
    frozenset(("timestamp_grid", "index_integrity", "stats_recompute", "empty_topics", "sync_age")) | _VIDEOS
)
_NOT_TREE = frozenset(("empty_topics", "zero_width"))


@dataclass(slots=True)
class _Reading:
    """One input that is being measured."""

    checks: dict[str, Check]
    kind: str = "unknown"
    episodes: Mapping[str, str] | None = None
    sha256: str | None = None

    @property
    def decode(self) -> bool:
        return any(name in _VIDEOS for name in self.checks)

    def only(self, names: "frozenset[str]") -> None:
        """Where no check was named: those that apply to such an input."""
        self.checks = {name: check for name, check in self.checks.items() if name in names}


def quality_report(
    path: Path | None = None,
    *,
    canonical: "Path | Mapping[str, Path] | None" = None,
    probe: Mapping[str, Any] | None = None,
    checks: Sequence[str] | None = None,
    fps: float | None = None,
    name: str | None = None,
    thresholds: Thresholds | None = None,
    consumers: Mapping[str, Thresholds] | None = None,
    evidence: Path | None = None,
    subject: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure one input: recordings, HDF5 files, a LeRobot tree, videos, a canonical dataset.

    Args:
        path: What is measured; a folder with a canonical manifest is taken as that dataset.
        canonical: A canonical dataset instead, as for :func:`~...canonical.reader.open_canonical`.
        probe: The probe report of `path` (its JSON), so that it is not probed again.
        checks: Names of :data:`CHECKS`; all that apply by default.
        fps: Rate that the stamps are held against, where the input itself has none.
        name: What the report calls the input; default its file name.
        thresholds: Limits in place of the standard ones: check to metric to ``{"warn", "fail"}``.
        consumers: Further verdicts: consumer to its thresholds.
        evidence: A file that gets every measurement, one JSON object a line.
        subject: ``subjectSha256`` and ``assetId`` for the evidence, where known.

    Returns:
        ``{"reportVersion", "subject", "kind", "verdict": pass|warn|fail|unresolved, "clean": bool, "verdicts"
        (by consumer), "counts", "coverage": {declared, resolved, unresolved}, "checks": [...]}``, JSON only.

    Raises:
        InvalidInputError: An unknown check, or neither `path` nor `canonical`.
        IntegrityError: The canonical dataset is damaged.
        OSError: A file cannot be read.
    """
    wanted = list(CHECKS if checks is None else checks)
    unknown = [check for check in wanted if check not in CHECKS]
    if unknown:
        raise InvalidInputError(
            f"unknown check {', '.join(map(shown, unknown))}", hint=f"known are {', '.join(CHECKS)}"
        )
    if path is None and canonical is None:
        raise InvalidInputError(
            "nothing to measure: neither a path nor a dataset", kind=ErrorKind.INPUT_MISSING
        )
    if canonical is None and path is not None and path.is_dir() and (path / MANIFEST_FILE).is_file():
        canonical = path
    reading = _Reading({name: ALL_CHECKS[name](thresholds) for name in CHECKS if name in wanted})
    if canonical is not None:
        _canonical(canonical, reading, every=checks is None)
    else:
        assert path is not None  # noqa: S101 - one of the two is there, checked above
        read = _arrays if is_folder(path) else _file
        read(path, probe, reading, fps, every=checks is None)
    if checks is None:
        # What the input has no place for: a bag without numbers has none that are not finite.
        places = (n for n, check in reading.checks.items() if check.declared or not check.optional)
        reading.only(frozenset(places))
    for check in reading.checks.values():
        if check.resolved:
            check.finish()
    called = name or (path.name if path is not None else "dataset")
    if evidence is not None:
        about = {"subject": called, "subjectSha256": reading.sha256, "assetId": None, **(subject or {})}
        _keep(evidence, reading, about)
    return _finish(called, reading, consumers or {})


def _canonical(source: "Path | Mapping[str, Path]", reading: _Reading, *, every: bool) -> None:
    from emboflow_dagster.formats.quality.canonical import feed_canonical

    dataset = open_canonical(source)
    if every:
        cameras = any(feature.get("kind") == "image" for feature in dataset.manifest.features.values())
        reading.only(frozenset(CHECKS) - _NOT_TREE - (frozenset() if cameras else _VIDEOS - {"frame_count"}))
    reading.kind = dataset.manifest.document["schemaVersion"]
    reading.sha256 = dataset.manifest.sha256
    reading.episodes = feed_canonical(dataset, reading.checks, decode=reading.decode)


def _file(
    path: Path, probe: Mapping[str, Any] | None, reading: _Reading, fps: float | None, *, every: bool
) -> None:
    report = dict(probe) if probe is not None else probe_path(path).to_json()
    candidates = report.get("detectedFormatCandidates") or [{"format": "unknown"}]
    reading.kind = str(candidates[0]["format"])
    structure = report.get("structureSummary") or {}
    if reading.kind.startswith(("rosbag", "mcap")):
        if every:
            topics = structure.get("topics") or {}
            cameras = any("Image" in str(topic.get("type")) for topic in topics.values())
            reading.only(_STREAMS if cameras else _STREAMS - {"sync_age"})
        measure_streams(path, structure.get("topics") or {}, reading.checks)
        counts = reading.checks.get(DeclaredCounts.name)
        if isinstance(counts, DeclaredCounts):
            declared = (structure.get("declared") or {}).get("messageCount")
            counts.compare("messages", declared, int(structure.get("messageCount") or 0))
    elif reading.kind.startswith("hdf5"):
        from emboflow_dagster.formats.quality.canonical import feed_hdf5

        if every:
            reading.only(frozenset(CHECKS) - _NOT_HDF5)
        declares = feed_hdf5(path, reading.checks, fps or structure.get("fps"))
        if every and not declares:
            reading.checks.pop(DeclaredCounts.name)
    elif reading.kind.startswith("lerobot"):
        from emboflow_dagster.formats.quality.lerobot import feed, trees

        found = trees(path)
        if every:
            videos = any(tree.info.videos for tree in found)
            reading.only(frozenset(CHECKS) - _NOT_TREE - {"sync_age"} - (frozenset() if videos else _VIDEOS))
        feed(found, reading.checks, decode=reading.decode)
    elif reading.kind.startswith("rlds"):
        from emboflow_dagster.formats.quality.rlds import NOT_RLDS, feed_rlds

        if every:
            reading.only(frozenset(CHECKS) - NOT_RLDS - _VIDEOS)
        if not feed_rlds(path, structure, reading.checks) and every:
            reading.checks.pop(DeclaredCounts.name)
    elif reading.kind.startswith("video"):
        if every:
            reading.only(_VIDEOS - {VideoFps.name, VideoExists.name, "frame_count", "duration_drift"})
        _videos(path, reading, fps)
    elif every:
        reading.checks = {}


def _arrays(
    path: Path, _: Mapping[str, Any] | None, reading: _Reading, fps: float | None, *, every: bool
) -> None:
    from emboflow_dagster.formats.quality.arrays import NOT_ARRAYS, feed_arrays, has_videos

    reading.kind = ARRAYS
    if every:
        reading.only(frozenset(CHECKS) - NOT_ARRAYS - (frozenset() if has_videos(path) else _VIDEOS))
    feed_arrays(path, reading.checks, fps, decode=reading.decode)


def _videos(path: Path, reading: _Reading, fps: float | None) -> None:
    """Each video of a folder, or the one file, as an episode that nothing else is known of."""
    from emboflow_dagster.formats.detect import open_source
    from emboflow_dagster.formats.quality.video import watch
    from emboflow_dagster.formats.video import videos_of

    source = open_source(path)
    entries = videos_of(source) if source.is_folder else ()
    files = [(entry.path, source.file(entry)) for entry in entries] or [(path.name, path)]
    for name, file in files:
        view = EpisodeView(ref=name, length=0, vectors={}, videos={"video": watch(file, name, fps=fps)})
        for check in reading.checks.values():
            if check.name in _VIDEOS:
                check.take(view)


def _keep(path: Path, reading: _Reading, subject: Mapping[str, Any]) -> None:
    """Write the measurements, one JSON object a line; the file is there whole or not at all."""
    half = path.with_suffix(".part")
    with half.open("w", encoding="utf-8") as stream:
        for line in _lines(reading, subject):
            stream.write(line + "\n")
    half.replace(path)


def _lines(reading: _Reading, subject: Mapping[str, Any]) -> Iterator[str]:
    for check in reading.checks.values():
        for row in check.kept.rows:
            yield json.dumps(json_safe(row_json(row, subject, reading.episodes or {})))


def _finish(subject: str, reading: _Reading, consumers: Mapping[str, Thresholds]) -> dict[str, Any]:
    """Put the verdict on top: the worst severity, or ``unresolved`` where nothing could be measured."""
    for check in reading.checks.values():
        # A check that the input has no place for says so as well: declared, and not resolved.
        check.declared = check.declared or 1
    results = [check.result(consumers) for check in reading.checks.values()]
    coverage = {
        part: sum(item["coverage"][part] for item in results)
        for part in ("declared", "resolved", "unresolved")
    }
    verdict = verdict_of([item["severity"] for item in results], coverage)
    counts = {name: sum(item["severity"] == name for item in results) for name in ORDER}
    return json_safe(
        {
            "reportVersion": REPORT_VERSION,
            "subject": subject,
            "subjectSha256": reading.sha256,
            "kind": reading.kind,
            "verdict": verdict,
            "clean": verdict == "pass",
            "verdicts": {
                name: verdict_of([item["verdicts"][name] for item in results], coverage) for name in consumers
            },
            "counts": counts,
            "coverage": coverage,
            "checks": results,
        }
    )


def verdict_of(severities: Sequence[str], coverage: Mapping[str, int]) -> str:
    """The worst of several; ``unresolved`` where nothing could be measured."""
    if not coverage["resolved"]:
        return "unresolved"
    return max((s for s in severities if s in ORDER), key=ORDER.__getitem__, default="pass")
