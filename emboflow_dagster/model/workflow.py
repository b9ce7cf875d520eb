"""Workflow definitions and their immutable versions: three graphs each.

``logicGraph`` says what follows what, ``runtimeGraph`` how each node runs, ``visualGraph`` where it is
drawn. Only the first two change what is executed.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.base import (
    ActorId,
    Document,
    FreeForm,
    Id,
    Model,
    Name,
    Slug,
    Summary,
    TypeName,
    UtcDatetime,
    sized_freeform,
)
from emboflow_dagster.model.text import refuse

MAX_NODES = 500
MAX_EDGES = 5_000
NODE_ID_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
NodeId = Annotated[str, Field(pattern=NODE_ID_PATTERN, max_length=63)]


class WorkflowStatus(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class WorkflowDefinition(Document):
    """A workflow's identity and which version is current; never a graph."""

    collection: ClassVar[str] = "workflow_definitions"
    prefix: ClassVar[str] = "wf"

    workspace_id: Id
    project_id: Id
    name: Name
    slug: Slug
    status: WorkflowStatus = WorkflowStatus.DRAFT
    latest_version_number: Annotated[int, Field(ge=0)] = 0
    published_version_number: Annotated[int, Field(ge=1)] | None = None
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime

    @model_validator(mode="after")
    def _published_exists(self) -> Self:
        if (self.published_version_number or 0) > self.latest_version_number:
            raise refuse(ErrorKind.INVALID_INPUT, "publishedVersionNumber", "is above latestVersionNumber")
        return self


class ExecutorType(StrEnum):
    PYTHON = "python"
    DOCKER = "docker"
    HTTP = "http"


class CodeHook(Model):
    """User code of a node: ``entrypoint(ctx, inputs)`` in ``source``, run in a child process."""

    language: Literal["python"] = "python"
    entrypoint: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
    source: Annotated[str, Field(min_length=1, max_length=64 << 10)]


class LogicNode(Model):
    """A node of the logic graph: its id and what kind of work it is."""

    id: NodeId
    type: Annotated[str, Field(min_length=1, max_length=128)]


class LogicEdge(Model):
    """``to`` runs after ``from_``; the order of edges into one node is meaningful."""

    from_: NodeId = Field(validation_alias="from", serialization_alias="from")
    to: NodeId


class LogicGraph(Model):
    """What follows what. Checked whole (cycles, types, reachability) when published."""

    nodes: Annotated[list[LogicNode], Field(min_length=1, max_length=MAX_NODES)]
    edges: Annotated[list[LogicEdge], Field(max_length=MAX_EDGES)] = Field(default_factory=list)

    def upstream(self) -> dict[str, list[str]]:
        """Node id to the ids it runs after, in the order of ``after``."""
        result: dict[str, list[str]] = {node.id: [] for node in self.nodes}
        for edge in self.edges:
            result[edge.to].append(edge.from_)
        return result


class NodeConfig(Model):
    """How one node runs; copied into its task when a run is requested, and frozen there."""

    title: Annotated[str, Field(max_length=200)] | None = None
    definition_id: Annotated[str, Field(max_length=128)] | None = None
    executor: ExecutorType = ExecutorType.PYTHON
    image: Annotated[str, Field(max_length=512)] | None = None
    config: FreeForm = Field(default_factory=dict)
    code_hook: CodeHook | None = None
    artifact_type: TypeName | None = None
    cache: Literal["use", "refresh", "off"] = "use"
    retries: Annotated[int, Field(ge=0, le=10)] = 0


class Schedule(Model):
    """When to run by itself: five-field cron, IANA time zone, which assets."""

    cron: Annotated[str, Field(max_length=200)]
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    assets: Annotated[list[str], Field(max_length=1000)] = Field(default_factory=list)


class RuntimeGraph(Model):
    """How each node runs. Keys of ``node_configs`` are node ids of the logic graph."""

    node_configs: dict[str, NodeConfig]
    defaults: FreeForm = Field(default_factory=dict)
    schedule: Schedule | None = None


VisualGraph = Annotated[dict[str, Any], sized_freeform(256 << 10)]


class PluginRef(Model):
    """One version of one plugin a workflow version needs."""

    plugin_id: Id
    version: Annotated[str, Field(max_length=64)]


class WorkflowDefinitionVersion(Document):
    """One immutable published snapshot of a workflow.

    ``summary`` holds ``executionDigest`` (sha256 over logic and runtime graph) and ``contentDigest``
    (over all three): equal content is no new version.
    """

    collection: ClassVar[str] = "workflow_definition_versions"
    prefix: ClassVar[str] = "wfv"

    workflow_definition_id: Id
    workspace_id: Id
    project_id: Id
    version_number: Annotated[int, Field(ge=1)]
    visual_graph: VisualGraph = Field(default_factory=dict)
    logic_graph: LogicGraph
    runtime_graph: RuntimeGraph
    plugin_refs: Annotated[list[PluginRef], Field(max_length=100)] = Field(default_factory=list)
    summary: Summary | None = None
    created_by: ActorId
    created_at: UtcDatetime

    def node(self, node_id: str) -> tuple[LogicNode, NodeConfig]:
        """One node with its configuration.

        Raises:
            KeyError: No such node.
        """
        for node in self.logic_graph.nodes:
            if node.id == node_id:
                return node, self.runtime_graph.node_configs.get(node_id, NodeConfig())
        raise KeyError(node_id)
