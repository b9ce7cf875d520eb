"""Finds the workspace, project and user a handle is opened for; makes them the first time."""

from emboflow_dagster.errors import AlreadyExistsError, ForbiddenError, NotFoundError
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.workspace import (
    ArchivableStatus,
    Membership,
    MembershipRole,
    Project,
    User,
    Workspace,
    WorkspaceType,
)
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated


def open_scope(mongo: Mongo, workspace: str, project: str, actor: str, *, create: bool = True) -> Scope:
    """The scope of a handle.

    Args:
        mongo: The open database.
        workspace: Slug of the workspace.
        project: Slug of the project.
        actor: ``user:<id>`` or ``system:<name>``.
        create: Make what is not there yet (decision 0008).

    Raises:
        NotFoundError: Not there, and not to be made.
        ForbiddenError: The workspace or project is archived.
    """
    found = _find(mongo, workspace, project, actor)
    if found is not None:
        return found
    if not create:
        raise NotFoundError(f"no project {project!r} in a workspace {workspace!r}")
    for attempt in (1, 2, 3):
        try:
            mongo.in_transaction(lambda session: _create(mongo, session, workspace, project, actor))
            break
        except AlreadyExistsError:  # another process makes the same ones: look again
            if attempt == 3:  # noqa: PLR2004 - two losses in a row are no race
                raise
    scope = _find(mongo, workspace, project, actor)
    if scope is None:
        raise NotFoundError(f"no project {project!r} in a workspace {workspace!r}")
    return scope


def scope_to_check(mongo: Mongo, workspace: str, project: str, actor: str) -> Scope:
    """The scope for who checks and changes nothing: what is not there has the id ``""`` and is not made.

    Made anew, a lost workspace, project or user would hide what still refers to it.
    """
    with translated():
        ws = mongo["workspaces"].find_one({"slug": workspace}, {"_id": 1}) or {"_id": ""}
        place = {"workspaceId": ws["_id"], "slug": project}
        row = mongo["projects"].find_one(place, {"_id": 1}) or {"_id": ""}
    return Scope(ws["_id"], workspace, row["_id"], project, _stored_actor(actor))


def _find(mongo: Mongo, workspace: str, project: str, actor: str) -> Scope | None:
    name = _stored_actor(actor)
    with translated():
        rows = list(mongo["workspaces"].aggregate(_lookup(workspace, project, name)))
    if not rows or not rows[0]["project"]:
        return None
    ws, row = rows[0], rows[0]["project"][0]
    known = name.startswith("system:") or ws["user"]
    for kind, slug, document in (("workspace", workspace, ws), ("project", project, row)):
        if document["status"] == ArchivableStatus.ARCHIVED:
            raise ForbiddenError(f"{kind} {slug!r} is archived")
    return Scope(ws["_id"], workspace, row["_id"], project, name) if known else None


def _lookup(workspace: str, project: str, user: str) -> list[Raw]:
    """All three at once: every step opens a handle."""
    return [
        {"$match": {"slug": workspace}},
        {"$project": {"status": 1}},
        {
            "$lookup": {
                "from": "projects",
                "localField": "_id",
                "foreignField": "workspaceId",
                "pipeline": [{"$match": {"slug": project}}, {"$project": {"status": 1}}],
                "as": "project",
            }
        },
        {
            "$lookup": {
                "from": "users",
                "pipeline": [{"$match": {"_id": user}}, {"$project": {"_id": 1}}],
                "as": "user",
            }
        },
    ]


def _create(mongo: Mongo, session: Session, workspace: str, project: str, actor: str) -> None:
    now = utc_now()
    times = {"created_at": now, "updated_at": now}
    name = _stored_actor(actor)
    person = "emboflow" if name.startswith("system:") else name
    if mongo["users"].find_one({"_id": person}, session=session) is None:
        user = User.checked(id=person, email=f"{person}@localhost", display_name=person, **times)
        mongo["users"].insert_one(user.to_mongo(), session=session)
    ws = mongo["workspaces"].find_one({"slug": workspace}, session=session)
    fresh = ws is None
    if ws is None:
        made = Workspace.checked(
            id=new_id("ws"),
            type=WorkspaceType.TEAM,
            name=workspace,
            slug=workspace,
            owner_id=person,
            **times,
        )
        ws = made.to_mongo()
        mongo["workspaces"].insert_one(ws, session=session)
        member = Membership.checked(
            id=new_id("mbr"),
            workspace_id=ws["_id"],
            user_id=person,
            role=MembershipRole.OWNER,
            **times,
        )
        mongo["memberships"].insert_one(member.to_mongo(), session=session)
    if mongo["projects"].find_one({"workspaceId": ws["_id"], "slug": project}, session=session) is None:
        row = Project.checked(
            id=new_id("prj"),
            workspace_id=ws["_id"],
            name=project,
            slug=project,
            created_by=name,
            **times,
        )
        mongo["projects"].insert_one(row.to_mongo(), session=session)
        scope = Scope(ws["_id"], workspace, row.id, project, name)
        if fresh:
            audit.record(
                mongo, scope, session, "workspace.create", "workspaces", ws["_id"], after={"slug": workspace}
            )
        audit.record(mongo, scope, session, "project.create", "projects", row.id, after={"slug": project})


def _stored_actor(actor: str) -> str:
    return actor.removeprefix("user:")
