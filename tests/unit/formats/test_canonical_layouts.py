"""HDF5 of no known layout, old and new ones; videos and pictures by themselves; RLDS by itself."""

import struct

import h5py  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.errors import InvalidInputError, LimitError
from emboflow_dagster.formats.canonical import from_hdf5, from_images, from_rlds, from_videos, separate
from emboflow_dagster.formats.canonical.content import content_of
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec
from emboflow_dagster.formats.canonical.split import entries
from emboflow_dagster.formats.canonical.split import split as split_package
from emboflow_dagster.formats.tfrecord_file import masked_crc32c
from tests.unit.formats import lerobot_trees as trees


def test_a_plain_file_is_an_episode_where_it_holds_all_that_is_mapped(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["joints"] = np.arange(12.0).reshape(4, 3)
        file["grip"] = np.arange(4.0)
        file["cmd"] = np.ones((4, 2), dtype=np.int16)
        file["when"] = np.array([10, 20, 30, 40], dtype=np.int64)
        file["eye"] = np.full((4, 16, 16, 3), 7, dtype=np.uint8)
    mapping = {
        "joints+grip": "observation.state",
        "cmd": "action",
        "when": "timestamp",
        "eye": "observation.images.front",
    }

    # Pictures are read while the file is open: as a writer does, one episode at a time.
    source = from_hdf5.episodes(tmp_path / "x.h5", mapping=mapping)
    found = next(source)

    assert found.features["observation.state"].shape == (4, 4)
    assert found.features["observation.state"][2].tolist() == [6.0, 7.0, 8.0, 2.0]
    assert found.specs["observation.state"].names == ("joints_0", "joints_1", "joints_2", "grip_0")
    assert found.specs["observation.state"].source_topic == "joints,grip"
    assert found.source_timestamp_ns.tolist() == [10, 20, 30, 40]
    assert found.t0_ns == 10
    assert found.cameras["front"].shape == (16, 16, 3)
    assert sum(1 for _ in found.cameras["front"].frames()) == 4
    assert list(source) == []


def test_every_group_that_holds_what_is_mapped_is_an_episode_in_natural_order(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number, length in ((2, 3), (10, 5), (1, 4)):
            group = file.create_group(f"runs/take{number}")
            group["q"] = np.full((length, 2), number)
            group["t"] = np.arange(length) / 10
        file["runs/take3/other"] = np.zeros((3, 2))
    skipped = []

    found = list(
        from_hdf5.episodes(
            tmp_path / "x.h5",
            mapping={"q": "observation.state", "t": "timestamp"},
            task="pour",
            skipped=skipped,
        )
    )

    assert [(e.source["ref"], e.length, e.task) for e in found] == [
        ("runs/take1", 4, "pour"),
        ("runs/take2", 3, "pour"),
        ("runs/take10", 5, "pour"),
    ]
    assert found[1].source_timestamp_ns.tolist() == [0, 100_000_000, 200_000_000]
    assert skipped == []
    with pytest.raises(InvalidInputError, match="no demonstrations that hold nope"):
        list(from_hdf5.episodes(tmp_path / "x.h5", mapping={"nope": "action"}))


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [
        ({"q": np.zeros((4, 2)), "t": np.zeros((4, 2))}, "t: 2 numbers are no stamp"),
        ({"q": np.zeros((4, 2)), "t": np.array([0.0, np.nan, 1, 2])}, "t: not every stamp is a number"),
        ({"q": np.zeros((4, 2)), "t": np.zeros(3)}, "t: 3 rows for 4 frames"),
        ({"q": np.zeros((4, 0)), "t": np.zeros(4)}, "q: holds no numbers"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(tmp_path, datasets, reason):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, values in datasets.items():
            file[name] = values
    skipped = []
    mapping = {"q": "observation.state", "t": "timestamp"}

    assert list(from_hdf5.episodes(tmp_path / "x.h5", mapping=mapping, skipped=skipped)) == []
    assert skipped[0]["reason"] == reason


def test_robosuite_030_joins_what_its_own_playback_joins(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        demo = file.create_group("data/demo_1")
        file["data"].attrs["env"] = "SawyerLift"
        demo["states"] = np.column_stack([np.arange(5) / 100, np.ones(5)])
        demo["joint_velocities"] = np.full((5, 7), 0.25)
        demo["gripper_actuations"] = np.full((5, 1), -1.0)
        demo["right_dpos"] = np.full((5, 3), 0.5)
        demo["left_dpos"] = np.zeros((5, 0))

    (found,) = from_hdf5.episodes(tmp_path / "x.hdf5")

    assert list(found.features) == ["observation.environment_state", "action", "action.right_dpos"]
    assert found.features["action"][0].tolist() == [0.25] * 7 + [-1.0]
    assert found.specs["action"].names[-1] == "gripper_actuations_0"
    assert found.specs["action.right_dpos"].kind == "action"


def test_robomimic_keeps_pictures_and_its_rewards_where_a_mapping_asks_for_them(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((3, 2))
        demo["rewards"] = np.array([0.0, 0.0, 1.0])
        demo["dones"] = np.array([0, 0, 1])
        demo["obs/eef_pos"] = np.zeros((3, 3))
        demo["obs/agentview_image"] = np.zeros((3, 16, 16, 3), dtype=np.uint8)
        demo["next_obs/eef_pos"] = np.zeros((3, 3))

    (found,) = from_hdf5.episodes(tmp_path / "x.hdf5")
    assert set(found.features) == {"observation.eef_pos", "action"}
    assert set(found.cameras) == {"agentview"}
    mapping = {"actions": "action", "rewards": "next.reward", "dones": "next.done"}
    (found,) = from_hdf5.episodes(tmp_path / "x.hdf5", mapping=mapping)
    assert found.features["next.reward"][:, 0].tolist() == [0.0, 0.0, 1.0]
    assert set(found.cameras) == {"agentview"}


def test_mobile_aloha_keeps_its_base_and_its_encoded_pictures(tmp_path):
    import io

    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), 100, dtype=np.uint8)).save(sink, "JPEG")
    padded = np.frombuffer(sink.getvalue() + bytes(50), dtype=np.uint8)
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["action"] = np.zeros((3, 14), dtype=np.float32)
        file["base_action"] = np.ones((3, 2), dtype=np.float32)
        for name in ("qpos", "qvel", "effort"):
            file[f"observations/{name}"] = np.zeros((3, 14), dtype=np.float32)
        file["observations/images/cam_high"] = np.tile(padded, (3, 1))

    (found,) = from_hdf5.episodes(tmp_path / "episode_0.hdf5")

    assert set(found.features) == {
        "observation.state",
        "observation.velocity",
        "observation.effort",
        "action",
        "action.base",
    }
    assert found.cameras["cam_high"].shape == (24, 32, 3)
    assert from_hdf5.suggested_fps(tmp_path) is None
    assert from_hdf5.nominal_fps(tmp_path) == 50.0


def test_a_video_of_varying_rate_is_held_on_the_grid(tmp_path):
    trees.video(tmp_path / "x.mp4", range(0, 100, 10), gaps=(3, 4, 7))

    (found,) = from_videos.episodes(tmp_path)

    assert found.fps == 10.0
    assert found.valid.tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [False] + [True] * 2
    greys = [round(float(p.mean())) for p in found.cameras["video"].frames()]
    assert np.allclose(greys, [0, 10, 20, 20, 20, 50, 60, 60, 80, 90], atol=3)
    assert found.sync == {"observation.images.video": {"maxAgeNs": 200_000_000, "meanAgeNs": 40_000_000.0}}
    assert found.source_timestamp_ns.tolist()[2:5] == [200_000_000] * 3


@pytest.mark.parametrize(("fps", "expected"), [(5, [0, 20, 40, 60]), (20, [0, 0, 10, 10, 20, 20, 30])])
def test_a_video_is_sampled_at_another_rate(tmp_path, fps, expected):
    trees.video(tmp_path / "x.mp4", range(0, 70, 10) if fps == 5 else range(0, 40, 10))

    (found,) = from_videos.episodes(tmp_path / "x.mp4", fps=fps)

    greys = [round(float(p.mean())) for p in found.cameras["video"].frames()]
    assert np.allclose(greys, expected, atol=3)
    assert found.flags == ("resampled",)
    with pytest.raises(InvalidInputError, match="holds nothing"):
        list(from_videos.episodes(tmp_path, videos=False))
    skipped = []
    assert list(from_videos.episodes(tmp_path, fps=fps, videos="copy", skipped=skipped)) == []
    assert "cannot be copied: it runs at 10 fps" in skipped[0]["reason"]


def test_a_dataset_of_videos_alone_goes_all_the_way_to_a_version(tmp_path):
    for name in ("b10", "b2"):
        trees.video(tmp_path / f"in/{name}.mp4", range(5))

    (written,) = separate.write_separate(
        from_videos.episodes(tmp_path / "in"), tmp_path / "d", fps=None, skipped=[]
    )
    package = open_canonical(written.folder)
    version = split_package(package, tmp_path / "v")

    assert [row["source_path"] for row in package.episodes()] == ["b2.mp4", "b10.mp4"]
    assert (version["episodes"], version["frames"], version["columns"]) == (2, 10, [])
    told = list(entries(package, None))
    assert told[0]["content"] == told[1]["content"] != content_of(package.frames(0), None, {})


def test_folders_of_pictures_are_cameras_of_one_episode(tmp_path):
    from PIL import Image

    for camera in ("left", "right"):
        (tmp_path / camera).mkdir()
        for number in (1, 2, 10):
            Image.fromarray(trees.picture(number)).save(tmp_path / camera / f"{number}.png")

    (found,) = from_images.episodes(tmp_path, task="look")

    assert (found.length, found.task, set(found.cameras)) == (3, "look", {"left", "right"})
    assert [int(p[0, 0, 0]) for p in found.cameras["right"].frames()] == [1, 2, 10]
    (tmp_path / "left/11.png").write_bytes((tmp_path / "left/1.png").read_bytes())
    with pytest.raises(InvalidInputError, match="equally many pictures; found left: 4, right: 3"):
        list(from_images.episodes(tmp_path))


def test_pictures_of_several_sizes_are_no_camera(tmp_path):
    from PIL import Image

    Image.fromarray(trees.picture(1)).save(tmp_path / "1.png")
    Image.fromarray(trees.picture(1)[:16]).save(tmp_path / "2.png")
    skipped = []

    assert list(from_images.episodes(tmp_path, skipped=skipped)) == []
    assert skipped[0]["reason"] == ".: pictures of 2 sizes"


def test_rlds_without_a_description_is_counted_by_its_flags(tmp_path):
    from tfrecord import example_pb2

    def record(length):
        example = example_pb2.Example()
        steps = example.features.feature
        steps["steps/is_first"].int64_list.value.extend([1] + [0] * (length - 1))
        steps["steps/action"].float_list.value.extend(np.arange(length * 3) / 2)
        steps["steps/observation/note"].bytes_list.value.extend([b"\xff\xfe"] * length)
        steps["steps/language_instruction"].bytes_list.value.extend([b"open the drawer"] * length)
        steps["episode_metadata/success"].int64_list.value.append(1)
        data = example.SerializeToString()
        head = struct.pack("<Q", len(data))
        return head + struct.pack("<I", masked_crc32c(head)) + data + bytes(4)

    path = tmp_path / "x.tfrecord-00000-of-00001"
    path.write_bytes(record(4) + record(2) + record(3)[:-9])
    skipped = []

    found = list(from_rlds.episodes(path, skipped=skipped))

    assert [(e.length, e.task, e.success) for e in found] == [
        (4, "open the drawer", True),
        (2, "open the drawer", True),
    ]
    assert found[0].features["action"].tolist()[1] == [1.5, 2.0, 2.5]
    reasons = [item["reason"] for item in skipped]
    assert reasons == ["its bytes are neither pictures nor words", "the file ends within record 2"]


def plain(length, dim, asset="a", **more):
    values = np.zeros((length, dim), dtype=np.float32)
    spec = FeatureSpec(tuple(map(str, range(dim))))
    return Episode(
        {"assetId": asset, "path": asset}, {"observation.state": values}, {"observation.state": spec}, **more
    )


def test_each_kind_of_episode_gets_a_package_with_its_own_sources(tmp_path):
    skipped = [
        {"source": {"assetId": "c"}, "reason": "unreadable"},
        {"source": {"assetId": "b"}, "reason": "its second"},
    ]
    sources = [{"assetId": name, "sha256": name * 64} for name in "ab"]
    found = [plain(4, 2), plain(5, 3, "b"), plain(6, 2), plain(7, 2, "b", fps=50.0)]

    written = separate.write_separate(
        iter(found), tmp_path / "d", fps=10, sources=sources, skipped=skipped, robot_type="arm"
    )

    assert [(w.manifest.document["fps"], w.manifest.episodes, w.manifest.frames) for w in written] == [
        (10, 2, 10),
        (10, 1, 5),
        (50.0, 1, 7),
    ]
    documents = [w.manifest.document for w in written]
    assert [[s["assetId"] for s in d["sourceAssets"]] for d in documents] == [["a"], ["b"], ["b"]]
    assert [[s["source"]["assetId"] for s in d["skipped"]] for d in documents] == [
        ["c"],
        ["c", "b"],
        ["c", "b"],
    ]
    for one in written:
        open_canonical(one.folder)


def test_an_episode_whose_pictures_end_too_early_leaves_nothing_behind(tmp_path):
    short = Camera((16, 16, 3), lambda: iter([np.zeros((16, 16, 3), np.uint8)] * 2))
    whole = Camera((16, 16, 3), lambda: iter([np.zeros((16, 16, 3), np.uint8)] * 3))
    skipped = []

    (written,) = separate.write_separate(
        iter([plain(3, 2, cameras={"top": short}), plain(3, 2, cameras={"top": whole})]),
        tmp_path / "d",
        fps=10,
        skipped=skipped,
    )

    assert (written.manifest.episodes, skipped[0]["reason"]) == (1, "camera top: 2 pictures for 3 frames")
    assert [p.name for p in (written.folder / "videos/top").iterdir()] == ["episode_000000.mp4"]
    assert len(open_canonical(written.folder).manifest.files) == 4


def test_so_many_kinds_are_no_set_of_demonstrations(tmp_path):
    with pytest.raises(LimitError, match="more than 64 kinds"):
        separate.write_separate((plain(2, dim) for dim in range(1, 70)), tmp_path / "d", fps=10, skipped=[])
