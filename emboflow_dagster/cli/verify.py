"""`emboflow verify` and `emboflow scrub`: what is promised held against what is really stored."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import amounts, figures, output, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.project.verify import VerifyReport

MAX_ROWS = 200
MaxBytes = Annotated[
    str | None,
    typer.Option("--max-bytes", metavar="SIZE", help="Stop after so many bytes, for example 10GiB."),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option("--max-seconds", min=0.1, metavar="S", help="Stop reading after so many seconds."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "verify", example="emboflow verify --all")(verify)
    verb(app, "scrub", example="emboflow scrub --max-bytes 10GiB")(scrub)


def verify(
    all_: Annotated[
        bool, typer.Option("--all", help="Every workspace of the database, not only this one.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on reading payloads where the last one was interrupted.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="DATE", help="Read only payloads stored on or after this date."),
    ] = None,
    max_bytes: MaxBytes = None,
    max_seconds: MaxSeconds = None,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine/--no-quarantine", help="Set damaged versions aside, or only report them."),
    ] = True,
) -> None:
    """Check documents, references, numbers, ownership, audit chain and payloads. Exit 1 for any problem."""
    most, first = amounts.size_of(max_bytes, "--max-bytes"), amounts.moment_of(since, "--since")
    with opened(to_check=True) as ef, progress.waiting("verifying") as tell:
        if not (all_ or ef.scope.workspace_id):
            output.note(f"there is no workspace {ef.scope.workspace_slug}: all of them are checked")
        report = ef.verify(
            all=all_,
            resume=resume,
            quarantine=quarantine,
            since=first,
            max_bytes=most,
            max_seconds=max_seconds,
            tick=_telling(tell, "verifying"),
        )
    _show(report, "payloads are left to read: emboflow verify --resume")


def scrub(max_bytes: MaxBytes = None, max_seconds: MaxSeconds = None) -> None:
    """Read the next slice of the payloads and set aside what is damaged. Exit 1 for any problem.

    Each call goes on where the last one stopped; after the last payload it begins anew.
    """
    most = amounts.size_of(max_bytes, "--max-bytes")
    with opened() as ef, progress.waiting("reading payloads") as tell:
        report = ef.scrub(max_bytes=most, max_seconds=max_seconds, tick=_telling(tell, "reading payloads"))
    _show(report, "payloads are left to read: the next `emboflow scrub` goes on here")


def _telling(tell: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    return lambda payloads, count: tell(f"{what}: {payloads} payloads, {figures.size(count)}")


def _show(report: "VerifyReport", left: str) -> None:
    told = {name: figures.size(count) if name == "bytes" else count for name, count in report.counts.items()}
    counted = ", ".join(f"{name} {count}" for name, count in sorted(told.items()) if count)

    def page() -> None:
        if report.problems:
            output.table(
                ("CODE", "COLLECTION", "ID", "FIELD", "PROBLEM"),
                [
                    (output.styled(p.code, "red"), p.collection, p.id, p.field, p.message)
                    for p in report.problems[:MAX_ROWS]
                ],
            )
            if len(report.problems) > MAX_ROWS:
                output.note(f"and {len(report.problems) - MAX_ROWS} more; --json shows all")
        found = "everything is as it should be" if report.ok else f"{len(report.problems)} problems"
        output.pairs([("looked at", counted or "nothing"), ("found", output.styled(found, "bold"))])

    output.emit(report.to_json(), page)
    if not report.complete:
        output.note(left)
    if not report.ok:
        raise typer.Exit(1)
