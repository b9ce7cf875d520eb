"""Rows on their way from a head to `object_history`: when they are there for good, they leave the head.

A put sends the copy and waits for nothing: the head's tail has the row, durably. A thread looks every few
moments what a majority reader finds in history, which no election takes back, and clears that away. What is
still not there after a second is copied again, and waited for; so is everything when the database is closed.
Where neither happens, because the process died, the next put of the object moves it, and gc.

No error is lost: of an object whose copies do not arrive, the next puts wait for theirs again and raise what
history says.

Source: decision 38.
"""

import atexit
import logging
import os
import threading
import time
from contextlib import suppress
from typing import Final
from weakref import ref

from emboflow_dagster.errors import EmboflowError, UnavailableError
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.mongo.outbox import HISTORY, clearing, finish, outbox_of
from emboflow_dagster.mongo.per_database import PerDatabase

logger: Final = logging.getLogger("emboflow")
#: Between two looks, in seconds: a tail has what was put in about that time.
PERIOD_S: float = 0.1
_AGAIN_S: Final = 1.0  # a row that no majority has after this time was lost in an election
_GIVE_UP_S: Final = 60.0  # without an answer; then it is for whoever comes next
_IDLE_S: Final = 2.0  # the thread ends after so long with nothing to do
_MOST: Final = 1_000  # heads that one look is about
_MOST_ROWS: Final = 128  # of one head; then the next put waits until its tail is empty


class Settling:
    """The heads of one open database whose tails are to be cleared."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = ref(mongo)
        self._waiting: dict[str, float] = {}  # objects, and since when
        self._missed: dict[str, float] = {}  # rows that history did not have when it was looked, likewise
        self._rows: dict[str, int] = {}  # how many of an object were copied and not found yet
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._process = os.getpid()
        mongo.before_close.append(self.close)

    def add(self, object_id: str) -> None:
        """A row of this object was copied just now."""
        with self._lock:
            self._waiting.setdefault(object_id, time.monotonic())
            self._rows[object_id] = rows = self._rows.get(object_id, 0) + 1
            if self._thread is None and not self._closed.is_set():
                thread = threading.Thread(target=self._run, name="settling", daemon=True)
                with suppress(RuntimeError):  # no more threads, or the interpreter ends: see `finish`
                    thread.start()
                    self._thread = thread
        mongo = self._mongo()
        if rows >= _MOST_ROWS and mongo is not None:
            outbox_of(mongo).wait_again(object_id)

    def close(self) -> None:
        """Copy and clear whatever waits, and end; a database that does not answer keeps it in the tails."""
        if os.getpid() != self._process:  # a forked child has neither the thread nor the lock
            return
        with self._lock:
            self._closed.set()
            thread = self._thread
        if thread is not None:
            thread.join(_GIVE_UP_S)
        with suppress(EmboflowError):
            self.finish()

    def finish(self) -> None:
        """Now, and for all readers, nothing is left of what was added before."""
        mongo = self._mongo()
        while found := self._taken():
            for object_id in found:
                if mongo is not None:
                    finish(mongo, object_id)

    def look(self) -> None:
        """Clear what a majority has; what is left, or was cleared just now, is looked at once more."""
        mongo, found = self._mongo(), self._taken()
        if mongo is None or not found:
            return
        now = time.monotonic()
        try:
            absent = _cleared(mongo, list(found))
        except EmboflowError:  # no answer
            absent = {object_id: [] for object_id, since in found.items() if now - since < _GIVE_UP_S}
        else:
            self._missed = {row: self._missed.get(row, now) for rows in absent.values() for row in rows}
            found = dict.fromkeys(found, now)
            overdue = {
                object_id: now - min(self._missed[row] for row in rows)
                for object_id, rows in absent.items()
                if any(now - self._missed[row] > _AGAIN_S for row in rows)
            }
            for object_id, seconds in overdue.items():
                if not self._again(mongo, object_id, seconds):
                    del absent[object_id]
        with self._lock:
            for object_id in absent:
                self._waiting.setdefault(object_id, found[object_id])
                self._rows[object_id] = self._rows.get(object_id, 0) + len(absent[object_id])

    def _again(self, mongo: Mongo, object_id: str, seconds: float) -> bool:
        """Copy what did not arrive; who puts next waits, and is told why should it be refused.

        Returns:
            Whether to look once more: not at what is refused, or goes without an answer for too long.
        """
        outbox_of(mongo).wait_again(object_id)
        try:
            finish(mongo, object_id)
        except EmboflowError as error:
            if isinstance(error, UnavailableError) and seconds < _GIVE_UP_S:
                return True
            logger.warning("blob %s: history does not take its versions, they wait: %s", object_id, error)
            return False
        return True

    def _taken(self) -> dict[str, float]:
        with self._lock:
            found = dict(list(self._waiting.items())[:_MOST])
            for object_id in found:
                del self._waiting[object_id]
                self._rows.pop(object_id, None)
        return found

    def _run(self) -> None:
        idle = 0.0
        try:
            while not self._closed.wait(PERIOD_S):
                self.look()
                with self._lock:
                    idle = 0.0 if self._waiting else idle + PERIOD_S
                    if idle > _IDLE_S:
                        self._thread = None
                        return
        except BaseException:
            with self._lock:
                self._thread = None  # the next row has another one begin
            raise


def _cleared(mongo: Mongo, object_ids: list[str]) -> dict[str, list[str]]:
    """Take out of some heads what history has for good; what it has not, by head whose tail was not empty."""
    with translated():
        heads = mongo["objects"].find(
            {"_id": {"$in": object_ids}, "tail.0": {"$exists": True}}, {"tail.version": 1}
        )
        tails = {
            raw["_id"]: {f"{raw['_id']}.v{row['version']}": row["version"] for row in raw["tail"]}
            for raw in heads
        }
        if not tails:
            return {}
        rows = mongo[HISTORY].find(
            {"_id": {"$in": [row for tail in tails.values() for row in tail]}}, {"_id": 1}
        )
        there = {row["_id"] for row in rows}
        for object_id, tail in tails.items():
            gone = [version for row, version in tail.items() if row in there]
            if gone:
                mongo.unacknowledged("objects").update_one(*clearing(object_id, gone))
    return {object_id: [row for row in tail if row not in there] for object_id, tail in tails.items()}


settling_of: Final = PerDatabase(Settling)
"""The one of an open database."""


@atexit.register
def _end() -> None:
    for one in settling_of.all():
        one.close()
