"""Annotation tasks: opened, given to people, answered, reviewed.

A task is `open` until somebody adds the first annotation, `in_progress` until as many people as it needs have
submitted theirs, and `in_review` until as many as it needs have approved, or one has rejected. Who decided,
why, and over which bytes is in the audit log; in the same transaction a run that waits goes on or fails.

What was said of an episode of a dataset version is found again in other versions by its hash
(:meth:`Annotations.at`), never copied.

Source: requirements R-247..R-270; decisions 34 and 42.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from emboflow_dagster.errors import (
    ErrorKind,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    TransitionError,
    shown,
)
from emboflow_dagster.model.annotation import (
    ANNOTATION_TRANSITIONS,
    Annotation,
    AnnotationStatus,
    AnnotationTargetType,
    AnnotationTask,
    AnnotationTaskStatus,
    TargetRef,
)
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.blob_fields import stored_ref
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.records import TARGETS
from emboflow_dagster.model.storage import BlobRef
from emboflow_dagster.mongo import audit, ownership
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.mongo.documents import OLDEST, Documents
from emboflow_dagster.mongo.ownership import Mention
from emboflow_dagster.project.annotation_places import bind, episode_of, times_of
from emboflow_dagster.project.annotations_of_versions import OfVersions
from emboflow_dagster.project.dataset_content import opened_content
from emboflow_dagster.project.gate import approvals, canonical, payload_of, seen
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime import gates
from emboflow_dagster.runtime.record import Recorder

MAX_INLINE_BYTES: Final = 1 << 20
MAX_INLINE_ITEMS: Final = 200_000
_LARGE: Final = (ErrorKind.DOC_TOO_LARGE, ErrorKind.TOO_MANY_KEYS)
Status = AnnotationTaskStatus
T = TypeVar("T")


class Annotations(OfVersions):
    """The annotation tasks of one project, and what people answered."""

    def __init__(self, opened: Opened, recorder: Recorder) -> None:
        super().__init__(opened)
        self._recorder = recorder
        self.tasks: Documents[AnnotationTask] = Documents(opened.mongo, opened.scope, AnnotationTask)
        self.documents: Documents[Annotation] = Documents(opened.mongo, opened.scope, Annotation)

    def get(self, task: str) -> AnnotationTask:
        """One annotation task.

        Raises:
            NotFoundError: There is none in this project.
        """
        return self.tasks.get(task)

    def of(self, task: str) -> list[Annotation]:
        """The annotations of a task, oldest first."""
        return self.documents.find({"annotationTaskId": task}, sort=OLDEST, limit=0)

    def payload(self, annotation: Annotation) -> dict[str, Any]:
        """What somebody answered, wherever it is kept; bytes are verified as they are read."""
        return payload_of(self._opened, annotation)

    def open(
        self,
        target: str,
        *,
        label_type: str,
        assignees: int = 1,
        reviewers: int = 1,
        instructions: str | None = None,
    ) -> AnnotationTask:
        """Ask people for labels; no run waits for them.

        Args:
            target: Id of an asset, a dataset version or an artifact; the name of an asset; ``DATASET[:TAG]``.
            label_type: What kind of label.
            assignees: How many people must have submitted before it is reviewed.
            reviewers: How many must approve.
            instructions: What the people are told.

        Raises:
            NotFoundError: There is no such target in this project.
            InvalidInputError: A number below 1, or a label type that is no word.
        """
        if min(assignees, reviewers) < 1:
            raise InvalidInputError("assignees and reviewers: at least 1 each")
        kind, target = self._target(target)
        now, scope = utc_now(), self._opened.scope
        selector: dict[str, Any] = {"assignees": assignees, "reviewers": reviewers}
        if instructions:
            selector["instructions"] = instructions
        made = AnnotationTask.checked(
            id=new_id(AnnotationTask.prefix),
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            target_type=kind,
            target_ref=TargetRef(id=target, selector=selector),
            label_type=label_type,
            created_by=scope.actor,
            created_at=now,
            updated_at=now,
        )

        def body(session: Session) -> AnnotationTask:
            self.tasks.insert(made, session=session)
            gates.opened(self._recorder, made, session)
            return made

        return self._opened.mongo.in_transaction(body)

    def assign(
        self, task: str, *, assignees: Iterable[str] | None = None, reviewers: Iterable[str] | None = None
    ) -> AnnotationTask:
        """Say who labels and who reviews; nobody else may then. ``[]`` takes anybody.

        Raises:
            NotFoundError: No such task or user.
            TransitionError: It is decided already.
        """
        given = {"assigneeIds": assignees, "reviewerIds": reviewers}
        changes = {name: self._users(ids) for name, ids in given.items() if ids is not None}
        if not changes:
            raise InvalidInputError("neither assignees nor reviewers were named")

        def body(session: Session, found: AnnotationTask) -> AnnotationTask:
            before = {name: getattr(found, field) for name, field in _PEOPLE.items() if name in changes}
            return self._moved(found, None, session, "assign", changes, before=before, after=changes)

        return self._in(task, body, Status.OPEN, Status.IN_PROGRESS, Status.IN_REVIEW)

    def add(
        self, task: str, payload: Mapping[str, Any], *, selector: Mapping[str, Any] | None = None
    ) -> Annotation:
        """Add an annotation of the actor's, as a draft; its first one begins the task.

        Args:
            task: The annotation task.
            payload: A JSON object; one above 1 MiB is kept as a blob.
            selector: Which part of the task's target it is about. Of a dataset version: ``episode`` (place
                or id) and, in seconds from its start, ``from`` and ``to``; it is bound to the episode's hash.

        Raises:
            ForbiddenError: The task is given to others.
            TransitionError: The task is in review or over.
            InvalidInputError: The payload is no JSON object that can be stored; or there is no such episode
                or time.
        """
        actor = self._opened.scope.actor
        about = self.get(task)
        self._require(about, "assignee_ids", "label")
        selector = self._bound(about, selector or {})
        made_id, now, scope = new_id(Annotation.prefix), utc_now(), self._opened.scope
        stored, blob = self._stored(payload)

        def body(session: Session, found: AnnotationTask) -> Annotation:
            self._require(found, "assignee_ids", "label")
            made = Annotation.checked(
                id=made_id,
                annotation_task_id=found.id,
                workspace_id=scope.workspace_id,
                project_id=scope.project_id,
                target_ref=TargetRef(id=found.target_ref.id, selector=dict(selector) if selector else None),
                payload=stored,
                created_by=actor,
                created_at=now,
                updated_at=now,
            )
            if blob is not None:
                mention = Mention(blob, Annotation.collection, made_id, "payload")
                checked = ownership.check(self._opened.mongo, scope, session, [mention])
                if checked.problems[0]:
                    raise InvalidInputError.of(checked.problems[0])
                ownership.claim(self._opened.mongo, scope, session, checked.claims)
            self.documents.insert(made, session=session)
            self._moved(found, Status.IN_PROGRESS, session, "add", after={"annotation": made_id})
            return made

        return self._in(task, body, Status.OPEN, Status.IN_PROGRESS)

    def submit(self, task: str) -> AnnotationTask:
        """Hand in the actor's drafts; when as many people as needed have, the task is in review.

        Raises:
            TransitionError: There is no draft of the actor's, or the task is in review or over.
        """

        def body(session: Session, found: AnnotationTask) -> AnnotationTask:
            rows = self.documents.find({"annotationTaskId": found.id}, limit=0, session=session)
            actor = self._opened.scope.actor
            mine = [r for r in rows if r.created_by == actor and r.status is AnnotationStatus.DRAFT]
            if not mine:
                raise TransitionError(
                    f"annotation task {found.id}: {actor} has no draft",
                    hint=f"`emboflow annotation add {found.id} FILE`",
                )
            self._mark(mine, AnnotationStatus.SUBMITTED, session)
            people = {r.created_by for r in rows if r.status is AnnotationStatus.SUBMITTED} | {actor}
            whole = len(people) >= _needed(found, "assignees")
            after = {"annotations": len(mine), "people": len(people)}
            status = Status.IN_REVIEW if whole else Status.IN_PROGRESS
            return self._moved(found, status, session, "submit", after=after)

        return self._in(task, body, Status.IN_PROGRESS)

    def approve(self, task: str, comment: str = "") -> AnnotationTask:
        """Approve what was submitted; with the last approval that is needed, a run that waits goes on.

        Approving twice counts once. The audit row has the comment and the hashes of what was labelled and of
        the annotations.

        Raises:
            ForbiddenError: The review is given to others.
            TransitionError: The task is not in review, or its run does not wait for it any more.
        """

        def body(session: Session, found: AnnotationTask) -> AnnotationTask:
            self._require(found, "reviewer_ids", "review")
            actor = self._opened.scope.actor
            before = {row.actor_id for row in approvals(self._opened, found.id, session)}
            if actor in before:
                return found
            given, needed = len(before) + 1, _needed(found, "reviewers")
            rows = self._submitted(found, session)
            after = {"comment": comment, "approvals": given, "needed": needed, **self._seen(found, rows)}
            if given < needed:
                return self._moved(found, None, session, "approve", after=after)
            self._mark(rows, AnnotationStatus.APPROVED, session)
            done = self._moved(found, Status.APPROVED, session, "approve", after=after)
            gates.approved(self._recorder, done, session)
            return done

        return self._in(task, body, Status.IN_REVIEW)

    def reject(self, task: str, comment: str) -> AnnotationTask:
        """Reject what was submitted, and say why; the task of a run that waits fails with the comment.

        Raises:
            ForbiddenError: The review is given to others.
            TransitionError: The task is not in review.
            InvalidInputError: No comment.
        """
        if not comment.strip():
            raise InvalidInputError("comment: a rejection says why")

        def body(session: Session, found: AnnotationTask) -> AnnotationTask:
            self._require(found, "reviewer_ids", "review")
            rows = self._submitted(found, session)
            after = {"comment": comment, **self._seen(found, rows)}
            self._mark(rows, AnnotationStatus.REJECTED, session)
            done = self._moved(found, Status.REJECTED, session, "reject", after=after)
            why = f"rejected by {self._opened.scope.actor}: {comment}"
            gates.rejected(self._recorder, done, why, session)
            return done

        return self._in(task, body, Status.IN_REVIEW)

    def cancel(self, task: str) -> AnnotationTask:
        """Close a task that people opened, without a decision; that of a run is closed with its run.

        Raises:
            TransitionError: It is over, or a run waits for it.
        """

        def body(session: Session, found: AnnotationTask) -> AnnotationTask:
            run = gates.run_of(found)
            if run:
                raise TransitionError(
                    f"annotation task {found.id}: a run waits for it",
                    hint=f"`emboflow run cancel {run['runId']}`, or reject it",
                )
            return gates.cancel(self._recorder, found, session)

        return self._in(task, body, Status.OPEN, Status.IN_PROGRESS, Status.IN_REVIEW)

    def _in(
        self, task: str, body: Callable[[Session, AnnotationTask], T], *allowed: AnnotationTaskStatus
    ) -> T:
        def checked(session: Session) -> T:
            found = self.tasks.get(task, session=session)
            if found.status not in allowed:
                raise TransitionError(
                    f"annotation task {task} is {found.status}; needed: {', '.join(allowed)}"
                )
            return body(session, found)

        return self._opened.mongo.in_transaction(checked)

    def _moved(
        self,
        found: AnnotationTask,
        status: AnnotationTaskStatus | None,
        session: Session,
        verb: str,
        changes: Mapping[str, Any] | None = None,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> AnnotationTask:
        to = found.status if status is None else status
        if to is not found.status and to not in ANNOTATION_TRANSITIONS[found.status]:
            raise TransitionError(f"annotation task {found.id} is {found.status}; {to} cannot follow")
        moved = self.tasks.change(
            found.id,
            {**(changes or {}), "status": to.value, "updatedAt": utc_now()},
            expected={"status": found.status.value},
            session=session,
        )
        audit.record(
            self._opened.mongo,
            self._opened.scope,
            session,
            f"annotation.{verb}",
            "annotation_tasks",
            found.id,
            before={"status": found.status.value, **(before or {})},
            after={"status": to.value, **(after or {})},
        )
        return moved

    def _mark(self, rows: Iterable[Annotation], status: AnnotationStatus, session: Session) -> None:
        for row in rows:
            self.documents.change(
                row.id,
                {"status": status.value, "updatedAt": utc_now()},
                expected={"status": row.status.value},
                session=session,
            )

    def _submitted(self, found: AnnotationTask, session: Session) -> list[Annotation]:
        which = {"annotationTaskId": found.id, "status": AnnotationStatus.SUBMITTED.value}
        return self.documents.find(which, sort=OLDEST, limit=0, session=session)

    def _seen(self, found: AnnotationTask, rows: Iterable[Annotation]) -> dict[str, Any]:
        """What a decision is about, by hashes: the inputs, and the annotations."""
        selector = found.target_ref.selector or {}
        told = {key: selector[key] for key in ("inputs", "inputsSha256") if key in selector}
        return {**told, **seen(self._opened, rows)}

    def _bound(self, task: AnnotationTask, selector: Mapping[str, Any]) -> dict[str, Any]:
        """A selector with the hash of the episode that it names, where it names one of a version."""
        episode = episode_of(selector)
        if task.target_type is not AnnotationTargetType.DATASET_VERSION or episode is None:
            return dict(selector)
        start, stop = times_of(selector)
        with opened_content(self._opened, self._version_of(task.target_ref.id)) as content:
            return {**selector, **bind(content, episode, start, stop)}

    def _require(self, found: AnnotationTask, field: str, verb: str) -> None:
        people, actor = getattr(found, field), self._opened.scope.actor
        if people and actor not in people:
            raise ForbiddenError(
                f"annotation task {found.id}: {', '.join(people)} may {verb} it, {actor} may not",
                hint="`emboflow annotation assign` says who does",
            )

    def _stored(self, payload: Mapping[str, Any]) -> tuple[dict[str, Any], BlobRef | None]:
        """What the document holds, and the blob where that names one."""
        value = dict(payload)
        if stored_ref(value) is not None:
            raise InvalidInputError("payload: it reads as a reference to a blob", kind=ErrorKind.CONTRACT)
        try:
            return check_freeform(value, max_bytes=MAX_INLINE_BYTES, max_items=MAX_INLINE_ITEMS), None
        except InvalidInputError as error:
            if {problem.kind for problem in error.problems} - set(_LARGE):
                raise
        owner = (Annotation.collection, "payload")
        blob = self._opened.blobs.put(canonical(value), content_type="application/json", owner=owner)
        ref = BlobRef(object_id=blob.object_id, version=blob.version)
        return {"ref": {"objectId": ref.object_id, "version": ref.version}}, ref

    def _target(self, target: str) -> tuple[AnnotationTargetType, str]:
        """What is labelled, by its id; `DATASET[:TAG]` and the name of an asset are as good."""
        for kind, name in TARGETS.items():
            documents: Documents[Any] = Documents(
                self._opened.mongo, self._opened.scope, COLLECTIONS[name].document
            )
            if documents.find_one({"_id": target}) is not None:
                return AnnotationTargetType(kind), target
        found: list[tuple[AnnotationTargetType, str]] = []
        dataset, _, tag = target.partition(":")
        if self._datasets.documents.find_one({"name": dataset}) is not None:
            version = self._datasets.version(dataset, tag or None)
            found.append((AnnotationTargetType.DATASET_VERSION, version.id))
        assets: Documents[Asset] = Documents(self._opened.mongo, self._opened.scope, Asset)
        named = assets.find({"displayName": target}, limit=2)
        found += [(AnnotationTargetType.ASSET, asset.id) for asset in named]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInputError(
                f"{shown(target)}: several have that name", kind=ErrorKind.AMBIGUOUS, hint="use the id"
            )
        raise NotFoundError(
            f"{shown(target)}: no asset, dataset version or artifact of this project",
            hint="an id, the name of an asset, or DATASET[:TAG]",
        )

    def _users(self, ids: Iterable[str]) -> list[str]:
        named = [name.removeprefix("user:") for name in dict.fromkeys(ids)]
        with translated():
            there = {
                row["_id"] for row in self._opened.mongo["users"].find({"_id": {"$in": named}}, {"_id": 1})
            }
        absent = [name for name in named if name not in there]
        if absent:
            raise NotFoundError(
                f"user {shown(absent[0])}: there is none",
                hint="a user is made when one first opens a project",
            )
        return named

    def list(
        self, *, status: str | None = None, run: str | None = None, mine: bool = False, limit: int = 50
    ) -> list[AnnotationTask]:
        """Annotation tasks, newest first.

        Args:
            status: A word of :class:`AnnotationTaskStatus`.
            run: Only those that a run opened.
            mine: Only those given to the actor to label or to review.
            limit: How many.

        Raises:
            InvalidInputError: No such status.
        """
        which: dict[str, Any] = {}
        if status is not None:
            if status not in list(Status):
                raise InvalidInputError(f"status: found {shown(status)}; allowed are {', '.join(Status)}")
            which["status"] = status
        if run is not None:
            which["targetRef.selector.run.runId"] = run
        if mine:
            actor = self._opened.scope.actor
            which["$or"] = [{"assigneeIds": actor}, {"reviewerIds": actor}]
        return self.tasks.find(which, limit=limit)


_PEOPLE: Final = {"assigneeIds": "assignee_ids", "reviewerIds": "reviewer_ids"}


def _needed(found: AnnotationTask, what: str) -> int:
    """How many people a task needs: what was asked for when it was opened, and one otherwise."""
    said = (found.target_ref.selector or {}).get(what)
    return said if isinstance(said, int) and said > 0 else 1
