"""`emboflow blob import-flowcept` and `export-flowcept`: a Flowcept database comes over, or is written."""

from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from emboflow_dagster.blobs.flowcept_report import TransferReport

MAX_ROWS = 200
Uri = Annotated[
    str, typer.Option("--uri", metavar="mongodb://...", help="The server of Flowcept's database.")
]
Database = Annotated[str, typer.Option("--database", metavar="NAME", help="The name of Flowcept's database.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, write nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "import-flowcept", example="emboflow blob import-flowcept --uri mongodb://localhost --dry-run")(
        import_flowcept
    )
    verb(app, "export-flowcept", example="emboflow blob export-flowcept policy --uri mongodb://localhost")(
        export_flowcept
    )


def import_flowcept(
    uri: Uri,
    database: Database = "flowcept",
    prefix: Annotated[
        str,
        typer.Option("--prefix", metavar="TEXT", help="Put before every id, where ids are taken."),
    ] = "",
    home: Annotated[
        str,
        typer.Option("--home", metavar="HOME", help="Where large payloads go: object_store or gridfs."),
    ] = "object_store",
    dry_run: DryRun = False,
) -> None:
    """Bring every blob of a Flowcept database here, with its versions; run again, it adds what is new.

    Exit 1 when something could not come over.
    """
    with opened() as ef, progress.waiting("reading Flowcept's database") as say:
        report = ef.blobs.import_flowcept(
            uri, database, prefix=prefix, home=home, dry_run=dry_run, progress=_telling(say)
        )
    _show(report, "would come over" if dry_run else "came over")


def export_flowcept(
    uri: Uri,
    blobs: Annotated[
        list[str] | None, typer.Argument(metavar="[BLOB]...", help="Object ids; else all of the workspace.")
    ] = None,
    database: Database = "flowcept",
    dry_run: DryRun = False,
) -> None:
    """Write blobs, with their versions, into a database that Flowcept reads; run again, nothing twice.

    Exit 1 when something could not be written.
    """
    with opened() as ef, progress.waiting("writing Flowcept's database") as say:
        report = ef.blobs.export_flowcept(
            uri, database, object_ids=blobs or None, dry_run=dry_run, progress=_telling(say)
        )
    _show(report, "would be written" if dry_run else "written")


def _telling(say: "Callable[[str], None]") -> "Callable[[TransferReport], None]":
    def tell(report: "TransferReport") -> None:
        counts = report.counts
        say(f"{counts['objects']} objects, {counts['versions']} versions, {figures.size(counts['bytes'])}")

    return tell


def _show(report: "TransferReport", done: str) -> None:
    def page() -> None:
        if report.findings:
            output.table(
                ("FOUND", "OBJECT", ">VERSION", "WHAT"),
                [
                    (output.styled(f.code.value, "yellow"), f.object_id, f.version, f.message)
                    for f in report.findings[:MAX_ROWS]
                ],
            )
            if len(report.findings) > MAX_ROWS:
                output.note(f"and {len(report.findings) - MAX_ROWS} more; --json shows all")
        counts = report.counts
        output.pairs(
            [
                ("database", report.database),
                ("looked at", f"{counts['objects']} objects, {counts['versions']} versions"),
                (done, f"{counts['new']} versions, {figures.size(counts['bytes'])}"),
                ("there already", counts["unchanged"] or None),
                ("lost", counts["lost"] or None),
                ("found", output.styled(_verdict(report), "bold")),
            ]
        )

    output.emit(report.to_json(), page)
    if not report.ok:
        raise typer.Exit(1)


def _verdict(report: "TransferReport") -> str:
    if not report.findings:
        return "everything is as it should be"
    return f"{len(report.findings)} rows to look at" + ("" if report.ok else "; not everything is there")
