"""The numbers of messages alike are those that a search finds in each, whatever changes between them."""

import numpy as np  # noqa: TID253 - this module is about what these libraries write
import pytest
from rosbags.typesys import Stores, get_typestore  # noqa: TID253

from emboflow_dagster.formats import decoding
from emboflow_dagster.formats.flattening import MAX_MISSES, Flattener, flatten
from emboflow_dagster.formats.recording import Connection

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
STAMP = TYPES["builtin_interfaces/msg/Time"](sec=3, nanosec=500_000_000)
HEADER = TYPES["std_msgs/msg/Header"](stamp=STAMP, frame_id="base")


def joints(names, values):
    empty = np.array([])
    return TYPES["sensor_msgs/msg/JointState"](HEADER, names, np.array(values, float), empty, empty)


def pose(x):
    kinds = {name: TYPES[f"geometry_msgs/msg/{name}"] for name in ("Point", "Quaternion", "Pose")}
    return kinds["Pose"](kinds["Point"](x, 2.0, float("nan")), kinds["Quaternion"](0.0, 0.0, 0.0, 1.0))


def path(count):
    poses = [pose(float(place)) for place in range(count)]
    return TYPES["geometry_msgs/msg/PoseArray"](HEADER, poses)  # pyright: ignore[reportArgumentType]


def trajectory(names, points):
    point = TYPES["trajectory_msgs/msg/JointTrajectoryPoint"]
    duration = TYPES["builtin_interfaces/msg/Duration"](1, 5)
    empty = np.array([])
    made = [point(np.array(row, float), empty, empty, empty, duration) for row in points]
    return TYPES["trajectory_msgs/msg/JointTrajectory"](HEADER, names, made)  # pyright: ignore[reportArgumentType]


def scan(count):
    ranges = np.arange(count, dtype=np.float32)
    return TYPES["sensor_msgs/msg/LaserScan"](
        HEADER, 0.0, 1.0, 0.1, 0.0, 0.1, 0.2, 9.0, ranges, np.array([], np.float32)
    )


SERIES = {
    "alike": [joints(["a", "b"], [place, -place]) for place in range(5)],
    "names change": [joints(["a", "b"], [1, 2]), joints(["b", "a"], [1, 2]), joints(["a", "a"], [1, 2])],
    "lengths change": [joints(["a"], [1]), joints(["a"], [1, 2]), joints([], []), joints(["a"], [1])],
    "messages in lists": [path(2), path(2), path(3), path(0), path(2), path(300)],
    "names of messages": [trajectory(["a", "b"], [[1, 2], [3, 4]]), trajectory(["a", "b"], [[1, 2], [3]])],
    "long arrays": [scan(100), scan(256), scan(257), scan(1_000), scan(100)],
    "another class": [joints(["a"], [1]), pose(1.0), STAMP, HEADER, joints(["a"], [2])],
    "flags, words and blobs": [
        TYPES["std_msgs/msg/UInt8MultiArray"](
            TYPES["std_msgs/msg/MultiArrayLayout"]([], 4), np.zeros(3, np.uint8)
        ),
        TYPES["std_msgs/msg/Bool"](data=True),
        TYPES["std_msgs/msg/String"](data="no"),
        TYPES["std_msgs/msg/Int64MultiArray"](
            TYPES["std_msgs/msg/MultiArrayLayout"]([], 0), np.array([2**53 + 1, -1])
        ),
    ],
    "json": [{"x": 1}, {"x": 2, "y": [1, 2]}, {"x": "no"}],
}


@pytest.mark.parametrize("series", SERIES)
def test_every_message_gives_what_a_search_finds(series):
    flattener = Flattener()

    for message in (*SERIES[series], *SERIES[series]):
        names, values = flattener(message)
        wanted_names, wanted = flatten(message)
        assert names == wanted_names
        assert np.array_equal(values, wanted, equal_nan=True)
        assert all(type(value) is float for value in values)


def test_messages_alike_are_not_searched_and_messages_that_never_are_alike_get_no_more_shapes(monkeypatch):
    searched = []
    monkeypatch.setattr(
        "emboflow_dagster.formats.flattening.flatten", lambda m: (searched.append(m), flatten(m))[1]
    )
    flattener = Flattener()
    for place in range(20):
        flattener(joints(["a"], [place]))
    assert len(searched) == 1

    flattener = Flattener()
    for count in range(1, 20):
        flattener(path(count))
    assert flattener._misses == MAX_MISSES


def test_the_packages_of_the_release_are_those_of_rosbags():
    found = get_typestore(Stores.LATEST).fielddefs

    assert {name.partition("/")[0] for name in found} == decoding.RELEASE_PACKAGES


def test_the_release_is_not_loaded_for_a_type_that_the_recording_defines(monkeypatch):
    monkeypatch.setattr(decoding, "_release_types", lambda: pytest.fail("loaded"))
    connection = Connection("/flag", "std_msgs/msg/Bool", "cdr", b"bool data\n", "ros2msg")

    assert decoding.Decoder(connection)(b"\x00\x01\x00\x00\x01").data is True
