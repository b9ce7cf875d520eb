"""A task's log is shipped while the task runs: from its file to MongoDB, where anybody can follow it.

The file is the buffer: a child is never slowed by the database, and an outage of it loses nothing. What a
chatty child prints faster than it can be shipped is left out there, visibly, and is in the whole log.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.base import new_id
from emboflow_dagster.mongo.log_chunks import Chunk, LogChunks, LogOf
from emboflow_dagster.runtime.log_records import Record, parse
from emboflow_dagster.runtime.logs import TaskLog

#: A task that is over so soon ships nothing: its readers find what it left.
FIRST_AFTER_S: Final = 1.0
#: Whoever follows a log is at most so much behind it.
FLUSH_EVERY_S: Final = 1.0
CHUNK_BYTES: Final = 256 << 10
#: At most so much a flush, and at most so much of one log is kept.
FLUSH_BYTES: Final = 4 << 20
KEPT_BYTES: Final = 32 << 20


def records_of(chunk: Chunk, behind: int = 0) -> Iterator[Record]:
    """The records of a chunk that begin behind byte ``behind`` of the log."""
    data = chunk.data[max(0, behind - chunk.start) :]
    for line in data.split(b"\n")[:-1]:
        yield parse(line)


class LiveLog:
    """Ships a task's log while it runs, from a thread of its own.

    Args:
        log: The log.
        chunks: Where to.
        of: The execution.
        first_after_s: How long nothing is shipped; a task that ends before is not followed.
        every_s: The longest that something printed waits.
        flush_bytes: The most that is shipped at once.
        kept_bytes: The most that is kept of one log.
    """

    def __init__(
        self,
        log: TaskLog,
        chunks: LogChunks,
        of: LogOf,
        *,
        first_after_s: float = FIRST_AFTER_S,
        every_s: float = FLUSH_EVERY_S,
        flush_bytes: int = FLUSH_BYTES,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.id = new_id("log")
        self._log = log
        self._chunks = chunks
        self._of = of
        self._every_s, self._first_after_s = every_s, first_after_s
        self._flush_bytes, self._kept_bytes = flush_bytes, kept_bytes
        self._shipped = 0
        self._ready = False
        self._kept: deque[tuple[int, int]] = deque()
        self._one_at_a_time = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log {of.task_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the shipping; what was shipped stays."""
        self._over.set()
        self._log.added.set()
        self._thread.join()

    def discard(self) -> None:
        """The whole log is stored: its chunks are not needed. An outage leaves them to the recorder."""
        self.stop()
        if self._shipped:
            try:
                self._chunks.drop(self.id)
            except EmboflowError:
                return

    def ship(self) -> bool:
        """Bring what was printed to the database, as much as is allowed at once; whether that was all."""
        with self._one_at_a_time:
            size, counts = self._log.flush()
            if size == self._shipped:
                return True
            self._log.followed = True
            if not self._ready:
                self._chunks.prepare()
                self._ready = True
            if size - self._shipped > 2 * self._flush_bytes:
                self._skip(size - self._flush_bytes)
            left = self._flush_bytes
            while left > 0 and self._shipped < size:
                sent = self._next(size, counts)
                if not sent:
                    break
                left -= sent
            self._forget()
            return self._shipped >= size

    def _next(self, size: int, counts: dict[str, int]) -> int:
        data = self._log.read(self._shipped, min(CHUNK_BYTES, size - self._shipped))
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return 0
        end = self._shipped + len(data)
        self._chunks.ship(
            self._of, [Chunk(self.id, self._shipped, end, data, counts if end == size else None)]
        )
        self._kept.append((self._shipped, end))
        self._shipped = end
        return len(data)

    def _skip(self, to: int) -> None:
        """Leave out what nobody could read as fast; the next chunk begins with a record."""
        ahead = self._log.read(to, CHUNK_BYTES)
        self._shipped = to + ahead.find(b"\n") + 1

    def _forget(self) -> None:
        gone = None
        total = sum(end - start for start, end in self._kept)
        while total > self._kept_bytes:
            start, end = self._kept.popleft()
            total -= end - start
            gone = end
        if gone is not None:
            self._chunks.drop(self.id, before=gone)

    def _run(self) -> None:
        if self._over.wait(self._first_after_s):
            return
        while not self._over.is_set():
            self._log.added.wait()
            self._log.added.clear()
            if self._over.is_set():
                return
            try:
                whole = self.ship()
            except EmboflowError:
                whole = False  # the database is away: what is in the file is shipped later
            if not whole:
                self._log.added.set()
            self._over.wait(self._every_s)
