"""Small valid recordings of every format, made with the libraries that people use, to be damaged."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

START = 1_700_000_000_000_000_000


def _ros_types(name: str) -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(getattr(Stores, name))


def rosbag1(folder: Path) -> list[str]:
    """A bag with two chunks, lz4."""
    from rosbags.rosbag1 import Writer

    writer = Writer(folder / "a.bag")
    writer.set_compression(Writer.CompressionFormat.LZ4)
    writer.chunk_threshold = 800
    types = _ros_types("ROS1_NOETIC")
    with writer:
        said = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=types)
        angle = writer.add_connection("/angle", "std_msgs/msg/Float64", typestore=types)
        for index in range(30):
            writer.write(said, START + index * 10**8, struct.pack("<I", 40) + b"%040d" % index)
            writer.write(angle, START + index * 10**8, struct.pack("<d", index))
    return ["a.bag"]


def rosbag1_plain(folder: Path) -> list[str]:
    """A bag with two chunks, not compressed."""
    from rosbags.rosbag1 import Writer

    with Writer(folder / "a.bag") as writer:
        writer.chunk_threshold = 800
        said = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=_ros_types("ROS1_NOETIC"))
        for index in range(30):
            writer.write(said, START + index * 10**8, struct.pack("<I", 40) + b"%040d" % index)
    return ["a.bag"]


def _rosbag2(folder: Path, storage: str) -> list[str]:
    from rosbags.rosbag2 import StoragePlugin, Writer

    types = _ros_types("ROS2_HUMBLE")
    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin[storage]) as writer:
        said = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=types)
        angle = writer.add_connection("/angle", "std_msgs/msg/Float64", typestore=types)
        for index in range(30):
            data = b"\0\1\0\0" + struct.pack("<I", 41) + b"%040d\0" % index
            writer.write(said, START + index * 10**8, data)
            writer.write(angle, START + index * 10**8, b"\0\1\0\0" + struct.pack("<d", index))
    names = sorted(f"bag/{path.name}" for path in (folder / "bag").iterdir())
    # The storage is damaged four times as often as what describes it.
    return [name for name in names if not name.endswith(".yaml")] * 4 + ["bag/metadata.yaml"]


def rosbag2_sqlite3(folder: Path) -> list[str]:
    """A rosbag2 folder with a database."""
    return _rosbag2(folder, "SQLITE3")


def rosbag2_mcap(folder: Path) -> list[str]:
    """A rosbag2 folder with an MCAP."""
    return _rosbag2(folder, "MCAP")


def mcap(folder: Path) -> list[str]:
    """An MCAP with chunks in zstd."""
    from mcap.writer import CompressionType, Writer

    with (folder / "a.mcap").open("wb") as stream:
        writer = Writer(stream, chunk_size=800, compression=CompressionType.ZSTD)
        writer.start(profile="", library="test")
        schema = writer.register_schema("demo.Arm", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("arm", "json", schema)
        writer.add_metadata("robot", {"name": "arm"})
        writer.add_attachment(1, 2, "notes.txt", "text/plain", b"a note")
        for index in range(30):
            writer.add_message(channel, START + index * 10**8, b'{"position": [%d]}' % index, 0, index)
        writer.finish()
    return ["a.mcap"]


def mcap_protobuf(folder: Path) -> list[str]:
    """An MCAP without chunks, its messages and the descriptors that stand in it in protobuf."""
    from google.protobuf import descriptor_pb2, struct_pb2
    from mcap.writer import Writer

    file = descriptor_pb2.FileDescriptorProto.FromString(struct_pb2.DESCRIPTOR.serialized_pb)
    definition = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    with (folder / "a.mcap").open("wb") as stream:
        writer = Writer(stream, use_chunking=False)
        writer.start()
        schema = writer.register_schema("google.protobuf.Struct", "protobuf", definition)
        channel = writer.register_channel("arm", "protobuf", schema)
        for index in range(10):
            said = struct_pb2.Struct()
            said.update({"position": [index, 0.5], "name": "elbow"})
            writer.add_message(channel, START + index * 10**8, said.SerializeToString(), 0)
        writer.finish()
    return ["a.mcap"]


def hdf5(folder: Path) -> list[str]:
    """Demonstrations as robomimic writes them, compressed."""
    import h5py
    import numpy as np

    with h5py.File(folder / "a.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for number in range(2):
            demo = data.create_group(f"demo_{number}")
            demo.create_dataset("actions", data=np.zeros((20, 7)), chunks=(10, 7), compression="gzip")
            demo.create_dataset("obs/eef_pos", data=np.ones((20, 3)))
            demo.create_dataset("note", data="a text", dtype=h5py.string_dtype())
    return ["a.hdf5"]


def hdf5_aloha(folder: Path) -> list[str]:
    """An episode as ALOHA records it, one camera as it is and one as JPEG."""
    import h5py
    import numpy as np

    with h5py.File(folder / "episode_0.hdf5", "w") as file:
        file.attrs["sim"] = True
        file.create_dataset("action", data=np.zeros((12, 14), dtype=np.float32))
        for name in ("qpos", "qvel"):
            file.create_dataset(f"observations/{name}", data=np.ones((12, 14)))
        pictures = np.zeros((12, 24, 32, 3), dtype=np.uint8)
        file.create_dataset("observations/images/top", data=pictures, chunks=(1, 24, 32, 3))
        packed = np.zeros((12, 700), dtype=np.uint8)
        jpeg = np.frombuffer(_jpeg(), dtype=np.uint8)
        packed[:, : jpeg.size] = jpeg
        file.create_dataset("observations/images/wrist", data=packed)
    return ["episode_0.hdf5"]


def hdf5_robosuite(folder: Path) -> list[str]:
    """Raw demonstrations as robosuite collects them: whole states, no observations."""
    import h5py
    import numpy as np

    with h5py.File(folder / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        for name, value in {"env": "Lift", "repository_version": "1.4.1", "date": "11-27-2025"}.items():
            data.attrs[name] = value
        data.attrs["env_info"] = json.dumps({"env_name": "Lift", "robots": ["Panda"], "control_freq": 20})
        for number in (1, 2):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["model_file"] = "<mujoco/>"
            demo.create_dataset("states", data=np.ones((15, 32)))
            demo.create_dataset("actions", data=np.zeros((15, 7)))
    return ["demo.hdf5"]


def _jpeg() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (32, 24), (10, 200, 10)).save(out, "jpeg")
    return out.getvalue()


def lerobot(folder: Path) -> list[str]:
    """A dataset of two episodes, version 2.1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "meta").mkdir()
    (folder / "data/chunk-000").mkdir(parents=True)
    names = ("timestamp", "frame_index", "episode_index", "index", "task_index", "action")
    kinds = ("float32", *["int64"] * 4, "float32")
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "total_episodes": 2,
        "total_frames": 40,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": {name: {"dtype": kind, "shape": [1]} for name, kind in zip(names, kinds, strict=True)},
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    for name in ("episodes", "tasks", "episodes_stats"):
        (folder / f"meta/{name}.jsonl").write_text('{"episode_index": 0}\n{"episode_index": 1}\n')
    for episode in range(2):
        table = pa.table(
            {
                "timestamp": pa.array([i / 10 for i in range(20)], pa.float32()),
                "frame_index": list(range(20)),
                "episode_index": [episode] * 20,
                "index": [episode * 20 + i for i in range(20)],
                "task_index": [0] * 20,
                "action": pa.array([float(i) for i in range(20)], pa.float32()),
            }
        )
        pq.write_table(table, folder / f"data/chunk-000/episode_{episode:06d}.parquet")
    return ["data/chunk-000/episode_000001.parquet"] * 3 + ["meta/info.json"]


def lerobot_20(folder: Path) -> list[str]:
    """A dataset of version 2.0, with statistics in one file and a video of each episode."""
    from tests.unit.formats.lerobot_trees import tree_v21

    tree_v21(folder, codebase_version="v2.0")
    (folder / "meta/stats.json").write_text('{"action": {"min": [0.0, 0.5], "max": [9.0, 9.5]}}')
    rows = "data/chunk-000/episode_000001.parquet"
    video = "videos/chunk-000/observation.images.top/episode_000000.mp4"
    meta = [f"meta/{name}" for name in ("info.json", "episodes.jsonl", "tasks.jsonl", "stats.json")]
    return [rows, rows, video, *meta]


def lerobot_30(folder: Path) -> list[str]:
    """A dataset of version 3.0: all rows in one file, all pictures in one video."""
    from tests.unit.formats.lerobot_trees import tree_v30

    tree_v30(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [*files, "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"]


def rlds(folder: Path) -> list[str]:
    """A dataset as TensorFlow Datasets lays it out, pictures as PNG, written by our own export."""
    from emboflow_dagster.formats.canonical.reader import open_canonical
    from emboflow_dagster.formats.canonical.writer import write_canonical
    from emboflow_dagster.formats.exports.rlds import write_rlds
    from tests.integration.project.versions_made import episode

    with tempfile.TemporaryDirectory(prefix="emboflow-mutants-") as place:
        episodes = [episode(seed, 5, rich=True) for seed in range(3)]
        write_canonical(iter(episodes), Path(place) / "c", fps=10, robot_type="arm", source_assets=[])
        write_rlds(open_canonical(Path(place) / "c"), folder, name="demo")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return names + [name for name in names if ".tfrecord" in name] * 3


def canonical(folder: Path) -> list[str]:
    """A version as `emboflow dataset export` writes it, cameras and streams included."""
    from emboflow_dagster.formats.canonical.writer import write_canonical
    from tests.integration.project.versions_made import episode

    write_canonical((episode(seed, 5, rich=True) for seed in range(2)), folder, fps=10)
    return ["manifest.json"] * 3 + [f"{name}.parquet" for name in ("frames", "episodes", "tasks")]


def tfrecord(folder: Path) -> list[str]:
    """An RLDS shard with its description."""
    from tfrecord import example_pb2

    from emboflow_dagster.formats.tfrecord_file import masked_crc32c

    with (folder / "demo-train.tfrecord-00000-of-00001").open("wb") as stream:
        for _ in range(4):
            example = example_pb2.Example()
            example.features.feature["steps/action"].float_list.value.extend([0.0] * 14)
            example.features.feature["steps/is_first"].int64_list.value.extend([1] + [0] * 6)
            data = example.SerializeToString()
            head = struct.pack("<Q", len(data))
            stream.write(head + struct.pack("<I", masked_crc32c(head)))
            stream.write(data + struct.pack("<I", masked_crc32c(data)))
    (folder / "dataset_info.json").write_text(
        json.dumps({"name": "demo", "splits": [{"name": "train", "shardLengths": ["4"]}]})
    )
    (folder / "features.json").write_text("{}")
    return ["demo-train.tfrecord-00000-of-00001"] * 3 + ["dataset_info.json"]


def _video(path: Path, codec: str) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            picture = np.full((48, 64, 3), index * 20, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def mp4(folder: Path) -> list[str]:
    """A video in H.264."""
    _video(folder / "a.mp4", "libx264")
    return ["a.mp4"]


def mkv(folder: Path) -> list[str]:
    """A video in AV1 or, where the library brings no encoder, MPEG-4."""
    _video(folder / "a.mkv", "mpeg4")
    return ["a.mkv"]


def videos(folder: Path) -> list[str]:
    """A folder of videos, of two codecs and containers."""
    for name, codec in (("front.mp4", "libx264"), ("wrist.mp4", "libx264"), ("side.mkv", "mpeg4")):
        _video(folder / name, codec)
    return ["front.mp4", "side.mkv"]


def _members() -> Iterator[tuple[str, bytes]]:
    yield "robot/joints.csv", b"t,x\n0,1\n" * 50
    yield "robot/arm.urdf", b'<robot name="arm"><link name="base"/></robot>'
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"inside" * 20)
    yield "robot/inner.zip", inner.getvalue()


def zip_(folder: Path) -> list[str]:
    """A zip with an archive in it."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _members():
            archive.writestr(name, data)
    return ["a.zip"]


def tar_gz(folder: Path) -> list[str]:
    """A compressed tar with an archive in it."""
    return _tar(folder, "a.tar.gz", "w:gz")


def tar(folder: Path) -> list[str]:
    """A plain tar."""
    return _tar(folder, "a.tar", "w")


def tar_bz2(folder: Path) -> list[str]:
    """A tar in bzip2."""
    return _tar(folder, "a.tar.bz2", "w:bz2")


def tar_xz(folder: Path) -> list[str]:
    """A tar in xz."""
    return _tar(folder, "a.tar.xz", "w:xz")


def tar_zst(folder: Path) -> list[str]:
    """A tar in zstd."""
    import zstandard

    _tar(folder, "a.tar", "w")
    plain = folder / "a.tar"
    (folder / "a.tar.zst").write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    plain.unlink()
    return ["a.tar.zst"]


def _tar(folder: Path, name: str, mode: Literal["w", "w:gz", "w:bz2", "w:xz"]) -> list[str]:
    with tarfile.open(folder / name, mode) as archive:
        for member, data in _members():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return [name]


def gz(folder: Path) -> list[str]:
    """One file, compressed."""
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"t,x\n0,1\n" * 200))
    return ["a.csv.gz"]


def bz2_(folder: Path) -> list[str]:
    """One file in bzip2."""
    (folder / "a.csv.bz2").write_bytes(bz2.compress(b"t,x\n0,1\n" * 200))
    return ["a.csv.bz2"]


def xz(folder: Path) -> list[str]:
    """One file in xz."""
    (folder / "a.csv.xz").write_bytes(lzma.compress(b"t,x\n0,1\n" * 200))
    return ["a.csv.xz"]


def zst(folder: Path) -> list[str]:
    """One file in zstd."""
    import zstandard

    (folder / "a.csv.zst").write_bytes(zstandard.ZstdCompressor().compress(b"t,x\n0,1\n" * 200))
    return ["a.csv.zst"]


def seven_zip(folder: Path) -> list[str]:
    """A 7z archive of two small files, as 7-Zip's own writer makes them (encoded header)."""
    (folder / "a.7z").write_bytes(bytes.fromhex(SEVEN_ZIP))
    return ["a.7z"]


SEVEN_ZIP = (
    "377abcaf271c0004bd9f949db20000000000000016000000000000004970784ce000b200235d003a0b0b00a66c"
    "54e6a416c428038648a043e02e2475dcd931ec439507581e8aa68f789a00e0009c007f5d0000813307ae0fd0b5"
    "28fc9f39109c6cea561a8ee1ce421bf7ef80306b1ec2b91f2503a1296d97e25467a207fad8c27304157d1c547a"
    "89d28e37fc0e6365378463a60c12418387726f2c66eb650c34236d655a0f51268cff8175feb6d7a59f1ce09c95"
    "735e11fd17a00dc4067ad59f2744cdc12cc6a4939722f941e2440000000017062b0109808700070b0100012121"
    "01180c809d0000"
)


def npy(folder: Path) -> list[str]:
    """A folder of arrays."""
    import numpy as np

    for number in range(3):
        np.save(folder / f"{number}.npy", np.arange(30, dtype=np.float32).reshape(10, 3))
    return ["1.npy"]


def csv(folder: Path) -> list[str]:
    """A table."""
    (folder / "a.csv").write_text("time,joint\n" + "".join(f"{i / 10},{i % 7}\n" for i in range(40)))
    return ["a.csv"]


def _pictures(folder: Path, suffix: str) -> list[str]:
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (32, 24), (number * 40, 10, 10)).save(folder / f"{number:03d}{suffix}")
    return [f"002{suffix}"]


def png(folder: Path) -> list[str]:
    """A folder of PNG pictures."""
    return _pictures(folder, ".png")


def jpg(folder: Path) -> list[str]:
    """A folder of JPEG pictures."""
    return _pictures(folder, ".jpg")


def image_sequence(folder: Path) -> list[str]:
    """The pictures of two cameras, and when they were taken."""
    for camera in ("front", "wrist"):
        (folder / camera).mkdir()
        _pictures(folder / camera, ".jpg" if camera == "front" else ".png")
    (folder / "timestamps.csv").write_text("frame,t\n" + "".join(f"{i},{i / 10}\n" for i in range(4)))
    return ["front/002.jpg", "wrist/002.png", "timestamps.csv"]


def urdf(folder: Path) -> list[str]:
    """A robot's description."""
    joints = "".join(
        f'<joint name="j{i}" type="revolute"><parent link="l{i}"/><child link="l{i + 1}"/>'
        '<limit lower="-1" upper="1" effort="2" velocity="3"/></joint>'
        for i in range(5)
    )
    links = "".join(
        f'<link name="l{i}"><visual><mesh filename="m{i}.stl"/></visual></link>' for i in range(6)
    )
    (folder / "a.urdf").write_text(f'<?xml version="1.0"?><robot name="arm">{links}{joints}</robot>')
    return ["a.urdf"]


def urdf_package(folder: Path) -> list[str]:
    """A robot's package: description, meshes as STL and OBJ, and the package's own file."""
    urdf(folder)
    (folder / "a.urdf").rename(folder / "arm.urdf")
    (folder / "package.xml").write_text("<package><name>arm</name></package>")
    for number in range(6):
        (folder / f"m{number}.stl").write_bytes(bytes(80) + struct.pack("<I", 1) + bytes(50))
    return ["arm.urdf", "arm.urdf", "package.xml", "m0.stl"]


WRITERS: dict[str, Callable[[Path], list[str]]] = {
    "rosbag1": rosbag1,
    "rosbag1 (plain)": rosbag1_plain,
    "rosbag2 sqlite3": rosbag2_sqlite3,
    "rosbag2 mcap": rosbag2_mcap,
    "mcap": mcap,
    "mcap protobuf": mcap_protobuf,
    "hdf5": hdf5,
    "hdf5 aloha": hdf5_aloha,
    "hdf5 robosuite": hdf5_robosuite,
    "lerobot parquet": lerobot,
    "lerobot 2.0": lerobot_20,
    "lerobot 3.0": lerobot_30,
    "tfrecord": tfrecord,
    "rlds": rlds,
    "canonical": canonical,
    "mp4": mp4,
    "mkv": mkv,
    "videos": videos,
    "zip": zip_,
    "tar": tar,
    "tar.gz": tar_gz,
    "tar.bz2": tar_bz2,
    "tar.xz": tar_xz,
    "tar.zst": tar_zst,
    "gz": gz,
    "bz2": bz2_,
    "xz": xz,
    "zst": zst,
    "7z": seven_zip,
    "npy": npy,
    "csv": csv,
    "png": png,
    "jpg": jpg,
    "images of two cameras": image_sequence,
    "urdf": urdf,
    "urdf package": urdf_package,
}
