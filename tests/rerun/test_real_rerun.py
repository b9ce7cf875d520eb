"""What is delivered for Rerun is read by rerun-sdk and held against the version."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np  # noqa: TID253 - this module compares numbers
import pyarrow.compute as pc  # noqa: TID253
import pytest

from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.exports.package import check_package
from emboflow_dagster.formats.probe import format_of
from emboflow_dagster.runtime import delivering
from emboflow_dagster.runtime.normalizing import normalize
from tests.sample_files import SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
if importlib.util.find_spec("rerun") is None:
    pytest.skip("rerun-sdk has an environment of its own: make verify-rerun", allow_module_level=True)

RECORDINGS = {
    "aloha": ("hdf5/aloha_sim_insertion", 50, {}),
    "gr00t": ("standard_dataset/gr00t_picknplace_v20", 20, {}),
    "turtle": ("rosbag1/turtlesim_example", 20, {}),
}


@pytest.fixture(scope="module", params=RECORDINGS)
def delivered(request, tmp_path_factory):
    """A sample's version and its package, made by the code of the nodes."""
    place, fps, topics = RECORDINGS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    path = SAMPLES / place
    asset = {"id": "ast_1", "name": path.name, "path": str(path), "sha256": "0" * 64}
    normalize(
        {
            "assets": [asset | {"format": format_of(path)}], "out": str(folder / "package"), "fps": fps,
            "robotType": "robot", "task": "try it", "topics": topics, "mapping": {}, "groups": None,
            "ratePolicy": "keep", "videos": True, "onMissingVideo": "skip", "split": None,
            "onMismatch": "raise",
        }
    )  # fmt: skip
    version = next(p.parent for p in sorted((folder / "package").rglob("manifest.json")))
    return version, deliver(version, folder / "out")


def deliver(version, out):
    request = {"package": str(version), "out": str(out), "format": "rrd", "name": "x", "tag": "v1"}
    delivering.deliver({**request, "environmentState": None, "annotations": []})
    return out


def rerun(*args):
    command = [str(Path(sys.executable).with_name("rerun")), "rrd", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_every_number_stamp_word_and_video_is_the_versions(delivered):
    import rerun as rr

    version, out = delivered
    assert check_package(out)["format"] == "rrd"
    dataset = open_canonical(version)
    for row in dataset.episodes():
        number, length = row["episode_index"], row["length"]
        recording = rr.dataframe.load_recording(out / f"episodes/episode_{number:06d}.rrd")
        table = recording.view(index="frame", contents="/**").select().read_all()
        assert table.num_rows == length
        assert table.column("frame").to_pylist() == list(range(length))
        seconds = table.column("time").cast("int64").to_numpy() / 1e9
        np.testing.assert_allclose(seconds, np.arange(length) / dataset.fps, atol=1e-8)
        frames = dataset.frames(number)
        stamps = frames.column("source_timestamp_ns")
        assert ("recorded" in table.column_names) == (not stamps.null_count)
        if not stamps.null_count:
            assert table.column("recorded").cast("int64").to_pylist() == stamps.to_pylist()
        for name, spec in dataset.manifest.features.items():
            if spec["dtype"] == "video":
                camera = name.removeprefix("observation.images.")
                blob = table.column(f"/camera/{camera}:AssetVideo:blob")[0].as_py()[0]
                assert bytes(blob) == dataset.path(f"videos/{camera}/episode_{number:06d}.mp4").read_bytes()
                shown = table.column(f"/camera/{camera}:VideoFrameReference:timestamp").to_pylist()
                want = (np.arange(length) / dataset.fps * 1e9).tolist()
                np.testing.assert_allclose([one[0] for one in shown], want, atol=1e6)
            else:
                entity = "/" + name.replace(".", "/")
                values = np.array(table.column(f"{entity}:Scalars:scalars").to_pylist())
                np.testing.assert_array_equal(values, dataset.vector(name, number).astype(np.float64))
                assert table.column(f"{entity}:SeriesLines:names")[0].as_py() == list(spec["names"])
        assert table.column("/task:TextDocument:text")[0].as_py() == [row["tasks"][0]]


def test_a_pose_has_its_way_and_a_stream_its_own_rate(delivered):
    import rerun as rr

    version, out = delivered
    recording = rr.dataframe.load_recording(out / "episodes/episode_000000.rrd")
    ways = [str(c) for c in recording.schema().component_columns() if "LineStrips3D:strips" in str(c)]
    assert bool(ways) == ("turtle" in str(out))
    if not ways:
        return
    # ... and the stream at its own rate, on the recording's own clock.
    raw = open_canonical(version).raw_streams()
    kept = raw.filter(pc.equal(raw.column("topic"), "/turtle1/pose"))
    table = recording.view(index="recorded", contents="/raw/turtle1/pose").select().read_all()
    assert (
        table.column("recorded").cast("int64").to_pylist() == kept.column("source_timestamp_ns").to_pylist()
    )
    values = table.column("/raw/turtle1/pose:Scalars:scalars").to_pylist()
    np.testing.assert_array_equal(values, kept.column("values").to_pylist())


def test_reruns_own_tools_find_it_whole_and_two_exports_alike(delivered, tmp_path):
    version, out = delivered
    files = sorted((out / "episodes").iterdir())
    verified = rerun("verify", *files)
    assert verified.returncode == 0, verified.stderr
    again = sorted((deliver(version, tmp_path / "again") / "episodes").iterdir())
    for one, other in zip(files, again, strict=True):
        compared = rerun("compare", "--unordered", one, other)
        assert compared.returncode == 0, compared.stderr
    if len(files) > 1:
        assert rerun("compare", "--unordered", files[0], files[1]).returncode != 0
