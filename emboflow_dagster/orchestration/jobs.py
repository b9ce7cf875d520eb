"""Jobs: one for each workflow, or one for all where that would be too many.

A location with a job for each of 1,000 workflows takes half as long again to load as one with a shared
job and ``asset_selection`` (decision 0006).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Workflow
from emboflow_dagster.orchestration.executors import executor_for
from emboflow_dagster.orchestration.specs import NodeProps

MAX_WORKFLOW_JOBS: Final = 200


@dataclass(frozen=True, slots=True)
class Launchable:
    """How the queue starts runs of a workflow version that this code location holds."""

    definition_id: str
    version_id: str
    execution_digest: str
    job: str
    keys_by_node: dict[str, dg.AssetKey]
    whole_job: bool
    """The job holds this workflow and nothing else."""

    def selection(self, node_ids: Sequence[str] | None) -> list[dg.AssetKey] | None:
        """The assets a run's nodes stand for; ``None`` for all of the job."""
        if node_ids is None and self.whole_job:
            return None
        chosen = self.keys_by_node if node_ids is None else node_ids
        return [self.keys_by_node[node_id] for node_id in chosen if node_id in self.keys_by_node]


def workflow_job(workflow: Workflow, nodes: dict[str, NodeProps]) -> Any:
    """The job of one workflow version."""
    first = next(iter(nodes.values()))
    place = first.place
    return dg.define_asset_job(
        keys.job_name(place, workflow["slug"]),
        # Reading back what was just hashed would cost every run a step: the scrubber does that.
        selection=dg.AssetSelection.assets(*(props.key for props in nodes.values())).without_checks(),
        description=(
            f"{workflow['description'] or workflow['name']}\n\n"
            f"Workflow `{workflow['slug']}` v{workflow['versionNumber']} of "
            f"`{place.workspace}/{place.project}`."
        ),
        tags={keys.TAG_WORKFLOW_VERSION: workflow["versionId"], keys.TAG_WORKSPACE: place.workspace},
        executor_def=executor_for([props.node["type"] for props in nodes.values()], workflow.get("steps")),
    )


def shared_job(all_keys: Sequence[dg.AssetKey]) -> Any:
    """The one job of a location with very many workflows; runs select the assets of one."""
    return dg.define_asset_job(
        keys.SHARED_JOB,
        selection=dg.AssetSelection.assets(*all_keys).without_checks(),
        description="Every workflow of this code location; a run selects the assets of one of them.",
    )


def launchable(workflow: Workflow, nodes: dict[str, NodeProps], *, shared: bool) -> Launchable:
    """What the queue must know to start this workflow version."""
    place = next(iter(nodes.values())).place
    return Launchable(
        definition_id=workflow["definitionId"],
        version_id=workflow["versionId"],
        execution_digest=workflow["executionDigest"],
        job=keys.SHARED_JOB if shared else keys.job_name(place, workflow["slug"]),
        keys_by_node={node_id: props.key for node_id, props in nodes.items()},
        whole_job=not shared,
    )
