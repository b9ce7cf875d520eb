"""From a published version and chosen assets to a run and its tasks, before anything is written."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.run import RunConfig, RunTask, RuntimeSnapshot, TaskStatus, WorkflowRun
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion
from emboflow_dagster.runtime.graph import run_order
from emboflow_dagster.runtime.machine import summarise
from emboflow_dagster.runtime.narrowing import effective
from emboflow_dagster.runtime.node import Narrowing


def plan_run(
    scope: Scope,
    definition: WorkflowDefinition,
    version: WorkflowDefinitionVersion,
    asset_ids: Sequence[str],
    *,
    triggered_by: str,
    run_id: str | None = None,
    selected: Sequence[str] | None = None,
    outside: Mapping[str, Sequence[str]] | None = None,
    narrowings: Mapping[str, Narrowing | None] | None = None,
    bindings: Mapping[str, Sequence[str]] | None = None,
    dagster_run_id: str | None = None,
    retry_of: str | None = None,
    scheduled_for: datetime | None = None,
    run_config: RunConfig | None = None,
    frozen: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[WorkflowRun, list[RunTask]]:
    """The documents of a new run: one task a node, roots queued, the others pending.

    Args:
        scope: Where the run lives and who asks for it.
        definition: The workflow.
        version: The version to execute; its runtime layer is copied and frozen.
        asset_ids: The assets to bind, in order.
        triggered_by: As ``workflow_runs.triggeredBy`` spells it.
        run_id: The run's id; a new one when omitted.
        selected: Only these nodes get a task; the others count as done before.
        outside: Effective assets of upstream nodes that are not selected; frozen in the tasks below them.
        narrowings: Node type to its set operation, for roots that stand below ``outside`` nodes.
        bindings: Source node to the assets that it takes, of ``asset_ids`` and in their order; a source that
            is not named takes them all. Frozen in its task.
        dagster_run_id: The Dagster run that executes it, when it is known already.
        retry_of: The run this one repeats.
        scheduled_for: The schedule's tick.
        run_config: What else was asked of the run.
        frozen: Node to what else its task is to keep of now: digest of the image, a custom node's definition.

    Raises:
        InvalidInputError: No asset, an asset twice, or a selected node that does not exist.
    """
    _refuse_assets(asset_ids)
    upstream = version.logic_graph.upstream()
    types = {node.id: node.type for node in version.logic_graph.nodes}
    order = run_order(upstream)
    unknown = sorted(set(selected or ()) - set(order))
    if unknown:
        raise InvalidInputError(
            f"{definition.slug} version {version.version_number} has no node {shown(unknown[0])}",
            kind=ErrorKind.NOT_FOUND,
        )
    chosen = [node for node in order if selected is None or node in set(selected)]
    now = utc_now()
    run_id = run_id or new_id("run")
    digest = str((version.summary or {}).get("executionDigest", ""))
    tasks: list[RunTask] = []
    for node_id in chosen:
        _, config = version.node(node_id)
        inside = [up for up in upstream[node_id] if up in chosen]
        known = {
            up: [a for a in (outside or {}).get(up, ()) if a in set(asset_ids)]
            for up in upstream[node_id]
            if up not in chosen
        }
        own = (bindings or {}).get(node_id)
        taken = frozenset(asset_ids if own is None else own)
        bound = [asset for asset in asset_ids if asset in taken]
        if known and not inside:
            bound = effective((narrowings or {}).get(types[node_id]), list(known.values()), asset_ids)
        tasks.append(
            RunTask.checked(
                id=new_id("tsk"),
                workflow_run_id=run_id,
                workflow_version_id=version.id,
                node_id=node_id,
                node_type=types[node_id],
                node_definition_id=config.definition_id,
                executor_type=config.executor,
                executor_config={
                    "config": config.config,
                    "image": config.image,
                    "cache": config.cache,
                    "retries": config.retries,
                    **(frozen or {}).get(node_id, {}),
                    # What is promoted or retried is given its assets anew, from all sides.
                    **({"outside": known} if known else {}),
                    **({} if own is None else {"bound": bound}),
                },
                code_hook_spec=config.code_hook,
                artifact_type=config.artifact_type,
                artifact_title=config.title,
                status=TaskStatus.PENDING if inside else TaskStatus.QUEUED,
                asset_ids=bound,
                upstream_node_ids=upstream[node_id],
                created_at=now,
            )
        )
    run = WorkflowRun.checked(
        id=run_id,
        workflow_definition_id=definition.id,
        workflow_version_id=version.id,
        asset_ids=list(asset_ids),
        workspace_id=scope.workspace_id,
        project_id=scope.project_id,
        triggered_by=triggered_by,
        runtime_snapshot=RuntimeSnapshot(
            workflow_slug=definition.slug,
            version_number=version.version_number,
            execution_digest=digest,
            node_types={node: types[node] for node in order},
            edges=version.logic_graph.edges,
            runtime_graph=version.runtime_graph,
        ),
        summary=summarise(tasks),
        created_at=now,
        updated_at=now,
        dagster_run_ids=[dagster_run_id] if dagster_run_id else [],
        retry_of_run_id=retry_of,
        selected_node_ids=list(chosen) if selected is not None else None,
        scheduled_for=scheduled_for,
        config=run_config,
    )
    return run, tasks


def _refuse_assets(asset_ids: Sequence[str]) -> None:
    if not asset_ids:
        raise InvalidInputError(
            "a run needs at least one asset",
            kind=ErrorKind.INPUT_MISSING,
            hint="name some with --asset; `emboflow asset list` shows what there is",
        )
    seen: set[str] = set()
    doubles = [a for a in asset_ids if a in seen or seen.add(a)]
    if doubles:
        raise InvalidInputError.of([Problem(ErrorKind.DUPLICATE, "assets", f"{doubles[0]} is named twice")])
