"""The annotations of a dataset version, as they stand at it: made for it, carried over, stale, gone.

Whether one is valid is computed from the hashes of the two versions each time it is asked; nothing is copied
from version to version. What a person confirms is written: to the annotation, and to the audit log.

Source: spec/beyond.md 28; decision 42.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from emboflow_dagster.errors import ForbiddenError, InvalidInputError, TransitionError
from emboflow_dagster.model.annotation import (
    Annotation,
    AnnotationStatus,
    AnnotationTargetType,
    AnnotationTask,
    TargetRef,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import OLDEST, Documents
from emboflow_dagster.project.annotation_fates import Comparison, Fate, Spot, State
from emboflow_dagster.project.annotation_places import HELD, Bound, bind, bounds_at, bounds_of, made_of
from emboflow_dagster.project.dataset_content import Content, opened_content
from emboflow_dagster.project.opened import Opened

MAX_TOLD: Final = 100
MAX_COMMENT: Final = 2_000
MAX_HELD: Final = 200
_PACKAGE: Final = "summary.packageArtifactId"


@dataclass(frozen=True, slots=True)
class Held:
    """An annotation at one version."""

    annotation: Annotation
    state: State
    reason: str
    spot: Spot | None
    """Where it is in the version; of a stale one where it would be, ``None`` when that cannot be told."""
    said_at: str
    """The version that it was last said or confirmed at."""
    confirmed_by: str | None

    @property
    def confirmable(self) -> bool:
        """Whether it is stale, and it is known where it would be."""
        whole = bounds_of(self.annotation)[0].episode is None
        return self.state is State.STALE and (whole or self.spot is not None)

    def to_json(self) -> dict[str, Any]:
        """The annotation's document with what it is at the version under ``at``."""
        at = {
            "state": self.state.value,
            "reason": self.reason,
            "saidAt": self.said_at,
            "confirmedBy": self.confirmed_by,
            **(self.spot or Spot()).to_json(),
        }
        return {**self.annotation.to_json(), "at": at}


class Carry:
    """Annotations and the versions of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._annotations: Documents[Annotation] = Documents(opened.mongo, opened.scope, Annotation)
        self._tasks: Documents[AnnotationTask] = Documents(opened.mongo, opened.scope, AnnotationTask)
        self.versions: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)
        self._datasets: Documents[Dataset] = Documents(opened.mongo, opened.scope, Dataset)

    def at(self, version: DatasetVersion, *, and_of: DatasetVersion | None = None) -> list[Held]:
        """What there is to say at a version, oldest first.

        Args:
            version: The version that is looked at.
            and_of: What was said of this one and of those before it is looked for, too.

        Raises:
            IntegrityError: A page of a version is missing or damaged.
        """
        known = self._related(version)
        before = self._before(version, known)
        if and_of is not None:
            others = self._related(and_of)
            before |= self._before(and_of, others)
            known |= others
        found = self._said_of(known)
        with ExitStack() as stack:
            compare = _Compared(self._opened, version, known, stack)
            rows = [self._held(one, compare, before) for one in found]
        return [row for row in rows if row is not None]

    def counts(self, version: DatasetVersion) -> dict[str, int]:
        """How many are in each state at a version."""
        return _counts(self.at(version))

    def annotated(self) -> list[tuple[Dataset, DatasetVersion, datetime]]:
        """The datasets of which something was said: their latest version, and the newest change of a task."""
        of = [AnnotationTargetType.DATASET_VERSION.value, AnnotationTargetType.ARTIFACT.value]
        newest: dict[str, datetime] = {}
        for task in self._tasks.find({"targetType": {"$in": of}}, limit=0):
            newest[task.target_ref.id] = max(task.updated_at, newest.get(task.target_ref.id, task.updated_at))
        said = {"$in": sorted(newest)}
        changed: dict[str, datetime] = {}
        # What was said of a package is said of the version that was published from it.
        for version in self.versions.find({"$or": [{"_id": said}, {_PACKAGE: said}]}, limit=0):
            package = (version.summary or {}).get("packageArtifactId")
            at = max(newest[name] for name in (version.id, package) if name in newest)
            changed[version.dataset_id] = max(at, changed.get(version.dataset_id, at))
        datasets = self._datasets.find({"_id": {"$in": sorted(changed)}}, limit=0)
        heads = [dataset.latest_version_id for dataset in datasets if dataset.latest_version_id]
        latest = {v.dataset_id: v for v in self.versions.find({"_id": {"$in": heads}}, limit=0)}
        return [(one, latest[one.id], changed[one.id]) for one in datasets if one.id in latest]

    def between(self, a: DatasetVersion, b: DatasetVersion) -> list[Held]:
        """What becomes at ``b`` of the annotations that are valid at ``a``."""
        valid = {row.annotation.id for row in self.at(a) if row.state is State.VALID}
        if not valid:
            return []
        return [row for row in self.at(b, and_of=a) if row.annotation.id in valid]

    def one(self, annotation: Annotation, version: DatasetVersion) -> Held:
        """One annotation at a version.

        Raises:
            InvalidInputError: It has nothing to do with that dataset.
        """
        known = self._related(version)
        known |= {v.id: v for b in bounds_of(annotation) if (v := self._version(b.version_id)) is not None}
        with ExitStack() as stack:
            compare = _Compared(self._opened, version, known, stack)
            row = self._held(annotation, compare, set(known))
        if row is None:
            raise InvalidInputError(
                f"annotation {annotation.id}: it is of {annotation.target_ref.id}, no version or its package",
                hint="`emboflow annotation open VERSION --label-type WORD` asks for labels of a version",
            )
        return row

    def confirm(
        self,
        annotation: str,
        version: DatasetVersion,
        *,
        episode: int | str | None = None,
        start: float | None = None,
        stop: float | None = None,
        comment: str = "",
    ) -> Held:
        """Say that an annotation holds at a version, there or at another place of it.

        Args:
            annotation: Which one; of a valid one nothing is written.
            version: Where it holds.
            episode: Place or id; by default where it would be.
            start: Seconds from the episode's start; by default those it would be at.
            stop: Likewise.
            comment: Kept in the audit log.

        Raises:
            ForbiddenError: The review of its task is given to others.
            TransitionError: It was rejected, or changed meanwhile.
            InvalidInputError: It cannot be told where it is now, or there is no such episode or time.
        """
        check_comment(comment)
        found = self._annotations.get(annotation)
        people = self._tasks.get(found.annotation_task_id).reviewer_ids
        if people and self._opened.scope.actor not in people:
            raise ForbiddenError(
                f"annotation {found.id}: only {', '.join(people)} may review and confirm it",
                hint="`emboflow annotation assign` says who does",
            )
        if found.status is AnnotationStatus.REJECTED:
            raise TransitionError(f"annotation {found.id} is rejected: nothing is left to be confirmed")
        held = self.one(found, version)
        moved = (episode, start, stop) != (None, None, None)
        if held.state is State.VALID and not moved:
            return held
        fields = self._chosen(held, version, episode, start, stop)
        self._hold(found, version, fields, held, comment)
        return self.one(self._annotations.get(found.id), version)

    def _chosen(
        self,
        held: Held,
        version: DatasetVersion,
        episode: int | str | None,
        start: float | None,
        stop: float | None,
    ) -> dict[str, Any]:
        spot, bound = held.spot, bounds_of(held.annotation)[0]
        if bound.episode is None and episode is None:
            return {}
        if episode is None:
            if spot is None or spot.episode is None:
                raise InvalidInputError(
                    f"annotation {held.annotation.id}: {held.reason}; where it is now cannot be told",
                    hint="say where: --episode E, and --from S --to S if it is about a time",
                )
            episode = spot.episode
            start, stop = (spot.start, spot.stop) if start is None else (start, stop)
        elif start is None and bound.start is not None:
            raise InvalidInputError(
                f"annotation {held.annotation.id}: it is about a time in an episode",
                hint="say which one it is there: --from S --to S",
            )
        with opened_content(self._opened, version) as content:
            return bind(content, episode, start, stop)

    def _hold(
        self, found: Annotation, version: DatasetVersion, fields: dict[str, Any], was: Held, comment: str
    ) -> None:
        scope, now = self._opened.scope, utc_now()
        selector = dict(found.target_ref.selector or {})
        rows = list(selector.get(HELD) or [])
        if len(rows) >= MAX_HELD:
            raise InvalidInputError(
                f"annotation {found.id}: confirmed {MAX_HELD} times already; add a new one"
            )
        row = {"versionId": version.id, **fields, "by": scope.actor, "at": now}
        ref = TargetRef(id=found.target_ref.id, selector={**selector, HELD: [*rows, row]})

        def body(session: Session) -> None:
            self._annotations.change(
                found.id,
                {"targetRef": ref.to_mongo(), "updatedAt": now},
                expected={"status": found.status.value, "updatedAt": found.updated_at},
                session=session,
            )
            self._tasks.change(found.annotation_task_id, {"updatedAt": now}, session=session)
            audit.record(
                self._opened.mongo,
                scope,
                session,
                "annotation.confirm",
                found.collection,
                found.id,
                before={"state": was.state.value, "reason": was.reason, "version": was.said_at},
                after={"versionId": version.id, **fields, "comment": comment},
            )

        self._opened.mongo.in_transaction(body)

    # ------------------------------------------------------------------------------------------- which ones

    def _held(self, found: Annotation, compare: "_Compared", before: set[str]) -> Held | None:
        bounds = [bound for bound in bounds_at(found, compare.made_of) if bound.version_id in compare.known]
        if not bounds:
            return None
        newest = bounds[0]
        if found.status is AnnotationStatus.REJECTED:
            if found.id not in compare.forgotten:
                return None
            return compare.held(found, newest, Fate(State.FORGOTTEN, "what it said was destroyed"))
        first: Fate | None = None
        for bound in bounds:
            fate = compare.fate(bound)
            if fate.state is State.VALID:
                return compare.held(found, bound, fate)
            first = first or fate
        if first is None or newest.version_id not in before:
            return None  # said of a version that came later, of what this one does not have
        if newest.episode is None and not compare.same_dataset(newest):
            return None
        return compare.held(found, newest, first)

    def _said_of(self, known: dict[str, DatasetVersion]) -> list[Annotation]:
        ids = sorted({*known, *made_of(known.values())})
        said = {
            "$or": [{"targetRef.id": {"$in": ids}}, {f"targetRef.selector.{HELD}.versionId": {"$in": ids}}]
        }
        return self._annotations.find(said, sort=OLDEST, limit=0)

    def _related(self, version: DatasetVersion) -> dict[str, DatasetVersion]:
        """The versions of its dataset, and those that were merged into them."""
        known: dict[str, DatasetVersion] = {}
        datasets, left = set[str](), [version.dataset_id]
        while left:
            dataset = left.pop()
            if dataset in datasets:
                continue
            datasets.add(dataset)
            for one in self.versions.find({"datasetId": dataset}, limit=0):
                known[one.id] = one
                left += [row.id for name in _merged(one) if (row := self._dataset(name)) is not None]
        return known

    def _before(self, version: DatasetVersion, known: dict[str, DatasetVersion]) -> set[str]:
        """The version, those that it follows, and those that were merged into one of them by then."""
        found, at = set[str](), version
        merged: list[tuple[str, DatasetVersion]] = []
        while at.id not in found:
            found.add(at.id)
            merged += [(name, at) for name in _merged(at)]
            if at.parent_version_id is None or at.parent_version_id not in known:
                break
            at = known[at.parent_version_id]
        for name, into in merged:
            dataset = self._dataset(name)
            others = [v for v in known.values() if dataset is not None and v.dataset_id == dataset.id]
            for other in others:
                if other.id not in found and other.created_at <= into.created_at:
                    found.add(other.id)
        return found

    def _dataset(self, name: str) -> Dataset | None:
        return self._datasets.find_one({"$or": [{"_id": name}, {"name": name}]})

    def _version(self, id_: str) -> DatasetVersion | None:
        return self.versions.find_one({"_id": id_})


class _Compared:
    """One version against all those that something was said of; each is opened once."""

    def __init__(
        self, opened: Opened, version: DatasetVersion, known: dict[str, DatasetVersion], stack: ExitStack
    ) -> None:
        self._opened, self._stack, self._version = opened, stack, version
        self._after: Content | None = None
        self._with: dict[str, Comparison] = {}
        self.known = known
        self.made_of = made_of(known.values())

    def fate(self, bound: Bound) -> Fate:
        """What becomes of what is bound there."""
        if bound.version_id not in self._with:
            if self._after is None:
                self._after = self._open(self._version)
            same = bound.version_id == self._version.id
            before = self._after if same else self._open(self.known[bound.version_id])
            self._with[bound.version_id] = Comparison(before, self._after)
        compared = self._with[bound.version_id]
        if bound.episode is None:
            return compared.whole()
        return compared.fate(bound.episode, bound.start, bound.stop)

    def held(self, found: Annotation, bound: Bound, fate: Fate) -> Held:
        """As it is told."""
        said_at = self.known[bound.version_id].version_tag
        return Held(found, fate.state, fate.reason, fate.spot, said_at, bound.by)

    @cached_property
    def forgotten(self) -> frozenset[str]:
        """The annotations that went with a forgotten episode."""
        from emboflow_dagster.project.forget.acting import Forgetting

        notes = Forgetting(self._opened).tombstones()
        return frozenset(row["id"] for note in notes for row in note.get("annotations") or ())

    def same_dataset(self, bound: Bound) -> bool:
        """Whether it is bound to a version of the dataset that is looked at."""
        return self.known[bound.version_id].dataset_id == self._version.dataset_id

    def _open(self, version: DatasetVersion) -> Content:
        return self._stack.enter_context(opened_content(self._opened, version))


def told(rows: Iterable[Held]) -> dict[str, Any]:
    """``counts`` by state, and ``rows``: the first that are not valid any more, with the reason."""
    rows = list(rows)
    gone = [
        {
            "id": row.annotation.id,
            "state": row.state.value,
            "reason": row.reason,
            "confirmable": row.confirmable,
            **(row.spot or Spot()).to_json(),
        }
        for row in rows
        if row.state is not State.VALID
    ]
    return {"counts": _counts(rows), "rows": gone[:MAX_TOLD]}


def _counts(rows: Iterable[Held]) -> dict[str, int]:
    said = Counter(row.state for row in rows)
    return {state.value: said[state] for state in State}


def check_comment(comment: str) -> None:
    """Refuse what no audit row holds.

    Raises:
        InvalidInputError: Too long.
    """
    if len(comment) > MAX_COMMENT:
        raise InvalidInputError(f"comment: at most {MAX_COMMENT} characters")


def _merged(version: DatasetVersion) -> Iterator[str]:
    """The datasets that an edit merged into a version."""
    edit = (version.summary or {}).get("edit")
    for change in (edit or {}).get("changes") or ():
        if change.get("kind") == "merge" and isinstance(change.get("dataset"), str):
            yield change["dataset"]
