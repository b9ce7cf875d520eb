"""What a writer tells gc before it refers to a payload (decision 13).

A local store knows its writers by itself. In any other store a payload that was there already is no
younger for having been put again, so its writer says in the database that it is about to refer to it,
and then looks whether gc is about to remove it; gc says that, and then looks for writers. Each writes
before it reads, so at least one of the two sees the other.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Final
from uuid import uuid4

from emboflow_dagster.errors import UnavailableError
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.object_storage.store import Aside, ObjectStore

SINCE: Final = "since"
#: Older notes were left by writers that died.
PENDING_FOR: Final = timedelta(hours=24)
#: gc removes a payload at most this long after it said so, and asks anew after that.
CONDEMNED_FOR_S: Final = 30.0
_PATIENCE_S: Final = 2 * CONDEMNED_FOR_S
_RENEWED_EVERY_S: Final = 600.0


class Lease:
    """A writer of many payloads in a store that does not know its writers."""

    def __init__(self, mongo: Mongo, workspace_id: str) -> None:
        self._mongo = mongo
        self._workspace_id = workspace_id
        self._name = f"{SINCE}:{uuid4().hex}"
        self._since = mongo.server_time()
        self._renewed = 0.0
        self.renew()

    def renew(self) -> None:
        """Say that the writer is still at work; seldom really written."""
        if time.monotonic() - self._renewed > _RENEWED_EVERY_S or not self._renewed:
            marks.write(self._mongo, Mark.PENDING, self._name, self._workspace_id, since=self._since)
            self._renewed = time.monotonic()

    def end(self) -> None:
        """All of it is referred to."""
        marks.erase(self._mongo, Mark.PENDING, self._name)


_lease: ContextVar[Lease | None] = ContextVar("emboflow_writing", default=None)


class Pending:
    """The notes of one workspace's writers."""

    def __init__(self, mongo: Mongo, store: ObjectStore, workspace_id: str) -> None:
        self._mongo = mongo
        self._store = store
        self._workspace_id = workspace_id

    def writing(self) -> AbstractContextManager[None]:
        """Payloads that are put inside the block are not collected before it ends."""
        return self._store.writing() if isinstance(self._store, Aside) else self._leased()

    @contextmanager
    def _leased(self) -> Iterator[None]:
        if _lease.get() is not None:  # part of a longer one
            yield
            return
        lease = Lease(self._mongo, self._workspace_id)
        token = _lease.set(lease)
        try:
            yield
        finally:
            _lease.reset(token)
            lease.end()

    def announce(self, key: str, *, young: bool) -> None:
        """Before a payload is referred to. The note stays: gc takes away those that are a day old.

        Raises:
            UnavailableError: gc has just removed it; put it again.
        """
        lease = _lease.get()
        if lease is not None:
            lease.renew()
        if young:  # its time says it
            return
        name = f"{key}:{uuid4().hex}"
        marks.write(self._mongo, Mark.PENDING, name, self._workspace_id, key=key)
        give_up = time.monotonic() + _PATIENCE_S
        while marks.read(self._mongo, Mark.CONDEMNED, key) and time.monotonic() < give_up:
            time.sleep(0.05)
        if not self._store.exists(key):
            marks.erase(self._mongo, Mark.PENDING, name)
            raise UnavailableError(
                f"{key}: the payload was collected while it was put again; nothing was stored",
                hint="put it once more",
            )
