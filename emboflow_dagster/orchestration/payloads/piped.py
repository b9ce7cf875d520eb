"""A writer turned into a source: what a library writes to a file is read as it is written.

Nothing is written twice and nothing is held as a whole: the library encodes in a thread of its own while the
store hashes and writes.
"""

import io
import queue
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, Self, cast

_CHUNK: Final = 1 << 20
_WAITING: Final = 4


class Piped:
    """An iterator over what ``write`` writes to the binary file that it is given.

    Raises:
        Exception: Whatever ``write`` raises, from the iteration.
    """

    def __init__(self, write: Callable[[IO[bytes]], object]) -> None:
        self._write: Final = write
        self._chunks: Final[queue.Queue[bytes | None]] = queue.Queue(_WAITING)
        self._stopped: Final = threading.Event()
        self._error: BaseException | None = None
        self._thread: Final = threading.Thread(target=self._run, name="payload", daemon=True)
        self._started = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._started:
            self._started = True
            self._thread.start()
        chunk = self._chunks.get() if not self._stopped.is_set() else None
        if chunk is None:
            self._stopped.set()
            if self._error is not None:
                raise self._error
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if not self._started:
            return
        while self._thread.is_alive():  # it may wait for room
            try:
                self._chunks.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _run(self) -> None:
        try:
            with _Sink(self._put) as sink:
                self._write(cast("IO[bytes]", sink))
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised where the chunks are read
            self._error = error
        self._end()

    def _put(self, chunk: bytes | None) -> None:
        while not self._stopped.is_set():
            try:
                self._chunks.put(chunk, timeout=0.1)
            except queue.Full:
                continue
            return
        raise _StoppedError

    def _end(self) -> None:
        try:
            self._put(None)
        except _StoppedError:
            return


class _StoppedError(Exception):
    """Nobody reads any more."""


class _Sink(io.RawIOBase):
    """Gathers small writes; a file only in so far as libraries that write ask for one."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        super().__init__()
        self._put = put
        self._small = bytearray()
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._written += len(view)
        if len(self._small) + len(view) < _CHUNK:
            self._small += view
        else:
            self._empty()
            self._put(data if isinstance(data, bytes) else bytes(view))
        return len(view)

    def close(self) -> None:
        try:
            if not self.closed:
                self._empty()
        finally:
            super().close()

    def _empty(self) -> None:
        if self._small:
            small, self._small = self._small, bytearray()
            self._put(bytes(small))
