"""Episodes out of real and written recordings: which, in which order, with which numbers and times."""

import json

import h5py  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pytest
from mcap.writer import Writer  # noqa: TID253

from emboflow_dagster.errors import InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical import from_bags, from_hdf5
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.writer import write_canonical
from tests.sample_files import SAMPLES, needed
from tests.unit.formats.json_recordings import MS, START, recording


@pytest.fixture
def hdf5_samples():
    folder = SAMPLES / "hdf5"
    needed(folder.is_dir())
    return folder


def arm(count=101, step=10.0):
    return [
        (i * step, {"name": ["a", "b"], "position": [i / 10, -i], "velocity": [1.0, 2.0]})
        for i in range(count)
    ]


def test_the_demonstrations_of_two_lift_files_are_four_episodes_of_1796_frames(hdf5_samples, tmp_path):
    skipped = []

    def both():
        for name in ("robosuite_101_lift_panda", "robosuite_141_lift", "robosuite_030_BaxterLift"):
            yield from from_hdf5.episodes(hdf5_samples / name, asset_id=name, skipped=skipped)

    manifest = write_canonical(both(), tmp_path / "d", fps=20, robot_type="Panda", skipped=skipped)

    assert (manifest.episodes, manifest.frames) == (4, 1796)
    assert [item["reason"] for item in manifest.document["skipped"]] == ["no actions", "no actions"]
    dataset = open_canonical(tmp_path / "d")
    assert dataset.features == ["observation.environment_state", "action"]
    with h5py.File(hdf5_samples / "robosuite_141_lift/demo.hdf5") as file:
        states = file["data/demo_2/states"][...]
    assert np.array_equal(dataset.vector("observation.environment_state", 2), states.astype(np.float32))
    row = list(dataset.episodes())[2]
    assert (row["source_asset_id"], row["source_path"], row["source_ref"]) == (
        "robosuite_141_lift",
        "demo.hdf5",
        "data/demo_2",
    )
    stamps = dataset.frames(2).column("source_timestamp_ns").to_numpy()
    assert np.array_equal(stamps, np.round(states[:, 0] * 1e9).astype(np.int64))
    assert set(np.diff(stamps)) == {50_000_000}
    for number in range(32):
        assert row["stats/observation.environment_state/max"][number] == pytest.approx(
            float(states[:, number].max()), rel=1e-6
        )


def test_an_aloha_episode_keeps_its_vectors_and_camera(hdf5_samples, tmp_path):
    manifest = write_canonical(
        from_hdf5.episodes(hdf5_samples / "aloha_sim_insertion"), tmp_path / "d", fps=50
    )

    dataset = open_canonical(tmp_path / "d")
    assert dataset.features == ["observation.state", "observation.velocity", "action"]
    assert manifest.frames == 400
    assert manifest.features["observation.images.top"]["shape"] == [60, 80, 3]
    assert manifest.features["action"]["names"][6] == "left_gripper"
    assert dataset.frames(0).column("source_timestamp_ns").null_count == 400
    with h5py.File(hdf5_samples / "aloha_sim_insertion/insertion_episode_0.hdf5") as file:
        assert np.array_equal(dataset.vector("action", 0), file["action"][...])
        truth = file["observations/images/top"][200].astype(int)
    import av

    with av.open(str(dataset.path("videos/top/episode_000000.mp4"))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 400
    assert np.abs(frames[200].astype(int) - truth).mean() < 6


@pytest.mark.parametrize(
    ("name", "fps"),
    [("robosuite_141_lift", 20.0), ("robosuite_101_wipe_panda", 20.0), ("robosuite_030_SawyerLift", 100.0)],
)
def test_the_rate_comes_from_the_simulation_clock(hdf5_samples, name, fps):
    assert from_hdf5.suggested_fps(hdf5_samples / name) == fps


def test_robomimic_observations_keep_their_names_and_order(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for number in (1, 2, 10):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = np.full((4, 2), number)
            demo["obs/eef_pos"] = np.zeros((4, 3))
            demo["obs/none"] = np.zeros((4, 0))

    found = list(from_hdf5.episodes(tmp_path / "x.hdf5", task="stack"))

    assert [int(e.features["action"][0, 0]) for e in found] == [1, 2, 10]
    assert set(found[0].features) == {"observation.eef_pos", "action"}
    assert found[0].task == "stack"
    assert found[0].source_timestamp_ns is None


def test_a_mapping_names_the_features(hdf5_samples):
    mapping = {"joint_torques": "observation.torque", "actions": "action"}

    found = list(from_hdf5.episodes(hdf5_samples / "robosuite_101_lift_panda", mapping=mapping))

    assert {name: spec.source_topic for name, spec in found[0].specs.items()} == {
        "observation.torque": "data/demo_1/joint_torques",
        "action": "data/demo_1/actions",
    }


def test_demonstrations_whose_values_stand_elsewhere_are_left_out(tmp_path):
    (tmp_path / "raw.bin").write_bytes(bytes(96))
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["data/demo_1/actions"] = np.zeros((4, 2))
        file.create_dataset("data/demo_1/states", (4, 3), "f8", external=[(str(tmp_path / "raw.bin"), 0, 96)])
    skipped = []

    assert list(from_hdf5.episodes(path, skipped=skipped)) == []
    assert skipped[0]["reason"] == "states: its values stand in another file"


def test_what_is_no_demonstration_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["values"] = np.arange(3)

    with pytest.raises(InvalidInputError, match="no demonstrations"):
        list(from_hdf5.episodes(tmp_path / "x.hdf5"))
    with pytest.raises(NotFoundError):
        list(from_hdf5.episodes(tmp_path / "absent.hdf5"))


def test_topics_are_held_on_the_grid_and_their_age_is_kept(tmp_path):
    path = recording(
        tmp_path / "x.mcap",
        {
            "/joint_states": arm(101, 10.0),
            "/cmd_vel": [(5 + i * 40.0, {"linear": {"x": float(i)}}) for i in range(26)],
        },
    )

    (found,) = from_bags.episodes(path, fps=50, task="drive", asset_id="asset_1")

    # Both have data from 5 ms to 1000 ms: 49 steps of 20 ms fit.
    assert found.length == 50
    assert found.t0_ns == START + 5 * MS
    assert set(found.features) == {"observation.state", "observation.velocity", "action"}
    assert found.specs["observation.state"].names == ("position.a", "position.b")
    grid = 5 + 20 * np.arange(50)
    expected = (grid // 10).astype(float)
    assert np.allclose(found.features["observation.state"][:, 0], expected / 10)
    assert np.array_equal(found.features["observation.state"][:, 1], -expected)
    assert np.array_equal(found.features["action"][:, 0], (grid - 5) // 40)
    assert found.sync["observation.state"] == {"maxAgeNs": 5 * MS, "meanAgeNs": 5.0 * MS}
    assert found.sync["action"] == {"maxAgeNs": 20 * MS, "meanAgeNs": 10.0 * MS}
    newest = np.maximum(grid // 10 * 10, 5 + (grid - 5) // 40 * 40)
    assert np.array_equal(found.source_timestamp_ns, START + newest * MS)
    assert found.valid.all()
    assert found.flags == ("resampled",)


def test_topics_that_cannot_be_used_are_named_with_a_reason(tmp_path):
    path = recording(
        tmp_path / "x.mcap",
        {
            "/joint_states": arm(301, 10.0),
            "/once": [(3.0, {"v": 1})],
            "/rare": [(0.0, {"v": 1}), (2_990.0, {"v": 2})],
            "/early": [(i * 5.0, {"v": i}) for i in range(100)],
            "/text": [(i * 10.0, {"say": "hello"}) for i in range(100)],
            "/tf": [(i * 10.0, {"transforms": [{"x": 1.0}]}) for i in range(300)],
        },
    )
    skipped = []

    (found,) = from_bags.episodes(path, fps=30, skipped=skipped)

    assert {spec.source_topic for spec in found.specs.values()} == {"/joint_states"}
    reasons = {item["source"]["ref"]: item["reason"] for item in skipped}
    assert reasons["/once"] == "a single sample"
    assert reasons["/rare"].startswith("too sparse: 2 samples")
    assert reasons["/early"].startswith("covers 16% of the recording")
    assert "several frames" in reasons["/tf"]
    assert "/text" not in reasons


def test_a_pause_makes_its_frames_invalid(tmp_path):
    samples = [row for row in arm(301, 10.0) if not 1_000 < row[0] < 2_000]
    path = recording(tmp_path / "x.mcap", {"/joint_states": samples})

    (found,) = from_bags.episodes(path, fps=100)

    stale = np.flatnonzero(~found.valid) * 10
    assert (stale.min(), stale.max()) == (1_110, 1_990)
    assert found.flags == ("resampled", "stale_frames")


def test_chosen_topics_are_taken_as_they_are_or_refused(tmp_path):
    path = recording(
        tmp_path / "x.mcap",
        {
            "/joint_states": arm(),
            "/rare": [(0.0, {"v": 1}), (1_000.0, {"v": 2})],
            "/after": [(2_000.0, {"v": 1})],
        },
    )

    (found,) = from_bags.episodes(path, fps=10, topics={"/rare": "observation.rare"})
    assert found.features["observation.rare"][:, 0].tolist() == [1] * 10 + [2]
    with pytest.raises(InvalidInputError, match="no numbers in '/absent'"):
        list(from_bags.episodes(path, fps=10, topics=["/joint_states", "/absent"]))
    with pytest.raises(InvalidInputError, match="same time"):
        list(from_bags.episodes(path, fps=10, topics=["/joint_states", "/after"]))


def test_kept_streams_hold_every_sample_with_its_own_stamp(tmp_path):
    path = recording(tmp_path / "x.mcap", {"/joint_states": arm(101, 10.0)})
    found = from_bags.episodes(path, fps=10, rate_policy="keep")

    write_canonical(found, tmp_path / "d", fps=10)
    raw = open_canonical(tmp_path / "d").raw_streams()

    assert raw.num_rows == 101
    assert raw.column("source_timestamp_ns").to_pylist() == [START + i * 10 * MS for i in range(101)]
    assert raw.column("values")[3].as_py() == pytest.approx([0.3, -3.0, 1.0, 2.0])
    assert set(raw.column("topic").to_pylist()) == {"/joint_states"}


def test_two_arms_do_not_overwrite_one_another(tmp_path):
    path = recording(tmp_path / "x.mcap", {"/left/joint_states": arm(), "/right/joint_states": arm()})

    (found,) = from_bags.episodes(path, fps=10)

    assert set(found.features) == {
        f"observation.{side}.joint_states.{part}"
        for side in ("left", "right")
        for part in ("position", "velocity")
    }


def test_messages_out_of_order_are_put_in_order(tmp_path):
    forward = recording(tmp_path / "a.mcap", {"/joint_states": arm()})
    (plain,) = from_bags.episodes(forward, fps=20)
    with (tmp_path / "b.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("fields", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("/joint_states", "json", schema)
        for ms, fields in reversed(arm()):
            stamp = START + round(ms * MS)
            writer.add_message(channel, stamp, json.dumps(fields).encode(), stamp)
        writer.finish()

    (shuffled,) = from_bags.episodes(tmp_path / "b.mcap", fps=20)

    assert np.array_equal(plain.features["observation.state"], shuffled.features["observation.state"])
    assert np.array_equal(plain.source_timestamp_ns, shuffled.source_timestamp_ns)
