"""Whether a task may take what an equal one left: the strictest of all who have a say."""

from typing import Any, Final, NamedTuple

from emboflow_dagster.model.run import CachePolicy, RunTask, WorkflowRun
from emboflow_dagster.runtime.node import NodeType

_STRICTNESS: Final = (CachePolicy.USE, CachePolicy.REFRESH, CachePolicy.OFF)


class Policy(NamedTuple):
    """What holds for one task, and on whose word."""

    policy: CachePolicy
    reason: str


def policy_of(
    run: WorkflowRun,
    task: RunTask,
    node_type: NodeType,
    options: Any,
    deployment: CachePolicy = CachePolicy.USE,
) -> Policy:
    """The policy of a task: that of its node, its run or the deployment, whichever is strictest.

    So an ``off`` of a workflow's author holds whatever a run asks for, and a run that asks for ``refresh``
    executes every node. A task that is executed again (attempt above 1) was asked to be: it takes nothing,
    and what it leaves may be taken by others.
    """
    node = CachePolicy((task.executor_config or {}).get("cache") or CachePolicy.USE)
    asked = run.config.cache_policy if run.config else None
    why = node_type.uncached(options)
    said = [
        Policy(deployment, f"EMBOFLOW_CACHE is {deployment}"),
        Policy(node, f"the node says `cache: {node}`"),
        Policy(asked or CachePolicy.USE, f"the run was requested with --cache {asked}"),
    ]
    if why is not None:
        said.append(Policy(CachePolicy.OFF, f"type {node_type.id} is executed every time: {why}"))
    if task.attempt > 1:
        said.append(Policy(CachePolicy.REFRESH, f"attempt {task.attempt}: it was asked to be executed again"))
    return max(said, key=lambda one: _STRICTNESS.index(one.policy))
