"""What a process has once for each open database: made at first use, gone with it."""

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from emboflow_dagster.mongo.client import Mongo

T = TypeVar("T")


class PerDatabase(Generic[T]):
    """Call it with an open database.

    A forked child begins with none: it has none of the threads that would open locks again.

    Args:
        make: Makes the one of a database.
    """

    def __init__(self, make: Callable[[Mongo], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: WeakKeyDictionary[Mongo, T] = WeakKeyDictionary()
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, mongo: Mongo) -> T:
        """The one of this database."""
        found = self._made.get(mongo)
        if found is None:
            with self._lock:
                found = self._made.get(mongo)
                if found is None:
                    found = self._made[mongo] = self._make(mongo)
        return found

    def all(self) -> list[T]:
        """Those of the databases that are open."""
        return list(self._made.values())

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made.clear()
