"""What tasks left, by what they were given, and who is about to leave it: one document a cache key.

``result`` names what the newest task with the key left; artifacts and dataset versions stay where they are.
``flight`` names the task that computes it now (single flight): its right ends with its task, and the task is
held by its lease on the server's clock, so a worker that was killed holds nobody up for longer than that.
A right that was lost writes no result: ``flight.token`` is in the filter.

Losing this collection costs time, no fact. A key is good within its project.

Source: spec/beyond.md 6 and 7; decision 20.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import AlreadyExistsError
from emboflow_dagster.model.base import new_id
from emboflow_dagster.model.collections import CACHE
from emboflow_dagster.model.run import RunTask, TaskStatus
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.runtime import lease
from emboflow_dagster.runtime.record import Claimed, Recorder

#: Of a node's own metadata for the Dagster page; more is left out of the entry, value by value.
MAX_PAGE_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Result:
    """What a task left, to be used again."""

    id: str
    workflow_run_id: str
    node_id: str
    task_id: str
    artifact_ids: list[str]
    asset_ids: list[str]
    """The effective assets that it passed on."""
    preview: dict[str, Any] | None
    page: dict[str, Any]
    outcome: str
    dataset_version_id: str | None
    reports: dict[str, str] | None
    """Of a node that leaves probe reports: asset id to the newest report after it."""

    @property
    def told(self) -> str:
        """Whose it is, in words."""
        return f"run {self.workflow_run_id}, task {self.node_id}"

    @classmethod
    def of(cls, raw: Raw | None) -> "Result | None":
        """The result in an entry, ``None`` where there is none."""
        found = (raw or {}).get("result")
        if not isinstance(found, dict):
            return None
        return cls(
            id=found["id"],
            workflow_run_id=found["workflowRunId"],
            node_id=found["nodeId"],
            task_id=found["taskId"],
            artifact_ids=list(found["artifactIds"]),
            asset_ids=list(found["assetIds"]),
            preview=found["preview"],
            page=json.loads(found["page"]),
            outcome=found["outcome"],
            dataset_version_id=found["datasetVersionId"],
            reports=found["reports"],
        )

    def to_mongo(self) -> Raw:
        """The result as it is stored; the page as text, because any name may be a key in it."""
        return {
            "id": self.id,
            "workflowRunId": self.workflow_run_id,
            "nodeId": self.node_id,
            "taskId": self.task_id,
            "artifactIds": self.artifact_ids,
            "assetIds": self.asset_ids,
            "preview": self.preview,
            "page": json.dumps(small_page(self.page)),
            "outcome": self.outcome,
            "datasetVersionId": self.dataset_version_id,
            "reports": self.reports,
        }


class Turn(NamedTuple):
    """The right to compute what a key stands for and to leave it for others."""

    key: str
    token: str | None
    """``None``: of a refresh, which replaces whatever is there."""


class Entries:
    """The cache of one project."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._raw = recorder.mongo[CACHE]

    def id_of(self, key: str) -> str:
        """The entry of a key: other projects have their own."""
        return f"{self._recorder.scope.project_id}:{key}"

    def read(self, key: str) -> Raw | None:
        """The entry of a key, or ``None``."""
        with translated():
            return self._raw.find_one({"_id": self.id_of(key)})

    def at_work(self, entry: Raw | None, own: RunTask) -> Raw | None:
        """The flight of another task that is alive by the server's clock, or ``None``."""
        flight = (entry or {}).get("flight")
        if not flight or flight["taskId"] == own.id:
            return None
        alive = {"$expr": {"$gte": [{"$ifNull": ["$heartbeatAt", "$startedAt"]}, _ago(lease.LEASE_S)]}}
        with translated():
            found = self._recorder.tasks.raw.find_one(
                {"_id": flight["taskId"], "status": TaskStatus.RUNNING.value, **alive}, {"_id": 1}
            )
        return flight if found is not None else None

    def begin(self, key: str, claimed: Claimed, entry: Raw | None) -> Turn | None:
        """Take the turn at a key whose entry is ``entry``; ``None`` when somebody else was faster.

        A result that is there was found wanting: it goes.
        """
        task = claimed.task
        token = f"{task.id}:{task.attempt}:{new_id('try')}"
        flight = {
            "token": token,
            "workflowRunId": task.workflow_run_id,
            "nodeId": task.node_id,
            "taskId": task.id,
            "worker": task.lease_owner,
        }
        before = {
            "flight.token": ((entry or {}).get("flight") or {}).get("token"),
            "result.id": ((entry or {}).get("result") or {}).get("id"),
        }
        scope = self._recorder.scope
        named = {"workspaceId": scope.workspace_id, "projectId": scope.project_id, "key": key}
        try:
            with translated():
                done = self._raw.update_one(
                    {"_id": self.id_of(key), **before},
                    {
                        "$set": {"flight": flight, "result": None, **named},
                        "$currentDate": {"begunAt": True},
                    },
                    upsert=entry is None,
                )
        except AlreadyExistsError:
            return None
        taken = done.matched_count == 1 or done.upserted_id is not None
        return Turn(key, token) if taken else None

    def keep(self, turn: Turn, result: Result, session: Session) -> bool:
        """Leave a result, in the transaction that settles its task; whether the turn was still ours."""
        set_: Raw = {"result": result.to_mongo()}
        filter_: Raw = {"_id": self.id_of(turn.key)}
        if turn.token is None:
            scope = self._recorder.scope
            set_ |= {"workspaceId": scope.workspace_id, "projectId": scope.project_id, "key": turn.key}
        else:
            filter_["flight.token"] = turn.token
            set_["flight"] = None
        with translated():
            done = self._raw.update_one(
                filter_,
                {"$set": set_, "$currentDate": {"storedAt": True}},
                upsert=turn.token is None,
                session=session,
            )
        return done.matched_count == 1 or done.upserted_id is not None


def stands_for(mongo: Mongo, project_id: str, key: str, artifact_id: str) -> bool:
    """Whether a look-up of the key would find the artifact. gc asks this, as the rule's word for it."""
    with translated():
        found = mongo[CACHE].find_one(
            {"_id": f"{project_id}:{key}", "result.artifactIds": artifact_id}, {"_id": 1}
        )
    return found is not None


def small_page(page: Mapping[str, Any]) -> dict[str, Any]:
    """A node's page without what is too large to be kept twice: pictures go first, numbers stay."""
    kept: dict[str, Any] = {}
    size = 2
    for name, value in page.items():
        try:
            more = len(json.dumps({name: value}, allow_nan=False))
        except (TypeError, ValueError):
            continue
        if size + more <= MAX_PAGE_BYTES:
            kept[name] = value
            size += more
    return kept


def _ago(seconds: float) -> Raw:
    return {"$dateSubtract": {"startDate": "$$NOW", "unit": "millisecond", "amount": round(seconds * 1000)}}
