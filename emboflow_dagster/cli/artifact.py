"""`emboflow artifact`: what runs produced."""

from typing import Annotated

import typer

from emboflow_dagster.cli import evidence, figures, output, payload, progress
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit, Output
from emboflow_dagster.cli.state import noun, verb

app = noun("Artifacts: what runs produced.")
Id = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="Id of an artifact, or its last eight characters.")
]


@verb(app, "list", example="emboflow artifact list --run run_01JD3ZK4Q8X5V7N2M9B6C0T1RW")
def list_(
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only what the tasks of one run left.")
    ] = None,
    producer: Annotated[
        str | None, typer.Option("--producer", metavar="ID", help="Only of one task, run or probe.")
    ] = None,
    limit: Limit = 100,
) -> None:
    """The project's artifacts, newest first."""
    from emboflow_dagster.blobs.listing import is_listing

    with opened() as ef:
        if run is not None:
            found = [
                a for t in ef.tasks.list(full_id(ef.runs.documents, run)) for a in ef.artifacts.of_task(t)
            ]
            found = [a for a in found if producer in (None, a.producer_id)][:limit]
        else:
            found = ef.artifacts.list(producer_id=producer, limit=limit)
    rows = [
        (
            output.short(a.id),
            a.type,
            a.lineage.node_id,
            None if is_listing(a.storage_ref) else figures.size(a.storage_ref.size),
            "folder" if is_listing(a.storage_ref) else a.storage_ref.content_type,
            figures.age(a.created_at),
            output.short(a.lineage.workflow_run_id),
        )
        for a in found
    ]
    output.emit(
        [a.to_json() for a in found],
        lambda: output.listing(
            ("ARTIFACT", "TYPE", "NODE?", ">SIZE", "CONTENT?", "MADE?", "RUN?"),
            rows,
            empty="no artifact yet: runs make them",
            limit=limit,
        ),
    )


@verb(app, "show", example="emboflow artifact show art_01JD3ZK4Q8X5V7N2M9B6C0T1RW")
def show(artifact: Id) -> None:
    """One artifact: its bytes, its summary, where it came from."""
    with opened() as ef:
        found = ef.artifacts.get(full_id(ef.artifacts.documents, artifact))

    def page() -> None:
        from emboflow_dagster.blobs.listing import is_listing
        from emboflow_dagster.cli.report_page import values

        lineage, ref = found.lineage, found.storage_ref
        output.pairs(
            [
                ("artifact", output.styled(found.id, "bold")),
                ("type", found.type),
                ("size", None if is_listing(ref) else figures.size(ref.size)),
                ("content", "folder" if is_listing(ref) else ref.content_type),
                ("checksum", ref.checksum),
                ("blob", f"{ref.object_id} version {ref.version}" if ref.object_id else None),
                ("stored at", ref.uri),
                ("producer", f"{found.producer_type.value} {found.producer_id}"),
                ("task", f"{lineage.workflow_run_id}:{lineage.node_id}" if lineage.node_id else None),
                ("assets", ", ".join(lineage.asset_ids) or None),
                ("made of", ", ".join(lineage.input_artifact_ids) or None),
                ("code", lineage.code_digest),
                ("made", f"{figures.moment(found.created_at)} by {found.created_by}"),
            ]
        )
        if found.summary:
            values("Summary", found.summary)

    output.emit(found.to_json(), page)


@verb(app, "get", example="emboflow artifact get art_01JD3ZK4Q8X5V7N2M9B6C0T1RW --output report.json")
def get(artifact: Id, out: Output = None) -> None:
    """An artifact's verified bytes: a file or standard output; a bundle becomes a folder."""
    from emboflow_dagster.blobs.listing import is_listing

    with opened() as ef:
        found = ef.artifacts.get(full_id(ef.artifacts.documents, artifact))
        ref = found.storage_ref
        if out is None:
            if is_listing(ref):
                raise typer.BadParameter("a bundle of files needs a folder", param_hint="'--output'")
            payload.to_stdout(ef.blobs.open_ref(ref), ref.content_type)
            return
        with progress.waiting(f"writing {out}"):
            path = ef.artifacts.fetch(found, payload.target(out, found.id))
    value = {"artifactId": found.id, "path": str(path.absolute()), "bytes": ref.size, "sha256": ref.sha256}
    output.emit(value, lambda: output.lines([f"{path}"]))


evidence.register_artifact(app)
