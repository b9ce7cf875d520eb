"""What is delivered is used by real LeRobot 0.4.4: loaded, decoded, edited, trained on."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np  # noqa: TID253 - this module compares numbers
import pyarrow.parquet as pq  # noqa: TID253
import pytest

from emboflow_dagster.formats.canonical import from_hdf5
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import file_sha256, write_canonical
from emboflow_dagster.runtime import delivering
from tests import odd_version

pytestmark = [pytest.mark.samples, pytest.mark.slow, pytest.mark.timeout(1_800)]
LIFT, ALOHA, GROOT = "robosuite_101_lift_panda", "aloha_sim_insertion", "gr00t_picknplace_v20"


@pytest.fixture(scope="session")
def canonical(samples, tmp_path_factory):
    """The three samples as canonical folders."""
    out = tmp_path_factory.mktemp("canonical")
    for name, fps in ((LIFT, 20), (ALOHA, 50)):
        found = map(with_state, from_hdf5.episodes(samples / "hdf5" / name))
        write_canonical(found, out / name, fps=fps, robot_type="robot")
    with_own_videos(samples / "standard_dataset" / GROOT, out / GROOT)
    return out


def with_state(episode):
    """The robot's own part of a flat simulator state as ``observation.state``, where there is none."""
    if "observation.state" in episode.features:
        return episode
    state = episode.features["observation.environment_state"][:, 1:10]
    spec = FeatureSpec(tuple(f"qpos_{number}" for number in range(9)), "state")
    return replace(
        episode,
        features={"observation.state": state, **episode.features},
        specs={"observation.state": spec, **episode.specs},
    )


def with_own_videos(source, out):
    """A LeRobot v2.0 set with its mp4 files as they are: a canonical folder of vectors, videos put beside."""
    camera, fps = "ego_view", 20

    def episodes():
        for path in sorted((source / "data").rglob("*.parquet")):
            with path.open("rb") as stream:
                table = pq.read_table(stream)
            features = {
                name: np.array(table.column(name).to_pylist(), np.float32)
                for name in ("observation.state", "action")
            }
            specs = {
                name: FeatureSpec(
                    tuple(f"d{i}" for i in range(values.shape[1])), kind=name.rpartition(".")[2]
                )
                for name, values in features.items()
            }
            yield Episode(source={"path": path.name}, features=features, specs=specs, task="pick and place")

    write_canonical(episodes(), out, fps=fps)
    document = json.loads((out / "manifest.json").read_bytes())
    (out / "videos" / camera).mkdir(parents=True)
    rows = {row["episode_index"]: row["length"] for row in open_canonical(out).episodes()}
    for number, length in rows.items():
        name = f"videos/{camera}/episode_{number:06d}.mp4"
        (video,) = (source / "videos").rglob(f"episode_{number:06d}.mp4")
        shutil.copyfile(video, out / name)
        size = video.stat().st_size
        document["files"].append(
            {"path": name, "sha256": file_sha256(out / name), "size": size, "rows": length}
        )
    document["features"][f"observation.images.{camera}"] = {
        "dtype": "video",
        "shape": [256, 256, 3],
        "names": ["height", "width", "channels"],
        "kind": "image",
        "unit": None,
        "sourceTopic": None,
    }
    document["files"].sort(key=lambda file: file["path"])
    (out / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "episodes", "frames", "pictures"),
    [(LIFT, 1, 412, 0), (ALOHA, 1, 400, 400), (GROOT, 5, 2096, 2096)],
)
def test_every_frame_is_what_the_version_and_ffmpeg_say(
    canonical, deliver, in_lerobot, name, episodes, frames, pictures
):
    folder, made = deliver(canonical / name, name.replace("_", "-"))

    found = in_lerobot("look", folder)

    print(f"\n{name}: {found}, {made['reencoded']} videos encoded anew")  # noqa: T201 - the figures
    assert (found["lerobot"], found["episodes"], found["frames"]) == ("0.4.4", episodes, frames)
    assert (found["pictures"], found["differing"]) == (pictures, 0)
    dataset = open_canonical(canonical / name)
    assert set(found["sums"]) == set(dataset.features)
    for feature, total in found["sums"].items():
        values = np.concatenate([dataset.vector(feature, number) for number in range(episodes)])
        assert total == pytest.approx(values.astype(np.float64).sum(), rel=1e-9)
    assert all(
        set(stats) > {"min", "max", "mean", "std", "count", "q01", "q99"} for stats in found["stats"].values()
    )


@pytest.mark.usefixtures("samples")
def test_several_tasks_cameras_of_other_sizes_and_single_frames_are_loaded_as_the_readme_says(
    deliver, in_lerobot, tmp_path
):
    odd_version.write(tmp_path / "version", rich=True)
    folder, _ = deliver(tmp_path / "version", "odd-one")

    done = in_lerobot("readme", folder)
    found = in_lerobot("look", folder)

    episodes, frames = len(odd_version.LENGTHS), sum(odd_version.LENGTHS)
    pictures = frames * len(odd_version.SIZES)
    print(f"\nodd: {found}")  # noqa: T201 - the figures
    assert done == {"episodes": episodes, "frames": frames}
    assert found["tasks"] == sorted(set(odd_version.TASKS))
    assert (found["episodes"], found["frames"]) == (episodes, frames)
    assert (found["pictures"], found["differing"]) == (pictures, 0)


def test_videos_of_a_foreign_set_are_its_own_files(samples, canonical, deliver):
    folder, made = deliver(canonical / GROOT, "groot")

    theirs = {file_sha256(path) for path in (samples / "standard_dataset" / GROOT).rglob("*.mp4")}
    ours = {file_sha256(path) for path in folder.rglob("*.mp4")}
    assert (made["reencoded"], ours) == (0, theirs)


def test_lerobot_deletes_and_merges_what_was_delivered(canonical, deliver, in_lerobot, tmp_path):
    folder, _ = deliver(canonical / GROOT, "groot")

    found = in_lerobot("edit", folder, tmp_path)

    print(f"\nmerged and deleted: {found}")  # noqa: T201 - the figures
    first = next(iter(open_canonical(canonical / GROOT).episodes()))["length"]
    assert found == {"merged": [10, 4192], "deleted": [9, 4192 - first]}


@pytest.mark.parametrize(
    ("name", "requires", "policy"),
    [
        (LIFT, ["observation.environment_state", "observation.state"], "act"),
        (ALOHA, ["observation.images.top", "observation.state"], "act"),
        (ALOHA, ["observation.images.top", "observation.state"], "diffusion"),
    ],
)
def test_lerobot_trains_three_steps_with_the_config(
    canonical, deliver, in_lerobot, tmp_path, name, requires, policy
):
    folder, _ = deliver(canonical / name, name.replace("_", "-"))
    # Nothing can be downloaded here: the picture network starts from chance, and is small.
    small = {
        "act": {"dim_model": 64, "dim_feedforward": 128, "n_heads": 4, "chunk_size": 8, "n_action_steps": 8},
        "diffusion": {"down_dims": [32, 64], "crop_shape": None, "horizon": 8, "n_action_steps": 4},
    }[policy]
    config = tmp_path / "config"
    made = delivering.training(
        {
            "delivery": str(folder),
            "out": str(config),
            "policy": policy,
            "requires": requires,
            "episodes": None,
            "settings": {
                "steps": 3,
                "batchSize": 2,
                "seed": 7,
                "numWorkers": 0,
                "datasetRoot": "dataset",
                "device": "cpu",
                "policyOptions": {"pretrained_backbone_weights": None, **small},
                "options": {"log_freq": 1},
            },
        }
    )
    before = hashlib.sha256((config / "SHA256SUMS").read_bytes()).hexdigest()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "dataset").symlink_to(folder)

    said = in_lerobot("train", f"--config_path={config / 'train_config.json'}", cwd=tmp_path / "here")

    told = [line for line in said.splitlines() if "loss:" in line]
    print(f"\n{made['command']} ({policy} on {name}):", *told, sep="\n  ")  # noqa: T201 - the figures
    assert len(told) == 3
    assert all(float(line.partition("loss:")[2].split()[0]) == pytest.approx(0, abs=1e6) for line in told)
    assert list((tmp_path / "here").rglob("model.safetensors"))
    assert hashlib.sha256((config / "SHA256SUMS").read_bytes()).hexdigest() == before
