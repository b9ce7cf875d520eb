"""The launchpad: what can be asked of a run there, typed; the same that ``emboflow workflow run`` takes.

A resource, because every way of launching has one place for those: a workflow's own job, the assets of the
graph, a backfill. In the launchpad::

    resources:
      emboflow_run:
        config:
          assets: [pick-01, "type=rosbag,status=ready"]
          cachePolicy: refresh
          label: after the new gripper
"""

from enum import Enum
from typing import Any, Final

import dagster as dg
from pydantic import Field

from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.run import RunConfig
from emboflow_dagster.model.workflow import NodeConfig, WorkflowDefinitionVersion
from emboflow_dagster.orchestration import keys
from emboflow_dagster.project.run_config import run_config

RUN_OPTIONS: Final = "emboflow_run"


class Cache(Enum):
    """Dagster takes the names of an enumeration for the words of its configuration."""

    use = "use"
    refresh = "refresh"
    off = "off"


class RunOptions(dg.ConfigurableResource):
    """What is asked of a run that is launched in Dagster; a run from the queue has its own."""

    assets: list[str] = Field(
        default=[],
        description=(
            "Names, ids or selectors (type=rosbag,status=ready) of the assets to bind, in order; NODE=ASSET "
            "for one source. Empty: what the workflow binds itself, else all that its sources take."
        ),
    )
    version: int | None = Field(
        default=None,
        description=(
            "Version number of the workflow. One with other nodes or edges than the version shown here is "
            f"executed by the job {keys.ANY_VERSION_JOB}."
        ),
    )
    cachePolicy: Cache | None = Field(  # noqa: N815 - the name that the run's document has
        default=None, description="use, refresh or off for all nodes. Empty: what each node says."
    )
    label: str | None = Field(default=None, description="A word for people; the run's document keeps it.")

    def config(self) -> RunConfig | None:
        """What the run's document keeps of it.

        Raises:
            InvalidInputError: The label cannot be shown.
        """
        return run_config(self.cachePolicy.value if self.cachePolicy else None, self.label)


#: One for all components of a code location: Dagster refuses two of one name.
OPTIONS: Final = RunOptions()


def launch_fields() -> dict[str, Any]:
    """The same as the configuration of an op, with the workflow that the op executes."""
    return {
        "place": dg.Field(dg.Noneable(str), None, description="Workspace and project: acme/pick-place."),
        "workflow": dg.Field(dg.Noneable(str), None, description="Slug of the workflow to run."),
        "version": dg.Field(dg.Noneable(int), None, description="Its version; else the published one."),
    }


def require_same_graph(held: WorkflowDefinitionVersion, wanted: WorkflowDefinitionVersion, slug: str) -> None:
    """Refuse to execute a version as the steps of another one that has other nodes or edges.

    Raises:
        TransitionError: Names what executes it.
    """
    if _shape(held) != _shape(wanted):
        raise TransitionError(
            f"version {wanted.version_number} of {slug} has other nodes than version {held.version_number}, "
            "which this job executes",
            kind=ErrorKind.STATE,
            hint=(
                f"launch the job {keys.ANY_VERSION_JOB} with ops.work_run.config "
                f"{{workflow: {slug}, version: {wanted.version_number}}}, or "
                f"`emboflow workflow run {slug} --version {wanted.version_number}`"
            ),
        )


def _shape(version: WorkflowDefinitionVersion) -> tuple[Any, ...]:
    configs = version.runtime_graph.node_configs
    return (
        {node.id: node.type for node in version.logic_graph.nodes},
        {(edge.from_, edge.to) for edge in version.logic_graph.edges},
        # A dataset has an asset key of its own.
        {n.id: configs.get(n.id, NodeConfig()).config.get("dataset") for n in version.logic_graph.nodes},
    )
