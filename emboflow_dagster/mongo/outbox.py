"""From a head's tail to `object_history`: what several threads have to move goes in one insert.

Whoever comes while an insert is on its way joins the next one, so that the more there is to do, the less each
costs: the driver and the server work per command, not per row. Alone, a writer waits for nobody.

Source: spec/performance.md, target 4; decisions 16 and 38.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from bson import encode
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from emboflow_dagster.mongo.client import Mongo, Raw, translated
from emboflow_dagster.mongo.per_database import PerDatabase

HISTORY: Final = "object_history"
_DUPLICATE_KEY: Final = 11000
_PATIENCE_S: Final = 1.0
_LIGHT_BYTES: Final = 6144  # with what a tail holds of these, the update of its head costs a tenth more
_REMEMBERED: Final = 10_000
#: After so many puts, each at most `_CLOSE_S` seconds after the one before, it is a stream.
STREAM: int = 8
_CLOSE_S: Final = 0.1


class Tail(NamedTuple):
    """What waits in one head; ``settle``: it has left the head too, for all readers, when it is moved."""

    object_id: str
    rows: list[Raw]
    settle: bool = False

    def history(self) -> list[Raw]:
        """As `object_history` keeps it."""
        return [{**row, "_id": f"{self.object_id}.v{row['version']}"} for row in self.rows]

    @property
    def light(self) -> bool:
        """Whether the head can carry it for some moments more."""
        return all(len(encode(row)) <= _LIGHT_BYTES for row in self.rows)

    def clearing(self) -> tuple[Raw, Raw]:
        """The update that takes it out of the head: filter and change."""
        return clearing(self.object_id, [row["version"] for row in self.rows])


class _Batch:
    """The tails of some heads, written together."""

    def __init__(self) -> None:
        self.tails: list[Tail] = []
        self.done = threading.Event()
        self.failed = False

    def write(self, mongo: Mongo) -> None:
        try:
            move(mongo, self.tails)
        except BaseException:
            self.failed = True
            raise
        finally:
            self.done.set()


class Outbox:
    """What the threads of this process have to move, of one open database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._next: _Batch | None = None
        self._gates: dict[str, tuple[threading.Semaphore, int]] = {}
        self._puts: dict[str, tuple[float, int]] = {}

    def streams(self, object_id: str) -> bool:
        """Whether a put of this object, which begins now, is one of many that this process does in a row."""
        now = time.monotonic()
        if object_id not in self._puts and len(self._puts) >= _REMEMBERED:
            self._puts.clear()
        at, count = self._puts.get(object_id, (now, 0))
        count = count + 1 if now - at < _CLOSE_S else 1
        self._puts[object_id] = now, count
        return count > STREAM

    def wait_again(self, object_id: str) -> None:
        """The next puts of this object wait for history, and hear what it says: it is a stream no more."""
        self._puts.pop(object_id, None)

    def move(self, mongo: Mongo, tail: Tail) -> None:
        """Return once history has it, durably."""
        with self._lock:
            batch = self._next
            leads = batch is None
            if batch is None:
                batch = self._next = _Batch()
            batch.tails.append(tail)
        if not leads:
            batch.done.wait()
            if batch.failed:  # perhaps because of another's: alone it gets an error of its own
                move(mongo, [tail])
            return
        with self._writing:
            with self._lock:
                self._next = None  # whoever comes now waits for this one to be done
            alone = len(batch.tails) == 1
            try:
                batch.write(mongo)
            except Exception:
                if alone:
                    raise
        if batch.failed:
            move(mongo, [tail])

    @contextmanager
    def turn(self, object_id: str) -> Iterator[None]:
        """One writer of an object at a time, as far as this process goes.

        The server takes them one by one anyway, and makes the others try again and again. It is a courtesy
        and no lock: whoever has waited for a second goes on.
        """
        with self._lock:
            gate, waiting = self._gates.get(object_id, (threading.Semaphore(1), 0))
            self._gates[object_id] = (gate, waiting + 1)
        mine = gate.acquire(timeout=_PATIENCE_S)
        try:
            yield
        finally:
            if mine:
                gate.release()
            with self._lock:
                gate, waiting = self._gates[object_id]
                if waiting == 1:
                    del self._gates[object_id]
                else:
                    self._gates[object_id] = (gate, waiting - 1)


outbox_of: Final = PerDatabase(lambda _: Outbox())
"""The one of an open database."""


def clearing(object_id: str, versions: list[int]) -> tuple[Raw, Raw]:
    """The update that takes versions out of a head's tail: filter and change."""
    return {"_id": object_id}, {"$pull": {"tail": {"version": {"$in": versions}}}}


def finish(mongo: Mongo, object_id: str) -> int:
    """Move whatever is in the tail of one head, and wait until that is so for all readers; how many rows."""
    with translated():
        raw = mongo["objects"].find_one({"_id": object_id, "tail.0": {"$exists": True}}, {"tail": 1})
    rows: list[Raw] = raw["tail"] if raw else []
    if rows:
        outbox_of(mongo).move(mongo, Tail(object_id, rows, settle=True))
    return len(rows)


def copy(mongo: Mongo, tail: Tail) -> None:
    """Send rows to history, and wait for nothing: the head has them until `settling` finds them there."""
    with suppress(PyMongoError):
        for row in tail.history():
            mongo.unacknowledged(HISTORY).insert_one(row)


def move(mongo: Mongo, tails: list[Tail]) -> None:
    """Copy the tails of some heads to history, then clear them away; any of it may have been done before.

    Raises:
        EmboflowError: A row is not known to be durable; the tails keep theirs for whoever comes next.
    """
    rows = {row["_id"]: row for tail in tails for row in tail.history()}
    with translated():
        if len(rows) > 1 or not _appended(mongo, next(iter(rows.values()))):
            _append(mongo, list(rows.values()))
    if any(tail.settle for tail in tails):
        with translated():
            mongo["objects"].bulk_write([UpdateOne(*tail.clearing()) for tail in tails], ordered=False)
        return
    # What history has for good may leave the tail at any time. Nobody waits for it, and where it does not
    # happen, whoever comes next does it.
    with suppress(PyMongoError):
        for tail in tails:  # one by one: the driver takes longer for one bulk than for some single ones
            mongo.unacknowledged("objects").update_one(*tail.clearing())


def _appended(mongo: Mongo, row: Raw) -> bool:
    """Whether history has taken it now; what is there already may not be durable yet."""
    try:
        mongo[HISTORY].insert_one(row)
    except DuplicateKeyError:
        return False
    return True


def _append(mongo: Mongo, rows: list[Raw]) -> None:
    try:
        mongo[HISTORY].insert_many(rows, ordered=False)
    except BulkWriteError as error:
        other = [e for e in error.details["writeErrors"] if e["code"] != _DUPLICATE_KEY]
        # Not yet durable is not yet archived.
        if other or error.details["writeConcernErrors"]:
            raise
