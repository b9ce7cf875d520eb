"""The `python` node: users' own code, in a child process with limits."""

import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, Problem
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.run import MAX_PREVIEW_BYTES
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.child import HOOK_MEMORY_MB, run_child
from emboflow_dagster.runtime.code_hook import given_to
from emboflow_dagster.runtime.node import (
    NodeContext,
    NodeInput,
    NodeOptions,
    NodeOutput,
    NodeResult,
    NodeType,
    Sight,
)
from emboflow_dagster.runtime.nodes import _episodes
from emboflow_dagster.runtime.nodes._inside import inside

CONTENT_TYPES: Final = {
    "json": "application/json",
    "dataframe": "application/vnd.apache.parquet",
    "bytes": "application/octet-stream",
}
MAX_OUTPUT_FILES: Final = 100_000


class HookLimits(NodeOptions):
    """What a hook may use; going over one fails the task with a message that names it."""

    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=600, description="Wall-clock seconds from the start of the process."
    )
    memory_mb: Annotated[int, Field(ge=64, le=1 << 20)] = Field(
        default=HOOK_MEMORY_MB, description="Address space in MiB; imported libraries count."
    )
    cpu_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(
        default=None, description="Processor seconds of the hook's process; null for no limit but the time."
    )


class PythonOptions(NodeOptions):
    """Limits, and whatever else the code wants to be told: every other key is in ``ctx.config``."""

    model_config = ConfigDict(extra="allow")

    limits: HookLimits = Field(
        default_factory=HookLimits,
        description="timeoutSeconds, memoryMb, cpuSeconds. They may also stand beside the other keys.",
    )

    language: Literal["python"] = Field(default="python", description="The language of the hook.")
    network: Literal["none", "host"] = Field(
        default="host", description="`none` takes the network away from the hook and all that it starts."
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_limits(cls, given: Any) -> Any:
        """A limit written one level too high is a limit all the same, never a silent piece of config."""
        names = {"timeoutSeconds", "memoryMb", "cpuSeconds"}
        if not isinstance(given, Mapping) or not names & set(given):
            return given
        inner = given.get("limits", {})
        if not isinstance(inner, Mapping) or names & set(given) & set(inner):
            raise ValueError("the same limit stands in `limits` and beside it")
        outer = {name: given[name] for name in names & set(given)}
        return {k: v for k, v in given.items() if k not in names} | {"limits": {**inner, **outer}}

    @property
    def config(self) -> dict[str, Any]:
        """What the hook sees as ``ctx.config``."""
        return dict(self.model_extra or {})


def run(context: NodeContext) -> NodeResult:
    """Call the hook and keep what it returned.

    Raises:
        InvalidInputError: The task has no code.
        LimitError: The hook went over a limit.
        ExecutionError: The hook raised or crashed, or returned what cannot be kept.
    """
    hook, options = context.task.code_hook_spec, context.options
    if hook is None:
        raise InvalidInputError.of(
            [Problem(ErrorKind.NODE_CODE_HOOK, context.task.node_id, "type python needs a codeHook")]
        )
    kind = given_to(hook.source, hook.entrypoint)
    if kind != "inputs":
        return _episodes.run(context, kind, options.limits, network=options.network == "host")
    request = {
        "source": hook.source,
        "entrypoint": hook.entrypoint,
        "nodeId": context.task.node_id,
        "workflow": context.workflow_slug,
        "workdir": str(context.workdir),
        "config": options.config,
        "assets": [
            {
                "id": bound.id,
                "name": bound.name,
                "type": bound.asset.type.value,
                "format": bound.report.format if bound.report else "unknown",
                "path": str(bound.path),
                "report": bound.report.to_json() if bound.report else None,
            }
            for bound in context.assets
        ],
        "inputs": [_given(upstream) for upstream in context.inputs.values()],
    }
    limits: HookLimits = options.limits
    kept = run_child(
        "emboflow_dagster.runtime.hook_main:run_hook",
        request,
        timeout_s=limits.timeout_seconds,
        memory_mb=limits.memory_mb,
        cpu_s=limits.cpu_seconds,
        network=options.network == "host",
        cwd=context.workdir,
        on_stdout=context.out,
        on_stderr=context.err,
        on_log=context.log,
    )
    return _result(kept, context)


def _given(upstream: NodeInput) -> dict[str, Any]:
    return {
        "node_id": upstream.node_id,
        "type": upstream.node_type,
        "preview": None if upstream.preview is None else dict(upstream.preview),
        "asset_ids": list(upstream.asset_ids),
        "artifacts": [
            {
                "id": artifact.id,
                "type": artifact.type,
                "path": str(upstream.fetch(artifact)),
                "content_type": artifact.storage_ref.content_type,
                "summary": artifact.summary,
            }
            for artifact in upstream.artifacts
        ],
    }


def _result(kept: Mapping[str, Any], context: NodeContext) -> NodeResult:
    """The output from what the child left in the workdir; its word about paths is checked, not believed."""
    path = inside(Path(str(kept["path"])), context.workdir)
    files, size = _measure(path)
    kind = str(kept["kind"])
    summary: dict[str, Any] = {"kind": kind, "files": files, "bytes": size}
    table = kept.get("preview") or {}
    if kind == "dataframe":
        summary |= {name: table[name] for name in ("rows", "columns", "columnCount")}
    output = NodeOutput(
        type=context.task.artifact_type or INTERMEDIATE_TASK_OUTPUT,
        payload=path,
        content_type=LISTING_TYPE if path.is_dir() else CONTENT_TYPES.get(kind) or _content_type(path),
        title=context.task.artifact_title,
        previewable=kind in ("json", "dataframe"),
        summary=summary,
    )
    page: dict[str, Any] = {"kind": kind, "bytes": size}
    if kind == "dataframe":
        page |= {"rows": table["rows"], "columns": table["columnCount"], "head": {"table": table["head"]}}
        preview = {"kind": kind, **table}
    elif kind == "json":
        preview = _json_preview(path, size)
    else:
        preview = {"kind": kind, "name": path.name, "files": files, "bytes": size}
    return NodeResult(outputs=(output,), preview=_fitting(preview, {"kind": kind, "bytes": size}), page=page)


def _measure(path: Path) -> tuple[int, int]:
    if path.is_file():
        return 1, path.stat().st_size
    sizes = [entry.stat().st_size for entry in path.rglob("*") if entry.is_file()]
    if len(sizes) > MAX_OUTPUT_FILES:
        raise ExecutionError(f"the hook returned {len(sizes)} files; at most {MAX_OUTPUT_FILES} are kept")
    return len(sizes), sum(sizes)


def _content_type(path: Path) -> str:
    if path.suffix == ".parquet":
        return CONTENT_TYPES["dataframe"]
    guessed, coding = mimetypes.guess_type(path.name)
    return CONTENT_TYPES["bytes"] if guessed is None or coding else guessed


def _json_preview(path: Path, size: int) -> dict[str, Any]:
    if size > MAX_PREVIEW_BYTES:
        return {"kind": "json", "bytes": size}
    value = json.loads(path.read_bytes())
    return value if isinstance(value, dict) else {"value": value}


def _fitting(preview: dict[str, Any], instead: dict[str, Any]) -> dict[str, Any]:
    """The preview, if MongoDB may hold it; a returned dict can have any key and any size."""
    try:
        return check_freeform(preview, max_bytes=MAX_PREVIEW_BYTES, map_keys=True)
    except InvalidInputError:
        return instead


NODE = NodeType(
    id="python",
    version="1",
    title="Python",
    description=(
        "Calls `codeHook.entrypoint(ctx, inputs)` in a child process with memory, processor and time limits "
        "and none of this process's environment. `ctx` has `assets`, `config`, `workdir` and `log`; "
        "`inputs[node_id]` has `preview`, `asset_ids`, `artifacts`, `json()`, `dataframe()` and `path()`. "
        "It returns JSON, a pandas DataFrame (kept as parquet), bytes, or a Path inside `ctx.workdir`. "
        "A hook whose first parameter is called `episode` or `streams` is called for each demonstration or "
        "recording with its arrays, and returns features that `normalize` reads."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=PythonOptions,
    run=run,
    produces=None,
    code_hook=True,
    sees=frozenset(Sight) - {Sight.STATUS},
    aliases=("python-transform",),
    kinds=("python",),
)
