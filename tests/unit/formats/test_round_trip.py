"""An odd version leaves in every layout, its README is done as it says, and it comes back as it went."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.content import content_of
from emboflow_dagster.formats.canonical.episode_files import cut
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.writer import file_sha256
from emboflow_dagster.formats.exports.package import check_package
from emboflow_dagster.formats.probe import format_of, probe_path
from emboflow_dagster.runtime import delivering
from emboflow_dagster.runtime.normalizing import normalize
from tests import odd_version
from tests.odd_version import FPS, SIZES

FORMS = (delivering.LEROBOT, delivering.RLDS, delivering.MCAP, delivering.CANONICAL)


@pytest.fixture(scope="module", params=["rich", "state"])
def version(request, tmp_path_factory):
    """Several tasks, two episodes of a single frame; with cameras and clocks, and with numbers alone."""
    folder = tmp_path_factory.mktemp(request.param)
    odd_version.write(folder / "version", rich=request.param == "rich")
    for form in FORMS:
        asked = {"package": str(folder / "version"), "out": str(folder / form), "format": form}
        delivering.deliver({**asked, "name": "odd-one", "tag": "v1"})
    return folder


def commands(readme: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def test_what_the_readme_says_can_be_done(version):
    for form in FORMS:
        folder = version / form
        assert check_package(folder)["dataset"]["episodes"] == 4
        readme = (folder / "README.md").read_text()
        told = commands(readme, "sh")
        assert told == ["sha256sum --check --quiet SHA256SUMS\n"]  # as written, in the folder
        for text in told:
            subprocess.run(["sh", "-ec", text], cwd=folder, check=True)
    # Those of LeRobot and TensorFlow Datasets: make verify-lerobot, make verify-rlds.
    (code,) = commands((version / delivering.CANONICAL / "README.md").read_text(), "python")
    script = code + "assert len(frames) == 10 and 'action' in frames"
    subprocess.run([sys.executable, "-c", script], cwd=version / delivering.CANONICAL, check=True)


def contents(folder: Path) -> list[str]:
    """The hash of each episode, as versions have it."""
    dataset = open_canonical(folder)
    raw = dataset.raw_streams()
    streams = {} if raw is None else dict(cut(dataset.path("raw_index.parquet")))
    found = []
    for number, frames in cut(dataset.path("frames.parquet")):
        videos = {name: f"videos/{name}/episode_{number:06d}.mp4" for name in SIZES}
        there = {
            name: file_sha256(folder / path) for name, path in videos.items() if (folder / path).exists()
        }
        found.append(content_of(frames, streams.get(number), there))
    return found


def come_back(folder: Path, out: Path) -> Path:
    """Normalised with the node's defaults; the one package."""
    asked = {"fps": None, "robotType": None, "task": None, "topics": [], "mapping": {}, "ratePolicy": "hold"}
    asked |= {"videos": True, "onMissingVideo": "fail", "split": None, "onMismatch": "separate"}
    asset = {"id": "a", "name": "n", "path": str(folder), "format": format_of(folder), "sha256": "0" * 64}
    made = normalize({**asked, "assets": [asset], "out": str(out)})
    (package,) = made["packages"]
    assert (package["fps"], package["episodes"], package["frames"]) == (FPS, 4, 10)
    assert made["skipped"] == []
    return Path(package["folder"])


def test_our_canonical_folder_comes_back_bit_for_bit(version, tmp_path):
    went = version / delivering.CANONICAL
    report = probe_path(went).to_json()

    back = come_back(went, tmp_path / "back")

    assert contents(back) == contents(version / "version")
    for path in (version / "version").rglob("*"):
        # What tells where an episode is from says now that it is from the folder.
        if path.is_file() and path.name not in ("manifest.json", "episodes.parquet"):
            name = path.relative_to(version / "version")
            assert (back / name).read_bytes() == path.read_bytes(), name
    ours, theirs = (list(open_canonical(one).episodes()) for one in (version / "version", back))
    for one, other in zip(ours, theirs, strict=True):
        assert {key for key in one if one[key] != other[key]} <= {
            "source_asset_id",
            "source_path",
            "source_ref",
        }
    assert report["detectedFormatCandidates"][0]["format"] == "emboflow_canonical"
    assert (report["warnings"], report["structureSummary"]["robotType"]) == ([], "arm")
    features = [open_canonical(one).manifest.features for one in (version / "version", back)]
    assert features[0] == features[1]


@pytest.mark.parametrize("form", [delivering.LEROBOT, delivering.RLDS])
def test_other_layouts_come_back_with_every_number_and_task(version, tmp_path, form):
    first = open_canonical(version / "version")

    back = open_canonical(come_back(version / form, tmp_path / "back"))

    for number in range(4):
        for feature in first.features:
            one, other = (dataset.vector(feature, number) for dataset in (first, back))
            assert one.tobytes() == other.tobytes(), (number, feature)
        said = [
            [dataset.tasks()[i] for i in dataset.frames(number, ["task_index"]).column(0).to_pylist()]
            for dataset in (first, back)
        ]
        assert said[0] == said[1]
        for name in SIZES if "observation.images.wrist" in first.manifest.features else ():
            videos = [d.path(f"videos/{name}/episode_{number:06d}.mp4") for d in (first, back)]
            if form == delivering.LEROBOT:
                assert videos[0].read_bytes() == videos[1].read_bytes()


def test_a_damaged_folder_is_told_and_gives_no_episode(version, tmp_path):
    tree = shutil.copytree(version / delivering.CANONICAL, tmp_path / "tree")
    data = bytearray((tree / "frames.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tree / "frames.parquet").write_bytes(data)

    report = probe_path(tree).to_json()

    assert [warning["code"] for warning in report["warnings"]] == ["corrupt"]
    with pytest.raises(InvalidInputError, match=r"frames\.parquet: sha256"):
        come_back(tree, tmp_path / "back")
