"""Real files of others that are no bags: the format, warnings and counts that independent tools found."""

import json

import pytest

from emboflow_dagster.formats.probe import probe_path
from tests.sample_files import needed
from tests.samples_compared import SAMPLES, probed

KINDS = ("archive", "folder", "hdf5", "raw_file", "standard_dataset", "video")
NAMES = sorted(
    f"{kind}/{path.name}"
    for kind in KINDS
    if (SAMPLES / kind).is_dir()
    for path in (SAMPLES / kind).iterdir()
)
pytestmark = pytest.mark.samples


@pytest.fixture(autouse=True)
def _samples_are_there():
    needed(NAMES)


@pytest.fixture(scope="module")
def expected():
    return json.loads((SAMPLES / "EXPECT.json").read_text())


def _truth(name):
    return json.loads((SAMPLES / "TRUTH" / f"{name.replace('/', '__')}.json").read_text())["truth"]


def _single_file(name):
    files = [path for path in (SAMPLES / name).iterdir() if path.is_file()]
    return files[0] if len(files) == 1 else None


def _of(kind):
    return [name for name in NAMES if name.startswith(f"{kind}/")]


@pytest.mark.parametrize("name", NAMES)
def test_the_format_and_warnings_of_every_sample_are_the_expected_ones(name, expected):
    report = probed(name)

    assert report.format == expected[name]["format"]
    assert set(expected[name]["must_warn"]) <= report.codes
    assert not report.codes & {"parser_failed", "unreadable"}
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", [name for name in NAMES if _single_file(name)])
def test_the_single_file_of_a_sample_is_seen_as_its_folder_is(name, expected):
    if expected[name]["format"] in ("rlds_tfrecord", "unknown", "urdf"):
        pytest.skip("a dataset of several files")
    file, folder = probe_path(_single_file(name)), probed(name)

    assert file.format == folder.format == expected[name]["format"]
    assert set(expected[name]["must_warn"]) <= file.codes
    for key in {"datasets", "frames", "members", "rows", "uncompressedBytes"} & set(file.structure):
        assert file.structure[key] == folder.structure[key]


@pytest.mark.parametrize("name", _of("hdf5"))
def test_hdf5_datasets_episodes_and_frames_are_counted(name):
    truth, structure = _truth(name), probed(name).structure

    assert {path: entry["shape"] for path, entry in structure["datasets"].items()} == {
        path.lstrip("/"): shape for path, shape in truth["h5ls"].items()
    }
    for path, entry in truth["detail"]["datasets"].items():
        assert structure["datasets"][path]["dtype"] == entry["dtype"]
    assert structure["datasetCount"] == len(truth["h5ls"])
    if truth["layout"] is None:
        assert (structure["episodes"], structure["frames"]) == (None, None)
        return
    assert (structure["episodes"], structure["frames"]) == (truth["episodes"], truth["total_steps"])
    if "episode_lengths" in truth:
        assert structure["episodeLengths"] == truth["episode_lengths"]
        assert structure["hasActions"] == truth["has_actions"]
        assert structure["hasObservations"] == truth["has_observations"]
    if "cameras" in truth:
        assert structure["cameras"] == list(truth["cameras"])


@pytest.mark.parametrize(
    ("name", "state", "action"),
    [
        ("hdf5/robosuite_101_lift_panda", 32, 7),
        ("hdf5/robosuite_101_door_panda", 23, 7),
        ("hdf5/robosuite_141_lift", 32, 7),
        ("hdf5/robosuite_030_BaxterLift", 52, None),
        ("hdf5/aloha_sim_insertion", 14, 14),
    ],
)
def test_what_filters_ask_of_demonstrations(name, state, action):
    structure = probed(name).structure

    assert (structure["stateDim"], structure["actionDim"]) == (state, action)
    assert structure["hasActions"] is (action is not None)


@pytest.mark.parametrize("name", _of("archive"))
def test_archives_are_listed(name):
    truth, structure = _truth(name), probed(name).structure

    assert structure["members"] == truth["file_members"]
    assert structure["uncompressedBytes"] == truth["uncompressed_bytes"]
    assert sorted(structure["names"]) == sorted(truth["names"])


@pytest.mark.parametrize("name", _of("folder"))
def test_folders_are_counted(name):
    truth, report = _truth(name), probed(name)

    for key in ("files", "bytes", "extensions"):
        assert report.structure[key] == truth[key]
    pointers = {w.path for w in report.warnings if w.code == "git_lfs_pointer"}
    assert pointers == set(truth["lfs_pointers"])
    for file, robot in truth["urdf"].items():
        found = report.structure["urdf"][file]
        assert (found["robot"], found["links"], found["joints"], found["meshRefs"]) == (
            robot["robot"],
            robot["links"],
            robot["joints"],
            robot["mesh_refs"],
        )
    if "jpg_size" in truth:
        assert f"{report.structure['width']}x{report.structure['height']}" in truth["jpg_size"]
        assert report.structure["frames"] == truth["extensions"]["jpg"]


@pytest.mark.parametrize("name", _of("raw_file"))
def test_tables_are_counted(name):
    truth, structure = _truth(name), probed(name).structure

    assert structure["rows"] == truth["rows"]
    assert structure["columns"] == truth["columns"]


@pytest.mark.parametrize("name", _of("video"))
def test_videos_are_counted_by_decoding(name):
    truth, structure = _truth(name), probed(name).structure

    assert set(structure["files"]) == set(truth["files"])
    for file, entry in truth["files"].items():
        found = structure["files"][file]
        video = next(stream for stream in entry["streams"] if stream["codec_type"] == "video")
        assert (found["codec"], found["width"], found["height"]) == (
            video["codec_name"],
            video["width"],
            video["height"],
        )
        assert found["fps"] == video["avg_frame_rate"]
        assert found["frames"] == int(video["nb_read_frames"])
        assert found["durationS"] == pytest.approx(float(entry["duration"]), abs=1e-6)
        assert found["streams"] == len(entry["streams"])
        assert found["rotation"] == video.get("rotation", 0)


@pytest.mark.parametrize("name", _of("standard_dataset"))
def test_datasets_are_counted_from_their_data(name):
    truth, structure = _truth(name), probed(name).structure

    if "parquet" in truth:
        assert structure["episodes"] == truth["parquet"]["episodes"]
        assert structure["frames"] == truth["parquet"]["rows"]
        assert structure["episodeLengths"] == truth["parquet"]["episode_lengths"]
        assert structure["fps"] == truth["info"]["fps"]
        assert {n: f["dtype"] for n, f in structure["features"].items()} == {
            n: f["dtype"] for n, f in truth["declared_features"].items()
        }
        assert set(structure["columns"]) == set(truth["parquet"]["columns"])
        assert structure["declared"]["total_episodes"] == truth["info"]["total_episodes"]
    elif "total_steps" in truth:
        assert (structure["episodes"], structure["frames"]) == (truth["episodes"], truth["total_steps"])
        assert structure["episodeLengths"] == truth["episode_lengths"]
    else:
        assert (structure["episodes"], structure["frames"]) == (0, 0)


def test_all_samples_that_are_no_bags_were_found():
    assert len(NAMES) == 28
