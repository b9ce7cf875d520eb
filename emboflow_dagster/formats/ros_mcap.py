"""Writes MCAP as ROS 2 records it: what viewers, robots' own tools and our readers all take.

Foxglove shows every message; Rerun draws `JointState` as named series and `CompressedImage` as pictures,
while messages in JSON are bytes to it. Equal messages give equal bytes.
"""

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, Self

from emboflow_dagster.formats.extras import needs_extra

if TYPE_CHECKING:
    import numpy as np
    from rosbags.typesys.store import Typestore

LIBRARIES: Final = ("mcap", "rosbags", "zstandard")
NS: Final = 1_000_000_000
#: The last second that a message's own stamp can say; the file's stamps go further.
_LAST_SECOND: Final = (1 << 31) - 1
VECTOR: Final = "sensor_msgs/msg/JointState"
PICTURE: Final = "sensor_msgs/msg/CompressedImage"
TEXT: Final = "std_msgs/msg/String"
FLAG: Final = "std_msgs/msg/Bool"


class RosMcap:
    """One file, profile ``ros2``; close it to get a whole one.

    Raises:
        ConfigurationError: The extra `rosbag` is not installed.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        with needs_extra("rosbag"):
            from mcap.writer import CompressionType, Writer
            from rosbags.typesys import Stores, get_typestore

        self._types: Typestore = get_typestore(Stores.ROS2_HUMBLE)
        self._writer: Any = Writer(stream, chunk_size=1 << 20, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="emboflow-dagster")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, str]] = {}
        self._sequences: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._writer.finish()

    def topic(self, name: str, kind: str, about: Mapping[str, str] | None = None) -> None:
        """Announce a topic; ``about`` is its channel's metadata."""
        if kind not in self._schemas:
            definition = self._types.generate_msgdef(kind, ros_version=2)[0]
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", definition.encode())
        channel = self._writer.register_channel(name, "cdr", self._schemas[kind], dict(about or {}))
        self._channels[name] = channel, kind

    def metadata(self, name: str, values: Mapping[str, str]) -> None:
        """A record of names and values about the whole file."""
        self._writer.add_metadata(name, dict(values))

    def vector(self, topic: str, stamp_ns: int, names: Sequence[str], values: "np.ndarray") -> None:
        """Numbers with their names, as the positions of a `JointState`."""
        import numpy as np

        none = np.zeros(0)
        fields = {
            "header": self._header(stamp_ns, ""),
            "name": list(names),
            "position": np.asarray(values, np.float64),
            "velocity": none,
            "effort": none,
        }
        self._add(topic, stamp_ns, fields)

    def picture(self, topic: str, stamp_ns: int, frame: str, jpeg: bytes) -> None:
        """A JPEG picture of the camera ``frame``."""
        import numpy as np

        data = np.frombuffer(jpeg, np.uint8)
        self._add(topic, stamp_ns, {"header": self._header(stamp_ns, frame), "format": "jpeg", "data": data})

    def value(self, topic: str, stamp_ns: int, data: str | bool) -> None:  # noqa: FBT001 - the value itself
        """A text or a switch."""
        self._add(topic, stamp_ns, {"data": data})

    def _add(self, topic: str, stamp_ns: int, fields: Mapping[str, Any]) -> None:
        channel, kind = self._channels[topic]
        message = self._types.types[kind](**fields)
        number = self._sequences[topic] = self._sequences.get(topic, -1) + 1
        data = bytes(self._types.serialize_cdr(message, kind))
        self._writer.add_message(channel, stamp_ns, data, stamp_ns, sequence=number)

    def _header(self, stamp_ns: int, frame: str) -> Any:
        seconds = min(stamp_ns // NS, _LAST_SECOND)
        time = self._types.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=stamp_ns % NS)
        return self._types.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)
