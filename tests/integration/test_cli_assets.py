"""`emboflow asset register` and `probe` over many recordings at once."""

import json
from pathlib import Path

import pytest

from emboflow_dagster.cli.asset_register import shown_type
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.formats.demo_recordings.make import make_recordings
from tests.integration.test_cli import Deployment, deployment  # noqa: F401 - the fixture of that name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    make_recordings(folder)
    return folder


def test_a_folder_of_recordings_is_registered_and_probed(deployment: Deployment, folder: Path):  # noqa: F811
    many = deployment.here("asset", "register", "--each", str(folder), "--json").json
    assert {row["displayName"] for row in many} >= {"reach-left.mcap", "cut-short.bag"}
    assert {row["type"] for row in many} == {"rosbag", "hdf5_dataset"}

    # One whose bytes are gone does not hold up the others, and is told.
    gone = folder.parent / "gone.bag"
    gone.write_bytes((folder / "cut-short.bag").read_bytes() + b"more")
    deployment.here("asset", "register", str(gone), "--in-place")
    gone.unlink()
    ended = deployment.here("asset", "probe", "type=rosbag", "teleoperated.hdf5", "pick-and-place", "--json")
    assert ended.status == 1
    assert "not probed: gone.bag: [" in ended.err
    assert sorted(row["assetId"] for row in json.loads(ended.out)) == sorted(row["_id"] for row in many)
    assert "truncated" in deployment.here("asset", "probe", "cut-short.bag", "reach-left.mcap").out


def test_one_that_cannot_be_taken_is_told_and_the_others_are_taken(
    deployment: Deployment,  # noqa: F811
    tmp_path: Path,
):
    (tmp_path / "x.csv").write_text("t,v\n1,2\n")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "y.csv").symlink_to(tmp_path / "x.csv")
    ended = deployment.here("asset", "register", str(tmp_path / "linked"), str(tmp_path / "x.csv"))
    assert ended.status == 1
    assert "linked: [" in ended.err
    assert [line.split()[:2] for line in ended.out.splitlines()[1:]] == [["x.csv", "raw_file"]]


def test_the_type_is_what_the_content_shows(folder: Path, tmp_path: Path):
    bags = tmp_path / "bags"
    bags.mkdir()
    for name in ("cut-short.bag", "reach-left.mcap"):
        (bags / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing to see")

    assert shown_type(bags) == "rosbag"
    assert shown_type(folder) == "folder"
    assert shown_type(tmp_path / "notes") == "folder"
    assert shown_type(tmp_path / "notes" / "a.txt") == "raw_file"
    assert shown_type(Path("s3://lake/2026-11")) == "object_storage_prefix"
    with pytest.raises(NotFoundError):
        shown_type(tmp_path / "absent")
