"""The changes of `ef.datasets.edit`: what is wanted, checked, before anything is read.

An episode is named by its place in the version that is edited (from 0) or by its id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown

#: Names an episode.
Which = int | str
MAX_TASK: Final = 500
MAX_FLAG: Final = 64
_SHOWN: Final = 50


class Success(StrEnum):
    """Whether the robot did what was asked."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    @property
    def stored(self) -> bool | None:
        """As an episode has it."""
        return {"yes": True, "no": False}.get(self.value)


@dataclass(frozen=True, slots=True)
class Delete:
    """Leave episodes out."""

    episodes: Sequence[Which]


@dataclass(frozen=True, slots=True)
class Relabel:
    """Give episodes another task, success, or flags; what is not named stays."""

    episodes: Sequence[Which]
    task: str | None = None
    success: Success | str | None = None
    add_flags: Sequence[str] = ()
    remove_flags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Trim:
    """Keep the frames from ``start`` up to (not with) ``stop`` of an episode; ``None``: to its end."""

    episode: Which
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Cut an episode in front of each of the frames ``at``; the parts stand in its place, in order."""

    episode: Which
    at: Sequence[int]


@dataclass(frozen=True, slots=True)
class Merge:
    """Append the episodes of a version of another dataset of the project."""

    dataset: str
    tag: str | None = None


Change = Delete | Relabel | Trim | Split | Merge


def check(changes: Sequence[Change]) -> None:
    """Refuse what no version can be changed by.

    Raises:
        InvalidInputError: Nothing to do, or a value that is not allowed.
    """
    if not changes:
        raise InvalidInputError("an edit needs at least one change: Delete, Relabel, Trim, Split, Merge")
    for change in changes:
        if isinstance(change, Delete | Relabel):
            if isinstance(change.episodes, str) or not change.episodes:
                raise InvalidInputError(f"{kind_of(change)}: no episode is named")
            for which in change.episodes:
                _check_which(which)
        if isinstance(change, Trim | Split):
            _check_which(change.episode)
        if isinstance(change, Relabel):
            _check_labels(change)
        elif isinstance(change, Trim):
            stop = change.stop
            if not _whole(change.start) or not (stop is None or (_whole(stop) and stop > change.start)):
                raise InvalidInputError(
                    f"trim: found frames {change.start!r} to {stop!r}; allowed are 0 <= start < stop"
                )
        elif isinstance(change, Split):
            at = list(change.at)
            if not at or not all(_whole(n) and n > 0 for n in at) or sorted(set(at)) != at:
                raise InvalidInputError(
                    f"split: found {shown(at)}; frames above 0 in rising order are needed"
                )


def told(change: Change) -> dict[str, Any]:
    """A change as the version and the audit log say it."""
    row: dict[str, Any] = {"kind": kind_of(change)}
    if isinstance(change, Delete | Relabel):
        row |= {"episodes": [*change.episodes][:_SHOWN], "count": len(change.episodes)}
    if isinstance(change, Relabel):
        labels = {"task": change.task, "success": change.success and Success(change.success).value}
        labels |= {"addFlags": [*change.add_flags], "removeFlags": [*change.remove_flags]}
        row |= {name: value for name, value in labels.items() if value not in (None, [])}
    elif isinstance(change, Trim):
        row |= {"episode": change.episode, "start": change.start, "stop": change.stop}
    elif isinstance(change, Split):
        row |= {"episode": change.episode, "at": [*change.at][:_SHOWN]}
    elif isinstance(change, Merge):
        row |= {"dataset": change.dataset, "tag": change.tag}
    return row


def kind_of(change: Change) -> str:
    """The word for a change."""
    return type(change).__name__.lower()


def _check_which(which: Which) -> None:
    if not (_whole(which) or (isinstance(which, str) and which.startswith("ep_"))):
        raise InvalidInputError(
            f"episode: found {shown(which)}; a place from 0 or an id (ep_...) names one", kind=ErrorKind.ID
        )


def _check_labels(change: Relabel) -> None:
    if change.success is not None and change.success not in [*Success]:
        raise InvalidInputError(f"success: found {shown(change.success)}; allowed are yes, no, unknown")
    if change.task is not None and (
        not isinstance(change.task, str) or len(change.task) > MAX_TASK or not change.task.isprintable()
    ):
        raise InvalidInputError(
            f"task: found {shown(change.task)}; one line of at most {MAX_TASK} characters"
        )
    flags = [*change.add_flags, *change.remove_flags]
    for flag in flags:
        if not isinstance(flag, str) or not 0 < len(flag) <= MAX_FLAG or not flag.isprintable():
            raise InvalidInputError(f"flag: found {shown(flag)}; one line of 1 to {MAX_FLAG} characters")
    if change.task is None and change.success is None and not flags:
        raise InvalidInputError("relabel: nothing is named: a task, a success or flags")


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0
