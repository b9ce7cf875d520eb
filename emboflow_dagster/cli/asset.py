"""`emboflow asset`: raw recordings, registered once and looked into."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emboflow_dagster.cli import figures, output, progress, report_page
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.failures import UsageError
from emboflow_dagster.cli.options import Limit, one_of
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import NotFoundError

if TYPE_CHECKING:
    from emboflow_dagster.model.asset import Asset

TYPES: Final = (
    "raw_file, archive, folder, video_collection, standard_dataset, rosbag, hdf5_dataset, "
    "object_storage_prefix"
)
MAX_TOP: Final = 8
#: The type that a file's first bytes prove, by the name of the signature.
_PROVEN: Final = {
    **dict.fromkeys(("rosbag1", "mcap"), "rosbag"),
    "hdf5": "hdf5_dataset",
    **dict.fromkeys(("zip", "gzip", "bzip2", "xz", "zstd", "7z", "tar"), "archive"),
    **dict.fromkeys(("mp4", "matroska", "avi"), "video_collection"),
}

app = noun("Raw recordings: registered once, probed as often as one likes.")
Name = Annotated[str, typer.Argument(metavar="ASSET", help="Name or id of an asset.")]


@verb(app, "register", example="emboflow asset register demo.mcap --type rosbag --name pick-01")
def register(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or a folder.")],
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help=f"One of {TYPES}. May be left out where the first bytes or a marker file prove it.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Display name; else the file's own.")
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Leave the bytes where they are: hashed now, checked whenever they are used."
        ),
    ] = False,
    without_forgotten: Annotated[
        bool,
        typer.Option(
            "--without-forgotten",
            help="Take it although it has episodes that were forgotten: no run makes them of it.",
        ),
    ] = False,
) -> None:
    """Take a file or folder in as an asset. The same content under the same name is the same asset."""
    from emboflow_dagster.model.asset import AssetType

    kind = one_of(AssetType, type_, "--type") or proven_type(path)
    with opened() as ef, progress.waiting(f"reading {path}") as tell:
        asset = ef.assets.register(
            path,
            type=kind,
            name=name,
            in_place=in_place,
            without_forgotten=without_forgotten,
            progress=lambda files, done: tell(f"reading {path}: {files} files, {figures.size(done)}"),
        )
    output.emit(asset.to_json(), lambda: _page(asset))


def proven_type(path: Path) -> str:
    """The asset type that the content itself proves.

    Raises:
        NotFoundError: There is nothing at ``path``.
        UsageError: It proves none.
    """
    from emboflow_dagster.formats.demo_recordings.find import type_of_folder
    from emboflow_dagster.formats.detect import read_head, signature
    from emboflow_dagster.project.settings import full_path

    path = full_path(path)
    if not path.exists():
        raise NotFoundError(f"{path}: there is no such file or folder")
    found: str | None = None
    if path.is_dir():
        if (whole := type_of_folder(path)) is not None:
            return whole
    else:
        found = signature(read_head(path))
        if found == "sqlite3" and path.suffix == ".db3":
            return "rosbag"
    if found not in _PROVEN:
        raise UsageError(f"what {path.name} is cannot be told from its content: say --type, one of {TYPES}")
    return _PROVEN[found]


@verb(app, "probe", example="emboflow asset probe pick-01 --json")
def probe(asset: Name) -> None:
    """Look into an asset and append a report: format, structure, warnings, what to do next."""
    with opened() as ef:
        found = ef.assets.get(full_id(ef.assets.documents, asset))
        with progress.waiting(f"probing {found.display_name}") as tell:
            report = ef.assets.probe(
                found.id, progress=lambda text: tell(f"probing {found.display_name}: {text}")
            )
    output.emit(report.to_json(), lambda: report_page.show(found.display_name, report))


@verb(app, "recover", example="emboflow asset recover pick-01 --output pick-01-recovered.bag")
def recover(
    asset: Name,
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="FILE",
            help="The file (or folder, where the asset is one) to write; must not be there.",
        ),
    ],
) -> None:
    """Write all that can be read of a damaged recording to a whole one, which is read again and compared."""
    with opened() as ef:
        found = ef.assets.get(full_id(ef.assets.documents, asset))
        with progress.waiting(f"recovering {found.display_name}") as tell:
            result = ef.assets.recover(found.id, target, progress=tell)

    def page() -> None:
        if result["path"] is None:
            output.note(f"{found.display_name} is whole: nothing was written")
            return
        wrong = ", ".join(dict.fromkeys(warning["code"] for warning in result["warnings"]))
        output.pairs(
            [
                ("written", result["path"]),
                ("messages", result["messages"]),
                ("content", figures.size(result["bytes"])),
                ("seconds", round(result["seconds"], 3)),
                ("left out", f"{result['tooLarge']} messages too large" if result["tooLarge"] else None),
                ("original was", wrong),
            ]
        )

    output.emit(result, page)


@verb(app, "show", example="emboflow asset show pick-01")
def show(asset: Name) -> None:
    """One asset: where its bytes are, what it is, what its newest probe said."""
    with opened() as ef:
        found = ef.assets.get(full_id(ef.assets.documents, asset))
        report = ef.assets.latest_report(found)

    def page() -> None:
        _page(found)
        if report is None:
            output.note(f"not probed yet: emboflow asset probe {found.display_name}")
        else:
            report_page.brief(report)

    output.emit(found.to_json(), page)


@verb(app, "list", example="emboflow asset list --type rosbag")
def list_(
    type_: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help=f"Only of one type: {TYPES}.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only in one status: registered, probing, ready, failed, archived.",
        ),
    ] = None,
    limit: Limit = 100,
) -> None:
    """The project's assets, newest first."""
    from emboflow_dagster.model.asset import AssetStatus, AssetType

    one_of(AssetType, type_, "--type")
    one_of(AssetStatus, status, "--status")
    with opened() as ef:
        assets = ef.assets.list(type=type_, status=status, limit=limit)
    rows = [
        (
            a.display_name,
            a.type.value,
            ", ".join(a.detected_formats),
            a.status.value,
            figures.size(a.size_bytes),
            a.file_count,
            figures.age(a.created_at),
            output.short(a.id),
        )
        for a in assets
    ]
    output.emit(
        [a.to_json() for a in assets],
        lambda: output.listing(
            ("NAME", "TYPE?", "FORMAT", "STATUS", ">SIZE", ">FILES?", "REGISTERED?", "ID?"),
            rows,
            empty="no asset: `emboflow asset register PATH --type TYPE` brings one",
            limit=limit,
        ),
    )


@verb(app, "reports", example="emboflow asset reports pick-01")
def reports(asset: Name, limit: Limit = 100) -> None:
    """An asset's probe reports, newest first."""
    with opened() as ef:
        found = ef.assets.reports(full_id(ef.assets.documents, asset), limit=limit)
    rows = [
        (
            r.report_version,
            r.format,
            f"{r.detected_format_candidates[0].confidence:.2f}" if r.detected_format_candidates else None,
            len(r.warnings),
            figures.age(r.created_at),
            output.short(r.id),
        )
        for r in found
    ]
    output.emit(
        [r.to_json() for r in found],
        lambda: output.listing(
            (">VERSION", "FORMAT", ">CONFIDENCE?", ">WARNINGS", "PROBED", "ID?"),
            rows,
            empty=f"no report: `emboflow asset probe {asset}` makes one",
            limit=limit,
        ),
    )


def _page(asset: "Asset") -> None:
    names = asset.top_level_paths
    top = ", ".join(names[:MAX_TOP]) + (" ..." if len(names) > MAX_TOP else "")
    output.pairs(
        [
            ("asset", output.styled(asset.display_name, "bold")),
            ("id", asset.id),
            ("type", asset.type.value),
            ("status", asset.status.value),
            ("format", ", ".join(asset.detected_formats) or None),
            ("size", figures.size(asset.size_bytes)),
            ("files", asset.file_count),
            ("checksum", asset.storage_ref.checksum),
            ("from", (asset.summary or {}).get("sourcePath")),
            ("stored at", asset.storage_ref.uri),
            ("top level", top),
            ("registered", f"{figures.moment(asset.created_at)} by {asset.created_by}"),
        ]
    )
