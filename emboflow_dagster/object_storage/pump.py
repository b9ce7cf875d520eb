"""Move bytes of any length through a few buffers, hashing them beside the disk instead of before it."""

import hashlib
import mmap
import queue
import threading
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from emboflow_dagster.object_storage.payload import Fill

BUFFER_BYTES: Final = 1024 * 1024
BUFFERS: Final = 8
#: Takes each full buffer and the last, shorter one, in order.
Write: TypeAlias = Callable[[memoryview], None]


class Digest(NamedTuple):
    """What went by: hex sha256 and number of bytes."""

    sha256: str
    size: int


def new_buffer() -> memoryview:
    """An empty buffer."""
    return memoryview(mmap.mmap(-1, BUFFER_BYTES))


def pump(fill: Fill, write: Write, first: memoryview, filled: int) -> Digest:
    """Write everything that ``fill`` gives, in order, and say what it was.

    A second thread hashes each buffer while this one writes it and reads the next; OpenSSL and the disk both
    work without the interpreter's lock. Memory: ``BUFFERS`` times ``BUFFER_BYTES``.

    Args:
        fill: Gives the payload after ``first``.
        write: Takes each full buffer and the last, shorter one.
        first: The first buffer, of which ``filled`` bytes are the payload's beginning.
        filled: Bytes in ``first``.

    Raises:
        Exception: Whatever ``fill`` and ``write`` raise.
    """
    ring = [first, *(new_buffer() for _ in range(BUFFERS - 1))]
    free = threading.Semaphore(BUFFERS)
    full: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    sha256 = hashlib.sha256()

    def hash_all() -> None:
        while (block := full.get()) is not None:
            sha256.update(block)
            free.release()

    hasher = threading.Thread(target=hash_all, name="sha256", daemon=True)
    hasher.start()
    size, turn = 0, 0
    try:
        free.acquire()
        while filled:
            block = ring[turn][:filled]
            full.put(block)
            write(block)
            size += filled
            if filled < BUFFER_BYTES:
                break
            turn = (turn + 1) % BUFFERS
            # The hasher may be a whole ring behind and still reading that buffer.
            free.acquire()
            filled = fill(ring[turn])
    finally:
        full.put(None)
        hasher.join()
    return Digest(sha256.hexdigest(), size)


def pump_memory(content: memoryview, write: Write) -> Digest:
    """Write what is in memory anyway, as :func:`pump` does, without copying it.

    Raises:
        Exception: Whatever ``write`` raises.
    """
    sha256 = hashlib.sha256()
    hasher = threading.Thread(target=sha256.update, args=(content,), name="sha256", daemon=True)
    hasher.start()
    try:
        for start in range(0, len(content), BUFFER_BYTES):
            write(content[start : start + BUFFER_BYTES])
    finally:
        hasher.join()
    return Digest(sha256.hexdigest(), len(content))
