"""What is in an MCAP's messages that are no ROS: protobuf by embedded descriptors, JSON, IDL, videos."""

import fractions
import io
import json
import struct
from typing import Any

import av  # noqa: TID253 - this module is about what this library wrote
import numpy as np  # noqa: TID253 - as above
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: TID253 - as above
from mcap.writer import Writer  # noqa: TID253 - as above
from PIL import Image  # noqa: TID253 - as above

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats import protobuf_messages
from emboflow_dagster.formats.canonical.from_bags import episodes
from emboflow_dagster.formats.decoding import Decoder, UndecodableError
from emboflow_dagster.formats.messages import numeric_topics
from emboflow_dagster.formats.pictures import iter_images
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.recording import Connection

START = 1_700_000_000_000_000_000
STEP = 50_000_000
FIELD = descriptor_pb2.FieldDescriptorProto
TIMESTAMP = ".google.protobuf.Timestamp"


def _message(file, name, *fields):
    """Add a message type; a field is (name, type, type name, label)."""
    made = file.message_type.add(name=name)
    for number, (field, kind, *more) in enumerate(fields, 1):
        type_name, label = (*more, *(None, FIELD.LABEL_OPTIONAL)[len(more) :])
        made.field.add(name=field, number=number, type=kind, type_name=type_name, label=label)
    return made


def _schemas():
    """Foxglove's way: a file for each part, here the last one first and the well-known ones left out."""
    several = FIELD.LABEL_REPEATED
    vector = descriptor_pb2.FileDescriptorProto(name="v.proto", package="foxglove", syntax="proto3")
    _message(vector, "Vector3", *((axis, FIELD.TYPE_DOUBLE) for axis in "xyz"))
    main = descriptor_pb2.FileDescriptorProto(
        name="m.proto",
        package="foxglove",
        syntax="proto3",
        dependency=["v.proto", "google/protobuf/timestamp.proto"],
    )
    stamp = ("timestamp", FIELD.TYPE_MESSAGE, TIMESTAMP)
    joint = _message(
        main,
        "JointState",
        ("name", FIELD.TYPE_STRING),
        ("position", FIELD.TYPE_DOUBLE),
        ("effort", FIELD.TYPE_DOUBLE),
    )
    joint.field[2].proto3_optional, joint.field[2].oneof_index = True, 0
    joint.oneof_decl.add(name="_effort")
    _message(main, "JointStates", stamp, ("joints", FIELD.TYPE_MESSAGE, ".foxglove.JointState", several))
    _message(
        main,
        "FrameTransform",
        stamp,
        ("child_frame_id", FIELD.TYPE_STRING),
        ("translation", FIELD.TYPE_MESSAGE, ".foxglove.Vector3"),
    )
    picture = (stamp, ("data", FIELD.TYPE_BYTES), ("format", FIELD.TYPE_STRING))
    _message(main, "CompressedImage", *picture)
    _message(main, "CompressedVideo", *picture)
    _message(
        main,
        "RawImage",
        stamp,
        *((name, FIELD.TYPE_FIXED32) for name in ("width", "height", "step")),
        ("encoding", FIELD.TYPE_STRING),
        ("data", FIELD.TYPE_BYTES),
    )
    return descriptor_pb2.FileDescriptorSet(file=[main, vector])


SCHEMAS = _schemas().SerializeToString()


def _classes(schemas, *names) -> list[Any]:
    from google.protobuf import timestamp_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for file in reversed(schemas.file):
        pool.Add(file)
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names]


def _write(path, topics, messages):
    """``topics``: {topic: (encoding, type, schema encoding, schema)}; ``messages``: (topic, ns, bytes)."""
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        channels = {
            topic: writer.register_channel(topic, encoding, writer.register_schema(name, kind, schema))
            for topic, (encoding, name, kind, schema) in topics.items()
        }
        for topic, stamp, data in messages:
            writer.add_message(channels[topic], stamp, data, stamp)
        writer.finish()
    return path


def _jpeg(shade):
    stream = io.BytesIO()
    Image.new("RGB", (16, 8), (shade, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def _h264(count):
    """Coded pictures of rising shade, a key picture every ten."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 32, 16, "yuv420p"
    codec.time_base, codec.framerate = fractions.Fraction(1, 20), fractions.Fraction(20)
    codec.options = {
        "tune": "zerolatency",
        "x264-params": "repeat-headers=1:keyint=10:min-keyint=10:scenecut=0",
    }
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 6 * index, np.uint8), format="rgb24")
        frame.pts = index
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return [*packets, *(bytes(packet) for packet in codec.encode(None))]


def test_topics_of_foxglove_become_features_and_cameras(tmp_path):
    names = ("JointStates", "FrameTransform", "CompressedImage", "RawImage", "CompressedVideo")
    joints, transform, picture, raw, video = _classes(_schemas(), *(f"foxglove.{name}" for name in names))
    topics = {
        topic: ("protobuf", f"foxglove.{name}", "protobuf", SCHEMAS)
        for topic, name in zip(("/joints", "/tf", "/cam", "/raw", "/film"), names, strict=True)
    }
    film = _h264(40)
    messages = []
    for index in range(40):
        stamp = START + index * STEP
        said = joints()
        said.timestamp.seconds = stamp // 10**9
        said.joints.add(name="elbow", position=index / 10)
        said.joints.add(name="wrist", effort=2)
        frame = transform(child_frame_id="ab"[index % 2])
        frame.translation.x = 1
        pixels = bytes([index, 0, 0] * 8)
        made = {
            "/joints": said,
            "/tf": frame,
            "/cam": picture(data=_jpeg(index), format="jpeg"),
            "/raw": raw(width=4, height=2, step=12, encoding="rgb8", data=pixels),
            "/film": video(data=film[index], format="h264"),
        }
        # The recording of the film begins between two of its key pictures.
        messages += [(t, stamp, m.SerializeToString()) for t, m in made.items() if t != "/film" or index > 3]
    path = _write(tmp_path / "a.mcap", topics, messages)

    report = probe_path(path)
    skipped = []
    [plain] = episodes(path, fps=20, skipped=skipped)
    [seen] = episodes(path, fps=20, topics=["/joints", "/cam", "/raw", "/film"])

    assert report.codes == frozenset()
    assert report.structure["encodings"] == {"protobuf": 5}
    assert "normalize" in report.recommended_next_nodes
    assert set(numeric_topics(path)) == {"/joints", "/tf"}
    assert plain.specs["observation.state"].names == ("position.elbow", "position.wrist")
    assert plain.features["observation.state"][3] == pytest.approx([0.3, 0])
    assert set(plain.features) == {"observation.state"}  # one joint alone has an effort
    assert [item["source"]["ref"] for item in skipped if "frames" in item["reason"]] == ["/tf"]
    # Its first picture is the tenth, and so begins the grid that all share.
    assert (seen.frames, seen.features["observation.state"][0, 0]) == (30, 1)
    frames = {name: list(camera.frames()) for name, camera in seen.cameras.items()}
    assert {name: len(found) for name, found in frames.items()} == {"cam": 30, "film": 30, "raw": 30}
    assert (frames["raw"][0][0, 0], frames["raw"][29][1, 3]) == (
        pytest.approx([10, 0, 0]),
        pytest.approx([39, 0, 0]),
    )
    assert frames["film"][0].mean() == pytest.approx(60, abs=3)
    assert frames["film"][29].mean() == pytest.approx(234, abs=3)
    pictures = {topic: list(iter_images(path, topic, 3, every=7)) for topic in ("/cam", "/film")}
    assert [stamp for stamp, _ in pictures["/cam"]] == [START + index * STEP for index in (0, 7, 14)]
    # Of 36 messages on the topic, the sixth is the first that shows something.
    assert [stamp for stamp, _ in pictures["/film"]] == [START + (4 + index) * STEP for index in (7, 14, 21)]
    assert pictures["/film"][0][1].startswith(b"\x89PNG")


def test_fields_of_protobuf_are_plain_values():
    several, inner = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE
    file = descriptor_pb2.FileDescriptorProto(
        name="a.proto",
        syntax="proto3",
        dependency=[f"google/protobuf/{name}.proto" for name in ("timestamp", "duration", "wrappers")],
    )
    made = _message(
        file,
        "A",
        ("on", FIELD.TYPE_BOOL),
        ("mode", FIELD.TYPE_ENUM, ".Mode"),
        ("when", inner, TIMESTAMP),
        ("took", inner, ".google.protobuf.Duration"),
        ("limit", inner, ".google.protobuf.DoubleValue"),
        ("many", FIELD.TYPE_SINT32, None, several),
        ("self", inner, ".A"),
        ("map", inner, ".A.MapEntry", several),
        ("unset", inner, ".A"),
    )
    entry = made.nested_type.add(name="MapEntry", options={"map_entry": True})
    entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=FIELD.TYPE_FLOAT, label=1)
    mode = file.enum_type.add(name="Mode")
    mode.value.add(name="IDLE", number=0)
    mode.value.add(name="RUN", number=3)
    definition = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    kind = protobuf_messages._message_class("A", definition)
    message = kind(on=True, mode=3, many=[1, -2], map={"b": 2, "a": 1})
    message.when.seconds, message.took.nanos, message.limit.value = 5, 500_000_000, 2.5
    message.self.mode = 3
    deep = kind()
    place = deep
    for _ in range(60):
        place = place.self
    place.on = True
    decode = protobuf_messages.decoder("A", definition)

    assert decode(message.SerializeToString()) == {
        "on": True,
        "mode": 3,
        "when": "5.000000000",
        "took": 0.5,
        "limit": 2.5,
        "many": [1, -2],
        "self": {"on": False, "mode": 3, "many": [], "map": {}},
        "map": {"a": 1.0, "b": 2.0},
    }
    assert decode(b"")["mode"] == 0
    assert len(decode(kind(many=[7] * 5_000).SerializeToString())["many"]) == 257
    assert str(decode(deep.SerializeToString())).count("self") < 20
    with pytest.raises(ValueError, match="none of its fields"):
        decode(b"\xf8\x07\x01")


def _circle():
    first, second = (descriptor_pb2.FileDescriptorProto(name=f"{name}.proto") for name in "ab")
    first.dependency.append("b.proto")
    second.dependency.append("a.proto")
    first.message_type.add(name="A")
    return descriptor_pb2.FileDescriptorSet(file=[first, second]).SerializeToString()


def test_what_cannot_be_understood_is_said_of_its_topic_alone(tmp_path):
    [joints] = _classes(_schemas(), "foxglove.JointStates")
    said = joints()
    said.joints.add(name="elbow", position=1)
    fine = said.SerializeToString()
    alone = descriptor_pb2.FileDescriptorSet(file=_schemas().file[:1]).SerializeToString()
    bad = {
        "/garbage": ("protobuf", "A", "protobuf", b"\xff" * 40),
        "/empty": ("protobuf", "A", "protobuf", b""),
        "/unknown": ("protobuf", "foxglove.Nothing", "protobuf", SCHEMAS),
        "/incomplete": ("protobuf", "foxglove.JointStates", "protobuf", alone),
        "/circle": ("protobuf", "A", "protobuf", _circle()),
        "/kind": ("protobuf", "A", "jsonschema", b"{}"),
        "/cut": ("protobuf", "foxglove.JointStates", "protobuf", SCHEMAS),
        "/text": ("json", "T", "jsonschema", b"{}"),
    }
    foreign = {
        "/flat": ("flatbuffer", "foxglove.Pose", "flatbuffer", b"\0" * 8),
        "/cbor": ("cbor", "T", "", b""),
    }
    topics = {**bad, **foreign, "/good": ("protobuf", "foxglove.JointStates", "protobuf", SCHEMAS)}
    data = {"/cut": fine[:-3], "/text": b'{"a": '}
    messages = [
        (topic, START + index * STEP, data.get(topic, fine)) for index in range(4) for topic in topics
    ]

    report = probe_path(path := _write(tmp_path / "a.mcap", topics, messages))

    found = {(warning.code, warning.path) for warning in report.warnings}
    assert found == {("undecodable_topics", topic) for topic in bad} | {
        ("unsupported_serialization", topic) for topic in foreign
    }
    assert set(numeric_topics(path)) == {"/good"}
    assert {topic["count"] for topic in report.structure["topics"].values()} == {4}
    with pytest.raises(InvalidInputError, match="at most"):
        protobuf_messages.decoder("A", bytes(protobuf_messages.MAX_DEFINITION_BYTES + 1))


def test_json_of_foxglove_reads_as_its_protobuf(tmp_path):
    time = {"sec": 1, "nsec": 2}
    joints = {
        "timestamp": time,
        "joints": [{"name": "elbow", "position": 0.5}, {"name": "wrist", "position": 1}],
    }
    topics = {
        "/joints": ("json", "foxglove.JointStates", "jsonschema", b"{}"),
        "/own": ("json", "my.State", "jsonschema", b"{}"),
        "/bare": ("json", "", "", b""),
    }
    own = {"timestamp": time, "grip": 0.5, "name": ["a", "b"], "value": [1, 2]}
    rows = {"/joints": joints, "/own": own, "/bare": 0.25}
    messages = [
        (t, START + n * STEP, json.dumps(said).encode()) for n in range(3) for t, said in rows.items()
    ]

    found = numeric_topics(_write(tmp_path / "a.mcap", topics, messages))

    assert {topic: said["fields"] for topic, said in found.items()} == {
        "/bare": ["value"],
        "/joints": ["position.elbow", "position.wrist"],
        "/own": ["timestamp.sec", "timestamp.nsec", "grip", "value.a", "value.b"],
    }


RULE = "=" * 80
ROS_IDL = f"""{RULE}
IDL: my/msg/Arm
#include "my/msg/Point.idl"
module my {{ module msg {{ struct Arm {{ my::msg::Point at; sequence<double> joints; }}; }}; }};
{RULE}
IDL: my/msg/Point
// generated
module my {{ module msg {{ struct Point {{ double x; double y; }}; }}; }};
"""
OMG_IDL = "module foxglove { struct Vector2 { double x; double y; }; };"


def test_interfaces_in_idl_are_read_in_plain_cdr():
    arm = Decoder(Connection("/a", "my/msg/Arm", "cdr", ROS_IDL.encode(), "ros2idl"))
    point = Decoder(Connection("/p", "foxglove::Vector2", "cdr", OMG_IDL.encode(), "omgidl"))

    assert arm(b"\0\1\0\0" + struct.pack("<ddI4xd", 1, 2, 1, 0.5)).joints.tolist() == [0.5]
    assert point(b"\0\1\0\0" + struct.pack("<dd", 1, 2)).y == 2
    with pytest.raises(UndecodableError, match="only plain CDR"):
        point(b"\0\7\0\0" + struct.pack("<dd", 1, 2))
