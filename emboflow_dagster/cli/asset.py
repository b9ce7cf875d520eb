"""`emboflow asset`: raw recordings, registered once and looked into."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import asset_register, figures, output, progress, report_page
from emboflow_dagster.cli.asset_register import TYPES, page
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit, one_of
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import EmboflowError

if TYPE_CHECKING:
    from emboflow_dagster.model.asset import Asset, AssetProbeReport
    from emboflow_dagster.project.handle import EmboFlow

app = noun("Raw recordings: registered once, probed as often as one likes.")
asset_register.register_verb(app)
Name = Annotated[str, typer.Argument(metavar="ASSET", help="Name or id of an asset.")]


@verb(app, "probe", example="emboflow asset probe pick-01 --json")
def probe(
    assets: Annotated[
        list[str],
        typer.Argument(metavar="ASSET...", help="Names, ids, or a selector: type=rosbag,status=registered."),
    ],
) -> None:
    """Look into assets and append a report to each: format, structure, warnings, what to do next."""
    from emboflow_dagster.runtime.selector import is_selector

    with opened() as ef:
        found = ef.assets.named([full_id(ef.assets.documents, asset) for asset in assets])
        if len(assets) == 1 and not (is_selector(assets[0]) and found[0].display_name != assets[0]):
            report = _probed(ef, found[0])
            output.emit(report.to_json(), lambda: report_page.show(found[0].display_name, report))
            return
        done, failed = [], []
        for i, one in enumerate(found, 1):
            try:
                done.append((one.display_name, _probed(ef, one, f"{i}/{len(found)} ")))
            except EmboflowError as error:  # its bytes are gone or changed; the others are looked into
                failed.append((one.display_name, error))
    output.emit(
        [report.to_json() for _, report in done],
        lambda: output.table(
            ("NAME", "FORMAT", "WARNINGS", "NEXT?"),
            [(name, *report_page.line(report)) for name, report in done],
        ),
    )
    asset_register.tell_failed("probed", failed)


def _probed(ef: "EmboFlow", asset: "Asset", place: str = "") -> "AssetProbeReport":
    text = f"{place}probing {asset.display_name}"
    with progress.waiting(text) as tell:
        return ef.assets.probe(asset.id, progress=lambda more: tell(f"{text}: {more}"))


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

    def written() -> None:
        if result["path"] is None:
            output.note(f"{found.display_name} is whole: nothing was written")
            return
        wrong = ", ".join(dict.fromkeys(warning["code"] for warning in result["warnings"]))
        output.pairs(
            [
                ("written", result["path"]),
                ("messages", result["messages"]),
                ("rows", result.get("rows")),
                ("content", figures.size(result["bytes"])),
                ("seconds", None if result["seconds"] is None else round(result["seconds"], 3)),
                ("left out", f"{result['tooLarge']} messages too large" if result["tooLarge"] else None),
                ("original was", wrong),
            ]
        )

    output.emit(result, written)


@verb(app, "show", example="emboflow asset show pick-01")
def show(asset: Name) -> None:
    """One asset: where its bytes are, what it is, what its newest probe said."""
    with opened() as ef:
        found = ef.assets.get(full_id(ef.assets.documents, asset))
        report = ef.assets.latest_report(found)

    def whole() -> None:
        page(found)
        if report is None:
            output.note(f"not probed yet: emboflow asset probe {found.display_name}")
        else:
            report_page.brief(report)

    output.emit(found.to_json(), whole)


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
