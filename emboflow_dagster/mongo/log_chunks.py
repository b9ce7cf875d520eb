"""Logs of tasks that run: chunks of a log's file, so that it can be followed, and found when its worker died.

One document of the internal collection ``_emboflow_log_chunks`` is one range of bytes of the file, cut
between records; where a chunk ends is the cursor of a reader. They are gone when the whole log is stored
(decision 19).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from emboflow_dagster.model.run import RunTask
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, Raw, translated

COLLECTION: Final = "_emboflow_log_chunks"
#: Chunks of workers that died and that nobody collected.
KEPT_S: Final = 14 * 24 * 3600
_HELD: Final = "logId"
_EXECUTION: Final = ("runId", "taskId", "attempt", "startedAt")


@dataclass(frozen=True, slots=True)
class LogOf:
    """Which execution a log is of: an attempt may be executed again after a task above it was retried."""

    run_id: str
    task_id: str
    attempt: int
    started_at: datetime | None

    @classmethod
    def task(cls, task: RunTask) -> "LogOf":
        """The execution that a task is at, or was at last."""
        return cls(task.workflow_run_id, task.id, task.attempt, task.started_at)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes ``start`` to ``end`` of a log's file; ``counts`` where they are exact at its end."""

    log_id: str
    start: int
    end: int
    data: bytes
    counts: dict[str, int] | None


class LogChunks:
    """The chunks of one project."""

    def __init__(self, mongo: Mongo, scope: Scope) -> None:
        self._raw = mongo[COLLECTION]
        self._limits = {"workspaceId": scope.workspace_id, "projectId": scope.project_id}

    def prepare(self) -> None:
        """Make the indexes; harmless when they are there."""
        with translated():
            self._raw.create_indexes(
                [
                    IndexModel([("taskId", ASCENDING), ("attempt", ASCENDING)]),
                    # Which logs there are is answered without reading what is in them.
                    IndexModel(
                        [(name, ASCENDING) for name in ("workspaceId", "projectId", _HELD, *_EXECUTION)]
                    ),
                    IndexModel("at", expireAfterSeconds=KEPT_S),
                ]
            )

    def ship(self, of: LogOf, chunks: list[Chunk]) -> None:
        """Store chunks; storing one again changes nothing."""
        writes = [
            UpdateOne(
                {"_id": f"{chunk.log_id}:{chunk.start:016d}"},
                {
                    "$setOnInsert": {
                        **self._limits,
                        "runId": of.run_id,
                        "taskId": of.task_id,
                        "attempt": of.attempt,
                        "startedAt": of.started_at,
                        "logId": chunk.log_id,
                        "start": chunk.start,
                        "end": chunk.end,
                        "data": chunk.data,
                        "counts": chunk.counts,
                    },
                    "$currentDate": {"at": True},
                },
                upsert=True,
            )
            for chunk in chunks
        ]
        if writes:
            with translated():
                self._raw.bulk_write(writes, ordered=True)

    def newest(self, task_id: str, attempt: int, started_at: datetime | None = None) -> str | None:
        """The log of an attempt that was shipped of last; of one execution when its start is given."""
        filter_: Raw = {**self._limits, "taskId": task_id, "attempt": attempt}
        if started_at is not None:
            filter_["startedAt"] = started_at
        with translated():
            # Ids of logs sort by time.
            row = self._raw.find_one(filter_, {_HELD: 1}, sort=[("_id", DESCENDING)])
        return None if row is None else str(row[_HELD])

    def read(self, log_id: str, behind: int = 0) -> Iterator[Chunk]:
        """The chunks of a log that end behind a byte, in order."""
        filter_ = {**self._of(log_id), "end": {"$gt": behind}}
        with translated():
            for row in self._raw.find(filter_).sort("_id", ASCENDING).batch_size(8):
                yield Chunk(row[_HELD], row["start"], row["end"], bytes(row["data"]), row.get("counts"))

    def logs(self) -> list[tuple[str, LogOf]]:
        """Every log of which there are chunks, with the execution it is of."""
        what: dict[str, Any] = {name: {"$first": f"${name}"} for name in _EXECUTION}
        with translated():
            found = self._raw.aggregate([{"$match": self._limits}, {"$group": {"_id": "$logId", **what}}])
            rows = list(found)
        return [(str(row["_id"]), LogOf(*(row[name] for name in _EXECUTION))) for row in rows]

    def _of(self, log_id: str) -> Raw:
        return {"_id": {"$gte": f"{log_id}:", "$lt": f"{log_id};"}, **self._limits}

    def drop(self, log_id: str, *, before: int | None = None) -> None:
        """Remove a log's chunks, or those that end at or before a byte."""
        filter_ = self._of(log_id)
        if before is not None:
            filter_["end"] = {"$lte": before}
        with translated():
            self._raw.delete_many(filter_)
