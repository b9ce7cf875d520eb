"""What an output was made from: the very versions that its step loaded.

Dagster's own input tags name the newest version, also where an older one was pinned (its issue 21436). Here a
step's loads are remembered in the process that executes it, which is the one that stores its outputs.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any, Final

import dagster as dg

from emboflow_dagster.blobs.context import current_work
from emboflow_dagster.errors import ConflictError
from emboflow_dagster.model.blob import BlobObject

MAX_UPSTREAM: Final = 100
_MAX_STEPS: Final = 256
_lock: Final = threading.Lock()
_steps: Final[OrderedDict[tuple[str, str], dict[tuple[str, str | None], "Loaded"]]] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version that a step read."""

    input: str
    asset: str | None
    partition: str | None
    object_id: str | None
    version: int | None
    sha256: str
    pinned: bool


def remember(context: dg.InputContext, loaded: Loaded) -> None:
    """Note what a step loaded; nothing outside of a run."""
    step = _step_of(context)
    if step is None:
        return
    with _lock:
        _steps.setdefault(step, {})[loaded.input, loaded.partition] = loaded
        _steps.move_to_end(step)
        while len(_steps) > _MAX_STEPS:
            _steps.popitem(last=False)


def upstream_of(context: dg.OutputContext) -> list[Loaded]:
    """What the step that made an output has loaded, by input and partition."""
    step = _step_of(context)
    with _lock:
        found = _steps.get(step, {}) if step else {}
        return [found[name] for name in sorted(found, key=lambda name: (name[0], name[1] or ""))]


def lineage_of(context: dg.OutputContext, partition: str | None) -> dict[str, Any]:
    """What is recorded with a version: what it is, what made it, and what it was made from."""
    work = current_work()
    upstream = [asdict(one) for one in upstream_of(context)]
    lineage: dict[str, Any] = {
        "asset": context.asset_key.to_user_string() if context.has_asset_key else None,
        "partition": partition,
        "run_id": context.run_id,
        "step": context.step_key,
        "output": context.name,
        "attempt": _attempt(context),
        "code_version": code_version(context),
        "workflow_run_id": work.workflow_id if work else None,
        "task_id": work.task_id if work else None,
        "upstream": upstream[:MAX_UPSTREAM],
    }
    if len(upstream) > MAX_UPSTREAM:
        whole = json.dumps(upstream, sort_keys=True).encode()
        lineage |= {"upstream_count": len(upstream), "upstream_sha256": hashlib.sha256(whole).hexdigest()}
    return lineage


def check_same_place(before: BlobObject | None, lineage: dict[str, Any]) -> None:
    """Refuse to go on with the versions of another asset.

    Asset ``a/b`` and partition ``b`` of asset ``a`` would have one id.

    Raises:
        ConflictError: The blob is that of another asset or partition.
    """
    recorded = (before.custom_metadata.get("lineage") if before else None) or {}
    if not isinstance(recorded, dict) or recorded.get("asset") is None:
        return
    place = tuple(lineage[name] for name in ("asset", "partition"))
    found = (recorded["asset"], recorded.get("partition"))
    if before is not None and place[0] is not None and found != place:
        raise ConflictError(
            f"blob {before.object_id} belongs to {_told(found)}; {_told(place)} would have the same id",
            hint="rename one of the two assets, or its partitions",
        )


def code_version(context: dg.OutputContext) -> str | None:
    """The code version of the asset, or of the op."""
    try:
        if context.has_asset_key:
            return context.step_context.job_def.asset_layer.get(context.asset_key).code_version
        return context.step_context.op_def.output_def_named(context.name).code_version
    except (AttributeError, KeyError, dg.DagsterInvariantViolationError):
        return None


def _told(place: tuple[Any, ...]) -> str:
    return f"asset {place[0]}" + (f", partition {place[1]}" if place[1] is not None else "")


def _step_of(context: dg.InputContext | dg.OutputContext) -> tuple[str, str] | None:
    try:
        step = context.step_context
    except (AttributeError, dg.DagsterInvariantViolationError):
        return None
    return (step.run_id, step.step.key)


def _attempt(context: dg.OutputContext) -> int:
    try:
        return context.step_context.previous_attempt_count + 1
    except (AttributeError, dg.DagsterInvariantViolationError):
        return 1
