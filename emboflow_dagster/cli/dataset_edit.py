"""`emboflow dataset edit`: the next version of a dataset, made out of its latest one."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import InvalidInputError, shown

if TYPE_CHECKING:
    from emboflow_dagster.model.dataset import DatasetVersion
    from emboflow_dagster.project.dataset_changes import Change
    from emboflow_dagster.project.handle import EmboFlow

app = noun("The next version of a dataset, made out of its latest one; `undo` takes it back.")
MAX_NAMED: Final = 1_000_000
_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")
Name = Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of a dataset.")]
Episodes = Annotated[
    list[str],
    typer.Argument(metavar="EPISODES...", help="Places from 0 (7, 3-9, 1,4) or ids (ep_...) of episodes."),
]
Episode = Annotated[str, typer.Argument(metavar="EPISODE", help="Place from 0, or id, of an episode.")]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why; kept with the version and in the audit log."),
]
Base = Annotated[
    str | None,
    typer.Option("--base", metavar="TAG", help="Only when this is the latest version: a guard for scripts."),
]
Tag = Annotated[
    str | None, typer.Option("--tag", metavar="TAG", help="Tag of the new version; else the next number.")
]


@verb(app, "delete", example="emboflow dataset edit delete pick-place 3 10-14 --reason 'arm hit the table'")
def delete(
    dataset: Name, episodes: Episodes, reason: Reason = None, base: Base = None, tag: Tag = None
) -> None:
    """Leave episodes out."""
    from emboflow_dagster.project.dataset_changes import Delete

    _edit(dataset, Delete(named(episodes)), reason, base, tag)


@verb(app, "relabel", example="emboflow dataset edit relabel pick-place 0-9 --task 'pick the cube'")
def relabel(
    dataset: Name,
    episodes: Episodes,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TEXT", help="What was asked of the robot.")
    ] = None,
    success: Annotated[
        str | None, typer.Option("--success", metavar="yes|no|unknown", help="Whether it was done.")
    ] = None,
    flag: Annotated[
        list[str] | None, typer.Option("--flag", metavar="FLAG", help="Add a flag; may be repeated.")
    ] = None,
    unflag: Annotated[
        list[str] | None, typer.Option("--unflag", metavar="FLAG", help="Take a flag away; may be repeated.")
    ] = None,
    reason: Reason = None,
    base: Base = None,
    tag: Tag = None,
) -> None:
    """Give episodes another task, success or flags."""
    from emboflow_dagster.project.dataset_changes import Relabel

    change = Relabel(named(episodes), task, success, tuple(flag or ()), tuple(unflag or ()))
    _edit(dataset, change, reason, base, tag)


@verb(app, "trim", example="emboflow dataset edit trim pick-place 7 --start 10 --stop 180")
def trim(
    dataset: Name,
    episode: Episode,
    start: Annotated[
        int, typer.Option("--start", min=0, metavar="FRAME", help="The first frame to keep.")
    ] = 0,
    stop: Annotated[
        int | None,
        typer.Option("--stop", min=1, metavar="FRAME", help="The frame behind the last one to keep."),
    ] = None,
    reason: Reason = None,
    base: Base = None,
    tag: Tag = None,
) -> None:
    """Keep a piece of an episode."""
    from emboflow_dagster.project.dataset_changes import Trim

    _edit(dataset, Trim(_one(episode), start, stop), reason, base, tag)


@verb(app, "split", example="emboflow dataset edit split pick-place 7 --at 120")
def split(
    dataset: Name,
    episode: Episode,
    at: Annotated[
        list[int],
        typer.Option("--at", min=1, metavar="FRAME", help="The first frame of a part; may be repeated."),
    ],
    reason: Reason = None,
    base: Base = None,
    tag: Tag = None,
) -> None:
    """Cut an episode into several."""
    from emboflow_dagster.project.dataset_changes import Split

    _edit(dataset, Split(_one(episode), tuple(at)), reason, base, tag)


@verb(app, "merge", example="emboflow dataset edit merge pick-place pick-place-night:v2")
def merge(
    dataset: Name,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER[:TAG]", help="The dataset whose episodes are appended; else its latest."
        ),
    ],
    reason: Reason = None,
    base: Base = None,
    tag: Tag = None,
) -> None:
    """Append the episodes of another dataset; their bytes are shared."""
    from emboflow_dagster.project.dataset_changes import Merge

    name, _, version = other.partition(":")
    _edit(dataset, Merge(name, version or None), reason, base, tag)


@verb(app, "undo", example="emboflow dataset edit undo pick-place")
def undo(dataset: Name, reason: Reason = None, base: Base = None, tag: Tag = None) -> None:
    """A version that holds what there was before the newest edit; repeated, before the one before."""
    with opened() as ef:
        version = ef.datasets.undo(full_id(ef.datasets.documents, dataset), reason=reason, base=base, tag=tag)
        _shown(ef, version)


@verb(app, "restore", example="emboflow dataset edit restore pick-place v3")
def restore(
    dataset: Name,
    version: Annotated[str, typer.Argument(metavar="TAG", help="Tag or id of the version to bring back.")],
    reason: Reason = None,
    base: Base = None,
    tag: Tag = None,
) -> None:
    """A version that holds what an older one holds."""
    with opened() as ef:
        name = full_id(ef.datasets.documents, dataset)
        _shown(ef, ef.datasets.restore(name, version, reason=reason, base=base, tag=tag))


def _edit(dataset: str, change: "Change", reason: str | None, base: str | None, tag: str | None) -> None:
    with opened() as ef:
        name = full_id(ef.datasets.documents, dataset)
        with progress.waiting("editing"):
            version = ef.datasets.edit(name, [change], reason=reason, base=base, tag=tag)
        _shown(ef, version)


def _shown(ef: "EmboFlow", version: "DatasetVersion") -> None:
    name = ef.datasets.get(version.dataset_id).name
    said: dict[str, Any] = (version.summary or {}).get("edit") or {}
    counts = said.get("episodes") or {}
    output.emit(
        version.to_json(),
        lambda: output.pairs(
            [
                ("dataset", output.styled(name, "bold")),
                ("version", version.version_tag),
                ("id", version.id),
                ("holds", f"what {said['restoresTag']} holds" if said.get("restoresTag") else None),
                ("episodes", f"{counts.get('from')} -> {counts.get('to')}"),
                ("frames", version.stats.get("frames")),
                ("size", figures.size(int(version.stats.get("bytes", 0)))),
                ("reason", said.get("reason")),
                ("what changed", f"emboflow dataset diff {name}"),
            ]
        ),
    )


def named(texts: list[str]) -> list[int | str]:
    """Episodes as people write them: places, ranges of places, ids.

    Raises:
        InvalidInputError: A range does not go up.
    """
    found: list[int | str] = []
    for text in ",".join(texts).split(","):
        part = text.strip()
        span = _RANGE.fullmatch(part)
        if span is None:
            found.append(_one(part))
            continue
        first = int(span[1])
        last = int(span[2] or first)
        if last < first or last - first >= MAX_NAMED:
            raise InvalidInputError(f"episodes: found {shown(part)}; a range goes up, as in 3-9")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def _one(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
