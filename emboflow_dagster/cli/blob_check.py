"""`emboflow blob verify` and `emboflow blob repair`: one blob's bytes against what is recorded."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emboflow_dagster.cli import figures, output, payload, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import ErrorKind, NotFoundError

if TYPE_CHECKING:
    from emboflow_dagster.model.blob import BlobObject
    from emboflow_dagster.project.handle import EmboFlow

Id = Annotated[str, typer.Argument(metavar="BLOB", help="Object id of a blob.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun."""
    verb(app, "verify", example="emboflow blob verify policy")(verify)
    verb(app, "repair", example="emboflow blob repair policy --version 3 --from backup/policy.pt")(repair)


def verify(
    object_id: Id,
    version: Annotated[
        int | None, typer.Option("--version", min=0, metavar="N", help="Version number; else the newest.")
    ] = None,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Every version, newest first.")
    ] = False,
) -> None:
    """Read a version whole and hold it against its recorded size and sha256. Exit 1 when it differs.

    A version that is damaged is set aside: reads of it are refused until it is repaired.
    """
    if all_versions:
        _verify_all(object_id)
        return
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
        with progress.waiting(f"reading {object_id}"), ef.blobs.open(object_id, blob.version) as stream:
            while stream.read(payload.CHUNK):
                pass
    value = {"ok": True, **_value(blob)}
    text = f"{blob.object_id} version {blob.version}: {figures.size(blob.size)}, sha256 as recorded"
    output.emit(value, lambda: output.lines([text]))


def _verify_all(object_id: str) -> None:
    rows: list[dict[str, Any]] = []
    with opened() as ef, progress.waiting(f"reading {object_id}") as tell:
        ef.blobs.get(object_id)
        for blob, collected in _versions(ef, object_id):
            if collected:  # on purpose: nothing to read, nothing wrong
                code, message = ErrorKind.BLOB_WITHDRAWN.value, "its bytes were collected"
                rows.append({"ok": True, **_value(blob), "code": code, "message": message})
                continue
            tell(f"reading {object_id} version {blob.version}")
            damages = ef.blobs.repairs.examine(blob)
            for damage in damages:
                ef.blobs.quarantine.note(blob, damage)
            noted = ef.blobs.quarantine.of(object_id, blob.version) is not None
            found = damages[0].code.value if damages else "blob-quarantined" if noted else None
            message = damages[0].message if damages else None
            rows.append({"ok": found is None, **_value(blob), "code": found, "message": message})
    ok = all(row["ok"] for row in rows)
    output.emit(
        {"ok": ok, "objectId": object_id, "versions": rows},
        lambda: output.table(
            (">VERSION", ">SIZE", "SHA256", "FOUND"),
            [
                (
                    row["version"],
                    figures.size(row["bytes"]),
                    row["sha256"][:12],
                    output.styled(row["code"], "red")
                    if not row["ok"]
                    else "collected"
                    if row["code"]
                    else "as recorded",
                )
                for row in rows
            ],
        ),
    )
    if not ok:
        raise typer.Exit(1)


def _versions(ef: "EmboFlow", object_id: str) -> "Iterator[tuple[BlobObject, bool]]":
    """The completed versions, newest first, and whether their bytes were collected."""
    from emboflow_dagster.blobs.standing import State

    below: int | None = None
    while page := ef.blobs.history(object_id, below=below):
        became = ef.blobs.standing(object_id, [blob.version for blob in page])
        for blob in page:
            if blob.completed:
                known = became.get(blob.version)
                yield blob, known is not None and known.state is State.COLLECTED
        below = page[-1].version


def repair(
    object_id: Id,
    version: Annotated[int, typer.Option("--version", min=0, metavar="N", help="The damaged version.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="The bytes as stored, or a folder with the damaged files; else they are only read again.",
        ),
    ] = None,
) -> None:
    """Take a damaged version out of quarantine: its bytes are right again, or FILE has them."""
    if source is not None and not source.expanduser().exists():
        raise NotFoundError(f"{source}: there is no such file or folder")
    with opened() as ef, progress.waiting(f"reading {object_id}"):
        blob = ef.blobs.repair(object_id, version, source.expanduser() if source else None)
    text = f"{blob.object_id} version {blob.version}: {figures.size(blob.size)}, sha256 as recorded"
    output.emit({"ok": True, **_value(blob)}, lambda: output.lines([text]))


def _value(blob: "BlobObject") -> dict[str, Any]:
    return {
        "objectId": blob.object_id,
        "version": blob.version,
        "bytes": blob.size,
        "sha256": blob.sha256,
    }
