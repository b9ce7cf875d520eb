"""A task's output while it runs: bounded tails for the document, the whole text on disk.

Counters are exact whatever is kept (C-16): the last 500 lines and 128 KiB a stream stay in the task,
everything goes to a file that becomes the blob at ``logRef`` when the tails do not hold it all.
"""

import threading
from collections import deque
from pathlib import Path
from typing import Final

from emboflow_dagster.model.run import MAX_LOG_BYTES, MAX_LOG_LINES

MAX_LINE_CHARS: Final = 8_000
STREAMS: Final = ("log", "stdout", "stderr")


class LogTail:
    """The last lines of one stream and the count of all of them."""

    def __init__(self) -> None:
        self.count = 0
        self.cut = False
        self._lines: deque[str] = deque()
        self._bytes = 0

    def add(self, line: str) -> None:
        """One more line, without its newline."""
        self.count += 1
        kept = line if len(line) <= MAX_LINE_CHARS else f"{line[:MAX_LINE_CHARS]}… [{len(line)} characters]"
        kept = kept.replace("\0", "�")
        self.cut = self.cut or kept != line
        self._lines.append(kept)
        self._bytes += len(kept.encode("utf-8", "replace"))
        while len(self._lines) > MAX_LOG_LINES or self._bytes > MAX_LOG_BYTES:
            self._bytes -= len(self._lines.popleft().encode("utf-8", "replace"))
            self.cut = True

    @property
    def lines(self) -> list[str]:
        """What is kept, oldest first."""
        return list(self._lines)


class TaskLog:
    """The three streams of one task. Lines may arrive from several threads."""

    def __init__(self, path: Path) -> None:
        self.tails = {name: LogTail() for name in STREAMS}
        self._path = path
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self._lock = threading.Lock()

    def add(self, stream: str, line: str) -> None:
        """Record one line of ``log``, ``stdout`` or ``stderr``; after :meth:`close` the log goes on."""
        with self._lock:
            if self._file.closed:  # the task failed after its log was put: that belongs into it too
                self._file = self._path.open("a", encoding="utf-8", errors="replace")
            self.tails[stream].add(line)
            self._file.write(f"{stream}\t{line}\n")

    def close(self) -> Path | None:
        """End the log; the file with all of it when the tails do not hold it all, else ``None``."""
        with self._lock:
            self._file.close()
        return self._path if any(tail.cut for tail in self.tails.values()) else None
