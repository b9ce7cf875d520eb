"""Whose data a handle may touch: bound once, when it is opened."""

from dataclasses import dataclass
from typing import Any

from emboflow_dagster.model.collections import Collection, Reach


@dataclass(frozen=True, slots=True)
class Scope:
    """A workspace, a project in it, and who acts.

    ``actor`` is a user id (``ada``) or ``system:<name>``, as ``createdBy`` and the audit log store it.
    """

    workspace_id: str
    workspace_slug: str
    project_id: str
    project_slug: str
    actor: str

    @property
    def triggered_by(self) -> str:
        """The actor as ``workflow_runs.triggeredBy`` spells it."""
        return self.actor if self.actor.startswith("system:") else f"user:{self.actor}"

    def filter(self, collection: Collection) -> dict[str, Any]:
        """What every query of ``collection`` is limited to.

        >>> from emboflow_dagster.model.collections import COLLECTIONS
        >>> Scope("ws_1", "a", "prj_1", "b", "ada").filter(COLLECTIONS["assets"])
        {'workspaceId': 'ws_1', 'projectId': 'prj_1'}
        """
        if collection.name in ("objects", "object_history"):
            return {"workspace_id": self.workspace_id}
        if collection.name == "workspaces":
            return {"_id": self.workspace_id}
        match collection.reach:
            case Reach.PROJECT:
                return {"workspaceId": self.workspace_id, "projectId": self.project_id}
            case Reach.WORKSPACE:
                return {"workspaceId": self.workspace_id}
            case _:
                return {}
