"""`emboflow dataset evidence` and `emboflow artifact evidence`: what a quality report measured."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emboflow_dagster.cli import output
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import InvalidInputError

Check = Annotated[str | None, typer.Option("--check", metavar="CHECK", help="Only this check.")]
Episode = Annotated[
    str | None, typer.Option("--episode", metavar="E", help="Only this episode: its number or content hash.")
]
Verdict = Annotated[
    str | None, typer.Option("--verdict", metavar="V", help="Only this verdict: fail, warn, pass or info.")
]
Thresholds = Annotated[
    Path | None,
    typer.Option(
        "--thresholds",
        metavar="FILE",
        help="JSON: consumer to check to metric to {warn, fail}; judges what is stored anew.",
    ),
]
Rows = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many measurements.")]


def register_dataset(app: typer.Typer) -> None:
    """`emboflow dataset evidence`."""
    verb(app, "evidence", example="emboflow dataset evidence pick-place --check jumps")(of_dataset)


def register_artifact(app: typer.Typer) -> None:
    """`emboflow artifact evidence`."""
    verb(app, "evidence", example="emboflow artifact evidence 9B6C0T1R --verdict fail")(of_artifact)


def of_dataset(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of a dataset.")],
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Version tag or id; else the latest version.")
    ] = None,
    check: Check = None,
    episode: Episode = None,
    verdict: Verdict = None,
    thresholds: Thresholds = None,
    limit: Rows = 1_000,
) -> None:
    """What the newest quality report of a version measured; other thresholds judge it without reading it."""
    consumers = _read(thresholds)
    with opened() as ef:
        rows = ef.datasets.evidence(
            full_id(ef.datasets.documents, dataset), tag,
            check=check, episode=episode, verdict=verdict, consumers=consumers, limit=limit,
        )  # fmt: skip
    _emit(rows, limit)


def of_artifact(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="Id of a quality report, or its last eight characters.")
    ],
    check: Check = None,
    episode: Episode = None,
    verdict: Verdict = None,
    thresholds: Thresholds = None,
    limit: Rows = 1_000,
) -> None:
    """What one quality report measured; other thresholds judge it without reading the recordings."""
    consumers = _read(thresholds)
    with opened() as ef:
        rows = ef.artifacts.evidence(
            full_id(ef.artifacts.documents, artifact),
            check=check, episode=episode, verdict=verdict, consumers=consumers, limit=limit,
        )  # fmt: skip
    _emit(rows, limit)


def _read(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"--thresholds {path}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"--thresholds {path}: expected an object: consumer to thresholds")
    return document


def _emit(rows: list[dict[str, Any]], limit: int) -> None:
    shown = [
        (
            row["check"],
            row["metric"],
            "not a number" if row["value"] is None else f"{row['value']:.6g} {row['unit']}".strip(),
            row["verdict"],
            ", ".join(f"{name} {verdict}" for name, verdict in row["verdicts"].items()) or None,
            row["episode"],
            row["feature"],
            None if row["startFrame"] is None else f"{row['startFrame']}-{row['endFrame']}",
            f"v{row['checkVersion']}",
        )
        for row in rows
    ]
    heads = ("CHECK", "METRIC", ">VALUE", "VERDICT", "FOR?", "EPISODE?", "FEATURE?", "FRAMES?", "VERSION?")
    output.emit(rows, lambda: output.listing(heads, shown, empty="no such measurement", limit=limit))
