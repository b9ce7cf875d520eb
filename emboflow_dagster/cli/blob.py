"""`emboflow blob`: versioned payloads, hashed on the way in and on the way out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emboflow_dagster.cli import (
    blob_check,
    blob_flowcept,
    blob_owner,
    blob_upload,
    figures,
    keeping,
    output,
    payload,
    progress,
)
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.options import Limit, Output
from emboflow_dagster.cli.state import noun, verb

if TYPE_CHECKING:
    from emboflow_dagster.blobs.standing import Standing
    from emboflow_dagster.model.blob import BlobObject

app = noun("Blobs: versioned payloads, verified on every read.")
blob_check.register(app)
Id = Annotated[str, typer.Argument(metavar="BLOB", help="Object id of a blob.")]
blob_upload.register(app)
blob_owner.register(app)
Version = Annotated[
    int | None, typer.Option("--version", min=0, metavar="N", help="Version number; else the newest.")
]


@verb(app, "put", example="emboflow blob put model.pt --id policy --type ml_model")
def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to store.")],
    object_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Which blob gets a new version; else a new blob.")
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="A word of yours, for example ml_model; else the type that the blob has, or artifact.",
        ),
    ] = None,
    content_type: Annotated[
        str | None,
        typer.Option(
            "--content-type", metavar="MIME", help="MIME type of the payload; else application/octet-stream."
        ),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="A JSON object, kept as custom_metadata.")
    ] = None,
    temporary: Annotated[
        bool, typer.Option("--temporary", help="Only for a while: no version, no owner; see --ttl.")
    ] = False,
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="How long a temporary one can be read: 30m, 12h, 1d.")
    ] = "1d",
    home: Annotated[
        str | None,
        typer.Option(
            "--home",
            metavar="HOME",
            help="Where the bytes go: object_store (where nothing is said), in_object (at most 256 KiB), "
            "gridfs (where allowed).",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="A short label; several are allowed."),
    ] = None,
) -> None:
    """Store a file as the next version of a blob; equal bytes of which nothing new is said make none."""
    from emboflow_dagster.project.settings import full_path

    custom = _object(metadata)
    path = payload.source(full_path(file), file)
    if temporary:
        said = {"--id": object_id, "--metadata": metadata, "--type": type_, "--home": home, "--tag": tag}
        if wrong := [name for name, value in said.items() if value is not None]:
            raise typer.BadParameter(f"a temporary blob has no {wrong[0]}", param_hint="'--temporary'")
        blob_upload.put_temporary(path, content_type or "application/octet-stream", ttl)
        return
    with opened() as ef, progress.waiting(f"storing {file}"):
        blob = ef.blobs.put(
            path,
            object_id=object_id,
            type=type_,
            content_type=content_type,
            custom_metadata=custom,
            tags=tag,
            home=home or "object_store",
        )
    output.emit(blob.to_json(), lambda: _page(blob))


@verb(app, "get", example="emboflow blob get policy --version 0 --output model.pt")
def get(
    object_id: Id,
    version: Version = None,
    out: Output = None,
    temporary: Annotated[
        bool, typer.Option("--temporary", help="BLOB is the id of a temporary one.")
    ] = False,
) -> None:
    """A version's verified bytes, to a file, to BLOB.vN.bin in a folder, or to standard output."""
    from emboflow_dagster.blobs.flowcept_object import filename

    if temporary:
        blob_upload.get_temporary(object_id, out)
        return
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
        if out is None:
            payload.to_stdout(ef.blobs.open(object_id, blob.version), blob.content_type)
            return
        with progress.waiting(f"writing {out}"):
            path = ef.blobs.fetch(object_id, payload.target(out, filename(blob)), blob.version)
    value = {
        "objectId": blob.object_id,
        "version": blob.version,
        "path": str(path.absolute()),
        "bytes": blob.size,
        "sha256": blob.sha256,
    }
    output.emit(value, lambda: output.lines([f"{path}"]))


@verb(app, "show", example="emboflow blob show policy")
def show(object_id: Id, version: Version = None) -> None:
    """A version's metadata."""
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
        became = ef.blobs.standing(object_id, [blob.version]).get(blob.version)
    output.emit(blob.to_json(), lambda: _page(blob, became))


@verb(app, "list", example="emboflow blob list --type ml_model")
def list_(
    type_: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only of one type, for example ml_model.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only of one run.")] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only of one task.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000, metavar="N", help="How many at most.")
    ] = 100,
) -> None:
    """The newest version of each blob of the workspace, the latest written first."""
    with opened() as ef:
        found = ef.blobs.list_objects(type=type_, workflow_id=run, task_id=task, limit=limit)
    rows = [
        (
            b.object_id,
            b.version,
            b.type,
            figures.size(b.object_size_bytes),
            b.storage_type.value,
            b.updated_by,
            figures.age(b.updated_at),
            output.short(b.workflow_id),
        )
        for b in found
    ]
    output.emit(
        [b.to_json() for b in found],
        lambda: output.listing(
            ("BLOB", ">VERSION", "TYPE", ">SIZE", "HOME?", "BY?", "STORED?", "RUN?"),
            rows,
            empty="no such blob: emboflow blob put FILE stores one",
            limit=limit,
        ),
    )


@verb(app, "history", example="emboflow blob history policy")
def history(
    object_id: Id,
    below: Annotated[
        int | None,
        typer.Option("--below", min=0, metavar="N", help="Only versions older than N: the next page."),
    ] = None,
    limit: Limit = 100,
) -> None:
    """A blob's versions, newest first."""
    with opened() as ef:
        ef.blobs.get(object_id)
        found = ef.blobs.history(object_id, below=below, limit=limit)
        became = ef.blobs.standing(object_id, [b.version for b in found])
    rows = [
        (
            b.version,
            b.type,
            figures.size(b.size) if b.completed else "-",
            (b.data_sha256 or "-")[:12],
            b.content_type,
            b.updated_by,
            figures.age(b.updated_at),
            *([became[b.version].state.value if b.version in became else None] if became else []),
        )
        for b in found
    ]
    output.emit(
        [b.to_json() for b in found],
        lambda: output.listing(
            (
                *(">VERSION", "TYPE?", ">SIZE", "SHA256", "CONTENT?", "BY?", "STORED?"),
                *(["STATE"] if became else []),
            ),
            rows,
            empty=f"{object_id} has no older version",
            limit=limit,
        ),
    )


keeping.register(app)


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="'--metadata'") from None
    if not isinstance(value, dict):
        raise typer.BadParameter("a JSON object is needed: {...}", param_hint="'--metadata'")
    return value


def _page(blob: "BlobObject", became: "Standing | None" = None) -> None:
    from emboflow_dagster.cli.report_page import values

    owner = (
        f"{blob.owner_record}.{blob.owner_record_field} {blob.owner_record_id or '(not recorded yet)'}"
        if blob.owner_record
        else None
    )
    output.pairs(
        [
            ("blob", output.styled(blob.object_id, "bold")),
            ("version", blob.version),
            ("type", blob.type),
            ("size", figures.size(blob.object_size_bytes)),
            ("upload", None if blob.completed else blob.upload_status.value),
            ("state", _told(became) if became else None),
            ("content", blob.content_type),
            ("home", blob.storage_type.value),
            ("sha256", blob.data_sha256),
            ("stored at", blob.storage_ref.uri if blob.storage_ref else None),
            ("owner", owner),
            ("tags", ", ".join(blob.tags) or None),
            ("run", blob.workflow_id),
            ("task", blob.task_id),
            ("stored", f"{figures.moment(blob.updated_at)} by {blob.updated_by}"),
        ]
    )
    if blob.custom_metadata:
        values("Metadata", blob.custom_metadata)


def _told(became: "Standing") -> str:
    return f"{became.state.value} {figures.moment(became.since)} by {became.by}: {became.why}"


blob_flowcept.register(app)
