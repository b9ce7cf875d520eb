"""The bounded tails of a log that stay in the task's document: exact counts, the last lines."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from emboflow_dagster.model.run import MAX_LOG_BYTES, MAX_LOG_LINES
from emboflow_dagster.runtime.log_records import STREAMS

MAX_LINE_CHARS: Final = 8_000
#: So much of a long line is held for the tail.
HEAD_BYTES: Final = 4 * MAX_LINE_CHARS


class LogTail:
    """The last lines of one stream and the count of all of them."""

    def __init__(self) -> None:
        self.count = 0
        self.cut = False
        self._lines: deque[str] = deque()
        self._bytes = 0

    def add(self, line: str, size: int | None = None) -> None:
        """One more line, without its end; ``size`` in bytes where ``line`` is only its beginning."""
        self.count += 1
        long = len(line) > MAX_LINE_CHARS or size is not None
        how_long = f"{len(line)} characters" if size is None else f"{size} bytes"
        kept = f"{line[:MAX_LINE_CHARS]}… [{how_long}]" if long else line
        kept = kept.replace("\0", "�")
        self.cut = self.cut or kept != line
        self._lines.append(kept)
        self._bytes += len(kept.encode("utf-8", "replace"))
        while len(self._lines) > MAX_LOG_LINES or self._bytes > MAX_LOG_BYTES:
            self._bytes -= len(self._lines.popleft().encode("utf-8", "replace"))
            self.cut = True

    def extend(self, lines: Sequence[bytes]) -> None:
        """Many lines as printed; those that would not be kept are only counted."""
        passed = max(0, len(lines) - MAX_LOG_LINES)
        self.count += passed
        self.cut = self.cut or passed > 0
        for line in lines[passed:]:
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            self.cut = self.cut or "�" in text  # the file has the bytes
            self.add(text)

    @property
    def lines(self) -> list[str]:
        """What is kept, oldest first."""
        return list(self._lines)


def tails_of(lines: Iterable[tuple[str, bytes, bool]]) -> dict[str, LogTail]:
    """Tails and counts of a log that is read again, from its records."""
    tails = {name: LogTail() for name in STREAMS}
    heads: dict[str, tuple[bytes, int]] = {}
    for stream, data, ends in lines:
        if stream not in tails:
            continue
        head, length = heads.pop(stream, (b"", 0))
        if ends and not length:
            tails[stream].extend([data])
            continue
        heads[stream] = (head + data)[:HEAD_BYTES], length + len(data)
        if ends:
            begun_line(tails[stream], *heads.pop(stream))
    for stream, begun in heads.items():
        begun_line(tails[stream], *begun)
    return tails


def begun_line(tail: LogTail, head: bytes, length: int) -> None:
    """A line of which only the beginning is there still, where it is long."""
    if length <= len(head):
        tail.extend([head])
    else:
        tail.add(head.decode("utf-8", "replace"), length)
