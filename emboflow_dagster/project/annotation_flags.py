"""Review flags: marks on episodes that everybody sees, with who, when and why.

A flag is an annotation like others, so it is carried over, goes stale and is forgotten as they are. The flags
of one version are in one annotation task, which is made with the first.

Source: spec/beyond.md 28; decision 42.
"""

from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from ulid import ULID

from emboflow_dagster.errors import AlreadyExistsError, InvalidInputError, shown
from emboflow_dagster.model.annotation import (
    Annotation,
    AnnotationStatus,
    AnnotationTargetType,
    AnnotationTask,
    AnnotationTaskStatus,
    TargetRef,
)
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.annotation_carry import check_comment
from emboflow_dagster.project.annotation_places import bind
from emboflow_dagster.project.dataset_content import opened_content
from emboflow_dagster.project.opened import Opened

#: The label type of the tasks that hold review flags.
REVIEW_FLAG: Final = "review_flag"
MAX_WORD: Final = 64
_OPEN: Final = (AnnotationTaskStatus.OPEN, AnnotationTaskStatus.IN_PROGRESS)


class Flags:
    """The review flags of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._annotations: Documents[Annotation] = Documents(opened.mongo, opened.scope, Annotation)
        self._tasks: Documents[AnnotationTask] = Documents(opened.mongo, opened.scope, AnnotationTask)

    def flag(
        self,
        version: DatasetVersion,
        episode: int | str,
        word: str,
        *,
        comment: str = "",
        start: float | None = None,
        stop: float | None = None,
    ) -> Annotation:
        """Mark an episode, or a time in it, for everybody: who, when and why can be seen.

        Raises:
            InvalidInputError: No such episode or time, or the word is none.
        """
        check_comment(comment)
        if not word.replace("_", "").replace("-", "").isalnum() or len(word) > MAX_WORD:
            raise InvalidInputError(
                f"flag: found {shown(word)}; a word of letters, digits, - and _ is needed"
            )
        with opened_content(self._opened, version) as content:
            selector = bind(content, episode, start, stop)
        scope, now = self._opened.scope, utc_now()

        def body(session: Session) -> Annotation:
            task = self._flags_of(version, session)
            made = Annotation.checked(
                id=new_id(Annotation.prefix),
                annotation_task_id=task.id,
                workspace_id=scope.workspace_id,
                project_id=scope.project_id,
                target_ref=TargetRef(id=version.id, selector=selector),
                payload={"flag": word, **({"comment": comment} if comment else {})},
                status=AnnotationStatus.SUBMITTED,
                created_by=scope.actor,
                created_at=now,
                updated_at=now,
            )
            self._annotations.insert(made, session=session)
            fields = {"status": AnnotationTaskStatus.IN_PROGRESS.value, "updatedAt": now}
            self._tasks.change(task.id, fields, session=session)
            after = {"flag": word, "versionId": version.id, **selector, "comment": comment}
            self._audited(session, "flag", made.id, None, after)
            return made

        for last in (False, True):
            try:
                return self._opened.mongo.in_transaction(body)
            except AlreadyExistsError:  # somebody else made the task for this version just now
                if last:
                    raise
        raise AssertionError("unreachable")

    def unflag(self, annotation: str, comment: str = "") -> Annotation:
        """Take a flag away; it stays in the log, and in the list of what was rejected.

        Raises:
            InvalidInputError: The annotation is no flag.
            TransitionError: It was taken away already.
        """
        check_comment(comment)
        found = self._annotations.get(annotation)
        if self._tasks.get(found.annotation_task_id).label_type != REVIEW_FLAG:
            raise InvalidInputError(
                f"annotation {found.id} is no review flag",
                hint="`emboflow annotation list --version` has them",
            )
        now = utc_now()

        def body(session: Session) -> Annotation:
            done = self._annotations.change(
                found.id,
                {"status": AnnotationStatus.REJECTED.value, "updatedAt": now},
                expected={"status": AnnotationStatus.SUBMITTED.value},
                session=session,
            )
            self._tasks.change(found.annotation_task_id, {"updatedAt": now}, session=session)
            after = {"flag": found.payload.get("flag"), "comment": comment}
            self._audited(session, "unflag", found.id, {"status": found.status.value}, after)
            return done

        return self._opened.mongo.in_transaction(body)

    def _flags_of(self, version: DatasetVersion, session: Session) -> AnnotationTask:
        """The task that holds the flags of a version, made with the first; one that was closed has a next."""
        scope, number = self._opened.scope, 0
        while True:
            space = uuid5(NAMESPACE_URL, f"emboflow:review-flags:{version.id}:{number}")
            id_ = f"{AnnotationTask.prefix}_{ULID.from_bytes(space.bytes)}"
            there = self._tasks.find_one({"_id": id_}, session=session)
            if there is None:
                break
            if there.status in _OPEN:
                return there
            number += 1
        made = AnnotationTask.checked(
            id=id_,
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            target_type=AnnotationTargetType.DATASET_VERSION,
            target_ref=TargetRef(id=version.id),
            label_type=REVIEW_FLAG,
            created_by=scope.actor,
            created_at=utc_now(),
            updated_at=utc_now(),
        )
        self._tasks.insert(made, session=session)
        return made

    def _audited(
        self, session: Session, verb: str, id_: str, before: dict[str, Any] | None, after: dict[str, Any]
    ) -> None:
        audit.record(
            self._opened.mongo,
            self._opened.scope,
            session,
            f"annotation.{verb}",
            Annotation.collection,
            id_,
            before=before,
            after=after,
        )
