"""ROS1 bags, format 2.0: every record is read in order, so an index is not needed and a cut is no obstacle.

Source: https://wiki.ros.org/Bags/Format/2.0
"""

import io
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from emboflow_dagster.formats.bags import bag_files, match_files, probe_recording
from emboflow_dagster.formats.detect import Format, Source
from emboflow_dagster.formats.framing import (
    WHOLE_CHUNK,
    CutError,
    DamagedError,
    Readable,
    Section,
    Window,
    inflated,
)
from emboflow_dagster.formats.recording import MAX_MESSAGE_BYTES, Connection, Facts, Message, Part, Wanted
from emboflow_dagster.formats.report import Candidate, Probe

MAGIC = b"#ROSBAG V2.0\n"
MAX_HEADER_BYTES = 16 * 1024 * 1024

OP_MESSAGE, OP_BAG_HEADER, OP_CHUNK, OP_CHUNK_INFO, OP_CONNECTION = 2, 3, 5, 6, 7

_U32 = struct.Struct("<I")
_STAMP = struct.Struct("<II")
_STAMP_AND_LENGTH = struct.Struct("<III")
MAX_KNOWN = 1_024
"""Message headers are some 40 bytes."""
_STAMP_FIELD = b"\x0d\x00\x00\x00time="


def messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """The messages of one bag in file order (see :class:`~emboflow_dagster.formats.recording.Reader`)."""
    size = path.stat().st_size
    with path.open("rb", buffering=256 * 1024) as file:
        first = file.read(len(MAGIC))
        if first != MAGIC and MAGIC.startswith(first):
            facts.warn("truncated", f"the file ends in its first line, after {size} bytes", path.name)
            return
        if first != MAGIC:
            facts.warn("unreadable", "only ROS bags of version 2.0 are read", path.name)
            return
        reader = _BagReader(facts, wanted, path.name)
        window = Window(file, size - len(MAGIC))
        try:
            while window.left:
                record = reader.record(window)
                if isinstance(record, Message):
                    yield record
                elif record is not None:
                    yield from reader.chunk(file, window, *record)
        except (CutError, DamagedError, struct.error) as error:
            reader.damaged = True
            facts.warn("truncated", f"read up to byte {file.tell()} of {size}: {error}", path.name)
        reader.finish(size)


class _BagReader:
    def __init__(self, facts: Facts, wanted: Wanted, name: str) -> None:
        self.name = name
        self.facts = facts
        self.wanted = wanted
        self.damaged = False
        self.connections: dict[bytes, Connection] = {}
        self.known: dict[bytes, Connection] = {}
        self.index_pos: int | None = None
        self.declared_messages = 0
        self.found = 0
        self.compressions: dict[str, int] = {}
        facts.details["compression"] = self.compressions
        self.orphans = 0

    def record(self, window: Window) -> Message | tuple[dict[bytes, bytes], int] | None:
        """Take the next record: a message, a chunk's header fields and length, or ``None`` for others."""
        (size,) = _U32.unpack(window.read(4))
        if not 0 < size <= MAX_HEADER_BYTES:
            raise DamagedError(f"a record header of {size} bytes")
        data = window.read(size + 4)
        (length,) = _U32.unpack_from(data, size)
        # A connection's messages differ in their stamp alone, which every known writer puts last: such
        # headers are taken apart once.
        known = self.known.get(data[: size - 8])
        if known is not None:
            return self._message(window, known, data[size - 8 : size], length)
        header = fields(data[:size])
        if b"op" not in header:
            raise DamagedError("a record without an op field")
        if header[b"op"] == b"\x05":
            return header, length
        return self._handle(window, header, length, data[: size - 8])

    def chunk(
        self, file: BinaryIO, window: Window, header: dict[bytes, bytes], length: int
    ) -> Iterator[Message]:
        compression = header.get(b"compression", b"none").decode("ascii", "replace")
        self.compressions[compression] = self.compressions.get(compression, 0) + 1
        (uncompressed,) = _U32.unpack(header.get(b"size", b"\0\0\0\0"))
        present = min(length, window.left)
        end = file.tell() + present
        try:
            stream: Readable = file
            if compression != "none":
                stream = inflated(Section(file, present), compression, uncompressed)
            elif present <= WHOLE_CHUNK:
                stream = io.BytesIO(file.read(present))
            inner = Window(stream, present if compression == "none" else uncompressed)
            while inner.left:
                if isinstance(stream, io.BytesIO):
                    inner.left -= yield from self._known_messages(stream)
                    if not inner.left:
                        break
                record = self.record(inner)
                if isinstance(record, Message):
                    yield record
                elif record is not None:
                    raise DamagedError("a chunk within a chunk")
        except (CutError, DamagedError, struct.error) as error:
            if present < length:
                raise
            # The chunk's own frame is whole, so the next chunk can still be read.
            self.damaged = True
            self.facts.warn("corrupt", f"the chunk that ends at byte {end} is damaged: {error}", self.name)
        file.seek(end)
        window.left -= present
        if present < length:
            raise CutError(f"the last chunk announces {length} bytes, {present} are there")

    def _known_messages(self, stream: io.BytesIO) -> Generator[Message, None, int]:
        """The messages up to the next record of another kind, without a call per field; the bytes taken."""
        data = stream.getbuffer()
        start = position = stream.tell()
        end = len(data)
        while position + 4 <= end:
            (size,) = _U32.unpack_from(data, position)
            body = position + 8 + size
            connection = self.known.get(bytes(data[position + 4 : body - 12])) if size < MAX_KNOWN else None
            if connection is None or body > end:
                break
            seconds, nanoseconds, length = _STAMP_AND_LENGTH.unpack_from(data, body - 12)
            position = body + length
            if position > end:
                position = body - 8 - size
                break
            self.found += 1
            self.facts.payload_bytes += length
            wanted = length <= MAX_MESSAGE_BYTES and self.wanted(connection)
            stamp = seconds * 1_000_000_000 + nanoseconds
            yield Message(connection, stamp, bytes(data[body:position]) if wanted else None)
        data.release()
        stream.seek(position)
        return position - start

    def _message(self, window: Window, connection: Connection, stamp: bytes, length: int) -> Message:
        data = None
        if length <= MAX_MESSAGE_BYTES and self.wanted(connection):
            data = window.read(length)
        else:
            window.skip(length)
        self.found += 1
        self.facts.payload_bytes += length
        seconds, nanoseconds = _STAMP.unpack(stamp)
        return Message(connection, seconds * 1_000_000_000 + nanoseconds, data)

    def _handle(
        self, window: Window, header: dict[bytes, bytes], length: int, but_last_8: bytes
    ) -> Message | None:
        op = header[b"op"][0] if header[b"op"] else 0
        if op == OP_MESSAGE:
            connection = self.connections.get(header.get(b"conn", b""))
            if connection is None:
                window.skip(length)
                self.orphans += 1
                return None
            if but_last_8.endswith(_STAMP_FIELD):
                self.known[but_last_8] = connection
            return self._message(window, connection, header.get(b"time", b""), length)
        if op == OP_CONNECTION:
            self._connection(header, window.read(length))
        elif op == OP_BAG_HEADER:
            (self.index_pos,) = struct.unpack("<Q", header.get(b"index_pos", b"\0" * 8))
            for field, name in ((b"conn_count", "connectionCount"), (b"chunk_count", "chunkCount")):
                if field in header:
                    (self.facts.declared[name],) = _U32.unpack(header[field])
            window.skip(length)
        elif op == OP_CHUNK_INFO:
            counts = window.read(length)
            self.declared_messages += sum(count for _, count in struct.iter_unpack("<II", counts))
        else:
            window.skip(length)
        return None

    def _connection(self, header: dict[bytes, bytes], data: bytes) -> None:
        key = header.get(b"conn", b"")
        if key in self.connections:
            return  # the index section repeats every connection
        inner = fields(data)
        connection = Connection(
            topic=header.get(b"topic", b"").decode("utf-8", "backslashreplace"),
            type=inner.get(b"type", b"").decode("utf-8", "backslashreplace"),
            encoding="ros1",
            definition=inner.get(b"message_definition", b""),
            definition_encoding="ros1msg",
            details={
                name: inner[name.encode()].decode("utf-8", "backslashreplace")
                for name in ("md5sum", "callerid", "latching")
                if name.encode() in inner
            },
        )
        self.connections[key] = connection
        self.facts.connections.append(connection)

    def finish(self, size: int) -> None:
        name = self.name
        if self.orphans:
            self.facts.warn("truncated", f"{self.orphans} messages belong to connections not recorded", name)
        if not self.index_pos:
            self.facts.warn(
                "unindexed", "the bag was not closed: it has no index; messages were scanned", name
            )
        elif self.index_pos > size:
            text = f"the index should be at byte {self.index_pos}, the file has {size}"
            self.facts.warn("truncated", text, name)
        elif not self.damaged:
            self.facts.declared["messageCount"] = self.declared_messages
            if self.declared_messages != self.found:
                text = f"the index declares {self.declared_messages} messages, {self.found} were found"
                self.facts.warn("metadata_mismatch", text, name)


def fields(data: bytes) -> dict[bytes, bytes]:
    r"""``name=value`` fields, each with its length before it.

    >>> fields(b"\x04\x00\x00\x00op=\x02")
    {b'op': b'\x02'}
    """
    fields: dict[bytes, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        (size,) = _U32.unpack_from(data, position)
        position += 4
        name, equals, value = data[position : position + size].partition(b"=")
        if not equals or position + size > end:
            raise DamagedError("a record header is not a list of name=value fields")
        fields[name] = value
        position += size
    return fields


def _matches(source: Source) -> Candidate | None:
    return match_files(source, "rosbag1", "rosbag1", (".bag", ".active"))


def _parts(source: Source) -> list[Part]:
    return [(path, name, messages) for path, name in bag_files(source, "rosbag1", ".bag", ".active")]


def _probe(source: Source, probe: Probe) -> None:
    probe_recording(probe, _parts(source))


FORMAT = Format(names=("rosbag1",), matches=_matches, probe=_probe, parts=_parts)
