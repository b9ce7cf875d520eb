"""From a node's context to a container and back to its result."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.containers import engine
from emboflow_dagster.runtime.containers.contract import (
    CONTENT_TYPES,
    FOLDER,
    JSON,
    Expected,
    Found,
    check_outputs,
)
from emboflow_dagster.runtime.containers.options import ContainerLimits
from emboflow_dagster.runtime.containers.running import NOBODY, Job, run_container
from emboflow_dagster.runtime.containers.staging import stage
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult

#: What a task's ``executorConfig`` has beside ``image``: the digest that the run was requested with.
PINNED: Final = "imageDigest"
#: Labels of a container: which attempt of which task it belongs to, and who runs it.
TASK_LABEL: Final = "emboflow.task"
ATTEMPT_LABEL: Final = "emboflow.attempt"
RUN_LABEL: Final = "emboflow.run"
WORKER_LABEL: Final = "emboflow.worker"


class Use(NamedTuple):
    """How an image is used: arguments, where inside its inputs and outputs are, and its limits."""

    command: Sequence[str]
    input: str
    output: str
    options: ContainerLimits
    config: Mapping[str, Any] | None = None
    """What the container finds as ``config.json`` among its inputs."""


def run_job(context: NodeContext, use: Use, expected: Sequence[Expected]) -> NodeResult:
    """Run the image of a task and draw up what it left.

    Raises:
        ConfigurationError: No daemon answers, or the image is not here.
        LimitError: It went over a limit.
        ExecutionError: It failed, or what it left is not what the contract says (kind ``contract``).
    """
    task, options = context.task, use.options
    frozen = task.executor_config or {}
    image = str(frozen.get("image") or (frozen.get("config") or {}).get("image") or "")
    inputs, outputs = context.workdir / "in", context.workdir / "out"
    stage(context, inputs, use.config)
    outputs.mkdir(mode=0o755)
    if os.getuid() == 0:
        os.chown(outputs, NOBODY, NOBODY)
    with engine.connected() as client:
        # By the digest, not by the name: a name may have been given to another image since.
        image_id = engine.image_id(client, str(frozen.get(PINNED) or image))
        context.log(f"{image} ({image_id}), network {options.network}")
        run_container(
            client,
            Job(
                image_id=image_id,
                command=use.command,
                environment=options.env,
                network=options.network,
                inputs=(inputs, use.input),
                outputs=(outputs, use.output),
                limits=options.limits,
                labels={
                    RUN_LABEL: task.workflow_run_id,
                    TASK_LABEL: task.id,
                    ATTEMPT_LABEL: str(task.attempt),
                    WORKER_LABEL: task.lease_owner or "",
                },
            ),
            context.out,
            context.err,
        )
    found = check_outputs(outputs, use.output, expected, context.child)
    made = {"image": image, PINNED: image_id}
    rows = [{"output": f"{use.output}/{f.expected.path}", "files": f.files, "bytes": f.size} for f in found]
    return NodeResult(
        outputs=tuple(_output(context, one, made) for one in found),
        preview={**made, "outputs": rows, **_shown(found)},
        page={"image": image, "image digest": image_id, "outputs": {"table": rows}},
    )


def _output(context: NodeContext, found: Found, made: dict[str, str]) -> NodeOutput:
    kind = found.expected.kind
    return NodeOutput(
        type=found.expected.artifact_type,
        payload=found.path,
        content_type=LISTING_TYPE if kind == FOLDER else CONTENT_TYPES[kind],
        title=context.task.artifact_title,
        previewable=kind == JSON,
        summary={"kind": kind, "output": found.expected.path, "bytes": found.size, **made},
    )


def _shown(found: Sequence[Found]) -> dict[str, Any]:
    value = next((one.preview for one in found if one.preview is not None), None)
    if value is None:
        return {}
    try:
        return check_freeform({"value": value}, max_bytes=48 << 10, map_keys=True)
    except InvalidInputError:
        return {}
