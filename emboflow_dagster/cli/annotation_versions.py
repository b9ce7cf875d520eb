"""`emboflow annotation` at dataset versions: what still holds, what is stale, confirming, review flags."""

from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emboflow_dagster.project.annotation_carry import Held
    from emboflow_dagster.project.handle import EmboFlow

Version = Annotated[
    str, typer.Argument(metavar="DATASET[:TAG]", help="A version of a dataset; without a tag the latest.")
]
Annotation = Annotated[str, typer.Argument(metavar="ANNOTATION", help="Id of an annotation, or its end.")]
From = Annotated[
    float | None, typer.Option("--from", metavar="S", help="Seconds from the start of the episode.")
]
To = Annotated[
    float | None, typer.Option("--to", metavar="S", help="Likewise; else only the moment of --from.")
]
Comment = Annotated[str, typer.Option("--comment", metavar="TEXT", help="Why; kept in the audit log.")]
_EXAMPLE = "ann_01JD3ZK4Q8X5V7N2M9B6C0T1RW"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "carry", example="emboflow annotation carry pick-place v3 v4")(carry)
    verb(app, "confirm", example=f"emboflow annotation confirm {_EXAMPLE} pick-place:v4")(confirm)
    verb(app, "flag", example="emboflow annotation flag pick-place 7 blurry --comment 'wrist camera'")(flag)
    verb(app, "unflag", example=f"emboflow annotation unflag {_EXAMPLE}")(unflag)


def which(episode: str) -> int | str:
    """An episode as it is typed: a place from 0, or an id."""
    return int(episode) if episode.isascii() and episode.isdigit() else episode


def parts(ef: "EmboFlow", version: str) -> tuple[str, str | None]:
    """Dataset and tag of `DATASET[:TAG]`."""
    dataset, _, tag = version.partition(":")
    return full_id(ef.datasets.documents, dataset), tag or None


def listed(version: str, state: str | None, limit: int) -> None:
    """The annotations at one version, as `annotation list --version` prints them."""
    with opened() as ef, progress.waiting("comparing"):
        rows = ef.annotations.at(*parts(ef, version))
    found = [row for row in rows if state is None or row.state == state]
    output.emit(
        [row.to_json() for row in found[:limit]],
        lambda: _table(found, limit, empty="nothing was said of this version or of those before it"),
    )


def carry(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of a dataset.")],
    from_: Annotated[
        str | None, typer.Argument(metavar="FROM", help="Tag or id of a version; else the one before TO.")
    ] = None,
    to: Annotated[
        str | None, typer.Argument(metavar="TO", help="Tag or id of a version; else the latest version.")
    ] = None,
    confirm_: Annotated[
        bool, typer.Option("--confirm", help="Confirm each stale one whose place at TO is known.")
    ] = False,
    comment: Comment = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="How many.")] = 100,
) -> None:
    """What becomes at one version of the annotations that are valid at another; nothing is copied."""
    with opened() as ef, progress.waiting("comparing"):
        name = full_id(ef.datasets.documents, dataset)
        rows = ef.annotations.carry(name, from_, to)
        if confirm_:
            other, _, tag = (to or "").rpartition(":")
            target = ef.datasets.version(other or name, tag or None)
            done = {
                row.annotation.id: row
                for row in ef.annotations.confirm_all(rows, target.dataset_id, target.id, comment=comment)
            }
            rows = [done.get(row.annotation.id, row) for row in rows]
    open_ = sum(row.confirmable for row in rows)

    def page() -> None:
        _table(rows, limit, empty="no annotation is valid at the first of the two versions")
        if open_:
            output.note(f"--confirm says of {open_} that they hold there: where each would be is known")

    output.emit([row.to_json() for row in rows[:limit]], page)


def confirm(
    annotation: Annotation,
    version: Version,
    episode: Annotated[
        str | None, typer.Option("--episode", metavar="E", help="Place or id there; else where it would be.")
    ] = None,
    from_: From = None,
    to: To = None,
    comment: Comment = "",
) -> None:
    """Say that an annotation holds at a version, or where in it."""
    with opened() as ef:
        row = ef.annotations.confirm(
            full_id(ef.annotations.documents, annotation),
            *parts(ef, version),
            episode=None if episode is None else which(episode),
            start=from_,
            stop=to,
            comment=comment,
        )
    output.emit(row.to_json(), lambda: _table([row], 1, empty=""))


def flag(
    version: Version,
    episode: Annotated[str, typer.Argument(metavar="EPISODE", help="Place from 0, or id, of an episode.")],
    word: Annotated[str, typer.Argument(metavar="FLAG", help="A word: blurry, check-again, ...")],
    from_: From = None,
    to: To = None,
    comment: Comment = "",
) -> None:
    """Mark an episode, or a time in it, for everybody to see."""
    with opened() as ef:
        name, tag = parts(ef, version)
        made = ef.annotations.flag(name, which(episode), word, tag=tag, comment=comment, start=from_, stop=to)
    said = made.target_ref.selector or {}
    output.emit(
        made.to_json(),
        lambda: output.lines(
            [
                f"{made.id}: {word} at episode {said['episodePlace']} of {version}",
                f"see all: emboflow annotation list --version {version}",
            ]
        ),
    )


def unflag(annotation: Annotation, comment: Comment = "") -> None:
    """Take a flag away; who set it and who took it away stays in the audit log."""
    with opened() as ef:
        done = ef.annotations.unflag(full_id(ef.annotations.documents, annotation), comment)
    output.emit(
        done.to_json(), lambda: output.lines([f"{done.id}: {done.payload.get('flag')} is taken away"])
    )


def _table(rows: "Sequence[Held]", limit: int, *, empty: str) -> None:
    output.listing(
        ("ANNOTATION", "STATE", ">EPISODE?", "SECONDS?", "SAYS", "BY", "SAID AT", "CONFIRMED BY?", "REASON?"),
        [_row(row) for row in rows[:limit]],
        empty=empty,
    )
    if len(rows) > limit:
        output.note(f"{limit} of {len(rows)} are shown; --limit shows more")


_COLORS = {"valid": "green", "stale": "yellow", "removed": "red", "forgotten": "red"}


def _row(row: "Held") -> tuple[object, ...]:
    spot = row.spot
    time = None
    if spot is not None and spot.start is not None:
        last = spot.start if spot.stop is None else spot.stop
        time = f"{spot.start:.3f}" + (f"-{last:.3f}" if last > spot.start else "")
    payload = row.annotation.payload
    word = next(
        (payload[key] for key in ("flag", "label", "name") if isinstance(payload.get(key), str)), None
    )
    return (
        output.short(row.annotation.id),
        output.styled(row.state.value, _COLORS[row.state.value]),
        None if spot is None else spot.episode,
        time,
        f"{word or ', '.join(payload) or '(empty)'} ({row.annotation.status.value})",
        f"{row.annotation.created_by}, {figures.age(row.annotation.created_at)}",
        row.said_at,
        row.confirmed_by,
        row.reason or None,
    )
