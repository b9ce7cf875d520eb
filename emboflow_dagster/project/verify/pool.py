"""Reading on every core: hashing and the disk both work without the interpreter's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_MAX_THREADS: Final = 8
# So many wait for each thread: what comes next is never far, and memory does not grow with what is read.
_AHEAD: Final = 4


def threads(asked: int | None = None) -> int:
    """How many threads read: as asked, else one a core, at most 8."""
    return asked or min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def in_order(
    pool: ThreadPoolExecutor, width: int, work: Callable[[T], R], items: Iterable[T]
) -> Iterator[tuple[T, R]]:
    """Each item with what ``work`` made of it in some thread, in the items' order; few of them at a time."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) >= width * _AHEAD:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()
