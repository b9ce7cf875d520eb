"""Cuts a stream of bytes into lines of bounded length."""

from collections.abc import Callable
from typing import Final

MAX_LINE_BYTES: Final = 64 << 10


class LineSplitter:
    r"""Feeds each line of a stream to ``take``, without its end (``\n`` or ``\r\n``).

    A line above ``max_bytes`` is given once, cut there, with a mark that says how long it was; no more
    than that is ever held. Bytes that are not UTF-8 become U+FFFD, NUL becomes ``\x00`` as text.

    >>> seen = []
    >>> lines = LineSplitter(seen.append, max_bytes=4)
    >>> lines.feed(b"ab\r\nabcdefg\nz")
    ... lines.close()
    >>> seen
    ['ab', 'abcd… [cut: the line has 7 bytes]', 'z']
    """

    def __init__(self, take: Callable[[str], None], max_bytes: int = MAX_LINE_BYTES) -> None:
        self.count = 0
        self._take = take
        self._max = max_bytes
        self._held = b""
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        first, newline, rest = data.partition(b"\n")
        if not newline:
            self._hold(data)
            return
        self._hold(first)
        self._give()
        *whole, last = rest.split(b"\n")
        for line in whole:
            self._hold(line)
            self._give()
        self._hold(last)

    def close(self) -> None:
        """The stream ended: what is held is the last line."""
        if self._held or self._dropped:
            self._give()

    def _hold(self, data: bytes) -> None:
        room = self._max - len(self._held)
        self._held += data[:room]
        self._dropped += max(0, len(data) - room)

    def _give(self) -> None:
        held, dropped = self._held, self._dropped
        self._held, self._dropped = b"", 0
        self.count += 1
        if not dropped:
            held = held.removesuffix(b"\r")
        text = held.decode("utf-8", "replace").replace("\0", "\\x00")
        if dropped:
            text = f"{text}… [cut: the line has {len(held) + dropped} bytes]"
        self._take(text)
