"""`emboflow asset register`: files, folders and prefixes become assets, one or many at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.failures import UsageError
from emboflow_dagster.cli.options import one_of
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import EmboflowError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emboflow_dagster.model.asset import Asset
    from emboflow_dagster.project.handle import EmboFlow

TYPES: Final = (
    "raw_file, archive, folder, video_collection, standard_dataset, rosbag, hdf5_dataset, "
    "object_storage_prefix"
)
MAX_TOP: Final = 8
#: A folder of several such recordings, and of nothing else, is of their type.
_TOGETHER: Final = ("rosbag", "video_collection", "hdf5_dataset")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One asset to be; without a name it has the file's own."""

    path: Path
    type: str
    name: str | None


@dataclass(frozen=True, slots=True)
class _Taking:
    """How all of them are taken in."""

    in_place: bool
    without_forgotten: bool

    def take(self, ef: "EmboFlow", one: _Wanted, place: str = "") -> "Asset":
        with progress.waiting(f"{place}reading {one.path}") as tell:
            return ef.assets.register(
                one.path,
                type=one.type,
                name=one.name,
                in_place=self.in_place,
                without_forgotten=self.without_forgotten,
                progress=lambda files, done: tell(
                    f"{place}reading {one.path}: {files} files, {figures.size(done)}"
                ),
            )


def register_verb(app: typer.Typer) -> None:
    """Add the verb to the noun."""
    verb(app, "register", example="emboflow asset register demo.mcap --type rosbag --name pick-01")(register)


def register(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, folders, or s3://bucket/prefix.")
    ],
    type_: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help=f"One of {TYPES}; else what the content shows."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Display name; else the file's own.")
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="Every recording found in PATH is an asset, named by its place there."),
    ] = False,
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
    """Take files or folders in as assets. The same content under the same name is the same asset."""
    from emboflow_dagster.model.asset import AssetType

    kind = one_of(AssetType, type_, "--type")
    if name is not None and (each or len(paths) > 1):
        raise UsageError("--name is for one asset; many keep names of their own")
    wanted = [one for path in paths for one in _wanted(path, kind, name, each=each)]
    taking = _Taking(in_place, without_forgotten)
    if each or len(paths) > 1:
        _many(wanted, taking)
        return
    with opened() as ef:
        asset = taking.take(ef, wanted[0])
    output.emit(asset.to_json(), lambda: page(asset))


def _many(wanted: list[_Wanted], taking: _Taking) -> None:
    """One that cannot be taken does not hold up the others; what failed is said, and the exit status is 1."""
    taken: list[Asset] = []
    failed: list[tuple[Path, EmboflowError]] = []
    with opened() as ef:
        for i, one in enumerate(wanted, 1):
            try:
                taken.append(taking.take(ef, one, f"{i}/{len(wanted)} "))
            except EmboflowError as error:
                failed.append((one.path, error))
    rows = [
        (a.display_name, a.type.value, figures.size(a.size_bytes), a.file_count, output.short(a.id))
        for a in taken
    ]
    output.emit(
        [asset.to_json() for asset in taken],
        lambda: output.listing(("NAME", "TYPE", ">SIZE", ">FILES?", "ID?"), rows, empty="nothing registered"),
    )
    tell_failed("registered", failed)


def tell_failed(word: str, failed: "Sequence[tuple[object, EmboflowError]]") -> None:
    """What of many could not be done, below what was; the exit status is 1 then."""
    for what, error in failed:
        output.note(f"not {word}: {what}: [{error.kind.value}] {error.message}")
    if failed:
        raise typer.Exit(1)


def _wanted(path: Path, kind: str | None, name: str | None, *, each: bool) -> list[_Wanted]:
    from emboflow_dagster.formats.demo_recordings.find import find_recordings
    from emboflow_dagster.project.settings import full_path

    if not each:
        return [_Wanted(path, kind or shown_type(path), name)]
    return [_Wanted(one.path, kind or one.asset_type, one.name) for one in find_recordings(full_path(path))]


def shown_type(path: Path) -> str:
    """The asset type that the content shows; ``raw_file`` or ``folder`` where it shows no other.

    Raises:
        NotFoundError: There is nothing at ``path``.
    """
    from emboflow_dagster.formats.demo_recordings.find import find_recordings, type_of_folder
    from emboflow_dagster.project.prefixes import prefix_url
    from emboflow_dagster.project.settings import full_path

    if prefix_url(path) is not None:
        return "object_storage_prefix"
    path = full_path(path)
    if not path.exists():
        raise NotFoundError(f"{path}: there is no such file or folder")
    if not path.is_dir():
        return find_recordings(path)[0].asset_type
    if (whole := type_of_folder(path)) is not None:
        return whole
    try:
        types = {one.asset_type for one in find_recordings(path)}
    except InvalidInputError:  # nothing in it is a recording
        return "folder"
    return types.pop() if len(types) == 1 and types <= set(_TOGETHER) else "folder"


def page(asset: "Asset") -> None:
    """One asset as people read it."""
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
