"""Numbers out of typed messages: what ``normalize`` makes dataset columns of.

Rows come in file order, which is time order unless the probe warned ``time_not_monotonic``; stamps are the
recorder's. Strings, headers, covariances, pictures and byte blobs are left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emboflow_dagster.formats.decoding import Decoder, UndecodableError, UnsupportedEncodingError
from emboflow_dagster.formats.detect import Recorded, recording_parts
from emboflow_dagster.formats.flattening import Flattener, flatten
from emboflow_dagster.formats.foxglove import has_state
from emboflow_dagster.formats.recording import Connection, Facts, Message
from emboflow_dagster.formats.report import ProbeWarning

SKIPPED_TYPES = frozenset(
    {
        # blobs
        "CompressedImage",
        "CompressedVideo",
        "Image",
        "PointCloud",
        "PointCloud2",
        "RawImage",
        # calibration and logs: numbers, but no state of the robot
        "CameraInfo",
        "DiagnosticArray",
        "DiagnosticStatus",
        "Log",
        "ParameterEvent",
    }
)


UNDECODED = frozenset({"undecodable_topics", "unsupported_serialization"})
"""Codes of what is said of a topic that cannot be decoded."""


class NumericRow(NamedTuple):
    """The numbers of one message.

    Names are paths in the message: ``linear.x``, ``data.0``, ``pose.pose.position.z``; where a message names
    its array elements, as ``sensor_msgs/JointState`` does, these stand for the index: ``position.elbow``.
    Booleans are 0 and 1, times and durations are seconds.
    """

    topic: str
    stamp_ns: int
    names: tuple[str, ...]
    values: tuple[float, ...]


def iter_numeric(
    path: Recorded,
    topics: Sequence[str] | None = None,
    *,
    problems: list[ProbeWarning] | None = None,
    seen: dict[str, str] | None = None,
) -> Iterator[NumericRow]:
    """The numeric rows of a recording: rosbag1, rosbag2 (SQLite, MCAP) or MCAP; nothing for other inputs.

    Args:
        path: A file, or the folder of a recording.
        topics: Only these; all by default.
        problems: Gets a warning for every topic that cannot be decoded (once) and for damage to the files;
            neither is raised.
        seen: Gets what :func:`topics_of` gives, with the last row and without a reading of its own.

    Raises:
        OSError: A file cannot be read.
        ConfigurationError: The libraries for ROS messages are not installed.
    """
    chosen = None if topics is None else frozenset(topics)
    flatteners: dict[Connection, Flattener] = {}
    for message, decoded in decoded_messages(path, chosen, SKIPPED_TYPES, problems, seen):
        flattener = flatteners.get(message.connection)
        if flattener is None:
            flattener = flatteners[message.connection] = Flattener()
        names, values = flattener(decoded)
        if names:
            yield NumericRow(message.connection.topic, message.stamp_ns, names, values)


def topics_of(path: Recorded) -> dict[str, str]:
    """Topic to type of all that a recording declares; no message is decoded.

    Raises:
        OSError: A file cannot be read.
    """
    found: dict[str, str] = {}
    for part, _, reader in recording_parts(path):
        facts = Facts()
        for message in reader(part, facts, lambda _: False):
            found.setdefault(message.connection.topic, message.connection.type)
        for connection in facts.connections:
            found.setdefault(connection.topic, connection.type)
    return dict(sorted(found.items()))


def numeric_topics(path: Path) -> dict[str, dict[str, Any]]:
    """The topics of which :func:`iter_numeric` gives rows: {topic: {type, fields, count}}.

    ``fields`` are the names in the topic's first message that has numbers, ``count`` is of all its messages.

    Raises:
        OSError: A file cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for part, _, reader in recording_parts(path):
        decoders = _Decoders(None, SKIPPED_TYPES, None)

        def wanted(connection: Connection, decoders: "_Decoders" = decoders) -> bool:
            return connection.topic not in found and decoders.wanted(connection)

        for message in reader(part, Facts(), wanted):
            topic = message.connection.topic
            if topic in found:
                found[topic]["count"] += 1
                continue
            decoders.counts[topic] = decoders.counts.get(topic, 0) + 1
            decoded = decoders.decode(message)
            names = flatten(decoded)[0] if decoded is not None else ()
            if names:
                type_name = message.connection.type
                found[topic] = {
                    "type": type_name,
                    "fields": list(names),
                    "count": decoders.counts[topic],
                }
    return dict(sorted(found.items()))


def decoded_messages(
    path: Recorded,
    topics: frozenset[str] | None,
    skipped_types: frozenset[str],
    problems: list[ProbeWarning] | None,
    seen: dict[str, str] | None = None,
) -> Iterator[tuple[Message, Any]]:
    """Every message of the topics with its decoded fields; what cannot be decoded goes to ``problems``.

    ``seen`` gets topic and type of all that the recording declares, chosen or not.

    Raises:
        OSError: A file cannot be read.
    """
    decoders = _Decoders(topics, skipped_types, problems)
    for part, _, reader in recording_parts(path):
        facts = Facts()
        for message in reader(part, facts, decoders.wanted):
            decoded = decoders.decode(message)
            if decoded is not None:
                yield message, decoded
        if problems is not None:
            problems += facts.warnings
        if seen is not None:
            for connection in (*decoders.asked, *facts.connections):
                seen.setdefault(connection.topic, connection.type)


class _Decoders:
    """One decoder per connection, made at its first message; a topic that failed is not tried again."""

    def __init__(
        self,
        topics: frozenset[str] | None,
        skipped_types: frozenset[str],
        problems: list[ProbeWarning] | None,
    ) -> None:
        self._topics = topics
        self._skipped = skipped_types
        self._problems = problems
        self._decoders: dict[Connection, Decoder | None] = {}
        self._failed: set[str] = set()
        self.counts: dict[str, int] = {}

    @property
    def asked(self) -> Iterable[Connection]:
        """Every connection that a message had."""
        return self._decoders

    def wanted(self, connection: Connection) -> bool:
        if connection not in self._decoders:
            self._decoders[connection] = self._open(connection)
        return self._decoders[connection] is not None

    def decode(self, message: Message) -> Any:
        decoder = self._decoders.get(message.connection)
        if decoder is None or message.data is None:
            return None
        try:
            return decoder(message.data)
        except UndecodableError as error:
            self._report(message.connection, error)
            return None

    def _open(self, connection: Connection) -> Decoder | None:
        if self._topics is not None and connection.topic not in self._topics:
            return None
        if self._skipped and (short_type(connection) in self._skipped or not has_state(connection.type)):
            return None
        try:
            return Decoder(connection)
        except UndecodableError as error:
            self._report(connection, error)
            return None

    def _report(self, connection: Connection, error: UndecodableError) -> None:
        self._decoders[connection] = None
        if connection.topic not in self._failed and self._problems is not None:
            unsupported = isinstance(error, UnsupportedEncodingError)
            code = "unsupported_serialization" if unsupported else "undecodable_topics"
            self._problems.append(ProbeWarning(code, error.message, connection.topic))
        self._failed.add(connection.topic)


def short_type(connection: Connection) -> str:
    """The type without its package: ``Image`` of ``sensor_msgs/msg/Image`` and of ``foxglove.Image``."""
    return short_name(connection.type)


def short_name(type_name: str) -> str:
    """As :func:`short_type`, of a type's name.

    >>> short_name("foxglove.RawImage"), short_name("foxglove::RawImage")
    ('RawImage', 'RawImage')
    """
    return type_name.replace(".", "/").replace("::", "/").rpartition("/")[2]
