"""The audit log: one row per sensitive action, in its transaction, chained so that edits show.

The chain's head is one small document per workspace: rows of a workspace are numbered without gaps.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from pymongo import ReturnDocument

from emboflow_dagster.model.audit import AuditLog
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, Raw, Session, find_one_and_update


class Entry(NamedTuple):
    """One action to record: what was done to which document, and a few of its fields before and after."""

    action: str
    resource_type: str
    resource_id: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


def record(
    mongo: Mongo,
    scope: Scope,
    session: Session,
    action: str,
    resource_type: str,
    resource_id: str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditLog:
    """Append one row in the caller's transaction.

    Args:
        mongo: The open database.
        scope: Where, and who did it.
        session: The transaction the action is written in: row and action appear together.
        action: ``<resource>.<verb>``, for example ``workflow.publish``.
        resource_type: Collection of the document acted on.
        resource_id: Its id.
        before: A few of its fields before; never a secret.
        after: The same after.
    """
    entry = Entry(action, resource_type, resource_id, before, after)
    return record_all(mongo, scope, session, [entry])[0]


def record_all(mongo: Mongo, scope: Scope, session: Session, entries: Sequence[Entry]) -> list[AuditLog]:
    """Append one row an action, in order, in the caller's transaction; three commands however many."""
    head: Raw = find_one_and_update(  # pyright: ignore[reportAssignmentType] - upserted: never None
        mongo[META],
        {"_id": f"audit:{scope.workspace_id}"},
        {"$inc": {"sequence": len(entries)}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    now, chain, rows = utc_now(), head.get("chain", ""), list[AuditLog]()
    for sequence, entry in enumerate(entries, head["sequence"] - len(entries) + 1):
        row = AuditLog.checked(
            id=new_id("aud"),
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            actor_id=scope.actor,
            resource_type=entry.resource_type,
            resource_id=entry.resource_id,
            action=entry.action,
            before_summary=entry.before,
            after_summary=entry.after,
            metadata={"sequence": sequence},
            created_at=now,
        )
        chain = link(row, chain)
        rows.append(row.model_copy(update={"metadata": {**row.metadata, "chain": chain}}))
    mongo["audit_logs"].insert_many([row.to_mongo() for row in rows], session=session)
    mongo[META].update_one({"_id": head["_id"]}, {"$set": {"chain": chain}}, session=session)
    return rows


def link(row: AuditLog, previous: str) -> str:
    """The chain value of ``row`` after ``previous``: sha256 over both."""
    body = row.to_json()
    body["metadata"] = {k: v for k, v in body["metadata"].items() if k != "chain"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
