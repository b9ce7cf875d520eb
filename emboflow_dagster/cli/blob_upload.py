"""`emboflow blob announce`, `upload` and `abandon`: bytes that come before their record does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import figures, output, payload, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.blobs.temporary import TemporaryBlob

Id = Annotated[str, typer.Argument(metavar="BLOB", help="Object id that `blob announce` gave.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun."""
    verb(app, "announce", example="emboflow blob announce rows.csv --owner assets.storageRef")(announce)
    verb(app, "upload", example="emboflow blob upload obj_01JD0000000000000000000001 rows.csv")(upload)
    verb(app, "abandon", example="emboflow blob abandon obj_01JD0000000000000000000001")(abandon)


def announce(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What people call it, for example a file name.")
    ],
    owner: Annotated[
        str,
        typer.Option(
            "--owner", metavar="COLLECTION.FIELD", help="Which field of which records is to own it."
        ),
    ],
    content_type: Annotated[
        str, typer.Option("--content-type", metavar="MIME", help="MIME type of the payload.")
    ] = "application/octet-stream",
    size: Annotated[
        int | None, typer.Option("--size", min=0, metavar="BYTES", help="Refuse other sizes than this one.")
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long the upload may take: 30m, 12h, 1d.")
    ] = "1d",
) -> None:
    """Say that bytes will come: gives the blob's id; nobody can read it before it is uploaded."""
    collection, _, field = owner.partition(".")
    with opened() as ef:
        blob = ef.blobs.announce(
            owner=(collection, field), name=name, content_type=content_type, size=size, expires=expires
        )
    output.emit(blob.to_json(), lambda: output.lines([blob.object_id]))


def upload(
    object_id: Id,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file with its bytes.")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="Refuse bytes with another hash.")
    ] = None,
) -> None:
    """Bring the bytes of an announced upload; afterwards it can be read, and a record can own it."""
    path = payload.source(file.expanduser(), file)
    with opened() as ef, progress.waiting(f"storing {file}"):
        blob = ef.blobs.upload(object_id, path, sha256=sha256)
    text = f"{blob.object_id}: {figures.size(blob.size)}, sha256 {blob.sha256}"
    output.emit(blob.to_json(), lambda: output.lines([text]))


def abandon(object_id: Id) -> None:
    """Take an announcement back; one that is not completed."""
    with opened() as ef:
        ef.blobs.abandon(object_id)
    output.emit({"objectId": object_id, "abandoned": True}, lambda: output.lines([f"{object_id}: abandoned"]))


def put_temporary(file: Path, content_type: str, ttl: str) -> None:
    """`emboflow blob put --temporary`."""
    with opened() as ef, progress.waiting(f"storing {file}"):
        blob = ef.blobs.put_temporary(file, content_type=content_type, ttl=ttl)
    output.emit(blob.to_json(), lambda: _page(blob))


def get_temporary(temporary_id: str, out: Path | None) -> None:
    """`emboflow blob get --temporary`."""
    with opened() as ef:
        blob = ef.blobs.get_temporary(temporary_id)
        stream = ef.blobs.open_temporary(temporary_id)
        if out is None:
            payload.to_stdout(stream, blob.content_type)
            return
        with stream, progress.waiting(f"writing {out}"):
            path = payload.saved(stream, payload.target(out, blob.id))
    value = {**blob.to_json(), "path": str(path.absolute())}
    output.emit(value, lambda: output.lines([f"{path}"]))


def _page(blob: "TemporaryBlob") -> None:
    output.pairs(
        [
            ("temporary blob", output.styled(blob.id, "bold")),
            ("size", figures.size(blob.size)),
            ("content", blob.content_type),
            ("sha256", blob.sha256),
            ("readable until", figures.moment(blob.expires_at)),
        ]
    )
