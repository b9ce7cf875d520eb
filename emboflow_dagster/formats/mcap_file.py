"""MCAP files: records read in order, chunk by chunk in blocks, so that cut and unindexed files count too.

``mcap``'s own readers hold one whole chunk in memory, and its indexed reader gives nothing for a cut file.
Source: https://mcap.dev/spec
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from emboflow_dagster.formats.bags import bag_files, match_files, probe_recording
from emboflow_dagster.formats.detect import Format, Source
from emboflow_dagster.formats.framing import CutError, DamagedError, Section, Window, inflated
from emboflow_dagster.formats.recording import MAX_MESSAGE_BYTES, Connection, Facts, Message, Part, Wanted
from emboflow_dagster.formats.report import Candidate, Probe

MAGIC = b"\x89MCAP0\r\n"
MAX_RECORD_BYTES = 64 * 1024 * 1024

HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 1, 2, 3, 4, 5, 6
ATTACHMENT, STATISTICS, METADATA = 9, 11, 12
_PARSED = frozenset({HEADER, FOOTER, SCHEMA, CHANNEL, STATISTICS})
_KEPT = frozenset({ATTACHMENT, METADATA})

_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")


def messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """The messages of one MCAP in file order (see :class:`~emboflow_dagster.formats.recording.Reader`)."""
    yield from _messages(path, facts, wanted, compression="")


def compressed_messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """As :func:`messages`, for a rosbag2 recording that declares each message compressed with zstd."""
    yield from _messages(path, facts, wanted, compression="zstd")


def _messages(path: Path, facts: Facts, wanted: Wanted, *, compression: str) -> Iterator[Message]:
    size = path.stat().st_size
    with path.open("rb", buffering=256 * 1024) as file:
        if file.read(len(MAGIC)) != MAGIC:
            facts.warn("unreadable", "the file does not start with the MCAP signature", path.name)
            return
        reader = _McapReader(facts, wanted, path.name, compression)
        window = Window(file, size - len(MAGIC))
        try:
            while window.left and not reader.closed:
                opcode, length = _RECORD.unpack(window.read(_RECORD.size))
                if opcode == CHUNK:
                    yield from reader.chunk(file, window, length)
                else:
                    message = reader.handle(window, opcode, length)
                    if message is not None:
                        yield message
            if not reader.closed or window.read(len(MAGIC)) != MAGIC:
                raise CutError("the file has no footer")
            if window.left:
                # The usual readers look for the footer at the end, and refuse such a file as a whole.
                more = "another MCAP begins there and is not read" if file.read(8) == MAGIC else "not read"
                text = f"{window.left} bytes stand behind the end of the recording: {more}"
                facts.warn("trailing_bytes", text, path.name)
        except (CutError, DamagedError, struct.error) as error:
            reader.damaged = True
            facts.warn("truncated", f"read up to byte {file.tell()} of {size}: {error}", path.name)
        reader.finish()


class _McapReader:
    def __init__(self, facts: Facts, wanted: Wanted, name: str, compression: str) -> None:
        self.compression = compression
        self.facts = facts
        self.wanted = wanted
        self.name = name
        self.closed = False
        self.damaged = False
        self.indexed = False
        self.found = 0
        self.orphans = 0
        self.schemas: dict[int, tuple[str, str, bytes]] = {}
        self.channels: dict[int, Connection] = {}
        self.counts = {"attachments": 0, "metadataRecords": 0, "chunks": 0}
        self.compressions: dict[str, int] = {}
        self.profile = self.library = ""
        facts.details["compression"] = self.compressions

    def chunk(self, file: BinaryIO, window: Window, length: int) -> Iterator[Message]:
        outer = min(length, window.left)
        end = file.tell() + outer
        fixed = Window(file, outer)
        _, _, uncompressed, crc = struct.unpack("<QQQI", fixed.read(28))
        compression = fixed.read(_U32(fixed)).decode("ascii", "replace")
        (size,) = struct.unpack("<Q", fixed.read(8))
        self.counts["chunks"] += 1
        self.compressions[compression] = self.compressions.get(compression, 0) + 1
        present = min(size, fixed.left)
        try:
            section = Section(file, present)
            stream = inflated(section, compression, uncompressed) if compression else file
            inner = Window(stream, uncompressed if compression else present, crc=bool(crc))
            while inner.left:
                opcode, size_of_record = _RECORD.unpack(inner.read(_RECORD.size))
                message = self.handle(inner, opcode, size_of_record)
                if message is not None:
                    yield message
        except (CutError, DamagedError, struct.error) as error:
            if outer < length:
                raise
            # The chunk's own frame is whole, so the next chunk can still be read.
            self.damaged = True
            self.facts.warn("corrupt", f"the chunk that ends at byte {end} is damaged: {error}", self.name)
        else:
            if crc and outer == length and inner.crc != crc:
                self.damaged = True
                text = f"the chunk that ends at byte {end} does not match its CRC-32"
                self.facts.warn("corrupt", text, self.name)
        file.seek(end)
        window.left -= outer
        if outer < length:
            raise CutError(f"the last chunk announces {length} bytes, {outer} are there")

    def handle(self, window: Window, opcode: int, length: int) -> Message | None:
        if opcode == MESSAGE:
            channel, sequence, stamp, published = _MESSAGE.unpack(window.read(_MESSAGE.size))
            length -= _MESSAGE.size
            connection = self.channels.get(channel)
            data = None
            if connection is not None and length <= MAX_MESSAGE_BYTES and self.wanted(connection):
                data = window.read(length)
            else:
                window.skip(length)
            if connection is None:
                self.orphans += 1
                return None
            self.found += 1
            self.facts.payload_bytes += length
            return Message(connection, stamp, data, sequence, published)
        if opcode not in _PARSED:
            if opcode == ATTACHMENT:
                self.counts["attachments"] += 1
            elif opcode == METADATA:
                self.counts["metadataRecords"] += 1
            elif opcode == 0:
                raise DamagedError("a record with opcode 0")
            if self.facts.keep and opcode in _KEPT and length <= MAX_RECORD_BYTES:
                self.facts.keep(opcode, window.read(length))
            else:
                window.skip(length)
            return None
        if length > MAX_RECORD_BYTES:
            raise DamagedError(f"a record with opcode {opcode} of {length} bytes")
        self._parse(opcode, _Fields(window.read(length)))
        return None

    def _parse(self, opcode: int, fields: "_Fields") -> None:
        if opcode == HEADER:
            self.profile, self.library = fields.text(), fields.text()
            self.facts.details |= {"profile": self.profile, "library": self.library}
        elif opcode == SCHEMA:
            identity = fields.number("<H")
            self.schemas[identity] = (fields.text(), fields.text(), fields.blob())
        elif opcode == CHANNEL:
            self._channel(fields)
        elif opcode == STATISTICS:
            declared = self.facts.declared
            declared["messageCount"] = fields.number("<Q")
            for name, code in (("schemaCount", "<H"), ("channelCount", "<I"), ("attachmentCount", "<I")):
                declared[name] = fields.number(code)
            fields.number("<I")
            declared["chunkCount"] = fields.number("<I")
            start, end = fields.number("<Q"), fields.number("<Q")
            if declared["messageCount"]:
                declared["startNs"], declared["endNs"] = start, end
        else:
            self.indexed = fields.number("<Q") != 0
            self.closed = True

    def _channel(self, fields: "_Fields") -> None:
        identity, schema = fields.number("<H"), fields.number("<H")
        topic, encoding = fields.text(), fields.text()
        details = fields.mapping()
        if identity in self.channels:
            return  # the summary section repeats every channel
        name, schema_encoding, definition = self.schemas.get(schema, ("", "", b""))
        self.channels[identity] = Connection(
            topic, name, encoding, definition, schema_encoding, self.compression, details
        )
        self.facts.connections.append(self.channels[identity])

    def finish(self) -> None:
        self.facts.details |= {
            "profile": self.profile,
            "library": self.library,
            "compression": {name or "none": count for name, count in self.compressions.items()},
            **self.counts,
        }
        if self.orphans:
            self.facts.warn("corrupt", f"{self.orphans} messages belong to no declared channel", self.name)
        if self.damaged:
            return
        if not self.indexed:
            self.facts.warn("unindexed", "the file has no summary section; messages were scanned", self.name)
        declared = self.facts.declared.get("messageCount")
        if declared is not None and declared != self.found:
            text = f"the statistics record declares {declared} messages, {self.found} were found"
            self.facts.warn("metadata_mismatch", text, self.name)


class _Fields:
    """Little-endian fields of one record, taken in order."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from(code, self._data, self._at)
        self._at += struct.calcsize(code)
        return value

    def blob(self) -> bytes:
        size = self.number("<I")
        self._at += size
        if self._at > len(self._data):
            raise DamagedError("a field goes beyond its record")
        return self._data[self._at - size : self._at]

    def mapping(self) -> dict[str, str]:
        end = self.number("<I") + self._at
        found: dict[str, str] = {}
        while self._at < end:
            name = self.text()
            found[name] = self.text()
        return found

    def text(self) -> str:
        return self.blob().decode("utf-8", "backslashreplace")


def _U32(window: Window) -> int:  # noqa: N802 - reads like the struct codes beside it
    (value,) = struct.unpack("<I", window.read(4))
    return value


def _matches(source: Source) -> Candidate | None:
    return match_files(source, "mcap", "mcap", (".mcap",))


def _parts(source: Source) -> list[Part]:
    return [(path, name, messages) for path, name in bag_files(source, "mcap", ".mcap")]


def _probe(source: Source, probe: Probe) -> None:
    probe_recording(probe, _parts(source))


FORMAT = Format(names=("mcap",), matches=_matches, probe=_probe, parts=_parts)
