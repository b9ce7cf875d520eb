"""What is delivered as RLDS is read by TensorFlow Datasets and held against the version, step by step."""

import hashlib
import struct
from dataclasses import replace

import av  # noqa: TID253 - this module compares pictures
import numpy as np  # noqa: TID253 - and numbers
import pytest

from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import write_canonical

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
ALOHA = ("hdf5/aloha_sim_insertion", 50, 1, 400, 1)
GROOT = ("standard_dataset/gr00t_picknplace_v20", 20, 5, 2096, 1)
BRIDGE = ("standard_dataset/rlds_bridge_debug", 5, 25, 250, 4)


def digest(value):
    data = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def keys(dataset):
    """Where the features stand in a step; the names of these versions need no more."""
    return {
        name: name if name == "action" else f"observation/{name.removeprefix('observation.')}"
        for name in dataset.manifest.features
    }


def pictures(dataset, camera, number):
    with av.open(str(dataset.path(f"videos/{camera}/episode_{number:06d}.mp4"))) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def expected(dataset, row):
    """The digest of every step of an episode: of each feature, picture, flag and word."""
    number, length = row["episode_index"], row["length"]
    found = {}
    for name, key in keys(dataset).items():
        if name in dataset.features:
            found[key] = [digest(values) for values in dataset.vector(name, number)]
        else:
            camera = name.removeprefix("observation.images.")
            found[key] = [digest(picture) for picture in pictures(dataset, camera, number)]
    tasks = dataset.tasks()
    said = dataset.frames(number, ["task_index"]).column("task_index").to_pylist()
    done = row["success"] is True
    flags = {"is_first": [0], "is_last": [length - 1], "is_terminal": [length - 1] if done else []}
    for key, places in flags.items():
        found[key] = [digest(struct.pack("?", place in places)) for place in range(length)]
    found["language_instruction"] = [digest(tasks[index].encode()) for index in said]
    found["discount"] = [digest(np.float32(1))] * length
    found["reward"] = [digest(np.float32(0))] * (length - 1) + [digest(np.float32(done))]
    return found


def differing(found, dataset):
    """(Steps compared, differing ones), over all episodes and keys."""
    rows = list(dataset.episodes())
    assert len(found) == len(rows)
    compared, wrong = 0, []
    for told, row in zip(found, rows, strict=True):
        wanted = expected(dataset, row)
        assert set(told["digests"]) == set(wanted)
        for key, steps in wanted.items():
            assert len(told["digests"][key]) == len(steps) == row["length"]
            compared += len(steps)
            wrong += [
                (row["episode_index"], step, key)
                for step, (theirs, ours) in enumerate(zip(told["digests"][key], steps, strict=True))
                if theirs != ours
            ]
    return compared, wrong


@pytest.mark.samples
@pytest.mark.parametrize(("place", "fps", "episodes", "frames", "cameras"), [ALOHA, GROOT, BRIDGE])
def test_every_step_is_what_the_version_says(
    canonical, deliver, in_tfds, place, fps, episodes, frames, cameras
):
    folder = canonical(place, fps)
    dataset = open_canonical(folder)
    shards = deliver(folder, place.rpartition("/")[2].replace("_", "-"))

    seen = in_tfds("look", shards)
    whole = in_tfds("whole", shards)

    compared, wrong = differing(seen["episodes"], dataset)
    print(  # noqa: T201 - the figures
        f"\n{place}: tfds {seen['datasets']}, {seen['declared']} episodes, {dataset.manifest.frames} steps, "
        f"{compared} values of them compared, {len(wrong)} differ"
    )
    assert wrong == []
    assert differing(whole["episodes"], dataset) == (compared, [])
    assert seen["name"] == f"{shards.parent.name}/1.0.0"
    assert seen["declared"] == dataset.manifest.episodes
    assert (dataset.manifest.episodes, dataset.manifest.frames) == (episodes, frames)
    images = [key for key, shape in seen["episodes"][0]["shapes"].items() if len(shape) == 3]
    assert len(images) == cameras


@pytest.mark.samples
def test_deepminds_rlds_makes_pairs_of_steps_of_it(canonical, deliver, in_tfds):
    folder = canonical(*GROOT[:2])

    found = in_tfds("batches", deliver(folder, "groot"))

    lengths = [row["length"] for row in open_canonical(folder).episodes()]
    rows = [{"steps": n, "pairs": n - 1, "endsLast": True, "reward": 0.0} for n in lengths]
    assert found["episodes"] == rows


def small(seed, length):
    """A few numbers, as odd as names and values get."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(length, 2)).astype(np.float32)
    values[0, 0] = [np.nan, np.inf, np.float32(1e-42)][seed % 3]
    features = {
        "observation.state": values,
        "state": values[:, :1],
        "state_2": values * 2,
        "action.arm": values * 3,
        "action.gripper": values[:, 1:],
    }
    return Episode(
        source={"assetId": "ast_1"},
        features=features,
        specs={
            name: FeatureSpec(tuple(f"d{n}" for n in range(found.shape[1])))
            for name, found in features.items()
        },
        task=f"reach «{seed}», größer",
        success=[True, False, None][seed % 3],
    )


@pytest.mark.parametrize("whole", [False, True])
def test_many_shards_odd_names_and_parts_of_actions(deliver, in_tfds, tmp_path, whole):
    """130 episodes in three shards; of two features that would get one name each keeps its numbers."""

    def made(seed):
        one = small(seed, 1 + seed % 4)
        if not whole:
            return one
        spec = FeatureSpec(("a",), "action")
        action = np.full((one.length, 1), seed, np.float32)
        return replace(one, features={**one.features, "action": action}, specs={**one.specs, "action": spec})

    write_canonical(map(made, range(130)), tmp_path / "c", fps=10)
    shards = deliver(tmp_path / "c", "3d-reach")

    found = in_tfds("look", shards)

    assert (found["declared"], found["shards"], found["name"]) == (130, 3, "3d_reach/1.0.0")
    assert [one["metadata"]["episode_index"] for one in found["episodes"]] == list(range(130))
    parts = "action_dict" if whole else "action"
    places = {
        "observation.state": "observation/state",
        "state": "observation/state_2",
        "state_2": "observation/state_2_2",
        "action.arm": f"{parts}/arm",
        "action.gripper": f"{parts}/gripper",
    } | ({"action": "action"} if whole else {})
    for seed, told in enumerate(found["episodes"]):
        one = made(seed)
        assert told["steps"] == one.length
        for name, key in places.items():
            assert told["digests"][key] == [digest(values) for values in one.features[name]]
        assert told["scalars"]["language_instruction"] == [one.task] * one.length
        done = one.success is True
        assert told["scalars"]["is_terminal"] == [False] * (one.length - 1) + [done]
        assert told["scalars"]["reward"] == [0.0] * (one.length - 1) + [float(done)]
    if not whole:
        again = in_tfds("whole", shards)
        assert [one["digests"] for one in again["episodes"]] == [one["digests"] for one in found["episodes"]]


def test_a_step_that_is_not_the_versions_is_seen(deliver, in_tfds, tmp_path):
    """The control: the comparison finds one number that was changed."""
    write_canonical([small(1, 5), small(2, 4)], tmp_path / "a", fps=10)
    other = small(2, 4)
    other.features["state"][2] += 1e-6
    write_canonical([small(1, 5), other], tmp_path / "b", fps=10)

    found = in_tfds("look", deliver(tmp_path / "a", "a"))["episodes"]

    told = {"observation/state_2": "state"}
    steps = open_canonical(tmp_path / "b").vector("state", 1)
    (key,) = told
    assert [
        step for step, values in enumerate(steps) if found[1]["digests"][key][step] != digest(values)
    ] == [2]
