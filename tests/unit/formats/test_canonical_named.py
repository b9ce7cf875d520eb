"""Cameras out of image topics, and what a name that is not there is answered with."""

import io
from pathlib import Path
from typing import Any

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pytest
from PIL import Image  # noqa: TID253
from rosbags.rosbag2 import Writer as Ros2Writer  # noqa: TID253
from rosbags.typesys import Stores, get_typestore  # noqa: TID253

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical import from_bags, from_hdf5, from_images, from_videos
from emboflow_dagster.formats.canonical.splitting import Split
from emboflow_dagster.formats.nearest import nearest_name
from tests.unit.formats.test_bags_written import START, _image, _joint_state

FRAMES = 40
STEP = 50_000_000


def picture(number: int) -> np.ndarray:
    found = np.zeros((24, 32, 3), np.uint8)
    found[:, :, 0] = 5 * number
    found[number % 24, :, 1] = 255
    return found


def write_bag(folder: Path) -> Path:
    store = get_typestore(Stores.ROS2_JAZZY)
    packed = store.types["sensor_msgs/msg/CompressedImage"]
    with Ros2Writer(folder, version=9) as writer:
        topics = {
            name: writer.add_connection(name, f"sensor_msgs/msg/{kind}", typestore=store)
            for name, kind in (
                ("/joint_states", "JointState"),
                ("/front/image_raw", "Image"),
                ("/wrist/compressed", "CompressedImage"),
                ("/depth/image_raw", "Image"),
            )
        }

        def write(name, stamp, message):
            data = store.serialize_cdr(message, topics[name].msgtype)
            writer.write(topics[name], stamp, data)

        for number in range(FRAMES):
            stamp = START + number * STEP
            deep: Any = _image(store, "16UC1", 32, 24, np.full((24, 32), 1_000, np.uint16).tobytes())
            raw = _image(store, "bgr8", 32, 24, picture(number)[:, :, ::-1].tobytes())
            png = io.BytesIO()
            Image.fromarray(picture(number)).save(png, "PNG")
            data = np.frombuffer(png.getvalue(), np.uint8)
            write("/joint_states", stamp, _joint_state(store, number))
            write("/front/image_raw", stamp + 1_000, raw)
            write("/wrist/compressed", stamp + 2_000, packed(deep.header, "png", data))
            write("/depth/image_raw", stamp + 3_000, deep)
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp("named") / "bag")


def test_image_topics_become_cameras_in_step_with_the_numbers(bag):
    topics = {
        "/joint_states": "observation.state",
        "/front/image_raw": "observation.images.front",
        "/wrist/compressed": "observation.images.wrist",
    }

    (episode,) = from_bags.episodes(bag, fps=10, topics=topics)

    assert set(episode.cameras) == {"front", "wrist"}
    assert episode.length == FRAMES // 2
    for name in ("front", "wrist"):
        frames = list(episode.cameras[name].frames())
        assert len(frames) == episode.length
        for row, frame in enumerate(frames):
            # The grid begins where the last topic does: every second picture, never a later one.
            assert np.array_equal(frame, picture(2 * row))
    assert episode.sync["observation.images.front"]["maxAgeNs"] == 1_000
    assert episode.features["observation.state"][3][0] == pytest.approx(6 / 10)


def test_cameras_are_split_with_their_recording_and_may_stand_alone(bag):
    (whole,) = from_bags.episodes(bag, fps=20, topics=["/front/image_raw"])
    assert (whole.length, list(whole.features)) == (FRAMES, [])

    (part,) = from_bags.episodes(bag, fps=20, topics=["/front/image_raw"], split=Split("gap", seconds=1))
    assert [f[0, 0, 0] for f in part.cameras["front.image_raw"].frames()] == [5 * n for n in range(FRAMES)]


def test_pictures_that_are_not_taken_are_said(bag):
    skipped = []
    (episode,) = from_bags.episodes(bag, fps=10, skipped=skipped)
    assert episode.cameras == {}
    reasons = {row["source"]["ref"]: row["reason"] for row in skipped}
    assert "name it in `topics`" in reasons["/front/image_raw"]

    with pytest.raises(InvalidInputError, match="more than 8 bits"):
        list(from_bags.episodes(bag, fps=10, topics=["/joint_states", "/depth/image_raw"]))
    skipped.clear()
    with pytest.raises(InvalidInputError, match="no numbers"):
        list(from_bags.episodes(bag, fps=10, topics=["/front/image_raw"], videos=False, skipped=skipped))
    assert "`videos` is false" in skipped[0]["reason"]


def test_a_topic_that_is_not_there_is_answered_with_the_nearest(bag):
    with pytest.raises(InvalidInputError, match="no such topic; nearest is '/joint_states'; there are"):
        list(from_bags.episodes(bag, fps=10, topics=["/joint_state"]))
    with pytest.raises(InvalidInputError, match="'/join_states' to split by; nearest is '/joint_states'"):
        list(from_bags.episodes(bag, fps=10, split=Split("topic", topic="/join_states")))


def test_a_dataset_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for number in range(2):
            file[f"runs/ep{number}/robot/joints"] = np.zeros((5, 2))
            file[f"runs/ep{number}/cmd"] = np.zeros((5, 2))
            file[f"data/demo_{number}/actions"] = np.zeros((5, 2))
    skipped = []
    assert list(from_hdf5.episodes(path, mapping={"action": "action"}, skipped=skipped)) == []
    assert "no dataset action; nearest is 'actions'" in skipped[0]["reason"]

    with h5py.File(path, "a") as file:
        del file["data"]
    with pytest.raises(InvalidInputError, match="hold robot/joint; nearest is 'robot/joints'"):
        list(from_hdf5.episodes(path, mapping={"robot/joint": "observation.state", "cmd": "action"}))
    with pytest.raises(InvalidInputError) as caught:
        list(from_hdf5.episodes(path))
    assert "`mapping`" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("wanted", "near"), [("joint_states", "/joint_states"), ("/Joint_State", "/joint_states"), ("zzz", None)]
)
def test_the_nearest_name(wanted, near):
    assert nearest_name(wanted, ["/joint_states", "/tf"]) == near


def test_depth_pictures_are_left_out_with_a_reason(tmp_path):
    for name, array in (("rgb", picture(0)), ("depth", np.full((24, 32), 1_000, np.uint16))):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    skipped = []
    (episode,) = from_images.episodes(tmp_path, skipped=skipped)
    assert set(episode.cameras) == {"rgb"}
    assert "more than 8 bits" in skipped[0]["reason"]


def test_the_clock_of_a_video_is_not_its_rate(tmp_path):
    import av

    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1_000, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = 40 * number + (13 if number % 7 == 3 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    assert from_videos.suggested_fps(path) is None
    skipped = []
    assert list(from_videos.episodes(path, skipped=skipped)) == []
    assert "not at a constant rate" in skipped[0]["reason"]
    (episode,) = from_videos.episodes(path, fps=25)
    assert episode.length in {30, 29}
