"""When a workflow runs by itself: at the ticks of a cron expression, or with each new asset."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.base import ActorId, Document, Id, Int64, Model, Slug, UtcDatetime
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run import RunConfig
from emboflow_dagster.model.text import refuse

MAX_ASSETS: Final = 1_000
MAX_CATCH_UP: Final = 1_000


class ScheduleStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"  #: its ticks pass by; new assets wait


class CatchUp(StrEnum):
    """What becomes of ticks that passed while no daemon was there."""

    SKIP = "skip"  #: no run for a tick that is late by more than five minutes
    LATEST = "latest"  #: one run, for the newest of them
    ALL = "all"  #: one run each, the newest ``maxCatchUp`` of them


class Outcome(StrEnum):
    """What the newest tick, or the newest look for assets, came to."""

    REQUESTED = "requested"  #: a run was requested
    NOTHING = "nothing"  #: no asset was selected: no run
    MISSED = "missed"  #: it was late, and the catch-up policy lets it pass
    FAILED = "failed"  #: a run could not be requested; the message says why


class Decision(Model):
    """What a tick came to: ``run_id`` where a run was requested, ``message`` in words."""

    outcome: Outcome
    message: Annotated[str, Field(max_length=2_000)]
    tick: UtcDatetime | None = None
    run_id: Id | None = None
    decided_at: UtcDatetime


class RunSchedule(Document):
    """One schedule of one workflow.

    Those that were added are rows of their own; the one that a workflow's file brings is its version's, and
    only what became of it is kept beside it.
    """

    collection: ClassVar[str] = META
    prefix: ClassVar[str] = "sch"

    workspace_id: Id
    project_id: Id
    name: Slug
    origin: Literal["added", "workflow"] = "added"
    workflow_definition_id: Id
    workflow_slug: Slug
    cron: Annotated[str, Field(max_length=200)] | None = None
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    on_asset: Annotated[str, Field(max_length=1_000)] | None = None
    assets: Annotated[list[str], Field(max_length=MAX_ASSETS)] = Field(default_factory=list)
    version_number: Annotated[int, Field(ge=1)] | None = None
    config: RunConfig | None = None
    catch_up: CatchUp = CatchUp.LATEST
    max_catch_up: Annotated[int, Field(ge=1, le=MAX_CATCH_UP)] = 24
    status: ScheduleStatus = ScheduleStatus.ACTIVE
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime
    ticked_at: UtcDatetime | None = None
    looked_at: UtcDatetime | None = None
    missed_count: Int64 = 0
    last: Decision | None = None

    @model_validator(mode="after")
    def _one_cause(self) -> Self:
        if (self.cron is None) == (self.on_asset is None):
            raise refuse(ErrorKind.INVALID_INPUT, "cron", "a schedule has a cron expression or a selector")
        return self

    @property
    def when(self) -> str:
        """Its cause, as people read it."""
        return f"new {self.on_asset}" if self.cron is None else f"{self.cron} {self.timezone}"


#: The fields that change while it is at work, with what they are before.
STATE: Final[dict[str, Any]] = {
    "status": ScheduleStatus.ACTIVE.value,
    "tickedAt": None,
    "lookedAt": None,
    "missedCount": 0,
    "last": None,
}
