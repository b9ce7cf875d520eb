"""`emboflow gc`: what nothing needs any more is taken away."""

import re
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.project.gc.report import GcReport
    from emboflow_dagster.project.handle import EmboFlow

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHOWN: Final = 20
#: Why payloads are kept, in words.
_KEPT: Final = {
    "version": "versions that nobody let go",
    "owner": "owned by a record",
    "record": "referred to by a record",
    "listing": "part of a folder or dataset",
    "hold": "under legal hold",
    "retention": "kept by a retention rule",
    "run": "made by a run that is not over",
    "temporary": "temporary, not expired",
    "grace": "let go, within the grace",
    "pending": "about to be referred to",
    "young": "put within the grace",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "gc", example="emboflow gc --dry-run")(gc)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what would be collected.")
    ] = False,
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="TIME", help="How long things stay after they were put or let go: 36h, 7d."
        ),
    ] = "24h",
    force: Annotated[
        bool, typer.Option("--force", help="Also when the database knows little of what is in the store.")
    ] = False,
) -> None:
    """Collect the bytes of withdrawn, expired and orphaned payloads, over all workspaces.

    What a version, record, dataset, run or writer needs stays; `emboflow blob why-kept` names what.
    """
    seconds = duration(grace)
    with opened() as ef, progress.waiting("collecting") as say:
        wiped = {} if dry_run else _wiped(ef)

        def tell(step: str, done: int, total: int | None) -> None:
            say(f"{step}: {done} of {total}" if total else f"{step}: {done}")

        report = ef.gc(dry_run=dry_run, grace_s=seconds, force=force, progress=tell)
    output.emit({**report.to_json(), "wiped": wiped}, lambda: _page(report, wiped))


def duration(text: str) -> float:
    """A time in seconds.

    >>> duration("36h"), duration("7d")
    (129600.0, 604800.0)
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise typer.BadParameter("a number and s, m, h or d are needed: 36h", param_hint="'--grace'")
    return float(int(found[1]) * _UNITS[found[2]])


def _wiped(ef: "EmboFlow") -> dict[str, int]:
    """Let go of what assets stored that were wiped in Dagster, where there is a Dagster."""
    home = ef.settings.dagster_home
    if not (home / "dagster.yaml").exists():
        return {}
    from emboflow_dagster.orchestration import instance, wiped

    with instance.opened(home) as dagster:
        return wiped.let_go(ef, dagster)[0]


def _page(report: "GcReport", wiped: dict[str, int]) -> None:
    if report.kept:
        rows = [(count, _KEPT.get(kind, kind)) for kind, count in report.kept.most_common()]
        output.table((">PAYLOADS", "KEPT BECAUSE"), rows)
    freed = f"{report.freed_payloads} payloads, {figures.size(report.freed_bytes)}"
    would = "would be " if report.dry_run else ""
    names = [*report.versions[:_SHOWN], *(["..."] if len(report.versions) > _SHOWN else [])]
    output.pairs(
        [
            (f"{would}freed", output.styled(freed, "bold")),
            ("of versions", f"{report.tombstones}" if report.tombstones else None),
            ("of nobody", f"{report.orphans}" if report.orphans else None),
            ("names", ", ".join(names) or None),
            ("let go by rules", report.let_go or None),
            ("let go by wipes", sum(wiped.values()) or None),
            ("spared", report.spared or None),
            (
                "dead uploads",
                f"{report.aborted_uploads}, {figures.size(report.aborted_bytes)}"
                if report.aborted_uploads
                else None,
            ),
            ("outboxes finished", report.archived_tails or None),
            ("old results forgotten", report.cached or None),
        ]
    )
