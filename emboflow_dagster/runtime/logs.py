"""A task's output while it runs: bounded tails for the document, the whole of it on disk.

Counters are exact whatever is kept (C-16): the last 500 lines and 128 KiB a stream stay in the task,
everything goes to a file of records (:mod:`.log_records`) that becomes the blob at ``logRef`` when the tails
do not say it all. Memory is constant: a line is held up to 64 KiB, then written in pieces. Disk is bounded
too; what goes beyond is counted, not kept, and the log says so at its end.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from emboflow_dagster.runtime.log_records import NOTE, PIECE_BYTES, STREAMS, record
from emboflow_dagster.runtime.log_tail import HEAD_BYTES, LogTail, begun_line
from emboflow_dagster.runtime.secrets_filter import SecretsFilter

MAX_FILE_BYTES: Final = 2 << 30
_LONGEST_CHARACTER: Final = 4

Watch = Callable[[str, bytes], None]


class Stream:
    """One stream of a log: takes lines as text, or bytes as they come from a pipe."""

    def __init__(self, log: "TaskLog", name: str) -> None:
        self.name = name
        self.tail = LogTail()
        self.dropped_lines = 0
        self.dropped_bytes = 0
        self._log = log
        self._pending = b""
        # The beginning and the length of a line of which a part was written already.
        self._head = b""
        self._length = 0

    def __call__(self, line: str) -> None:
        """One whole line, with or without its end; a text of several lines is several."""
        self.feed(line.removesuffix("\n").encode("utf-8", "replace") + b"\n")

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        with self._log.lock:
            first, newline, rest = data.partition(b"\n")
            self._more(first)
            if not newline:
                return
            self._end()
            *whole, last = rest.split(b"\n")
            if whole:
                self._many(whole)
            self._more(last)

    def close(self) -> None:
        """The stream ended; what has no line end is its last line."""
        with self._log.lock:
            if self._pending or self._length:
                self._end(newline=False)

    def flush_partial(self) -> None:
        """Write the beginning of an unfinished line, so that it can be followed. The lock is held."""
        if self._pending:
            self._piece(len(self._pending))

    def _more(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) > PIECE_BYTES:
            before = len(self._pending)
            self._piece(PIECE_BYTES)
            if len(self._pending) == before:
                break

    def _piece(self, size: int) -> None:
        data = self._pending[:size]
        # Neither a secret nor a character is cut in two.
        size -= max(self._log.secrets.unsafe_end(data), _open_character(data))
        if size > 0:
            self._part(self._pending[:size], ends=False)
            self._pending = self._pending[size:]

    def _part(self, data: bytes, *, ends: bool) -> None:
        data = self._log.secrets(data)
        self._head += data[: HEAD_BYTES - len(self._head)]
        self._length += len(data)
        self._log.write(self, record(self.name, data, ends=ends), lines=int(ends))

    def _end(self, *, newline: bool = True) -> None:
        data, self._pending = self._pending, b""
        if newline and not self._length:
            self._many([data])
            return
        # The last record of a line without an end says so: streams are put together again byte for byte.
        if newline or data:
            self._part(data, ends=newline)
        head, length = self._head, self._length
        self._head, self._length = b"", 0
        begun_line(self.tail, head, length)

    def _many(self, lines: list[bytes]) -> None:
        lines = self._log.secrets(b"\n".join(lines)).split(b"\n")
        self.tail.extend(lines)
        prefix = b"%s\t" % self.name.encode()
        self._log.write(self, b"".join([b"%s%s\n" % (prefix, line) for line in lines]), lines=len(lines))


class TaskLog:
    """The three streams of one task. Lines may arrive from several threads.

    Args:
        path: The file; made anew.
        secrets: What is replaced in every line; by default the secrets of this process.
        watch: Takes the records that were written, as they are, with their stream's name.
        max_bytes: How large the file may become.
    """

    def __init__(
        self,
        path: Path,
        *,
        secrets: SecretsFilter | None = None,
        watch: Watch | None = None,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self.lock = threading.RLock()
        self.secrets = secrets or SecretsFilter.of_process()
        self.added = threading.Event()
        self.followed = False
        self.streams = {name: Stream(self, name) for name in STREAMS}
        self._watch = watch
        self._path = path
        self._file = path.open("wb")
        self._size = 0
        self._max_bytes = max_bytes
        self._full: str | None = None
        self._told = 0

    @property
    def tails(self) -> dict[str, LogTail]:
        """Stream name to its last lines and its count."""
        return {name: stream.tail for name, stream in self.streams.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Stream name to the number of all its lines."""
        return {name: stream.tail.count for name, stream in self.streams.items()}

    def add(self, stream: str, line: str) -> None:
        """Record one line of ``log``, ``stdout`` or ``stderr``; after :meth:`close` the log goes on."""
        self.streams[stream](line)

    def write(self, stream: Stream, data: bytes, *, lines: int) -> None:
        """Append records of a stream, or count what there is no room for. The lock is held."""
        if self._watch is not None:
            self._watch(stream.name, data)
        if self._full is None and self._size + len(data) > self._max_bytes:
            self._full = f"a log is kept up to {self._max_bytes} bytes"
        if self._full is None:
            try:
                self._append(data)
            except OSError as error:
                # A full disk is no reason to fail the work, nor to say nothing.
                self._full = f"the worker's disk refused more: {error.strerror}"
            else:
                return
        stream.dropped_lines += lines
        stream.dropped_bytes += len(data)

    def _append(self, data: bytes) -> None:
        if self._file.closed:  # the task failed after its log was put: that belongs into it too
            self._file = self._path.open("ab")
        self._file.write(data)
        self._size += len(data)
        self.added.set()

    def flush(self) -> tuple[int, dict[str, int]]:
        """Bring what there is to the file, beginnings of lines too: its size in bytes, the counts at that."""
        with self.lock:
            for stream in self.streams.values():
                stream.flush_partial()
            if not self._file.closed:
                try:
                    self._file.flush()
                except OSError as error:
                    self._full = f"the worker's disk refused more: {error.strerror}"
            return self._size, self.counts

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the file, as far as they were flushed."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, size, start)
        finally:
            os.close(fd)

    def close(self) -> Path | None:
        """End the log; the file with all of it when the tails do not say it all, else ``None``.

        They do when they hold every line, and no order of streams is lost with the file. A log that was
        followed while the task ran is a file in any case: its readers go on in it where they are.
        """
        with self.lock:
            for stream in self.streams.values():
                stream.close()
            self._note_dropped()
            try:
                self._file.close()
            except OSError as error:
                self._full = f"the worker's disk refused more: {error.strerror}"
            used = sum(tail.count > 0 for tail in self.tails.values())
            cut = any(tail.cut for tail in self.tails.values())
            return self._path if cut or used > 1 or self.followed else None

    def whole(self) -> Path | None:
        """The file when there is any line in it; see :meth:`close`."""
        self.close()
        return self._path if any(self.counts.values()) else None

    def _note_dropped(self) -> None:
        dropped = sum(stream.dropped_bytes for stream in self.streams.values())
        if dropped == self._told:
            return
        self._told = dropped
        lost = (
            f"{s.dropped_lines} lines ({s.dropped_bytes} bytes) of {name}"
            for name, s in self.streams.items()
            if s.dropped_bytes
        )
        try:
            self._append(record(NOTE, f"not kept: {', '.join(lost)}; {self._full}".encode()))
        except OSError:
            return


def _open_character(data: bytes) -> int:
    """How many bytes at the end of ``data`` begin a character that goes on."""
    for back in range(1, min(_LONGEST_CHARACTER, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # noqa: PLR2004 - the first byte of a longer one
            needed = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004 - UTF-8
            return back if needed > back else 0
        if byte < 0x80:  # noqa: PLR2004 - ASCII
            return 0
    return 0
