"""Writers of recordings, one per container, that take the messages of a reader as they are.

The bytes of a message, its stamps, its connection's definition and details are written unchanged; chunks,
indices and statistics are made anew by the library that people read such files with.
"""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats import rosbag2_sqlite3
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.recording import Connection, Facts, Message


class Sink(Protocol):
    """Takes a recording's messages in order."""

    def topic(self, connection: Connection) -> Any:
        """Declare a connection; again is no harm."""
        ...

    def add(self, message: Message) -> None:
        """Write one message, whose bytes are there."""
        ...

    def close(self) -> None:
        """Write what the container ends with."""
        ...


class Rosbag1Sink:
    """A ROS1 bag, compressed as the one that is read."""

    def __init__(self, path: Path, facts: Facts) -> None:
        with needs_extra("rosbag"):
            from rosbags.rosbag1 import Writer

        self._writer = Writer(path)
        chosen = _usual(facts)
        if chosen in ("bz2", "lz4"):
            self._writer.set_compression(Writer.CompressionFormat[chosen.upper()])
        self._writer.open()
        self._known: dict[tuple[Any, ...], Any] = {}
        self._connections: dict[Connection, Any] = {}

    def topic(self, connection: Connection) -> Any:
        """The connection in the new bag; equal ones of several publishers are one there."""
        if connection in self._connections:
            return self._connections[connection]
        said = connection.details
        latching = said.get("latching")
        key = (connection.topic, connection.type, connection.definition, *sorted(said.items()))
        if key not in self._known:
            self._known[key] = self._writer.add_connection(
                connection.topic,
                # The library takes the name that ROS2 gave such types, and writes the other.
                connection.type if "/msg/" in connection.type else connection.type.replace("/", "/msg/", 1),
                msgdef=connection.definition.decode("utf-8", "backslashreplace"),
                md5sum=said.get("md5sum") or "*",
                callerid=said.get("callerid"),
                latching=int(latching) if latching is not None and latching.isdecimal() else None,
            )
        self._connections[connection] = self._known[key]
        return self._known[key]

    def add(self, message: Message) -> None:
        """Write one message."""
        self._writer.write(self.topic(message.connection), message.stamp_ns, message.data or b"")

    def close(self) -> None:
        """Write the index."""
        self._writer.close()


class McapSink:
    """An MCAP with summary, chunks compressed as those that are read; attachments and metadata go along."""

    def __init__(self, path: Path, facts: Facts) -> None:
        with needs_extra("rosbag"):
            from mcap.writer import CompressionType, Writer

        said = facts.details
        kinds = {"lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}
        self._stream = path.open("wb")
        self._writer: Writer = Writer(
            self._stream, compression=kinds.get(_usual(facts), CompressionType.NONE)
        )
        self._writer.start(profile=said.get("profile", ""), library="emboflow-dagster")
        self._schemas: dict[tuple[str, str, bytes], int] = {("", "", b""): 0}
        self._channels: dict[Connection, int] = {}

    def topic(self, connection: Connection) -> int:
        """The channel's number in the new file."""
        if connection not in self._channels:
            schema = (connection.type, connection.definition_encoding, connection.definition)
            if schema not in self._schemas:
                self._schemas[schema] = self._writer.register_schema(*schema)
            self._channels[connection] = self._writer.register_channel(
                connection.topic, connection.encoding, self._schemas[schema], dict(connection.details)
            )
        return self._channels[connection]

    def add(self, message: Message) -> None:
        """Write one message with both of its stamps."""
        published = message.stamp_ns if message.publish_ns is None else message.publish_ns
        self._writer.add_message(
            self.topic(message.connection), message.stamp_ns, message.data or b"", published, message.sequence
        )

    def keep(self, opcode: int, content: bytes) -> None:
        """Write an attachment or a metadata record; one that is damaged is left out."""
        from mcap.data_stream import ReadDataStream
        from mcap.exceptions import McapError
        from mcap.opcode import Opcode
        from mcap.records import Attachment, Metadata

        stream = ReadDataStream(io.BytesIO(content))
        try:
            if opcode == Opcode.ATTACHMENT:
                found = Attachment.read(stream)
                self._writer.add_attachment(
                    found.create_time, found.log_time, found.name, found.media_type, found.data
                )
            else:
                record = Metadata.read(stream)
                self._writer.add_metadata(record.name, record.metadata)
        except (McapError, struct.error, ValueError, EOFError):
            return

    def close(self) -> None:
        """Write the summary."""
        try:
            self._writer.finish()
        finally:
            self._stream.close()


class DatabaseSink(rosbag2_sqlite3.Writer):
    """A rosbag2 database."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(path, str(facts.details.get("rosDistro", "")))


def sink(kind: str | None, path: Path, facts: Facts) -> Sink:
    """The writer for a container's signature.

    Args:
        kind: As :func:`~emboflow_dagster.formats.detect.signature` names it.
        path: The file to make.
        facts: Of the reader, as far as it knows: header and first chunk are read when the first message is.

    Raises:
        InvalidInputError: It is no container of messages.
    """
    sinks: dict[str, Callable[[Path, Facts], Sink]] = {
        "rosbag1": Rosbag1Sink,
        "mcap": McapSink,
        "sqlite3": DatabaseSink,
    }
    if kind not in sinks:
        raise InvalidInputError(f"{path.name}: {kind} is no container that can be written anew")
    return sinks[kind](path, facts)


def _usual(facts: Facts) -> str:
    """The compression of most chunks that were read so far; what nothing is known of is not compressed."""
    return max(facts.details.get("compression", {}).items(), key=lambda item: item[1], default=("", 0))[0]
