"""`emboflow blob`: versioned payloads, hashed on the way in and on the way out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emboflow_dagster.cli import figures, output, payload, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.options import Limit, Output
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import NotFoundError

if TYPE_CHECKING:
    from emboflow_dagster.model.blob import BlobObject

app = noun("Blobs: versioned payloads, verified on every read.")
Id = Annotated[str, typer.Argument(metavar="BLOB", help="Object id of a blob.")]
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
        str, typer.Option("--type", metavar="TYPE", help="A word of yours, for example ml_model.")
    ] = "artifact",
    content_type: Annotated[
        str, typer.Option("--content-type", metavar="MIME", help="MIME type of the payload.")
    ] = "application/octet-stream",
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="A JSON object, kept as custom_metadata.")
    ] = None,
) -> None:
    """Store a file as the next version of a blob; equal content makes no new version."""
    from emboflow_dagster.project.settings import full_path

    custom = _object(metadata)
    path = full_path(file)
    if not path.is_file():
        raise NotFoundError(f"{file}: there is no such file")
    with opened() as ef, progress.waiting(f"storing {file}"):
        blob = ef.blobs.put(
            path,
            object_id=object_id,
            type=type_,
            content_type=content_type,
            custom_metadata=custom,
        )
    output.emit(blob.to_json(), lambda: _page(blob))


@verb(app, "get", example="emboflow blob get policy --version 0 --output model.pt")
def get(object_id: Id, version: Version = None, out: Output = None) -> None:
    """A version's verified bytes, to a file or to standard output."""
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
        if out is None:
            payload.to_stdout(ef.blobs.open(object_id, blob.version), blob.content_type)
            return
        with progress.waiting(f"writing {out}"):
            path = ef.blobs.fetch(object_id, payload.target(out, blob.object_id), blob.version)
    value = {
        "objectId": blob.object_id,
        "version": blob.version,
        "path": str(path.absolute()),
        "bytes": blob.object_size_bytes,
        "sha256": blob.data_sha256,
    }
    output.emit(value, lambda: output.lines([f"{path}"]))


@verb(app, "show", example="emboflow blob show policy")
def show(object_id: Id, version: Version = None) -> None:
    """A version's metadata."""
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
    output.emit(blob.to_json(), lambda: _page(blob))


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
    rows = [
        (
            b.version,
            b.type,
            figures.size(b.object_size_bytes),
            b.data_sha256[:12],
            b.content_type,
            b.updated_by,
            figures.age(b.updated_at),
        )
        for b in found
    ]
    output.emit(
        [b.to_json() for b in found],
        lambda: output.listing(
            (">VERSION", "TYPE?", ">SIZE", "SHA256", "CONTENT?", "BY?", "STORED?"),
            rows,
            empty=f"{object_id} has no older version",
            limit=limit,
        ),
    )


@verb(app, "verify", example="emboflow blob verify policy")
def verify(object_id: Id, version: Version = None) -> None:
    """Read a version whole and hold it against its recorded size and sha256. Exit 1 when it differs."""
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
        with progress.waiting(f"reading {object_id}"), ef.blobs.open(object_id, blob.version) as stream:
            while stream.read(payload.CHUNK):
                pass
    value = {
        "ok": True,
        "objectId": blob.object_id,
        "version": blob.version,
        "bytes": blob.object_size_bytes,
        "sha256": blob.data_sha256,
    }
    text = (
        f"{blob.object_id} version {blob.version}: {figures.size(blob.object_size_bytes)}, sha256 as recorded"
    )
    output.emit(value, lambda: output.lines([text]))


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


def _page(blob: "BlobObject") -> None:
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
            ("content", blob.content_type),
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
