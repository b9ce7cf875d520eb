"""The `annotation` node: people label what is upstream; the run goes on when they are done."""

import json
from typing import Annotated, Final

from pydantic import Field

from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.text import TYPE_PATTERN
from emboflow_dagster.runtime.node import NodeContext, NodeOptions, NodeOutput, NodeResult, NodeType, Sight

SCHEMA: Final = "emboflow-annotations/1"


class AnnotationOptions(NodeOptions):
    """What is labelled how, and by how many."""

    label_type: Annotated[str, Field(pattern=TYPE_PATTERN, max_length=64)] = Field(
        description="What kind of label: `segment` or any word of your own."
    )
    assignees: Annotated[int, Field(ge=1, le=20)] = Field(
        default=1, description="How many people must have submitted annotations before they are reviewed."
    )
    reviewers: Annotated[int, Field(ge=1, le=20)] = Field(
        default=1, description="How many people must approve them."
    )
    instructions: Annotated[str, Field(max_length=4_000)] | None = Field(
        default=None, description="What the people are told."
    )


def run(context: NodeContext) -> NodeResult:
    """Keep the approved annotations as one JSON file.

    Raises:
        TransitionError: Nobody has approved them (kind ``waits-for-people``).
    """
    review = context.review
    if review is None:
        raise TransitionError("nobody has approved annotations", kind=ErrorKind.WAITS_FOR_PEOPLE)
    path = context.workdir / "annotations.json"
    head = {
        "schema": SCHEMA,
        "annotationTaskId": review.annotation_task_id,
        "labelType": review.label_type,
        "target": dict(review.target),
        "reviewers": list(review.reviewers),
        "comment": review.comment,
    }
    count = 0
    with path.open("w", encoding="utf-8") as out:
        out.write(json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "annotations": [')
        for row in review.annotations():
            out.write((",\n  " if count else "\n  ") + json.dumps(row, ensure_ascii=False, sort_keys=True))
            count += 1
        out.write("\n ]\n}\n")
    people = ", ".join(review.reviewers)
    context.log(
        f"{count} annotations, approved by {people}" + (f": {review.comment}" if review.comment else "")
    )
    shown = {
        "annotationTaskId": review.annotation_task_id,
        "labelType": review.label_type,
        "annotations": count,
        "reviewers": list(review.reviewers),
        "comment": review.comment,
    }
    output = NodeOutput(
        type=context.task.artifact_type or INTERMEDIATE_TASK_OUTPUT,
        payload=path,
        content_type="application/json",
        title=context.task.artifact_title,
        previewable=True,
        summary={"format": SCHEMA, "annotations": count, "annotationTaskId": review.annotation_task_id},
    )
    page = {"annotations": count, "reviewers": people, "comment": review.comment}
    return NodeResult(outputs=(output,), preview=shown, page=page)


NODE = NodeType(
    id="annotation",
    version="1",
    title="Annotation",
    description=(
        "Opens an annotation task for what the node before it left and waits, without a process, until "
        "people have approved it: their annotations are its artifact. Rejected, it fails with the comment."
    ),
    category=CustomNodeCategory.ANNOTATE,
    options=AnnotationOptions,
    run=run,
    needs_bytes=False,
    sees=frozenset({Sight.INPUTS, Sight.NAMES}),
    uncached=lambda _options: "people decide",
    waits=True,
    kinds=("annotation",),
)
