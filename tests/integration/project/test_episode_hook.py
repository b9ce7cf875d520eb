"""Hooks that are called for each demonstration or recording, in a real child process."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import h5py  # noqa: TID253 - the recordings are written here
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.formats.as_arrays import parts
from emboflow_dagster.formats.canonical import from_arrays
from emboflow_dagster.formats.canonical.from_arrays import EpisodeFolder
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import no_network
from emboflow_dagster.runtime.child import run_child
from emboflow_dagster.runtime.code_hook import check_code_hook, given_to
from emboflow_dagster.runtime.derived import Derived, output, read
from tests import mutant_files
from tests.sample_files import SAMPLES, needed
from tests.unit.formats.lerobot_trees import tree_v21, tree_v30

#: As users write them: spec/formats.md's two graphs with hooks of this kind.
ALIGN = """
def process(episode, context):
    s = episode["states"]
    return {"observation.state": s[:, 1:10], "observation.environment_state": s[:, :32],
            "action": episode["actions"]}
"""
RESAMPLE = """
import numpy as np
def process(streams, context):
    t0 = max(s["t"][0] for s in streams.values()); t1 = min(s["t"][-1] for s in streams.values())
    grid = np.arange(t0, t1, 1 / 20)
    out = {}
    for name, s in streams.items():
        i = np.clip(np.searchsorted(s["t"], grid, side="right") - 1, 0, len(s["t"]) - 1)
        out[name] = s["v"][i]
    return out
"""


@pytest.fixture
def samples() -> Path:
    needed(SAMPLES.is_dir())
    return SAMPLES


def graph(source: str, **config: Any) -> dict[str, Any]:
    return {
        "workflow": "hooked",
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "look", "type": "probe", "after": ["src"]},
            {
                "id": "code",
                "type": "python",
                "after": ["look"],
                "config": config,
                "codeHook": {"language": "python", "entrypoint": "process", "source": source},
            },
        ],
    }


def made(ef: EmboFlow, workflow: dict[str, Any], assets: list[str], tmp_path: Path) -> list[Derived]:
    """What the run's hook left, in a folder."""
    ef.workflows.publish(workflow)
    run = ef.workflows.run("hooked", assets=assets)
    ef.runs.work(run.id)
    tasks = {task.node_id: task for task in ef.runs.tasks(ef.runs.get(run.id))}
    assert tasks["code"].status == "success", tasks["code"].error_message
    [artifact_id] = tasks["code"].output_artifact_ids
    artifact: Artifact = ef.artifacts.get(artifact_id)
    assert artifact.summary is not None
    assert artifact.summary["format"] == "emboflow-recordings/1"
    folder = tmp_path / "made"
    ef.artifacts.fetch(artifact, folder)
    return read(folder)


@pytest.mark.samples
def test_demonstrations_one_by_one(ef: EmboFlow, samples: Path, tmp_path: Path):
    names = ["robosuite_101_lift_panda", "robosuite_141_lift"]
    for name in names:
        ef.assets.register(samples / "hdf5" / name, name=name, type="hdf5_dataset")
    recordings = made(ef, graph(ALIGN), names, tmp_path)
    assert [(r.name, r.format) for r in recordings] == [(name, "emboflow-episodes/1") for name in names]
    found = [e for r in recordings for e in from_arrays.episodes(Path(r.path), fps=20, asset_id=r.asset_id)]
    assert [episode.length for episode in found] == [412, 482, 510, 392]
    assert {name: values.shape[1] for name, values in found[0].features.items()} == {
        "observation.state": 9,
        "observation.environment_state": 32,
        "action": 7,
    }
    # The numbers are the file's, and so are the frames' stamps.
    with h5py.File(next((samples / "hdf5" / names[0]).rglob("*.hdf5"))) as file:
        states = np.asarray(file["data/demo_1/states"])
    np.testing.assert_array_equal(found[0].features["observation.state"], states[:, 1:10].astype(np.float32))
    assert found[0].source_timestamp_ns is not None
    assert found[0].source_timestamp_ns[0] == round(states[0, 0] * 1e9)
    assert found[0].task == "Lift"


ROWS = """
def process(episode, context):
    context.log(f"{context.ref}: {context.task} {sorted(episode)} {sorted(context.names)}")
    return {"action": episode["action"] * 2, "observation.first": episode["action"][:, :1]}
"""


def test_rows_of_lerobot_and_rlds(ef: EmboFlow, tmp_path: Path):
    lengths = {"old": [6, 4], "new": [6, 4, 5], "shards": [7] * 4}
    tree_v21(tmp_path / "old")
    tree_v30(tmp_path / "new")
    (tmp_path / "shards").mkdir()
    mutant_files.tfrecord(tmp_path / "shards")
    for name in lengths:
        ef.assets.register(tmp_path / name, name=name, type="standard_dataset")
    flow = graph(ROWS)
    normalize = {"id": "episodes", "type": "normalize", "after": ["code"], "config": {"fps": 10}}
    flow["nodes"].append(normalize)

    recordings = made(ef, flow, list(lengths), tmp_path)

    found = {
        r.name: list(from_arrays.episodes(Path(r.path), fps=10, asset_id=r.asset_id)) for r in recordings
    }
    assert {name: [e.length for e in episodes] for name, episodes in found.items()} == lengths
    second = found["old"][1]
    state = 100 + np.arange(4)[:, None] + np.array([0.0, 0.5])
    np.testing.assert_array_equal(second.features["action"], ((state + 1) * 2).astype(np.float32))
    assert (second.task, second.source["ref"]) == ("stack", "episode 1")
    assert second.source_timestamp_ns is not None
    assert second.source_timestamp_ns[-1] == pytest.approx(3e8, rel=1e-6)
    assert second.specs["action"].names == ("a", "b")
    assert found["shards"][2].source["ref"] == "demo-train.tfrecord-00000-of-00001:record 2"
    [run] = ef.runs.list()
    tasks = {task.node_id: task for task in ef.runs.tasks(run)}
    assert tasks["episodes"].last_result_preview["episodes"] == 9  # those of another width are separate
    with pytest.raises(InvalidInputError, match="numeric topics"):
        parts(tmp_path / "old", "lerobot_v2.1", "streams", [])


@pytest.mark.samples
def test_topics_on_a_grid_of_the_users_own(ef: EmboFlow, samples: Path, tmp_path: Path):
    ef.assets.register(samples / "rosbag1" / "robot_localization_test2", name="imu", type="rosbag")
    [recording] = made(ef, graph(RESAMPLE, network="none", memoryMb=512), ["imu"], tmp_path)
    [episode] = from_arrays.episodes(Path(recording.path), fps=20)
    # From 47.585 s, when both topics have begun, to 108.770 s, when one of them ends: TRUTH has both.
    assert episode.length == 1224
    assert {name: spec.dim for name, spec in episode.specs.items()} == {
        "observation.imu.data": 10,
        "observation.jackal_velocity_controller.odom": 13,
    }
    spec = episode.specs["observation.imu.data"]
    assert spec.source_topic == "/imu/data"
    assert "angular_velocity.x" in spec.names


@pytest.fixture
def called(tmp_path: Path):
    """Calls a hook in a child for recordings that were taken apart; what came of them, or the error."""

    def call(source: str, kind: str = "episode", *, network: bool = True, **arrays: Any) -> Any:
        folder = tmp_path / "given"
        EpisodeFolder(folder).add("one", arrays or {"x": np.arange(6.0).reshape(3, 2)}, task="lift")
        recording = {"name": "given", "path": str(folder), "format": "emboflow-episodes/1"}
        out = tmp_path / "out"
        out.mkdir()
        request = {"kind": kind, "recordings": [recording], "out": str(tmp_path / "parts")}
        run_child("emboflow_dagster.runtime.episode_reading:extract", request)
        request |= {
            "source": dedent(source),
            "entrypoint": "process",
            "nodeId": "code",
            "workflow": "hooked",
            "workdir": str(tmp_path),
            "config": {"scale": 2},
            "recordings": [{**recording, "id": "ast_1", "type": "folder", "report": None}],
            "parts": str(tmp_path / "parts"),
            "out": str(out),
        }
        try:
            [row] = run_child(
                "emboflow_dagster.runtime.episode_hook:run_episodes", request, network=network, timeout_s=60
            )
        except EmboflowError as error:
            return error
        return row, list(from_arrays.episodes(out / "000", fps=20))

    return call


def test_what_the_hook_is_told(called):
    row, [episode] = called(
        """
        def process(episode, context):
            context.log(f"{context.asset.name} {context.ref} {context.task}")
            assert context.timestamp_ns.tolist() == [5, 6, 7]
            return {"arm/x": episode["x"] * context.config["scale"], "t": [0.5, 0.6, 0.7]}
        """,
        x=np.arange(6.0).reshape(3, 2),
        timestamp_ns=np.array([5, 6, 7]),
    )
    assert row == {"episodes": 1, "frames": 3, "reasons": []}
    assert episode.features["arm.x"].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert episode.source_timestamp_ns.tolist() == [500_000_000, 600_000_000, 700_000_000]
    assert episode.task == "lift"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return episode['y']", r"given, one: KeyError: 'y' \(line 2 of the hook\)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_it_raises_is_said_with_its_line(called, body, said):
    error = called(f"def process(episode, context):\n    {body}\n")
    assert isinstance(error, EmboflowError)
    assert error.kind is ErrorKind.NODE_FAILED
    assert re.search(said, error.message), error.message


def test_none_leaves_an_episode_out(called):
    row, found = called("def process(episode, context):\n    return None\n")
    assert (row["episodes"], row["reasons"], found) == (0, ["one: the hook returned None"], [])


NETWORK = """
import errno, os, socket, subprocess, sys
def tried():
    socket.socketpair()
    found = []
    for family in (socket.AF_INET, socket.AF_INET6, 16):
        try:
            socket.socket(family, socket.SOCK_DGRAM if family != 16 else socket.SOCK_RAW).close()
            found.append(0)
        except OSError as error:
            found.append(error.errno)
    return found
def process(episode, context):
    code = "import socket; socket.socket()"
    child = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode
    return {"a": [[*tried(), child]]}
"""


def test_without_a_network_there_is_none(called):
    if not no_network.available():
        pytest.skip("this processor's system calls are not known")
    _, [episode] = called(NETWORK, network=False)
    assert episode.features["a"].tolist() == [[1, 1, 1, 1]]


def test_with_a_network_there_is_one(called):
    _, [episode] = called(NETWORK)
    assert episode.features["a"].tolist()[0][0] == 0  # the control: IPv4 can be had here
    assert episode.features["a"].tolist()[0][3] == 0


def test_the_first_parameter_says_what_a_hook_is_given():
    sources = {
        "def process(episode, context): pass": "episode",
        "def process(streams, context): pass": "streams",
        "def process(ctx, inputs): pass": "inputs",
        "def process(*arguments): pass": "inputs",
        "process = print": "inputs",
    }
    assert {source: given_to(source, "process") for source in sources} == sources
    assert not check_code_hook({"entrypoint": "process", "source": ALIGN}, "x")


def test_a_bundle_that_lies_is_refused(tmp_path: Path):
    output(tmp_path, [Derived("ast_1", "0" * 64, "a", "../x", "emboflow-episodes/1")])
    with pytest.raises(IntegrityError, match="not in the bundle"):
        read(tmp_path)
