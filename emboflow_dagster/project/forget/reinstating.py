"""Lets what was forgotten be made again: a note beside the tombstone says who allowed it and why."""

from typing import Any

from emboflow_dagster.mongo import audit, marks
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.forget.proving import note_of, told
from emboflow_dagster.project.opened import Opened


def reinstate(opened: Opened, tombstone: str, reason: str) -> dict[str, Any]:
    """The tombstone as it is shown, with ``reinstated``; see :meth:`Datasets.reinstate`."""
    mongo, scope = opened.mongo, opened.scope
    note = note_of(opened, tombstone)
    name = note["name"]

    def body(session: Session) -> None:
        fresh = {"reason": reason, "by": scope.actor}
        if marks.once(mongo, Mark.REINSTATED, name, scope.workspace_id, session, **fresh):
            dataset = note["asked"]["datasetId"]
            after = {"forgotten": tombstone, "reason": reason}
            audit.record(mongo, scope, session, "dataset.reinstate", "datasets", dataset, after=after)

    mongo.in_transaction(body)
    return told(opened, note)
