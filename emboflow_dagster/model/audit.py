"""The append-only history of sensitive actions."""

from typing import Annotated, ClassVar

from pydantic import Field

from emboflow_dagster.model.base import ActorId, Document, FreeForm, Id, Summary, UtcDatetime


class AuditLog(Document):
    """One action that happened, written in the transaction that did it.

    ``metadata.sequence`` counts from 1 without gaps in a workspace and ``metadata.chain`` is the sha256
    over the row and its predecessor's chain, so an edited or missing row shows.
    """

    collection: ClassVar[str] = "audit_logs"
    prefix: ClassVar[str] = "aud"

    workspace_id: Id
    project_id: Id | None = None
    actor_id: ActorId
    resource_type: Annotated[str, Field(min_length=1, max_length=64)]
    resource_id: Annotated[str, Field(min_length=1, max_length=128)]
    action: Annotated[str, Field(pattern=r"^[a-z_]+\.[a-z_]+$", max_length=64)]
    before_summary: Summary | None = None
    after_summary: Summary | None = None
    metadata: FreeForm = Field(default_factory=dict)
    created_at: UtcDatetime
