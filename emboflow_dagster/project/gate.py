"""Before a task that people have to decide about: what they are asked for, and what they said.

A worker that comes to such a task opens an annotation task for what is upstream and leaves
(:mod:`emboflow_dagster.runtime.gates`); one that comes when it is approved executes the node with it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, TransitionError
from emboflow_dagster.model.annotation import (
    Annotation,
    AnnotationStatus,
    AnnotationTargetType,
    AnnotationTask,
    AnnotationTaskStatus,
    TargetRef,
)
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.audit import AuditLog
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.blob_fields import stored_ref
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import OLDEST, Documents
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime import gates
from emboflow_dagster.runtime.node import NodeInput, Review
from emboflow_dagster.runtime.record import Recorder

APPROVE: Final = "annotation.approve"
#: Inputs that are named one by one; the digest is over all of them.
MAX_NAMED: Final = 40


class Gate:
    """What tasks of one project wait for."""

    def __init__(self, opened: Opened, recorder: Recorder) -> None:
        self._opened = opened
        self._recorder = recorder
        self._annotations: Documents[Annotation] = Documents(opened.mongo, opened.scope, Annotation)

    def hold(self, task: RunTask, options: Any, inputs: Mapping[str, NodeInput]) -> None:
        """Nothing where a task may be executed: people have approved, or there is nothing to be labelled.

        Args:
            task: A queued one whose node type waits.
            options: Of the annotation node.
            inputs: What the nodes before it left.

        Raises:
            TransitionError: It waits for people now (kind ``waits-for-people``).
        """
        if not task.asset_ids:
            return
        artifacts = _artifacts(inputs)
        digest = _digest(task, artifacts)
        made_id, there = gates.found(self._recorder, task, digest)
        if there is not None and there.status is AnnotationTaskStatus.APPROVED:
            return
        made = there or self._made(made_id, task, options, artifacts, digest)
        gates.wait(self._recorder, task, made)
        raise TransitionError(
            f"run {task.workflow_run_id}: task {task.node_id} waits for people",
            kind=ErrorKind.WAITS_FOR_PEOPLE,
            hint=f"`emboflow annotation show {made.id}`",
        )

    def review(self, task: RunTask, inputs: Mapping[str, NodeInput]) -> Review | None:
        """What people approved for what a task is given; ``None`` when nobody has.

        Raises:
            IntegrityError: The annotations were changed since.
        """
        _, there = gates.found(self._recorder, task, _digest(task, _artifacts(inputs)))
        if there is None or there.status is not AnnotationTaskStatus.APPROVED:
            return None
        rows = approvals(self._opened, there.id)
        filter_ = {"annotationTaskId": there.id, "status": AnnotationStatus.APPROVED.value}
        found = self._annotations.find(filter_, sort=OLDEST, limit=0)
        if (
            seen(self._opened, found)["annotationsSha256"]
            != (rows[-1].after_summary or {})["annotationsSha256"]
        ):
            raise IntegrityError(
                f"annotation task {there.id}: its annotations are not those that were approved",
                kind=ErrorKind.HASH_MISMATCH,
                hint=f"`emboflow task retry {task.workflow_run_id}:{task.node_id}` asks for them anew",
            )
        return Review(
            annotation_task_id=there.id,
            label_type=there.label_type,
            reviewers=tuple(row.actor_id for row in rows),
            comment="; ".join(filter(None, (comment_of(row) for row in rows))),
            target={"type": there.target_type.value, "id": there.target_ref.id},
            annotations=lambda: self._told(found),
        )

    def _told(self, rows: Iterable[Annotation]) -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {
                "id": row.id,
                "target": row.target_ref.to_mongo(),
                "payload": payload_of(self._opened, row),
                "createdBy": row.created_by,
                "createdAt": row.to_json()["createdAt"],
            }

    def _made(
        self, made_id: str, task: RunTask, options: Any, artifacts: list[tuple[str, Artifact]], digest: str
    ) -> AnnotationTask:
        now, scope = utc_now(), self._opened.scope
        named = [
            {"nodeId": node, "artifactId": artifact.id, "sha256": artifact.storage_ref.sha256}
            for node, artifact in artifacts[:MAX_NAMED]
        ]
        selector: dict[str, Any] = {
            "run": {
                "runId": task.workflow_run_id,
                "nodeId": task.node_id,
                "taskId": task.id,
                "attempt": task.attempt,
            },
            "inputs": named,
            "inputsSha256": digest,
            "assignees": options.assignees,
            "reviewers": options.reviewers,
        }
        if options.instructions:
            selector["instructions"] = options.instructions
        first = artifacts[0][1].id if artifacts else task.asset_ids[0]
        return AnnotationTask.checked(
            id=made_id,
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            target_type=AnnotationTargetType.ARTIFACT if artifacts else AnnotationTargetType.ASSET,
            target_ref=TargetRef(id=first, selector=selector),
            label_type=options.label_type,
            created_by=scope.actor,
            created_at=now,
            updated_at=now,
        )


def approvals(opened: Opened, annotation_task_id: str, session: Session | None = None) -> list[AuditLog]:
    """The approvals of an annotation task, oldest first: the audit log is where they are kept."""
    documents: Documents[AuditLog] = Documents(opened.mongo, opened.scope, AuditLog)
    filter_ = {"resourceType": "annotation_tasks", "resourceId": annotation_task_id, "action": APPROVE}
    return documents.find(filter_, sort=OLDEST, limit=0, session=session)


def comment_of(row: AuditLog) -> str | None:
    """What a reviewer wrote."""
    return (row.after_summary or {}).get("comment")


def payload_of(opened: Opened, row: Annotation) -> dict[str, Any]:
    """The payload of an annotation, wherever it is kept; bytes are verified as they are read."""
    ref = stored_ref(row.payload)
    if ref is None:
        return row.payload
    value: dict[str, Any] = json.loads(opened.blobs.read(ref.object_id, ref.version))
    return value


def seen(opened: Opened, rows: Iterable[Annotation]) -> dict[str, Any]:
    """Annotations by their hashes, as the audit row of a decision has them."""
    hashes = [{"id": row.id, "sha256": _sha256(opened, row)} for row in rows]
    return {
        "annotations": hashes[:MAX_NAMED],
        "annotationsSha256": hashlib.sha256(canonical(hashes)).hexdigest(),
    }


def _sha256(opened: Opened, row: Annotation) -> str:
    ref = stored_ref(row.payload)
    if ref is None:
        return hashlib.sha256(canonical(row.payload)).hexdigest()
    return opened.blobs.get(ref.object_id, ref.version).sha256


def canonical(payload: object) -> bytes:
    """JSON of a payload, the same bytes for the same content: what is hashed, and kept when it is large."""
    text = json.dumps(payload, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _artifacts(inputs: Mapping[str, NodeInput]) -> list[tuple[str, Artifact]]:
    return [(given.node_id, artifact) for given in inputs.values() for artifact in given.artifacts]


def _digest(task: RunTask, artifacts: list[tuple[str, Artifact]]) -> str:
    """Over the bytes that people are shown, not over ids: what is made anew and is equal stays approved."""
    inputs = sorted((node, artifact.type, artifact.storage_ref.sha256) for node, artifact in artifacts)
    return hashlib.sha256(canonical([list(task.asset_ids), inputs])).hexdigest()
