"""Runs and tasks: what is executed, how far it is, what came out.

The transition tables are the specification (spec/state-machines.md, 4.2 and 4.3); every write of a
status is a compare-and-set that names the status it expects.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from emboflow_dagster.model.base import (
    Document,
    FreeForm,
    Id,
    Int64,
    Model,
    TypeName,
    UtcDatetime,
    sized_freeform,
)
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.workflow import CodeHook, ExecutorType, LogicEdge, NodeId, RuntimeGraph

#: At the end of ``dagsterRunIds``: what was retried waits for a Dagster run. It stays where another worker
#: took it up, so that the length of the list counts the generations.
WAITING: Final = ""
MAX_LOG_LINES: Final = 500
MAX_LOG_BYTES: Final = 128 << 10
MAX_ERROR_BYTES: Final = 8 << 10
MAX_PREVIEW_BYTES: Final = 64 << 10
MAX_REASON: Final = 500
TRIGGER_PATTERN: Final = (
    r"^(user:[A-Za-z0-9_-]{1,64}|schedule:[^@\s]{1,128}@[0-9T:.Z+-]{1,40}"
    r"|sensor:[A-Za-z0-9_-]{1,128}|dagster-ui|retry:[A-Za-z0-9_-]{1,64}|system:[A-Za-z0-9_-]{1,64})$"
)


class RunStatus(StrEnum):
    QUEUED = "queued"  #: written down, no task has started
    RUNNING = "running"  #: at least one task was taken
    SUCCESS = "success"  #: every task succeeded
    FAILED = "failed"  #: a task failed and nothing is left that could run
    CANCELLED = "cancelled"  #: somebody stopped it


class TaskStatus(StrEnum):
    PENDING = "pending"  #: an upstream task has not succeeded
    QUEUED = "queued"  #: may be taken by a worker
    RUNNING = "running"  #: a worker holds it
    SUCCESS = "success"  #: its outputs are recorded
    FAILED = "failed"  #: it ended with an error
    CANCELLED = "cancelled"  #: stopped before or while it ran


RUN_ACTIVE: Final = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})
RUN_TERMINAL: Final = frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED})
TASK_TERMINAL: Final = frozenset({TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED})

RUN_TRANSITIONS: Final[Mapping[RunStatus, frozenset[RunStatus]]] = MappingProxyType(
    {
        RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED}),
        # Retrying a task reopens the run that holds it; it is queued where no other task runs.
        RunStatus.RUNNING: frozenset(
            {RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.QUEUED}
        ),
        RunStatus.SUCCESS: frozenset({RunStatus.QUEUED}),
        RunStatus.FAILED: frozenset({RunStatus.QUEUED}),
        RunStatus.CANCELLED: frozenset({RunStatus.QUEUED}),
    }
)
TASK_TRANSITIONS: Final[Mapping[TaskStatus, frozenset[TaskStatus]]] = MappingProxyType(
    {
        TaskStatus.PENDING: frozenset({TaskStatus.QUEUED, TaskStatus.CANCELLED}),
        TaskStatus.QUEUED: frozenset({TaskStatus.RUNNING, TaskStatus.CANCELLED}),
        # running -> running is a node's own retry policy: attempt + 1.
        TaskStatus.RUNNING: frozenset(
            {TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.RUNNING}
        ),
        TaskStatus.SUCCESS: frozenset({TaskStatus.QUEUED, TaskStatus.PENDING}),
        TaskStatus.FAILED: frozenset({TaskStatus.QUEUED, TaskStatus.PENDING}),
        TaskStatus.CANCELLED: frozenset({TaskStatus.QUEUED, TaskStatus.PENDING}),
    }
)


class RunSummary(Model):
    """The aggregate over a run's tasks; stored with the run, recomputed with every change."""

    total_task_count: Int64 = 0
    completed_task_count: Int64 = 0
    task_counts: dict[str, int] = Field(default_factory=lambda: {status.value: 0 for status in TaskStatus})
    artifact_count: Int64 = 0
    stdout_line_count: Int64 = 0
    stderr_line_count: Int64 = 0
    failed_task_ids: list[str] = Field(default_factory=list)


class RuntimeSnapshot(Model):
    """What a run executes, copied from the version when it was requested; never changes."""

    workflow_slug: str
    version_number: int
    execution_digest: str
    node_types: dict[str, str]
    edges: list[LogicEdge]
    runtime_graph: RuntimeGraph


class CachePolicy(StrEnum):
    USE = "use"  #: a task may take what an equal one left
    REFRESH = "refresh"  #: every task is executed, and what it leaves may be taken by later runs
    OFF = "off"  #: every task is executed, and nothing is taken or left for others


class RunConfig(Model):
    """What whoever asked for a run wanted of it, beyond workflow, version and assets; never changes."""

    cache_policy: CachePolicy | None = None  #: for all nodes; what each node says when ``None``
    label: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class WorkflowRun(Document):
    """One execution of one workflow version over an ordered set of assets."""

    collection: ClassVar[str] = "workflow_runs"
    prefix: ClassVar[str] = "run"

    workflow_definition_id: Id
    workflow_version_id: Id
    asset_ids: list[Id]
    workspace_id: Id
    project_id: Id
    triggered_by: Annotated[str, Field(pattern=TRIGGER_PATTERN, max_length=256)]
    status: RunStatus = RunStatus.QUEUED
    runtime_snapshot: RuntimeSnapshot
    summary: RunSummary
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    duration_ms: Int64 | None = None
    created_at: UtcDatetime
    updated_at: UtcDatetime | None = None
    dagster_run_ids: list[str] = Field(default_factory=list)
    retry_of_run_id: Id | None = None
    selected_node_ids: list[NodeId] | None = None
    scheduled_for: UtcDatetime | None = None
    config: RunConfig | None = None
    #: Dagster run to the place in its event log up to which the recorder has read; opaque.
    recorded_up_to: dict[str, str] = Field(default_factory=dict)

    @property
    def waits_again(self) -> bool:
        """Whether a part of it was retried and no Dagster run has taken that up yet."""
        return self.status in RUN_ACTIVE and self.dagster_run_ids[-1:] == [WAITING]


class TaskCache(Model):
    """What the cache said when the task was taken, and why: part of what the task did."""

    policy: CachePolicy
    reason: Annotated[str, Field(max_length=MAX_REASON)]
    #: Of a hit: the task whose outputs are used again.
    workflow_run_id: Id | None = None
    node_id: NodeId | None = None
    task_id: Id | None = None
    waited_ms: Int64 = 0  #: for another task with the same key


class TaskSummary(Model):
    """What a task did, in numbers; counts of lines are true counts, not of the kept tails."""

    executor: str
    outcome: str
    asset_count: Int64
    artifact_ids: list[str] = Field(default_factory=list)
    stdout_line_count: Int64 = 0
    stderr_line_count: Int64 = 0
    cache: TaskCache | None = None


class RunTask(Document):
    """One node of one run: everything a worker needs to take it, and everything it left behind."""

    collection: ClassVar[str] = "run_tasks"
    prefix: ClassVar[str] = "tsk"

    workflow_run_id: Id
    workflow_version_id: Id
    node_id: NodeId
    node_type: Annotated[str, Field(max_length=128)]
    node_definition_id: Annotated[str, Field(max_length=128)] | None = None
    executor_type: ExecutorType = ExecutorType.PYTHON
    executor_config: FreeForm | None = None
    code_hook_spec: CodeHook | None = None
    artifact_type: TypeName | None = None
    artifact_title: Annotated[str, Field(max_length=200)] | None = None
    status: TaskStatus
    attempt: Annotated[int, Field(ge=1)] = 1
    asset_ids: list[Id]
    upstream_node_ids: list[NodeId] = Field(default_factory=list)
    output_artifact_ids: list[Id] = Field(default_factory=list)
    log_ref: StorageRef | None = None
    cache_key: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    cache_hit: bool | None = None
    log_lines: Annotated[list[str], Field(max_length=MAX_LOG_LINES)] = Field(default_factory=list)
    stdout_lines: Annotated[list[str], Field(max_length=MAX_LOG_LINES)] = Field(default_factory=list)
    stderr_lines: Annotated[list[str], Field(max_length=MAX_LOG_LINES)] = Field(default_factory=list)
    error_message: Annotated[str, Field(max_length=MAX_ERROR_BYTES)] | None = None
    summary: TaskSummary | None = None
    last_result_preview: (
        Annotated[dict[str, Any], sized_freeform(MAX_PREVIEW_BYTES, map_keys=True)] | None
    ) = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    duration_ms: Int64 | None = None
    created_at: UtcDatetime
    updated_at: UtcDatetime | None = None
    lease_owner: Annotated[str, Field(max_length=200)] | None = None
    heartbeat_at: UtcDatetime | None = None
    #: How often a worker that had lost the task came back with a result; it was dropped.
    late_reports: Int64 = 0
