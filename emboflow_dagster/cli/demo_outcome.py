"""What the demo did and found: filled on the way, compared with what was made, put into words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.cli import demo_workflow
from emboflow_dagster.errors import ErrorKind, ExecutionError

if TYPE_CHECKING:
    from emboflow_dagster.formats.demo_recordings.find import Found
    from emboflow_dagster.formats.demo_recordings.make import Truth
    from emboflow_dagster.formats.demo_recordings.together import Group
    from emboflow_dagster.model.artifact import Artifact
    from emboflow_dagster.model.asset import Asset, AssetProbeReport
    from emboflow_dagster.model.dataset import DatasetVersion
    from emboflow_dagster.model.run import RunTask, WorkflowRun
    from emboflow_dagster.project.verify import VerifyReport
    from emboflow_dagster.project.workflows import Published


@dataclass(slots=True)
class Recording:
    """One recording on its way: found, registered, probed. ``truth`` is known of what was made here."""

    found: "Found"
    truth: "Truth | None" = None
    asset: "Asset | None" = None
    known: bool = False
    report: "AssetProbeReport | None" = None
    refused: str | None = None

    @property
    def warnings(self) -> list[str]:
        """The codes of its probe report's warnings, each once."""
        return sorted({w.code for w in self.report.warnings}) if self.report else []


@dataclass(slots=True)
class Outcome:
    """Everything the demo did, filled on the way."""

    steps: list[tuple[str, float, str]] = field(default_factory=list)
    recordings: list[Recording] = field(default_factory=list)
    group: "Group | None" = None
    schemas: dict[str, list[str]] = field(default_factory=dict)
    """Asset id to the features of its episodes, in words."""
    workflow_file: Path | None = None
    published: "Published | None" = None
    run: "WorkflowRun | None" = None
    tasks: "list[RunTask]" = field(default_factory=list)
    artifacts: "list[Artifact]" = field(default_factory=list)
    url: str | None = None
    """Where Dagster's UI runs, if it does."""
    dataset: str | None = None
    version: "DatasetVersion | None" = None
    version_known: bool = False
    left_out: list[tuple[str, str]] = field(default_factory=list)
    verified: "VerifyReport | None" = None
    problems: list[str] = field(default_factory=list)


def probe_differences(recording: Recording) -> list[str]:
    """Where the probe of a recording that was made here differs from what was written."""
    truth, report = recording.truth, recording.report
    if truth is None or report is None:
        return []
    found = report.structure_summary
    expected: dict[str, Any] = {"format": truth.format, "warnings": sorted(truth.warnings)}
    seen: dict[str, Any] = {"format": report.format, "warnings": recording.warnings}
    if not truth.warnings:
        expected["messages"] = truth.messages
        seen["messages"] = {topic: row["count"] for topic, row in (found.get("topics") or {}).items()}
    name = recording.found.name
    return [
        f"{name}: {key} was made as {expected[key]}, probed as {seen[key]}"
        for key in expected
        if expected[key] != seen[key]
    ]


def left_out(tasks: "dict[str, RunTask]", outcome: Outcome) -> list[tuple[str, str]]:
    """Recordings without an episode in the dataset, each with the reason."""
    rows = [(r.found.name, r.refused) for r in outcome.recordings if r.refused is not None]
    sound = (tasks["sound"].last_result_preview or {}) if "sound" in tasks else {}
    reports = {r.asset.id: r for r in outcome.recordings if r.asset is not None}
    for row in sound.get("rejected", ()):
        why = _blocking_messages(reports.get(row["id"]))
        rows.append((row["name"], "; ".join(why) or "nothing in it can become episodes"))
    if "episodes" not in tasks:
        named = {name for name, _ in rows}
        none = "the demo finds no episode in it; `normalize` in a workflow takes tables and arrays"
        rows += [(r.found.name, none) for r in outcome.recordings if r.asset and r.found.name not in named]
    episodes = (tasks["episodes"].last_result_preview or {}) if "episodes" in tasks else {}
    schemas = {r.found.name: outcome.schemas.get(r.asset.id, []) for r in outcome.recordings if r.asset}
    for row in episodes.get("sources", ()):
        if not row["episodes"]:
            other = "; ".join(f"another schema: {words}" for words in schemas.get(row["name"], ()))
            rows.append((row["name"], other or row["left out"] or "it holds no series of numbers"))
    return rows


def _blocking_messages(recording: Recording | None) -> list[str]:
    """The first message of each warning that the workflow does not let pass."""
    if recording is None or recording.report is None:
        return []
    first: dict[str, str] = {}
    for warning in recording.report.warnings:
        if warning.code in demo_workflow.blocking_warnings():
            first.setdefault(warning.code, f"{warning.code}: {warning.message}")
    return list(first.values())


def size_differences(outcome: Outcome) -> list[str]:
    """Where the dataset's size differs from that of the recordings that were made here."""
    truths = [r.truth for r in outcome.recordings if r.truth is not None]
    if not truths or outcome.version is None:
        return []
    stats = outcome.version.stats
    made = {"episodes": sum(t.episodes for t in truths), "frames": sum(t.frames for t in truths)}
    return [
        f"{outcome.dataset}: {stats.get(name)} {name}, made were {count}"
        for name, count in made.items()
        if stats.get(name) != count
    ]


def in_words(features: Mapping[str, Any]) -> str:
    """Features with their widths.

    >>> in_words({"action": 2, "observation.images.front": [72, 96, 3]})
    'action 2, observation.images.front 72x96x3'
    """
    return ", ".join(f"{name} {_shape(shape)}" for name, shape in features.items())


def _shape(shape: Any) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, list) else str(shape)


def require_clean(outcome: Outcome) -> None:
    """Nothing where every promise was kept.

    Raises:
        ExecutionError: Something is not as it was made, or not as it should be stored.
    """
    if outcome.problems:
        more = f" (and {len(outcome.problems) - 1} more)" if len(outcome.problems) > 1 else ""
        raise ExecutionError(
            f"{outcome.problems[0]}{more}",
            kind=ErrorKind.RUN_FAILED,
            hint="`emboflow verify` shows all of it",
        )
