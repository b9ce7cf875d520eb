"""What all recordings have in common: connections, messages in file order, and facts found while reading.

Each container (ROS1 bag, rosbag2 SQLite database, MCAP) has one reader that yields :class:`Message` and fills
its :class:`Facts`; the probe, the numeric reader and the picture reader all work on that alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from emboflow_dagster.formats.report import ProbeWarning

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A message above this is counted but its bytes are not given to a decoder."""


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: it is looked up once per message
class Connection:
    """One publisher's stream as the recording declares it.

    Attributes:
        topic: Name.
        type: Message type exactly as written (``std_msgs/String`` or ``std_msgs/msg/String``).
        encoding: Of the messages: ``ros1``, ``cdr``, ``json``, ``protobuf``, ...
        definition: The schema's bytes, empty where the recording holds none.
        definition_encoding: ``ros1msg``, ``ros2msg``, ``ros2idl``, ``jsonschema``, ... or empty.
        compression: ``zstd`` where each message is compressed on its own.
        details: What else the container says of it, in its own words (a ROS1 ``md5sum``, ``callerid``, the
            metadata of an MCAP channel, QoS profiles): for who writes the recording anew.
    """

    topic: str
    type: str
    encoding: str
    definition: bytes = b""
    definition_encoding: str = ""
    compression: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class Message(NamedTuple):
    """One recorded message: the stamp is the recorder's, ns; ``data`` is ``None`` unless it was asked for.

    ``sequence`` and ``publish_ns`` are the publisher's, where the container keeps them (MCAP).
    """

    connection: Connection
    stamp_ns: int
    data: bytes | None
    sequence: int = 0
    publish_ns: int | None = None


@dataclass(slots=True)
class Facts:
    """What a reader learned besides the messages. Complete only after the last message was taken."""

    connections: list[Connection] = field(default_factory=list)
    warnings: list[ProbeWarning] = field(default_factory=list)
    declared: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    payload_bytes: int = 0
    """Bytes of all messages so far, whether they were asked for or not."""
    keep: Callable[[int, bytes], None] | None = None
    """Takes the opcode and content of records that are no messages and belong to a copy (MCAP)."""

    def warn(self, code: str, message: str, path: str | None = None) -> None:
        """Add a warning; ``path`` is the file's own name where the whole file is meant, or a topic."""
        self.warnings.append(ProbeWarning(code, message, path))


Wanted = Callable[[Connection], bool]
"""Asked before each message: are its bytes needed?"""


class Reader(Protocol):
    """Reads one file once, in file order; damage becomes a warning in ``facts``, never an exception."""

    def __call__(self, path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:  # noqa: D102 - as above
        ...


Part = tuple[Path, str, Reader]
"""A file of a recording, its name relative to the asset, and its reader."""
