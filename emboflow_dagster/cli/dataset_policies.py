"""`emboflow dataset policies`: which training configs list an episode."""

from typing import Annotated, Any

import typer

from emboflow_dagster.cli import output
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.state import verb


def register(app: typer.Typer) -> None:
    """`emboflow dataset policies`."""
    verb(app, "policies", example="emboflow dataset policies pick-place 12")(policies)


def policies(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of a dataset.")],
    episode: Annotated[
        str | None,
        typer.Argument(
            metavar="[EPISODE]",
            help="Its number in the version, its id or content hash; else those that list any are counted.",
        ),
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Version tag or id; else the latest version.")
    ] = None,
) -> None:
    """Which training configs list an episode, by its data or its id, in whatever version it stood.

    Which episodes a policy saw is on the page of its node in Dagster, and in the config's `lineage/`.
    """
    with opened() as ef:
        rows = ef.datasets.policies(full_id(ef.datasets.documents, dataset), episode, tag)
    if episode is None:
        _counted(rows)
        return
    shown = [
        (
            row["artifactId"],
            row["policy"],
            row["episode"],
            row["by"],
            row["node"],
            row["runId"],
            row["madeAt"],
        )
        for row in rows
    ]
    heads = ("TRAINING CONFIG", "POLICY", ">EPISODE", "SAME", "NODE", "RUN", "MADE")
    output.emit(rows, lambda: output.listing(heads, shown, empty="no training config lists this episode"))


def _counted(rows: list[dict[str, Any]]) -> None:
    names = ("artifactId", "policy", "same", "changed", "listed", "node", "runId", "madeAt")
    heads = ("TRAINING CONFIG", "POLICY", ">SAME", ">CHANGED", ">LISTED", "NODE", "RUN", "MADE")
    shown = [tuple(row[name] for name in names) for row in rows]
    output.emit(
        rows, lambda: output.listing(heads, shown, empty="no training config lists any of its episodes")
    )
