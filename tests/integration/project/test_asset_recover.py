"""Recovering an asset into a file: a real child process, a real database."""

from pathlib import Path

import pytest

from emboflow_dagster.errors import AlreadyExistsError, InvalidInputError
from emboflow_dagster.formats.demo_recordings import arm, ros_files
from emboflow_dagster.formats.detect import recording_parts
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.recording import Facts


@pytest.fixture
def recordings(tmp_path: Path) -> dict[str, Path]:
    """A ROS1 bag that was cut, a whole MCAP, and a bag of which nothing is left."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    trajectory = arm.Trajectory([(1.2, -0.9), (2.0, -1.2), (1.2, -0.9)])
    ros_files.write_cut_bag(folder / "cut.bag", trajectory, 1_700_000_000_000_000_000, keep=0.7)
    ros_files.write_mcap(folder / "whole.mcap", trajectory, 1_700_000_000_000_000_000)
    (folder / "gone.bag").write_bytes((folder / "cut.bag").read_bytes()[:4_200])
    return {path.name: path for path in folder.iterdir()}


def messages(path: Path) -> list[tuple[str, int, bytes]]:
    return [
        (m.connection.topic, m.stamp_ns, m.data)
        for part in recording_parts(path)
        for m in part[2](part[0], Facts(), lambda _: True)
    ]


def test_a_cut_bag_is_recovered_into_a_file_that_is_whole(ef, recordings, tmp_path):
    ef.assets.register(recordings["cut.bag"], type="rosbag")
    report = ef.assets.probe("cut.bag")
    target = tmp_path / "mended.bag"

    result = ef.assets.recover("cut.bag", target)

    recoverable = report.structure_summary["recoverable"]
    assert report.recommended_next_nodes[0] == "recover"
    assert (result["messages"], result["bytes"]) == (recoverable["messages"], recoverable["bytes"])
    assert result["path"] == str(target)
    assert probe_path(target).codes == set()
    assert messages(target) == messages(recordings["cut.bag"])
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".emboflow")) == []
    with pytest.raises(AlreadyExistsError):
        ef.assets.recover("cut.bag", target)


def test_nothing_is_written_of_what_is_whole_or_gone(ef, recordings, tmp_path):
    ef.assets.register(recordings["whole.mcap"], type="rosbag")
    ef.assets.register(recordings["gone.bag"], type="rosbag")

    assert ef.assets.recover("whole.mcap", tmp_path / "a.mcap")["path"] is None
    with pytest.raises(InvalidInputError, match="no message in it can be read"):
        ef.assets.recover("gone.bag", tmp_path / "a.bag")

    assert not (tmp_path / "a.mcap").exists()
    assert not (tmp_path / "a.bag").exists()
