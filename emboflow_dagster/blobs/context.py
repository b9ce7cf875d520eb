"""Which run and task the current code works for, so that what it stores says so by itself.

A context variable: right in threads that copy their context, ``None`` outside of a run (R-394, C-07).
Child processes get the ids through their arguments.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Work(NamedTuple):
    """The run and task that code is executed for."""

    workflow_id: str
    task_id: str | None = None


_current: ContextVar[Work | None] = ContextVar("emboflow_work", default=None)


def current_work() -> Work | None:
    """The run and task of the calling code, or ``None``."""
    return _current.get()


@contextmanager
def working_for(workflow_id: str, task_id: str | None = None) -> Iterator[None]:
    """Mark everything stored inside the block as made by that run and task; nests."""
    token = _current.set(Work(workflow_id, task_id))
    try:
        yield
    finally:
        _current.reset(token)
