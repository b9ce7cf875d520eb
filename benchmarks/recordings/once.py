"""The same recordings read once, with the library that people use."""

from collections.abc import Callable
from pathlib import Path


def hdf5(path: Path) -> None:
    """Every dataset, with h5py."""
    import h5py

    with h5py.File(path / "demo.hdf5") as file:
        for demo in file["data"].values():
            for dataset in demo.values():
                if isinstance(dataset, h5py.Group):  # pictures, demonstration by demonstration
                    for inner in dataset.values():
                        inner[...]
                else:
                    dataset[...]


def lerobot(path: Path) -> None:
    """Every table with pyarrow, every byte of the videos."""
    import pyarrow.parquet as pq

    for file in sorted(path.rglob("*.parquet")):
        pq.read_table(file)
    for file in sorted(path.rglob("*.mp4")):
        file.read_bytes()


def bag(path: Path) -> None:
    """Every message, decoded with rosbags."""
    from rosbags.highlevel import AnyReader

    found = [*path.glob("*.mcap"), *path.glob("*.bag"), *(p for p in path.iterdir() if p.is_dir())]
    with AnyReader(found) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)


def video(path: Path) -> None:
    """Every frame as RGB, with PyAV."""
    import av

    for file in sorted(path.iterdir()):
        with av.open(str(file)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")


def pictures(path: Path) -> None:
    """Every picture as RGB, with Pillow."""
    import numpy as np
    from PIL import Image

    for file in sorted(path.iterdir()):
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))


READERS: dict[str, Callable[[Path], None]] = {
    "hdf5": hdf5,
    "hdf5-long": hdf5,
    "hdf5-cameras": hdf5,
    "lerobot": lerobot,
    "mcap": bag,
    "mcap-camera": bag,
    "rosbag1-camera": bag,
    "video": video,
    "pictures": pictures,
}
