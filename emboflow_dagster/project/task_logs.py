"""The logs of tasks: stored, followed while they grow, and collected from workers that died.

The whole log of an attempt is the blob ``log.<task>.<attempt>``; ``logRef`` names it while the attempt is the
task's last, the name finds it ever after. While a task runs, and after its worker was lost, it is in chunks.

Longer than most modules: whoever follows a log ends as one who reads it; both look in the same three places.
"""

import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import InvalidInputError, NotFoundError, UnavailableError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.run import RUN_TERMINAL, TASK_TERMINAL, RunTask, TaskStatus
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.log_chunks import LogChunks
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.live_log import records_of
from emboflow_dagster.runtime.log_records import NOTE, STREAMS, Joiner, LogLine, Record, parse, record
from emboflow_dagster.runtime.log_tail import LogTail
from emboflow_dagster.runtime.record import Recorder

POLL_S: Final = 0.5
#: So many looks in a row may find no database before a reader gives up.
PATIENCE: Final = 20
_SKIP_BYTES: Final = 1 << 20


def name_of(task_id: str, attempt: int) -> str:
    """The blob that is the log of an attempt.

    >>> name_of("tsk_01", 2)
    'log.tsk_01.2'
    """
    return f"log.{task_id}.{attempt}"


@dataclass(slots=True)
class _At:
    """How far a reader is: bytes of which log."""

    log_id: str | None = None
    offset: int = 0


class TaskLogs:
    """The logs of one project's tasks."""

    def __init__(self, opened: Opened, recorder: Recorder) -> None:
        self._opened = opened
        self.recorder = recorder
        self.documents: Documents[RunTask] = recorder.tasks
        self.chunks = LogChunks(opened.mongo, opened.scope)

    def put(
        self, task: RunTask, source: Path | Iterator[bytes], counts: dict[str, int], **more: Any
    ) -> StorageRef:
        """Store the log of an attempt; ``counts`` are its lines by stream.

        Args:
            task: The task at that attempt.
            source: The records.
            counts: Stream name to its lines, all of them.
            more: Kept with the blob.
        """
        blob = self._opened.blobs.put(
            source,
            object_id=name_of(task.id, task.attempt),
            type="task_log",
            content_type="text/plain",
            owner=("run_tasks", "logRef"),
            workflow_id=task.workflow_run_id,
            task_id=task.id,
            custom_metadata={
                "node": task.node_id,
                "attempt": task.attempt,
                "startedAt": stamp(task.started_at),
                "lines": counts,
                **more,
            },
            by_content=True,
        )
        return self._opened.blobs.ref(blob)

    def keep(self, run_id: str, nodes: Collection[str]) -> None:
        """Before tasks are reset: what only their documents say of an attempt becomes its blob."""
        for task in self.documents.find({"workflowRunId": run_id, "nodeId": {"$in": list(nodes)}}, limit=0):
            name, ref = name_of(task.id, task.attempt), task.log_ref
            if task.status not in TASK_TERMINAL or (ref is not None and ref.object_id == name):
                continue
            counts = {stream: len(lines) for stream, lines in _tails(task).items()}
            if ref is not None:  # of a release that named logs otherwise
                with self._opened.blobs.open_ref(ref) as stream:
                    self.put(task, iter(partial(stream.read, _SKIP_BYTES), b""), counts)
            elif any(counts.values()):
                rows = (record(r.stream, r.data) for r in _tail_records(task))
                self.put(task, rows, counts)

    def read(
        self,
        task: RunTask,
        *,
        streams: Collection[str] = STREAMS,
        attempt: int | None = None,
        lines: int | None = None,
    ) -> Iterator[LogLine]:
        """What there is of a task's log now, oldest first.

        Args:
            task: The task.
            streams: Which of ``log``, ``stdout`` and ``stderr``; notes on the log itself always come.
            attempt: Which attempt; by default the last.
            lines: Only so many at the end.

        Raises:
            NotFoundError: There was no such attempt.
            InvalidInputError: No such stream.
        """
        _check(task, streams, attempt, lines)
        which = attempt or task.attempt
        joiner = Joiner(streams, which)
        found = self._lines(joiner, self._all(task, which, _At(), explicit=attempt is not None))
        return found if lines is None else iter(deque(found, lines))

    def raw(self, task: RunTask, stream: str, *, attempt: int | None = None) -> Iterator[bytes]:
        """One stream byte for byte, where the whole log was stored; else as its lines were kept.

        Raises:
            NotFoundError: There was no such attempt.
            InvalidInputError: No such stream.
        """
        _check(task, (stream,), attempt, None)
        records = self._all(task, attempt or task.attempt, _At(), explicit=attempt is not None)
        return (r.data + (b"\n" if r.ends else b"") for r in records if r.stream == stream)

    def follow(
        self,
        task: RunTask,
        *,
        streams: Collection[str] = STREAMS,
        attempt: int | None = None,
        lines: int | None = None,
        unfinished: bool = False,
        poll_s: float = POLL_S,
    ) -> Iterator[LogLine]:
        """The same, and what comes, until the task is over; a retry in between is followed too.

        Args:
            task: The task.
            streams: As :meth:`read`; so are ``attempt`` and ``lines`` (of what is there at first).
            attempt: With it the end of this attempt is the end.
            lines: As :meth:`read`.
            unfinished: Give the beginning of a line that has no end yet, as soon as it is there.
            poll_s: Seconds between two looks.

        Raises:
            UnavailableError: The database was away for many looks in a row.
        """
        _check(task, streams, attempt, lines)
        return self._follow(task, streams, attempt, lines, unfinished=unfinished, poll_s=poll_s)

    def _follow(
        self,
        task: RunTask,
        streams: Collection[str],
        attempt: int | None,
        lines: int | None,
        *,
        unfinished: bool,
        poll_s: float,
    ) -> Iterator[LogLine]:
        which, at = attempt or task.attempt, _At()
        joiner = Joiner(streams, which)
        first, misses = lines, 0
        while True:
            try:
                task = self.documents.get(task.id)
                over = self._is_over(task, which)
                yield from self._first(self._new(task, which, at, joiner, over=over), first)
                first, misses = None, 0
            except UnavailableError:
                misses += 1
                if misses > PATIENCE:
                    raise
                over = False
            if over:
                yield from joiner.rest(over=True)
                if attempt is not None or which >= task.attempt:
                    return
                which, at = which + 1, _At()
                joiner = Joiner(streams, which)
                continue
            if unfinished:
                yield from joiner.rest(over=False)
            time.sleep(poll_s)

    @staticmethod
    def _first(rows: Iterator[LogLine], lines: int | None) -> Iterator[LogLine]:
        return rows if lines is None else iter(deque(rows, lines))

    def _is_over(self, task: RunTask, attempt: int) -> bool:
        if attempt < task.attempt or task.status in TASK_TERMINAL:
            return True
        if task.status == TaskStatus.RUNNING:
            return False
        # Below a failed task, or in a run that was cancelled meanwhile, nothing will come.
        run = self.recorder.runs.get(task.workflow_run_id)
        return run.status in RUN_TERMINAL and not run.waits_again

    def _new(self, task: RunTask, attempt: int, at: _At, joiner: Joiner, *, over: bool) -> Iterator[LogLine]:
        """What came since the last look; all that is left when it is over."""
        started = task.started_at if attempt == task.attempt else None
        if attempt < task.attempt or started is not None:
            log_id = self.chunks.newest(task.id, attempt, started)
            if log_id is not None:
                if at.log_id not in (None, log_id):  # executed again, as the same attempt
                    yield from joiner.rest(over=True)
                    at.offset = 0
                at.log_id = log_id
                yield from joiner.lines(self._chunked(log_id, at))
        if not over:
            return
        ref = self._ref(task, attempt, explicit=False)
        if ref is not None:
            yield from joiner.lines(self._stored(ref, at))
        elif at.log_id is None and attempt == task.attempt:
            yield from joiner.lines(_tail_records(task))

    def _all(self, task: RunTask, attempt: int, at: _At, *, explicit: bool) -> Iterator[Record]:
        ref = self._ref(task, attempt, explicit=explicit)
        if ref is not None:
            yield from self._stored(ref, at)
            return
        started = task.started_at if attempt == task.attempt else None
        log_id = self.chunks.newest(task.id, attempt, started)
        if log_id is not None:
            yield from self._chunked(log_id, at)
        elif attempt == task.attempt:
            yield from _tail_records(task)

    def _ref(self, task: RunTask, attempt: int, *, explicit: bool) -> StorageRef | None:
        """The stored log of an attempt."""
        if attempt == task.attempt and (task.status in TASK_TERMINAL or not explicit):
            return task.log_ref
        if attempt == task.attempt and task.status == TaskStatus.RUNNING:
            return None
        blob = self.stored(task.id, attempt)
        return None if blob is None else self.ref(blob)

    def ref(self, blob: BlobObject) -> StorageRef:
        """Where a stored log is."""
        return self._opened.blobs.ref(blob)

    def stored(self, task_id: str, attempt: int) -> BlobObject | None:
        """The blob of an attempt's log, if it has one."""
        try:
            return self._opened.blobs.get(name_of(task_id, attempt))
        except NotFoundError:
            return None

    def _stored(self, ref: StorageRef, at: _At) -> Iterator[Record]:
        skip = self._position(ref, at.offset) if at.offset else 0
        with self._opened.blobs.open_ref(ref) as stream:
            while skip:
                skipped = stream.read(min(skip, _SKIP_BYTES))
                if not skipped:
                    break
                skip -= len(skipped)
            for line in stream:
                at.offset += len(line)
                yield parse(line)

    def _position(self, ref: StorageRef, offset: int) -> int:
        """Where byte ``offset`` of a log is in its blob: a collected one may lack bytes."""
        blob = self._opened.blobs.get(str(ref.object_id), ref.version)
        ranges = blob.custom_metadata.get("ranges")
        if not ranges:
            return offset
        return sum(max(0, min(end, offset) - start) for start, end in ranges)

    def _chunked(self, log_id: str, at: _At) -> Iterator[Record]:
        for chunk in self.chunks.read(log_id, at.offset):
            left_out = chunk.start - at.offset
            rows = list(records_of(chunk, at.offset))
            at.offset = chunk.end
            if left_out > 0:
                text = f"{left_out} bytes came too fast to be followed; the log has them when it is over"
                yield Record(NOTE, text.encode(), ends=True)
            yield from rows

    @staticmethod
    def _lines(joiner: Joiner, records: Iterator[Record]) -> Iterator[LogLine]:
        yield from joiner.lines(records)
        yield from joiner.rest(over=True)


def stamp(moment: datetime | None) -> str | None:
    """A time as a blob's metadata have it."""
    return None if moment is None else moment.isoformat()


def log_fields(tails: dict[str, LogTail], ref: StorageRef | None) -> dict[str, Any]:
    """The stored fields of a task that say what it printed."""
    return {
        "logRef": None if ref is None else ref.to_mongo(),
        "logLines": tails["log"].lines,
        "stdoutLines": tails["stdout"].lines,
        "stderrLines": tails["stderr"].lines,
    }


def _tails(task: RunTask) -> dict[str, list[str]]:
    return dict(zip(STREAMS, (task.log_lines, task.stdout_lines, task.stderr_lines), strict=True))


def _tail_records(task: RunTask) -> Iterator[Record]:
    for stream, lines in _tails(task).items():
        for line in lines:
            yield Record(stream, line.encode("utf-8", "replace"), ends=True)


def _check(task: RunTask, streams: Collection[str], attempt: int | None, lines: int | None) -> None:
    for stream in streams:
        if stream not in STREAMS:
            raise InvalidInputError(f"stream: found {stream!r}; allowed are {', '.join(STREAMS)}")
    if attempt is not None and not 1 <= attempt <= task.attempt:
        raise NotFoundError(
            f"task {task.node_id} of {task.workflow_run_id} has no attempt {attempt}",
            hint=f"its attempts are 1 to {task.attempt}",
        )
    if lines is not None and lines < 0:
        raise InvalidInputError(f"lines: found {lines}; a count from 0 is needed")
