"""Recordings of about a size, the same each time: what normalising is measured on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FPS = 20
START = 1_700_000_000_000_000_000
JOINTS = 14
HEIGHT, WIDTH = 240, 320
PICTURE = HEIGHT * WIDTH * 3


def hdf5(path: Path, size: int, frames: int = 400) -> None:
    """Demonstrations of 32 and 7 random numbers a frame."""
    import h5py
    import numpy as np

    random = np.random.default_rng(7)
    with h5py.File(_folder(path) / "demo.hdf5", "w") as file:
        for number in range(max(1, size // (frames * 39 * 8))):
            demo = file.create_group(f"data/demo_{number}")
            demo["states"] = random.normal(size=(frames, 32))
            demo["actions"] = random.normal(size=(frames, 7))


def hdf5_long(path: Path, size: int) -> None:
    """The same numbers in demonstrations of 20,000 frames."""
    hdf5(path, size, 20_000)


def hdf5_cameras(path: Path, size: int) -> None:
    """Demonstrations of 200 frames with two cameras."""
    import h5py
    import numpy as np

    random = np.random.default_rng(7)
    with h5py.File(_folder(path) / "demo.hdf5", "w") as file:
        for number in range(max(1, size // (200 * 2 * PICTURE))):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = random.normal(size=(200, 7))
            demo["obs/proprio"] = random.normal(size=(200, 9))
            for camera in ("front", "wrist"):
                pictures = demo.create_dataset(f"obs/{camera}_image", (200, HEIGHT, WIDTH, 3), "uint8")
                for place, picture in enumerate(_pictures(200)):
                    pictures[place] = picture


def lerobot(path: Path, size: int) -> None:
    """A 2.1 tree: episodes of 200 frames with a video each, which is copied."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    length = 200
    vector = {"dtype": "float32", "shape": [14], "names": None}
    camera = {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": None}
    features = {"observation.state": vector, "action": vector, "observation.images.top": camera}
    info = {"codebase_version": "v2.1", "fps": FPS, "chunks_size": 1000, "features": features}
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    (path / "data").mkdir()
    random = np.random.default_rng(7)
    videos = path / "videos/observation.images.top"
    videos.mkdir(parents=True)
    first = videos / "episode_000000.mp4"
    _video(first, length, FPS)
    for number in range(max(1, size // (first.stat().st_size + length * 140))):
        values = random.normal(size=(length, 14)).astype(np.float32).tolist()
        columns = {"observation.state": values, "action": values, "timestamp": np.arange(length) / FPS}
        columns |= {"frame_index": np.arange(length), "episode_index": np.full(length, number)}
        pq.write_table(pa.table(columns), path / f"data/episode_{number:06d}.parquet")
        if number:
            (videos / f"episode_{number:06d}.mp4").write_bytes(first.read_bytes())


def mcap(path: Path, size: int) -> None:
    """An MCAP of joint states at 200 Hz; its chunks are compressed, ``size`` is what it holds."""
    from mcap_ros2.writer import Writer

    definition = "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n"
    with (_folder(path) / "arm.mcap").open("wb") as stream:
        writer = Writer(stream)
        schema = writer.register_msgdef("sensor_msgs/msg/JointState", definition)
        names = [f"joint_{number}" for number in range(JOINTS)]
        for number in range(max(2, size // 560)):
            row = [number * 0.001 + place for place in range(JOINTS)]
            message = {"name": names, "position": row, "velocity": row, "effort": row}
            stamp = START + number * 5_000_000
            writer.write_message("/joint_states", schema, message, stamp, stamp)
        writer.finish()


def mcap_camera(path: Path, size: int) -> None:
    """An MCAP with a camera at 20 Hz beside joint states at 200 Hz, as rosbag2 writes it."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topics = {
            "camera": bag.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=types),
            "joints": bag.add_connection("/joint_states", "sensor_msgs/msg/JointState", typestore=types),
        }
        for topic, stamp, message in _messages(types, size):
            bag.write(topics[topic], stamp, types.serialize_cdr(message, message.__msgtype__))


def rosbag1_camera(path: Path, size: int) -> None:
    """A ROS 1 bag of the same messages."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS1_NOETIC)
    with Writer(_folder(path) / "arm.bag") as bag:
        topics = {
            "camera": bag.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=types),
            "joints": bag.add_connection("/joint_states", "sensor_msgs/msg/JointState", typestore=types),
        }
        for topic, stamp, message in _messages(types, size):
            bag.write(topics[topic], stamp, types.serialize_ros1(message, message.__msgtype__))


def video(path: Path, size: int) -> None:
    """Videos of 200 frames at 25 a second: sampled at another rate, so encoded; ``size`` is of pictures."""
    _folder(path)
    for number in range(max(1, size // (200 * PICTURE))):
        _video(path / f"take_{number:04d}.mp4", 200, 25)


def pictures(path: Path, size: int) -> None:
    """Numbered JPEG files of one camera; ``size`` is of pictures."""
    from PIL import Image

    _folder(path)
    for number, picture in enumerate(_pictures(max(2, size // PICTURE))):
        Image.fromarray(picture).save(path / f"frame_{number:06d}.jpg", quality=90)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _pictures(count: int) -> Iterator[Any]:
    """A still room, something that moves through it, and a sensor's noise: uint8 ``(HEIGHT, WIDTH, 3)``."""
    import numpy as np

    random = np.random.default_rng(3)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = 110 + 60 * np.sin(columns / 23) + 50 * np.cos(rows / 17)
    room = np.stack([waves, waves[:, ::-1], 0.8 * waves], axis=-1)
    noise = random.normal(0, 3, (8, HEIGHT, WIDTH, 3))
    for number in range(count):
        picture = room + noise[number % 8]
        left = number * 3 % (WIDTH - 60)
        picture[80:140, left : left + 60] = (200, 60, 40)
        yield picture.clip(0, 255).astype(np.uint8)


def _video(path: Path, frames: int, fps: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in _pictures(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _messages(types: Any, size: int) -> Iterator[tuple[str, int, Any]]:
    """A picture and ten joint states every 50 ms."""
    import numpy as np

    made = types.types
    seen = [np.ascontiguousarray(picture).reshape(-1) for picture in _pictures(64)]
    extra = {"seq": 0} if "seq" in made["std_msgs/msg/Header"].__dataclass_fields__ else {}
    names = [f"joint_{place}" for place in range(JOINTS)]
    for number in range(max(2, size // (PICTURE + 10 * 560))):
        for step in range(10):
            stamp = START + number * 50_000_000 + step * 5_000_000
            when = made["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
            header = made["std_msgs/msg/Header"](stamp=when, frame_id="", **extra)
            row = np.arange(JOINTS) + stamp % 10**9 / 1e9
            yield "joints", stamp, made["sensor_msgs/msg/JointState"](header, names, row, row, row)
            if not step:
                shape = {"height": HEIGHT, "width": WIDTH, "step": WIDTH * 3}
                how = {"encoding": "rgb8", "is_bigendian": 0, "data": seen[number % 64]}
                yield "camera", stamp, made["sensor_msgs/msg/Image"](header=header, **shape, **how)


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "hdf5": hdf5,
    "hdf5-long": hdf5_long,
    "hdf5-cameras": hdf5_cameras,
    "lerobot": lerobot,
    "mcap": mcap,
    "mcap-camera": mcap_camera,
    "rosbag1-camera": rosbag1_camera,
    "video": video,
    "pictures": pictures,
}
