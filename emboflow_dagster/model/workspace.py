"""Who owns what: users, workspaces, memberships and projects."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from emboflow_dagster.model.base import ActorId, Document, FreeForm, Id, Name, Slug, UtcDatetime
from emboflow_dagster.model.text import EMAIL_PATTERN


class UserStatus(StrEnum):
    ACTIVE = "active"
    INVITED = "invited"
    DISABLED = "disabled"


class User(Document):
    """An account: identity, profile, login metadata."""

    collection: ClassVar[str] = "users"
    prefix: ClassVar[str] = "usr"

    email: Annotated[str, Field(pattern=EMAIL_PATTERN, max_length=254)]
    display_name: Name
    avatar_url: Annotated[str, Field(max_length=2048)] | None = None
    status: UserStatus = UserStatus.ACTIVE
    last_login_at: UtcDatetime | None = None
    created_at: UtcDatetime
    updated_at: UtcDatetime

    @field_validator("email")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


class WorkspaceType(StrEnum):
    PERSONAL = "personal"
    TEAM = "team"


class ArchivableStatus(StrEnum):
    """Status of workspaces and projects."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class Workspace(Document):
    """The ownership boundary: nothing crosses it."""

    collection: ClassVar[str] = "workspaces"
    prefix: ClassVar[str] = "ws"

    type: WorkspaceType
    name: Name
    slug: Slug
    owner_id: Id
    status: ArchivableStatus = ArchivableStatus.ACTIVE
    settings: FreeForm = Field(default_factory=dict)
    created_at: UtcDatetime
    updated_at: UtcDatetime


class MembershipRole(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    EDITOR = "editor"
    VIEWER = "viewer"


class MembershipStatus(StrEnum):
    ACTIVE = "active"
    INVITED = "invited"
    REVOKED = "revoked"


class Membership(Document):
    """One role of one user, in a workspace or in one project of it; never an array on a resource."""

    collection: ClassVar[str] = "memberships"
    prefix: ClassVar[str] = "mbr"

    workspace_id: Id
    project_id: Id | None = None
    user_id: Id
    role: MembershipRole
    status: MembershipStatus = MembershipStatus.ACTIVE
    created_at: UtcDatetime
    updated_at: UtcDatetime


class Project(Document):
    """A group of assets, workflows, runs and outputs inside a workspace."""

    collection: ClassVar[str] = "projects"
    prefix: ClassVar[str] = "prj"

    workspace_id: Id
    name: Name
    slug: Slug
    description: Annotated[str, Field(max_length=4000)] = ""
    status: ArchivableStatus = ArchivableStatus.ACTIVE
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime
