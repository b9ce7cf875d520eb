"""One asset and one op for every node of a published workflow.

Built by hand rather than with ``@asset``: at a thousand nodes that halves what every run worker pays
before its first step (decision 0006).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration import handles, keys, steps
from emboflow_dagster.orchestration.catalog import Place, Workflow
from emboflow_dagster.orchestration.pools import pool_of
from emboflow_dagster.orchestration.quality import log_checks
from emboflow_dagster.orchestration.run_options import RUN_OPTIONS
from emboflow_dagster.orchestration.specs import EmboFlowTranslator, NodeProps
from emboflow_dagster.runtime.lost import owner_of

OUTPUT: Final = "result"
RESOURCE: Final = "emboflow"
IO_MANAGER: Final = "emboflow_io_manager"
WORKFLOW_TAG: Final = "emboflow/workflow_definition"
VERSION_TAG: Final = "emboflow/workflow_version"
NODE_TAG: Final = "emboflow/node"
# Dagster runs that a step of this process has named.
_named: Final[deque[str]] = deque(maxlen=64)


def node_assets(
    workflow: Workflow, nodes: Mapping[str, NodeProps], translator: EmboFlowTranslator
) -> list[dg.AssetsDefinition]:
    """The assets of one workflow version, each depending on the keys of the nodes before it."""
    return [_node_asset(workflow, props, nodes, translator) for props in nodes.values()]


def _node_asset(
    workflow: Workflow,
    props: NodeProps,
    nodes: Mapping[str, NodeProps],
    translator: EmboFlowTranslator,
) -> dg.AssetsDefinition:
    inputs = {f"after_{keys.plain(name)}": nodes[name].key for name in props.node["after"]}
    inputs |= {f"raw_{keys.plain(raw)}": keys.raw_key(props.place, raw) for raw in props.node["assetKeys"]}
    op = dg.OpDefinition(
        compute_fn=_compute(workflow, props, nodes),
        name=props.op_name,
        ins={name: dg.In(dg.Nothing) for name in inputs},
        outs={
            OUTPUT: dg.Out(
                io_manager_key=IO_MANAGER,
                code_version=props.node["codeVersion"],
                # A step that waits for people ends without one, and Dagster skips what is below.
                is_required=not props.node.get("waits", False),
            )
        },
        required_resource_keys={RESOURCE, RUN_OPTIONS},
        pool=pool_of(props.node),
        tags={
            WORKFLOW_TAG: workflow["definitionId"],
            VERSION_TAG: workflow["versionId"],
            NODE_TAG: props.node["id"],
        },
    )
    return dg.AssetsDefinition(
        node_def=op,
        keys_by_input_name=inputs,
        keys_by_output_name={OUTPUT: props.key},
        specs=[translator.node_spec(props, list(inputs.values()))],
    )


def _compute(workflow: Workflow, props: NodeProps, nodes: Mapping[str, NodeProps]) -> Any:
    def compute(context: dg.OpExecutionContext, _inputs: Mapping[str, object]) -> Iterator[Any]:
        target = steps.Target(
            definition_id=workflow["definitionId"],
            version_id=workflow["versionId"],
            node_ids=selected_nodes(context, nodes),
        )
        yield from execute(context, props, target)

    return compute


def execute(context: dg.OpExecutionContext, props: NodeProps, target: steps.Target) -> Iterator[Any]:
    """Work one node's task and yield what it left.

    Raises:
        Failure: The run could not be claimed, the node is not part of it, or its task failed.
    """
    node_id = props.node["id"]
    launch = steps.Launch.of(context.run, getattr(context.resources, RUN_OPTIONS))
    try:
        # Of the steps of one process the first connects, and names the run.
        with handles.kept_open(context.resources.emboflow, props.place, max_idle_s=handles.MAX_IDLE_S) as ef:
            run = steps.run_of(ef, launch, target)
            if launch.dagster_run_id not in _named:
                if tags := {**steps.tags_to_add(ef, launch, run), **place_tags(launch, props.place)}:
                    context.instance.add_run_tags(launch.dagster_run_id, tags)
                _named.append(launch.dagster_run_id)
            worker = owner_of(launch.dagster_run_id, context.get_step_execution_context().step.key)
            worked = steps.work(ef, run, node_id, worker=worker, context=context)
    except EmboflowError as error:
        raise steps.failure(error, node_id=node_id) from error
    except dg.Failure as failed:
        # A node that refused its input says what it found: its checks turn red, not just its step.
        log_checks(context, props, steps.refused_preview(failed))
        raise
    if worked is None:
        return
    log_checks(context, props, worked.task.last_result_preview)
    version, metadata = worked.digest, steps.metadata_of(worked)
    if props.logged_dataset_key is not None and worked.dataset_version is not None:
        yield dg.AssetMaterialization(
            props.logged_dataset_key, metadata=metadata, tags={keys.TAG_DATA_VERSION: version}
        )
    yield dg.MaterializeResult(props.key, metadata=metadata, data_version=dg.DataVersion(version))


def place_tags(launch: steps.Launch, place: Place) -> dict[str, str]:
    """Names the workspace of a run that was launched without: the run queue counts it from now on."""
    return {} if keys.TAG_WORKSPACE in launch.tags else {keys.TAG_WORKSPACE: place.workspace}


def selected_nodes(context: dg.OpExecutionContext, nodes: Mapping[str, NodeProps]) -> Sequence[str]:
    """The nodes of this workflow that this Dagster run executes, in the order of the graph."""
    step_keys = context.run.step_keys_to_execute
    ops = set(step_keys) if step_keys is not None else {node.name for node in context.job_def.nodes}
    return [node_id for node_id, props in nodes.items() if props.op_name in ops]
