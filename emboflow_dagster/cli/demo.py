"""`emboflow demo`: the whole way of the data, on recordings made here or on any folder."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import demo_flow, demo_outcome, figures, output, run_tasks, state
from emboflow_dagster.cli.deployment import settings
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.cli.demo_outcome import Outcome, Recording

INDENT: Final = 6


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "demo", example="emboflow demo --input recordings/")(demo)


def demo(
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="DIR", help="A folder with recordings; without it they are made here."
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh/--keep",
            help="In a new project beside what is there, or on top of what is there (default).",
        ),
    ] = False,
) -> None:
    """Register, probe, publish, run and verify: from recordings to a dataset version.

    Nothing is downloaded. Again on the same home everything is unchanged but for one more run.
    """
    from emboflow_dagster.project.settings import full_path

    deployment = settings()
    if fresh:
        deployment = replace(deployment, project=_new_project())
    tell = _quiet if state.current().json else _told
    folder = None if input_ is None else full_path(input_)
    outcome = demo_flow.run_demo(deployment, folder, tell, output.note)
    output.emit(_summary(outcome), lambda: _ending(outcome, deployment.project if fresh else None))
    demo_outcome.require_clean(outcome)


def _new_project() -> str:
    from emboflow_dagster.model.base import utc_now

    return f"demo-{utc_now():%Y%m%d-%H%M%S}"


def _quiet(_outcome: "Outcome", _verb: str) -> None:
    """Programs get one value at the end."""


def _told(outcome: "Outcome", verb: str) -> None:
    """One line a step, and below it what it is about."""
    name, seconds, text = outcome.steps[-1]
    number = len(outcome.steps)
    head = output.styled("", "")
    head.append(f"{number:>2}  {name:<9}", style="bold")
    head.append(f"{seconds:>7.2f} s  ", style="cyan")
    head.append(output.clean(text))
    output.console().print(head, soft_wrap=True)
    if verb == "probe":
        rows = [_recording_row(r) for r in outcome.recordings]
        _table(("RECORDING", "FORMAT", "CONTENT", "WARNINGS", "ASSET?"), rows)
    elif verb == "publish" and outcome.workflow_file is not None:
        unchanged = outcome.published is not None and outcome.published.unchanged
        text = "" if unchanged else outcome.workflow_file.read_text(encoding="utf-8")
        output.lines(f"{'':{INDENT}}{line}" for line in [f"# {outcome.workflow_file}", *text.splitlines()])
    elif verb == "work":
        _table(run_tasks.COLUMNS, [row.cells for row in run_tasks.rows(outcome.tasks)])
        _told_about_dataset(outcome)


def _told_about_dataset(outcome: "Outcome") -> None:
    version = outcome.version
    if version is not None:
        size = f"{version.stats['episodes']} episodes, {version.stats['frames']} frames"
        state_ = "unchanged" if outcome.version_known else "new"
        text = f"      dataset {outcome.dataset} {version.version_tag} ({state_}): {size}"
        output.console().print(output.styled(text, "green"), soft_wrap=True)
    elif outcome.dataset is None:
        output.lines(["      no dataset: none of the recordings gives episodes"])
    if outcome.left_out:
        _table(("NOT IN THE DATASET", "BECAUSE"), outcome.left_out)


def _recording_row(recording: "Recording") -> tuple[object, ...]:
    if recording.asset is None or recording.report is None:
        return (recording.found.name, "refused", recording.refused, "", "")
    found = recording.report.structure_summary
    counts = (
        (found.get("messageCount"), "messages"),
        (found.get("episodes"), "episodes"),
        (found.get("frames"), "frames"),
        (found.get("rows"), "rows"),
        (found.get("members"), "members"),
    )
    content = ", ".join(
        f"{count} {what.removesuffix('s') if count == 1 else what}"
        for count, what in counts
        if isinstance(count, int)
    )
    files = f"{recording.asset.file_count} files, " if recording.asset.file_count > 1 else ""
    return (
        recording.asset.display_name,
        recording.report.format,
        content or f"{files}{figures.size(recording.asset.size_bytes)}",
        ", ".join(recording.warnings),
        output.short(recording.asset.id),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table below a step's line."""
    output.table(columns, rows, indent=INDENT)


def _ending(outcome: "Outcome", project: str | None) -> None:
    run, version = outcome.run, outcome.version
    if run is None or outcome.published is None:
        return
    total = sum(seconds for _, seconds, _ in outcome.steps)
    output.heading(f"Done in {total:.1f} s. To look at:")
    output.pairs(
        [
            ("  run", run.id),
            ("  workflow", f"{outcome.published.definition.slug} ({outcome.published.definition.id})"),
            ("  dataset", f"{outcome.dataset} {version.version_tag} ({version.id})" if version else None),
            ("  manifest", version.manifest_ref.uri if version else None),
            *((f"  {task.node_id}", ", ".join(task.output_artifact_ids) or None) for task in outcome.tasks),
        ]
    )
    output.heading("Next:")
    commands = _next(outcome, project)
    width = max(len(command) for command, _ in commands)
    output.lines(f"  {command:<{width}}   {why}" for command, why in commands)


def _next(outcome: "Outcome", project: str | None) -> list[tuple[str, str]]:
    """Three commands to try, as they can be typed here."""
    command = _command()
    where = f" --project {project}" if project else ""
    run = outcome.run.id if outcome.run else ""
    dev = "make dev" if Path("Makefile").is_file() and not shutil.which("emboflow") else f"{command} dev"
    third = (
        (f"{command} dataset versions {outcome.dataset}{where}", "the versions of the dataset")
        if outcome.version
        else (f"{command} asset list{where}", "the recordings that were registered")
    )
    first = (
        (outcome.url, "Dagster's UI, which is running: lineage, pictures, the run")
        if outcome.url
        else (dev, "the same in Dagster's UI: lineage, pictures, the run")
    )
    return [
        first,
        (f"{command} run show {run}{where}", "the run and its tasks"),
        third,
    ]


def _command() -> str:
    """How this command was called: by its name where that is on the PATH, else by its path."""
    if shutil.which("emboflow"):
        return "emboflow"
    called = Path(sys.argv[0])
    if called.name != "emboflow":
        return "emboflow"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working directory is gone
        return str(called)


def _summary(outcome: "Outcome") -> dict[str, Any]:
    """All of it as JSON values."""
    run, version, published = outcome.run, outcome.version, outcome.published
    return {
        "ok": not outcome.problems,
        "steps": [
            {"step": name, "seconds": round(seconds, 3), "what": text}
            for name, seconds, text in outcome.steps
        ],
        "recordings": [
            {
                "name": r.asset.display_name if r.asset else r.found.name,
                "path": str(r.found.path),
                "type": r.found.asset_type,
                "assetId": r.asset.id if r.asset else None,
                "unchanged": r.known,
                "format": r.report.format if r.report else None,
                "warnings": r.warnings,
                "refused": r.refused,
            }
            for r in outcome.recordings
        ],
        "workflow": {
            "slug": published.definition.slug,
            "id": published.definition.id,
            "versionNumber": published.version.version_number,
            "unchanged": published.unchanged,
            "file": str(outcome.workflow_file),
        }
        if published
        else None,
        "run": run.to_json() if run else None,
        "tasks": [task.to_json() for task in outcome.tasks],
        "artifacts": [{"_id": a.id, "type": a.type} for a in outcome.artifacts],
        "dataset": {"name": outcome.dataset, "unchanged": outcome.version_known, **version.to_json()}
        if version
        else None,
        "leftOut": [{"name": name, "reason": reason} for name, reason in outcome.left_out],
        "verify": outcome.verified.to_json() if outcome.verified else None,
        "problems": outcome.problems,
    }
