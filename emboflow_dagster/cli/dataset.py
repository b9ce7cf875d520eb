"""`emboflow dataset`: datasets and their immutable versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import (
    dataset_diff,
    dataset_edit,
    dataset_forget,
    dataset_policies,
    evidence,
    figures,
    output,
    progress,
)
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit
from emboflow_dagster.cli.state import noun, verb

if TYPE_CHECKING:
    from emboflow_dagster.model.dataset import Dataset, DatasetVersion

app = noun("Datasets and their immutable versions.")
Name = Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of a dataset.")]
Tag = Annotated[
    str | None, typer.Option("--tag", metavar="TAG", help="Version tag or id; else the latest version.")
]


@verb(app, "create", example="emboflow dataset create pick-place --type manipulation")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A slug: a-z, 0-9, single hyphens.")],
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="What kind of data it is to hold, a word of yours.")
    ],
) -> None:
    """A new dataset without versions; a workflow's publish-dataset node adds them."""
    with opened() as ef:
        dataset = ef.datasets.create(name, type=type_)
    output.emit(dataset.to_json(), lambda: _page(dataset, None, 0))


@verb(app, "show", example="emboflow dataset show pick-place")
def show(dataset: Name) -> None:
    """One dataset and its latest version."""
    with opened() as ef:
        found = ef.datasets.get(full_id(ef.datasets.documents, dataset))
        versions = ef.datasets.versions(found.id, limit=1000)
    latest = next((v for v in versions if v.id == found.latest_version_id), None)
    output.emit(found.to_json(), lambda: _page(found, latest, len(versions)))


@verb(app, "list", example="emboflow dataset list")
def list_(limit: Limit = 100) -> None:
    """The project's datasets, newest first."""
    with opened() as ef:
        datasets = ef.datasets.list(limit=limit)
        latest = {d.id: ef.datasets.version(d.id) for d in datasets if d.latest_version_id}
    rows = [
        (
            d.name,
            d.type,
            d.status.value,
            latest[d.id].version_tag if d.id in latest else None,
            latest[d.id].stats.get("episodes") if d.id in latest else None,
            latest[d.id].stats.get("frames") if d.id in latest else None,
            figures.age(d.updated_at),
            output.short(d.id),
        )
        for d in datasets
    ]
    output.emit(
        [d.to_json() for d in datasets],
        lambda: output.listing(
            ("NAME", "TYPE?", "STATUS", "LATEST", ">EPISODES", ">FRAMES", "UPDATED?", "ID?"),
            rows,
            empty="no dataset: run a workflow that publishes one, or `emboflow dataset create`",
            limit=limit,
        ),
    )


@verb(app, "versions", example="emboflow dataset versions pick-place")
def versions(dataset: Name, limit: Limit = 100) -> None:
    """A dataset's versions, newest first."""
    with opened() as ef:
        found = ef.datasets.versions(full_id(ef.datasets.documents, dataset), limit=limit)
    rows = [
        (
            v.version_tag,
            v.status.value,
            v.stats.get("episodes"),
            v.stats.get("frames"),
            figures.size(int(v.stats["bytes"])) if "bytes" in v.stats else None,
            v.created_by,
            figures.age(v.created_at),
            output.short(v.id),
        )
        for v in found
    ]
    output.emit(
        [v.to_json() for v in found],
        lambda: output.listing(
            ("TAG", "STATUS", ">EPISODES", ">FRAMES", ">SIZE?", "BY?", "PUBLISHED?", "ID?"),
            rows,
            empty=f"{dataset} has no version yet",
            limit=limit,
        ),
    )


@verb(app, "export", example="emboflow dataset export pick-place --format rlds -o FILE.tar")
def export(
    dataset: Name,
    out: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PLACE",
            help="A folder, FILE.tar, FILE.tar.gz, FILE.zip or s3://bucket/prefix; else ./NAME-TAG.",
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", "--version", metavar="TAG", help="Version tag or id; else the latest version."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="canonical, lerobot-v3.0, rlds, mcap or rrd.")
    ] = "canonical",
    environment_state: Annotated[
        str | None,
        typer.Option(
            "--environment-state",
            metavar="FEATURE",
            help="LeRobot: deliver this feature as observation.environment_state too.",
        ),
    ] = None,
) -> None:
    """Write a version as a package, each byte verified: README, checksums and its hashes inside."""
    with opened() as ef:
        version = ef.datasets.version(full_id(ef.datasets.documents, dataset), tag)
        head = ef.datasets.get(version.dataset_id)
        place = out or f"{head.name}-{version.version_tag}"
        with progress.waiting(f"exporting {head.name} {version.version_tag}") as say:
            made = ef.datasets.deliver(
                head.id,
                place,
                tag=version.id,
                format=format_,
                environment_state=environment_state,
                say=say,
            )
    remote = place.startswith("s3://")
    result = {
        "datasetId": head.id,
        "versionId": version.id,
        "versionTag": version.version_tag,
        "path": place if remote else str(Path(place).absolute()),
        "kind": made["kind"],
        **{key: made[key] for key in ("format", "files", "bytes", "archiveBytes", "episodes", "frames")},
        **{key: made[key] for key in ("versionSha256", "treeSha256", "reencoded", "leftOut")},
    }
    text = f"{place}: {head.name} {version.version_tag}, {made['format']}, {made['files']} files"
    output.emit(result, lambda: output.lines([f"{text}, {figures.size(made['bytes'])}"]))


dataset_diff.register(app)
evidence.register_dataset(app)
dataset_policies.register(app)
dataset_forget.register(app)
app.add_typer(dataset_edit.app, name="edit")


def _page(dataset: "Dataset", latest: "DatasetVersion | None", count: int) -> None:
    output.pairs(
        [
            ("dataset", output.styled(dataset.name, "bold")),
            ("id", dataset.id),
            ("type", dataset.type),
            ("status", dataset.status.value),
            ("versions", count),
            ("created", f"{figures.moment(dataset.created_at)} by {dataset.created_by}"),
        ]
    )
    if latest is None:
        return
    output.heading(f"Latest version: {latest.version_tag}")
    output.pairs(
        [
            ("  id", latest.id),
            ("  status", latest.status.value),
            *((f"  {k}", figures.size(int(v)) if k == "bytes" else v) for k, v in latest.stats.items()),
            ("  schema", latest.canonical_schema_version),
            ("  manifest", latest.manifest_ref.uri),
            ("  checksum", latest.manifest_ref.checksum),
            ("  parent", latest.parent_version_id),
            ("  published", f"{figures.moment(latest.created_at)} by {latest.created_by}"),
        ]
    )
