r"""How a task's log is written down: one record a line, in the order in which the lines came.

``stream<TAB>bytes<LF>``; the streams are ``log``, ``stdout`` and ``stderr``. A ``+`` behind the stream's name
says that the line goes on with that stream's next record: a long line, or one that has no end yet. ``note``
is what EmboFlow says about the log itself. The bytes are what was printed, secrets filtered: each stream can
be put together again.

This is the payload of the blob at ``logRef``, and of the chunks that a log is followed by.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

STREAMS: Final = ("log", "stdout", "stderr")
NOTE: Final = "note"
#: A longer line is written in pieces of about this size.
PIECE_BYTES: Final = 64 << 10
#: A reader puts pieces together up to this size.
JOINED_BYTES: Final = 8 << 20


class LogLine(NamedTuple):
    """One line of a task's log.

    ``text`` has no line end; bytes that are not UTF-8 are U+FFFD in it. ``ends`` is false for a piece of a
    line that goes on: one above 8 MiB or, while a log is followed, one whose end was not printed yet.
    """

    stream: str
    text: str
    attempt: int = 1
    ends: bool = True


class Record(NamedTuple):
    """One record: ``data`` as printed, ``ends`` when the line ends with it."""

    stream: str
    data: bytes
    ends: bool


def record(stream: str, data: bytes, *, ends: bool = True) -> bytes:
    r"""The bytes of one record.

    >>> record("stdout", b"abc"), record("stderr", b"50%", ends=False)
    (b'stdout\tabc\n', b'stderr+\t50%\n')
    """
    return b"%s%s\t%s\n" % (stream.encode(), b"" if ends else b"+", data)


def parse(line: bytes) -> Record:
    """One record from its bytes, with or without the line end."""
    name, _, data = line.removesuffix(b"\n").partition(b"\t")
    return Record(name.removesuffix(b"+").decode("ascii", "replace"), data, not name.endswith(b"+"))


class Joiner:
    """Puts the pieces of lines together.

    Args:
        streams: Those that are wanted; notes always are.
        attempt: Which attempt the lines are of.
    """

    def __init__(self, streams: Iterable[str] = STREAMS, attempt: int = 1) -> None:
        self._wanted = {*streams, NOTE}
        self._attempt = attempt
        self._held: dict[str, bytearray] = {}

    def lines(self, records: Iterable[Record]) -> Iterator[LogLine]:
        """Each line that ends with these records."""
        for stream, data, ends in records:
            if stream not in self._wanted:
                continue
            held = self._held.pop(stream, None)
            if ends and held is None:
                yield self._line(stream, data, ends=True)
                continue
            held = bytearray() if held is None else held
            held += data
            if ends or len(held) > JOINED_BYTES:
                yield self._line(stream, bytes(held), ends=ends)
            else:
                self._held[stream] = held

    def rest(self, *, over: bool) -> Iterator[LogLine]:
        """What was held back: the last line of a log that is over, or the beginning of one that goes on."""
        held, self._held = self._held, {}
        for stream, data in held.items():
            if data or over:
                yield self._line(stream, bytes(data), ends=over)

    def _line(self, stream: str, data: bytes, *, ends: bool) -> LogLine:
        data = data.removesuffix(b"\r") if ends else data
        return LogLine(stream, data.decode("utf-8", "replace"), self._attempt, ends)
