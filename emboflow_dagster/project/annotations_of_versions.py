"""The part of `ef.annotations` that is about dataset versions: what holds where, confirming, review flags."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property

from emboflow_dagster.model.annotation import Annotation
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.project.annotation_carry import Carry, Held
from emboflow_dagster.project.annotation_flags import Flags
from emboflow_dagster.project.datasets import Datasets
from emboflow_dagster.project.opened import Opened


class OfVersions:
    """What was said of the episodes of dataset versions, each found by its hash in the others."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @cached_property
    def _datasets(self) -> Datasets:
        return Datasets(self._opened)

    @cached_property
    def _carry(self) -> Carry:
        return Carry(self._opened)

    @cached_property
    def _flags(self) -> Flags:
        return Flags(self._opened)

    def at(self, dataset: str, tag: str | None = None) -> list[Held]:
        """The annotations of a dataset as they stand at a version, oldest first.

        One is ``valid`` where its episode is the same by hash and labels, ``stale`` (with the reason) where
        it was trimmed, relabelled or made again, ``removed`` or ``forgotten`` where it is gone. Nothing is
        written: the versions are compared, and pages that both have are not read.

        Args:
            dataset: Name or id.
            tag: Tag or id of a version; by default the latest.

        Raises:
            NotFoundError: There is no such dataset or version.
            IntegrityError: A page of a version is missing or damaged.
        """
        return self._carry.at(self._datasets.version(dataset, tag))

    def counts(self, dataset: str, tag: str | None = None) -> dict[str, int]:
        """How many annotations are in each state at a version.

        Raises:
            NotFoundError: There is no such dataset or version.
        """
        return self._carry.counts(self._datasets.version(dataset, tag))

    def annotated(self) -> list[tuple[Dataset, DatasetVersion, datetime]]:
        """The datasets of which something was said: their latest version, and when that last changed."""
        return self._carry.annotated()

    def carry(self, dataset: str, from_: str | None = None, to: str | None = None) -> list[Held]:
        """What becomes of the annotations that are valid at one version, at another.

        Args:
            dataset: Name or id.
            from_: Tag or id of a version; by default the one that ``to`` was built on.
            to: Likewise; by default the latest version.

        Raises:
            NotFoundError: There is no such version, or ``to`` has none before it.
        """
        return self._carry.between(*self._datasets.pair(dataset, from_, to))

    def confirm(
        self,
        annotation: str,
        dataset: str,
        tag: str | None = None,
        *,
        episode: int | str | None = None,
        start: float | None = None,
        stop: float | None = None,
        comment: str = "",
    ) -> Held:
        """Say that an annotation holds at a version, where it would be by its stamps or at another place.

        Args:
            annotation: Its id; of one that is valid there nothing is written.
            dataset: Name or id.
            tag: Tag or id of the version; by default the latest.
            episode: Place or id there.
            start: Seconds from the start of that episode.
            stop: Likewise.
            comment: Kept in the audit log (`annotation.confirm`).

        Raises:
            NotFoundError: There is no such annotation, dataset or version.
            ForbiddenError: The review of its task is given to others.
            TransitionError: It was rejected, or changed meanwhile.
            InvalidInputError: Where it is now cannot be told, or there is no such episode or time.
        """
        version = self._datasets.version(dataset, tag)
        return self._carry.confirm(
            annotation, version, episode=episode, start=start, stop=stop, comment=comment
        )

    def confirm_all(self, rows: Sequence[Held], dataset: str, tag: str, *, comment: str = "") -> list[Held]:
        """Confirm each of ``rows`` whose place in the version is known, as :meth:`confirm` does."""
        version = self._datasets.version(dataset, tag)
        return [
            self._carry.confirm(row.annotation.id, version, comment=comment)
            for row in rows
            if row.confirmable
        ]

    def flag(
        self,
        dataset: str,
        episode: int | str,
        word: str,
        *,
        tag: str | None = None,
        comment: str = "",
        start: float | None = None,
        stop: float | None = None,
    ) -> Annotation:
        """Mark an episode of a version, or a time in it, for everybody to see.

        Args:
            dataset: Name or id.
            episode: Place or id.
            word: What it is marked with.
            tag: Tag or id of the version; by default the latest.
            comment: Why.
            start: Seconds from the start of the episode.
            stop: Likewise.

        Raises:
            NotFoundError: There is no such dataset or version.
            InvalidInputError: No such episode or time, or the word is none.
        """
        version = self._datasets.version(dataset, tag)
        return self._flags.flag(version, episode, word, comment=comment, start=start, stop=stop)

    def unflag(self, annotation: str, comment: str = "") -> Annotation:
        """Take a flag away; who did and why stays in the audit log.

        Raises:
            NotFoundError: There is no such annotation.
            InvalidInputError: It is no flag.
            TransitionError: It was taken away already.
        """
        return self._flags.unflag(annotation, comment)

    def _version_of(self, version_id: str) -> DatasetVersion:
        return self._carry.versions.get(version_id)
