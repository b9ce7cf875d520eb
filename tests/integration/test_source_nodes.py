"""`transform` and `normalize` on real recordings, as the workflows of the samples use them."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from emboflow_dagster.errors import ExecutionError, InvalidInputError
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT, NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.runtime import derived, transforming
from emboflow_dagster.runtime.node import BoundAsset
from tests.integration.test_child_nodes import SAMPLES, bound, given, node, samples

__all__ = ["node", "samples"]

pytestmark = pytest.mark.samples

GR00T = "standard_dataset/gr00t_picknplace_v20"
#: Workflow 03 of the samples.
REPAIR = {
    "dropFeatures": ["observation.images.egoview"],
    "setDataPath": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "addColumns": ["frame_index"],
    "timestamps": "frame_index/fps",
    "cast": {"observation.state": "float32", "action": "float32"},
}


def known(name: str, form: str, *warnings: str) -> BoundAsset:
    """A sample with a short report: what a full look finds is tested elsewhere."""
    report = Probe()
    report.suggest(form, 0.95, "known")
    for code in warnings:
        report.warn(code, "known")
    return bound(name, report=report.to_json())


def test_a_broken_lerobot_dataset_is_repaired_and_normalised_without_encoding(node) -> None:
    told = json.loads((SAMPLES / "EXPECT.json").read_text())[GR00T]["must_warn"]
    assets = [known(GR00T, "lerobot_v2.0", *told)]

    made = node("transform", assets, REPAIR).result

    (output,) = made.outputs
    assert output.type == INTERMEDIATE_TASK_OUTPUT
    (row,) = made.preview["rows"]
    assert (row["episodes"], row["frames"], row["videos"]) == (5, 2096, 5)
    (recording,) = derived.read(output.payload)
    assert (recording.asset_id, recording.format) == (assets[0].id, "lerobot_v2.1")
    assert set(row["repaired"].split(", ")) == set(told) - {"video_freeze"}
    assert row["warnings left"] == "video_freeze"
    original = SAMPLES / GR00T / "videos/chunk-000/observation.images.ego_view/episode_000003.mp4"
    kept = Path(recording.path) / "videos/chunk-000/observation.images.ego_view/episode_000003.mp4"
    assert kept.read_bytes() == original.read_bytes()

    upstream = {"repair": given(made, "repair")}
    package = node("normalize", assets, {"fps": 20, "videos": "copy"}, upstream).result

    # Workflow 03: 5 episodes, 2096 frames, 5 videos; a version names the asset, not what was made of it.
    assert (package.preview["episodes"], package.preview["frames"], package.preview["fps"]) == (5, 2096, 20)
    folder = package.outputs[0].payload
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sourceAssets"] == [
        {"assetId": assets[0].id, "sha256": assets[0].asset.storage_ref.sha256}
    ]
    videos = [file for file in manifest["files"] if file["path"].startswith("videos/")]
    assert len(videos) == 5
    assert videos[3]["sha256"] == hashlib.sha256(original.read_bytes()).hexdigest()


def test_the_dataset_as_it_is_needs_to_be_told_about_the_phantom_camera(node) -> None:
    with pytest.raises(InvalidInputError, match="egoview: declared as a video, and no file has it"):
        node("normalize", [known(GR00T, "lerobot_v2.0")], {"fps": 20})


def test_datasets_of_different_kinds_become_a_package_each(node) -> None:
    # Workflow 04 of the samples.
    assets = [
        known("standard_dataset/g1_bottle_v21_partial", "lerobot_v2.1"),
        known(GR00T, "lerobot_v2.0"),
        known("standard_dataset/ioai_lerobotv2", "lerobot_v2.1"),
        known("hdf5/aloha_sim_insertion", "hdf5_aloha"),
    ]

    made = node("normalize", assets, {"onMissingVideo": "drop-episode"}).result

    assert {output.type for output in made.outputs} == {NORMALIZED_DATASET_PACKAGE}
    kinds = [(kind["fps"], kind["episodes"], kind["frames"]) for kind in made.preview["kinds"]]
    assert kinds == [(30, 2, 592), (20, 5, 2096), (10, 2, 6), (50, 1, 400)]
    assert made.preview["packages"] == 4
    assert made.asset_ids == tuple(asset.id for asset in assets)
    sources = [json.loads((o.payload / "manifest.json").read_text())["sourceAssets"] for o in made.outputs]
    assert [[s["assetId"] for s in source] for source in sources] == [[asset.id] for asset in assets]
    with pytest.raises(InvalidInputError, match="exactly one"):
        node("publish-dataset", assets, {"dataset": "mixed"}, {"n": given(made, "n")})


def test_the_page_says_how_old_held_samples_were(node) -> None:
    assets = [known("rosbag1/robot_localization_test2", "rosbag1")]
    made = node("normalize", assets, {"fps": 20, "clock": "bag"}).result

    (imu, _) = made.page["features"]["table"]
    assert imu["feature"] == "observation.imu.data"
    assert 0 < imu["meanAgeMs"] < imu["maxAgeMs"] < 50


def test_a_recording_is_split_as_the_config_says(node) -> None:
    assets = [known("rosbag1/turtlesim_lz4", "rosbag1")]
    split = {"by": "topic", "topic": "/turtle1/cmd_vel"}
    config = {"fps": 20, "topics": ["/turtle1/pose"], "split": split}

    made = node("normalize", assets, config).result

    assert made.preview["episodes"] > 1
    (row,) = made.preview["sources"]
    assert "less than one frame" in row["left out"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"split": {"by": "gap"}}, "needs `seconds`"),
        ({"split": {"by": "topic"}}, "needs `topic`"),
        ({"split": {"by": "file", "seconds": 1}}, "has no `seconds`"),
        ({"videos": "maybe"}, "videos"),
    ],
)
def test_options_that_say_nothing_are_refused(node, config, words) -> None:
    with pytest.raises(ValueError, match=words):
        node("normalize", [], config)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("hdf5/robosuite_101_lift_panda", {}, "hdf5 is not repaired"),
        (
            "standard_dataset/ioai_lerobotv2",
            {"dropFeatures": ["nope"]},
            "no recording has a feature named nope",
        ),
        ("standard_dataset/ioai_lerobotv2", {"setDataPath": "data/{x}.parquet"}, "cannot be filled"),
        ("standard_dataset/ioai_lerobotv2", {"setDataPath": "../{episode_index}.parquet"}, "leads outside"),
        ("standard_dataset/ioai_lerobotv2", {"cast": {"action": "int64"}}, "'action' cannot become int64"),
    ],
)
def test_what_cannot_be_repaired_is_named(node, name, config, words) -> None:
    with pytest.raises(InvalidInputError, match=words):
        node("transform", [known(name, "hdf5" if name.startswith("hdf5") else "lerobot_v2.1")], config)


def test_columns_are_cast_renamed_and_their_statistics_are_those_of_the_data(node) -> None:
    assets = [known("standard_dataset/ioai_lerobotv2_image", "lerobot_v2.1", "dtype_mismatch")]
    config = {
        "cast": dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
        | dict.fromkeys(("action", "observation.state", "timestamp"), "float32"),
        "rename": {"action": "action.arm"},
    }

    made = node("transform", assets, config).result

    (recording,) = derived.read(made.outputs[0].payload)
    root = Path(recording.path)
    assert made.preview["rows"][0]["repaired"] == "dtype_mismatch"
    assert made.preview["rows"][0]["warnings left"] == ""
    features = json.loads((root / "meta/info.json").read_text())["features"]
    assert (features["action.arm"]["dtype"], "action" in features) == ("float32", False)
    first = json.loads((root / "meta/episodes_stats.jsonl").read_text().splitlines()[0])["stats"]
    assert first["action.arm"]["max"] == pytest.approx([0.1])
    assert first["observation.images.cam"]["count"] == [3]
    package = node("normalize", assets, {}, {"t": given(made, "t")}).result
    assert [row["feature"] for row in package.page["features"]["table"]] == [
        "action.arm",
        "observation.images.cam",
        "observation.state",
    ]


def test_a_warning_that_is_still_there_fails_the_task(tmp_path, monkeypatch) -> None:
    from emboflow_dagster.formats.canonical import lerobot_repair

    write = lerobot_repair.repair

    def forgetful(source, out, wishes):
        made = write(source, out, wishes)
        (out / "meta/episodes.jsonl").unlink()
        return made

    recording = {"id": "a", "name": "g", "path": str(SAMPLES / "standard_dataset/ioai_lerobotv2")}
    recording |= {"format": "lerobot_v2.1", "warnings": []}
    wishes = {"drop": [], "data_path": None, "video_path": None, "add": [], "grid_timestamps": False}
    wishes |= {"cast": {}, "rename": {}}
    request = {"recordings": [recording], "repair": wishes}

    found = transforming.transform({**request, "out": str(tmp_path / "good")})
    assert found[0]["left"] == ["dtype_mismatch", "video_freeze"]
    monkeypatch.setattr(lerobot_repair, "repair", forgetful)
    with pytest.raises(ExecutionError, match="missing_episode_meta"):
        transforming.transform({**request, "out": str(tmp_path / "bad")})


def test_a_derived_recording_counts_for_the_cache_and_a_report_does_not() -> None:
    from emboflow_dagster.runtime.cache_key import _input
    from emboflow_dagster.runtime.registry import node_types

    sees = node_types().require("normalize").sees
    ref = SimpleNamespace(sha256="1" * 64, content_type="x")
    report = SimpleNamespace(type="quality report", storage_ref=ref, summary={"verdict": "pass"})
    bundle = SimpleNamespace(type="t", storage_ref=ref, summary={"format": derived.SCHEMA})

    def seen(*artifacts):
        return _input(
            SimpleNamespace(node_type="x", asset_ids=("a",), artifacts=artifacts, preview={"n": 1}), sees
        )

    assert seen(report) == seen()
    assert seen(bundle) != seen()


def test_an_asset_that_was_never_probed_is_looked_at(node) -> None:
    result = node("normalize", [bound("hdf5/robosuite_101_lift_panda")], {"fps": 20}).result
    assert {key: result.preview[key] for key in ("episodes", "frames")} == {"episodes": 1, "frames": 412}
