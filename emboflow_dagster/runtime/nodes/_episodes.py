"""The `python` node where its hook takes episodes or streams: recordings in, computed episodes out."""

from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ErrorKind, ExecutionError
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.child import run_child
from emboflow_dagster.runtime.derived import Derived
from emboflow_dagster.runtime.node import NodeContext, NodeResult
from emboflow_dagster.runtime.nodes._inside import inside
from emboflow_dagster.runtime.nodes._recordings import told_places
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short

FORMAT = "emboflow-episodes/1"


def run(context: NodeContext, kind: str, limits: Any, *, network: bool) -> NodeResult:
    """Take the recordings apart in one child, and call the hook with what is in them in another.

    Raises:
        LimitError: The hook, or reading, went over a limit.
        ExecutionError: The hook raised or crashed, returned what is no episode, or there was none at all.
    """
    hook = context.task.code_hook_spec
    assert hook is not None  # noqa: S101 - the node looked
    recordings = _recordings(context)
    parts, out = context.workdir / ".parts", context.workdir / "episodes"
    told = [_told(context, recording) for recording in recordings]
    read = context.child(
        "emboflow_dagster.runtime.episode_reading:extract",
        {
            "kind": kind,
            "recordings": told,
            "forgotten": told_places(context),
            "traces": list(context.traces),
            "out": str(parts),
        },
    )
    out.mkdir()
    made = run_child(
        "emboflow_dagster.runtime.episode_hook:run_episodes",
        {
            "source": hook.source,
            "entrypoint": hook.entrypoint,
            "kind": kind,
            "nodeId": context.task.node_id,
            "workflow": context.workflow_slug,
            "workdir": str(context.workdir),
            "config": context.options.config,
            "recordings": told,
            "parts": str(parts),
            "out": str(out),
        },
        timeout_s=limits.timeout_seconds,
        memory_mb=limits.memory_mb,
        cpu_s=limits.cpu_seconds,
        network=network,
        cwd=context.workdir,
        on_stdout=context.out,
        on_stderr=context.err,
        on_log=context.log,
    )
    inside(out, context.workdir)
    rows = [
        {
            "name": short(recording.name),
            "episodes": done["episodes"],
            "frames": done["frames"],
            "left out": short("; ".join([*first["reasons"], *done["reasons"]])),
        }
        for recording, first, done in zip(recordings, read, made, strict=True)
    ]
    given = [
        Derived(recording.asset_id, recording.sha256, recording.name, f"{number:03d}", FORMAT)
        for number, (recording, done) in enumerate(zip(recordings, made, strict=True))
        if done["episodes"]
    ]
    if not given:
        why = "; ".join(f"{row['name']}: {row['left out'] or 'holds none'}" for row in rows[:3])
        raise ExecutionError(f"no episode was made: {why}", kind=ErrorKind.INPUT_MISSING)
    totals = {name: sum(row[name] for row in rows) for name in ("episodes", "frames")}
    kept = {recording.asset_id for recording in given}
    return NodeResult(
        outputs=(derived.output(out, given, title=context.task.artifact_title),),
        asset_ids=tuple(bound.id for bound in context.assets if bound.id in kept),
        preview={"kind": kind, **totals, "recordings": rows[:MAX_ROWS]},
        page={**totals, "recordings": {"table": rows[:MAX_ROWS]}},
    )


def _recordings(context: NodeContext) -> list[Derived]:
    """What earlier nodes made of the assets, else the assets themselves, with absolute paths."""
    return derived.of(context) or [
        Derived(
            bound.id,
            bound.asset.storage_ref.sha256,
            bound.name,
            str(bound.path),
            bound.of_path.format if bound.of_path else "unknown",
        )
        for bound in context.assets
    ]


def _told(context: NodeContext, recording: Derived) -> dict[str, Any]:
    bound = next(bound for bound in context.assets if bound.id == recording.asset_id)
    return {
        "id": recording.asset_id,
        "name": recording.name,
        "type": bound.asset.type.value,
        "format": recording.format,
        "path": str(Path(recording.path)),
        "report": bound.report.to_json() if bound.report else None,
    }
