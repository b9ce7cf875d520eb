"""Recordings of the arm as ROS tools write them: MCAP, a rosbag2 folder, a ROS 1 bag.

``/joint_states`` at 50 Hz, ``/arm/command`` at 20 Hz (a message type of the arm's own, defined in the
file), ``/camera/image/compressed`` at 10 Hz; stamps are the recorder's, in ns since 1970.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from emboflow_dagster.formats.demo_recordings import arm
from emboflow_dagster.formats.extras import needs_extra

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

NS: Final = 1_000_000_000
STATES: Final = "/joint_states"
COMMANDS: Final = "/arm/command"
CAMERA: Final = "/camera/image/compressed"
#: Topic to (message type, rate in Hz, delay of its first message in ns).
TOPICS: Final[dict[str, tuple[str, int, int]]] = {
    STATES: ("sensor_msgs/msg/JointState", 50, 0),
    COMMANDS: ("arm_msgs/msg/JointCommand", 20, 3_000_000),
    CAMERA: ("sensor_msgs/msg/CompressedImage", 10, 7_000_000),
}
COMMAND_DEFINITION: Final = "string[] joint_names\nfloat64[] target\n"


class Written(NamedTuple):
    """What was written: messages per topic, first and last stamp of the topics with numbers."""

    topics: dict[str, int]
    overlap_ns: int
    """For how long both topics with numbers have data."""


class _Sample(NamedTuple):
    topic: str
    stamp_ns: int
    message: Any


def write_mcap(path: Path, trajectory: arm.Trajectory, start_ns: int) -> Written:
    """One MCAP file, profile ``ros2``, messages in CDR, chunks compressed with zstd."""
    with needs_extra("rosbag"):
        from mcap.writer import CompressionType, Writer

    store = _types(ros=2)
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=64 * 1024, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library="emboflow-dagster")
        channels = {}
        for topic, (kind, _, _) in TOPICS.items():
            definition = store.generate_msgdef(kind, ros_version=2)[0]
            schema = writer.register_schema(kind, "ros2msg", definition.encode())
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        samples = list(_samples(store, trajectory, start_ns))
        for sample in samples:
            data = bytes(store.serialize_cdr(sample.message, TOPICS[sample.topic][0]))
            writer.add_message(channels[sample.topic], sample.stamp_ns, data, sample.stamp_ns)
        writer.finish()
    return _written(samples)


def write_rosbag2(folder: Path, trajectory: arm.Trajectory, start_ns: int) -> Written:
    """A rosbag2 folder: ``metadata.yaml`` and one MCAP file."""
    with needs_extra("rosbag"):
        from rosbags.rosbag2 import StoragePlugin, Writer

    store = _types(ros=2)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, (kind, _, _) in TOPICS.items()
        }
        samples = list(_samples(store, trajectory, start_ns))
        for sample in samples:
            data = store.serialize_cdr(sample.message, TOPICS[sample.topic][0])
            writer.write(connections[sample.topic], sample.stamp_ns, data)
    return _written(samples)


def write_cut_bag(path: Path, trajectory: arm.Trajectory, start_ns: int, *, keep: float) -> Written:
    """A ROS 1 bag of which only the first share ``keep`` of the bytes reached the disk.

    Returns:
        What had been recorded, of which less is in the file.
    """
    with needs_extra("rosbag"):
        from rosbags.rosbag1 import Writer

    store = _types(ros=1)
    # The writer takes a path that does not exist yet.
    path.unlink(missing_ok=True)
    writer = Writer(path)
    writer.chunk_threshold = 16 * 1024
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, (kind, _, _) in TOPICS.items()
        }
        samples = list(_samples(store, trajectory, start_ns))
        for sample in samples:
            data = store.serialize_ros1(sample.message, TOPICS[sample.topic][0])
            writer.write(connections[sample.topic], sample.stamp_ns, data)
    with path.open("r+b") as stream:
        stream.truncate(int(path.stat().st_size * keep))
    return _written(samples)


def _types(*, ros: int) -> "Typestore":
    with needs_extra("rosbag"):
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE if ros == 2 else Stores.ROS1_NOETIC)  # noqa: PLR2004 - ROS 2
    store.register(get_types_from_msg(COMMAND_DEFINITION, TOPICS[COMMANDS][0]))
    return store


def _samples(store: "Typestore", trajectory: arm.Trajectory, start_ns: int) -> Iterator[_Sample]:
    """All messages in the order in which they were received."""
    import numpy as np

    rows = []
    for topic, (_, rate, delay) in TOPICS.items():
        count = int((trajectory.duration * NS - delay) * rate / NS + 1e-6) + 1
        stamps = [delay + index * NS // rate for index in range(count)]
        motion = trajectory.at(np.asarray(stamps) / NS)
        if topic == STATES:
            seen, effort = arm.measured(motion), arm.torques(motion)
            rows += [
                (stamp, topic, (seen.position[i], seen.velocity[i], effort[i]))
                for i, stamp in enumerate(stamps)
            ]
        else:
            rows += [(stamp, topic, motion.position[i]) for i, stamp in enumerate(stamps)]
    rows.sort(key=lambda row: (row[0], row[1]))
    for number, (stamp, topic, values) in enumerate(rows):
        yield _Sample(topic, start_ns + stamp, _message(store, topic, number, start_ns + stamp, values))


def _message(store: "Typestore", topic: str, number: int, stamp_ns: int, values: Any) -> Any:
    import numpy as np

    types = store.types
    kind = types[TOPICS[topic][0]]
    if topic == COMMANDS:
        return kind(joint_names=list(arm.JOINTS), target=np.asarray(values))
    time = types["builtin_interfaces/msg/Time"](sec=stamp_ns // NS, nanosec=stamp_ns % NS)
    head = types["std_msgs/msg/Header"]
    extra = {"seq": number} if "seq" in dict(store.fielddefs["std_msgs/msg/Header"][1]) else {}
    if topic == CAMERA:
        header = head(stamp=time, frame_id="camera", **extra)
        return kind(header=header, format="jpeg", data=np.frombuffer(arm.picture(values), dtype=np.uint8))
    position, velocity, effort = values
    header = head(stamp=time, frame_id="base", **extra)
    return kind(header=header, name=list(arm.JOINTS), position=position, velocity=velocity, effort=effort)


def _written(samples: list[_Sample]) -> Written:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for sample in samples:
        first.setdefault(sample.topic, sample.stamp_ns)
        last[sample.topic] = sample.stamp_ns
    numeric = (STATES, COMMANDS)
    overlap = min(last[t] for t in numeric) - max(first[t] for t in numeric)
    return Written(dict(Counter(sample.topic for sample in samples)), overlap)
