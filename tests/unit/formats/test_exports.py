"""Packages of a version: the same bytes every time, and a checker that finds what LeRobot stumbles over."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np  # noqa: TID253 - this module is about tables and pictures
import pandas as pd  # noqa: TID253
import pyarrow as pa  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253
import pytest

from emboflow_dagster.errors import (
    ConfigurationError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import file_sha256, write_canonical
from emboflow_dagster.formats.exports.archives import kind_of, write_archive
from emboflow_dagster.formats.exports.lerobot_check import check_lerobot
from emboflow_dagster.formats.exports.lerobot_v3 import read_info
from emboflow_dagster.formats.exports.package import check_package, files_of
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.runtime import delivering

LENGTHS = (7, 5, 9)
FPS = 20
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.wrist/chunk-000/file-001.mp4"


def picture(seed, number):
    rng = np.random.default_rng(seed * 100 + number)
    return np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def episode(seed, length, *, pictures=True):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(length, 3)).astype(np.float32)
    camera = Camera((32, 32, 3), lambda: (picture(seed, n) for n in range(length)), "/cam")
    return Episode(
        source={"assetId": f"ast_{seed}", "path": "demo.hdf5", "ref": f"data/demo_{seed}"},
        features={"observation.state": state, "gripper": state[:, :1], "action": state[:, :2] * 2},
        specs={
            "observation.state": FeatureSpec(("x", "y", "z"), "state", "m", "/joints"),
            "gripper": FeatureSpec(("g",)),
            "action": FeatureSpec(("dx", "dy"), "action"),
        },
        task="lift" if seed else "place",
        success=True,
        cameras={"wrist": camera} if pictures else {},
    )


@pytest.fixture(scope="module")
def canonical(tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "canonical"
    write_canonical((episode(seed, n) for seed, n in enumerate(LENGTHS)), out, fps=FPS, robot_type="arm")
    return out


def request(folder, out, form=delivering.LEROBOT, **more):
    return {"package": str(folder), "out": str(out), "format": form, "name": "reach", "tag": "v1", **more}


@pytest.fixture(scope="module")
def delivered(canonical, tmp_path_factory):
    out = tmp_path_factory.mktemp("delivered") / "lerobot"
    return out, delivering.deliver(request(canonical, out))


@pytest.fixture
def tree(delivered, tmp_path):
    """A copy to break."""
    return shutil.copytree(delivered[0], tmp_path / "tree")


def contents(folder):
    return {name: file_sha256(path) for name, path in files_of(folder)}


def test_a_lerobot_package_holds_the_version(canonical, delivered):
    out, made = delivered
    dataset = open_canonical(canonical)

    assert check_lerobot(out) == []
    assert (made["episodes"], made["frames"], made["reencoded"], made["leftOut"]) == (3, 21, 0, [])
    table = pq.ParquetFile(out / DATA).read()
    assert table.column("index").to_pylist() == list(range(21))
    assert table.column("gripper").type == pa.float32()
    state = np.array(table.column("observation.state").to_pylist(), np.float32)
    assert np.array_equal(state, np.concatenate([dataset.vector("observation.state", n) for n in range(3)]))
    assert pd.read_parquet(out / "meta/tasks.parquet").index.tolist() == dataset.tasks() == ["place", "lift"]
    for number in range(3):
        theirs = dataset.path(f"videos/wrist/episode_{number:06d}.mp4")
        ours = out / f"videos/observation.images.wrist/chunk-000/file-{number:03d}.mp4"
        assert ours.read_bytes() == theirs.read_bytes()
    stats = json.loads((out / "meta/stats.json").read_text())
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        wanted = np.quantile(state.astype(np.float64), share, axis=0)
        assert stats["observation.state"][name] == pytest.approx(wanted.tolist(), rel=1e-12)
    report = probe_path(out).to_json()
    assert report["detectedFormatCandidates"][0]["format"] == "lerobot_v3.0"
    assert [w["code"] for w in report["warnings"]] == []


def test_a_package_says_which_version_it_is_and_where_each_episode_is_from(delivered):
    out, made = delivered
    document = check_package(out)

    assert document["dataset"]["versionSha256"] == made["versionSha256"]
    assert (document["dataset"]["name"], document["dataset"]["versionTag"]) == ("reach", "v1")
    rows = [json.loads(line) for line in (out / "lineage/episodes.jsonl").read_text().splitlines()]
    assert [row["source"]["assetId"] for row in rows] == ["ast_0", "ast_1", "ast_2"]
    assert [row["length"] for row in rows] == list(LENGTHS)
    assert len({row["content"] for row in rows} | {row["id"] for row in rows}) == 6
    assert made["treeSha256"] in (out / "README.md").read_text()
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=False)
    assert done.returncode == 0


KINDS = ("tar", "tar.gz", "zip")
ELSEWHERE = """
import json, os, sys, time
from pathlib import Path
time.time = lambda: 4e9
os.umask(0o077)
from emboflow_dagster.formats.exports.archives import write_archive
from emboflow_dagster.runtime.delivering import deliver
wanted, kinds = json.loads(sys.argv[1])
for one in wanted:
    deliver(one)
for kind in kinds:
    write_archive(Path(wanted[0]["out"]), Path(f"a.{kind}"), kind, top="reach-v1")
"""


def test_the_same_bytes_in_another_process_place_and_year(canonical, delivered, tmp_path):
    moved = tmp_path / "a=b"
    for path in sorted(canonical.rglob("*"), reverse=True):  # made in another order, for listings
        if path.is_file():
            place = moved / path.relative_to(canonical)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            os.utime(place, (1, 1))
    forms = (delivering.LEROBOT, delivering.RLDS, delivering.MCAP, delivering.CANONICAL)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    # Where there is one, all libraries are told another time, not Python alone.
    faked = ["faketime", "2031-02-03 04:05:06"] if shutil.which("faketime") else []
    argument = json.dumps([[request(moved, tmp_path / form, form) for form in forms], KINDS])
    command = [*faked, sys.executable, "-c", ELSEWHERE, argument]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)

    for form in forms:
        again = tmp_path / form
        first = delivered[0]
        if form != delivering.LEROBOT:
            first = tmp_path / "first" / form
            delivering.deliver(request(canonical, first, form))
        assert contents(again) == contents(first)
    for kind in KINDS:
        write_archive(delivered[0], tmp_path / "here", kind, top="reach-v1")
        assert (tmp_path / "here").read_bytes() == (tmp_path / f"a.{kind}").read_bytes()


def rewrite(path, change):
    with path.open("rb") as stream:
        table = pq.read_table(stream)
    pq.write_table(change(table), path)


def cast(name, kind):
    def change(table):
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, table.column(name).cast(kind))

    return change


def values(name, function):
    def change(table):
        place = table.schema.get_field_index(name)
        found = pa.array(
            function(np.asarray(table.column(name).combine_chunks())), table.schema.field(place).type
        )
        return table.set_column(place, name, found)

    return change


def info(change):
    def broken(tree):
        document = read_info(tree)
        change(document)
        (tree / "meta/info.json").write_text(json.dumps(document))

    return broken


def stats(change):
    def broken(tree):
        document = json.loads((tree / "meta/stats.json").read_text())
        change(document)
        (tree / "meta/stats.json").write_text(json.dumps(document))

    return broken


def tasks_by_number(tree):
    frame = pd.DataFrame({"task_index": [0, 1], "task": ["place", "lift"]})
    frame.to_parquet(tree / "meta/tasks.parquet")


BROKEN = {
    "double indices": ("dtype_mismatch", lambda t: rewrite(t / DATA, cast("frame_index", pa.float64()))),
    "double task index": ("dtype_mismatch", lambda t: rewrite(t / DATA, cast("task_index", pa.float64()))),
    "int32 episode index": ("dtype_mismatch", lambda t: rewrite(t / DATA, cast("episode_index", pa.int32()))),
    "double stamps": ("dtype_mismatch", lambda t: rewrite(t / DATA, cast("timestamp", pa.float64()))),
    "a list for a scalar": (
        "dtype_mismatch",
        lambda t: rewrite(
            t / DATA,
            lambda table: table.set_column(
                table.schema.get_field_index("gripper"),
                "gripper",
                pa.array([[v] for v in table.column("gripper").to_pylist()], pa.list_(pa.float32())),
            ),
        ),
    ),
    "no frame_index": (
        "missing_column",
        lambda t: rewrite(t / DATA, lambda table: table.drop(["frame_index"])),
    ),
    "stamps from 0.05": (
        "timestamps_not_from_zero",
        lambda t: rewrite(t / DATA, values("timestamp", lambda found: found + 0.05)),
    ),
    "stamps off the grid": (
        "time_not_monotonic",
        lambda t: rewrite(t / DATA, values("timestamp", lambda found: found * 1.01)),
    ),
    "index starts anew": (
        "declared_count_mismatch",
        lambda t: rewrite(t / DATA, values("index", lambda found: found % 7)),
    ),
    "an unknown task": (
        "missing_references",
        lambda t: rewrite(t / DATA, values("task_index", lambda f: f + 9)),
    ),
    "frames of no episode": (
        "declared_frames_mismatch",
        lambda t: rewrite(t / DATA, lambda table: pa.concat_tables([table, table.slice(0, 2)])),
    ),
    "tasks by number": ("unrecognised_schema", tasks_by_number),
    "a slash in a name": (
        "unrecognised_schema",
        info(lambda d: d["features"].update({"a/b": {"dtype": "video", "shape": [1, 1, 3], "names": None}})),
    ),
    "a template that leads nowhere": (
        "path_template_mismatch",
        info(lambda d: d.update(data_path="data/{episode_index}.parquet")),
    ),
    "counts that lie": ("declared_count_mismatch", info(lambda d: d.update(total_frames=20))),
    "a phantom column": (
        "missing_column",
        info(lambda d: d["features"].update(ghost={"dtype": "float32", "shape": [2], "names": None})),
    ),
    "no statistics": ("missing_stats", lambda t: (t / "meta/stats.json").unlink()),
    "no q01": ("missing_stats", stats(lambda d: d["action"].pop("q01"))),
    "statistics of another width": ("missing_stats", stats(lambda d: d["action"].update(mean=[0.0]))),
    "no episodes": ("missing_episode_meta", lambda t: (t / EPISODES).unlink()),
    "episode rows of double": (
        "dtype_mismatch",
        lambda t: rewrite(t / EPISODES, cast("data/file_index", pa.float64())),
    ),
    "spans that do not meet": (
        "declared_count_mismatch",
        lambda t: rewrite(t / EPISODES, values("dataset_to_index", lambda found: found + 1)),
    ),
    "a file that is not there": (
        "missing_data",
        lambda t: rewrite(t / EPISODES, values("data/file_index", lambda found: found + 1)),
    ),
    "no video": ("missing_videos", lambda t: (t / VIDEO).unlink()),
    "another episode's video": (
        "declared_frames_mismatch",
        lambda t: shutil.copyfile(t / VIDEO.replace("001", "002"), t / VIDEO),
    ),
    "a damaged video": ("corrupt_video", lambda t: (t / VIDEO).write_bytes(b"no video")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_checker_finds_what_lerobot_stumbles_over(tree, name):
    code, breaking = BROKEN[name]
    assert check_lerobot(tree) == []

    breaking(tree)

    assert code in {problem["code"] for problem in check_lerobot(tree)}


@pytest.mark.parametrize("index_type", [pa.float64(), pa.int32()])
def test_a_writer_that_was_broken_on_purpose_delivers_nothing(canonical, tmp_path, monkeypatch, index_type):
    """The positive control of the export itself: what it writes is checked before anybody gets it."""
    from emboflow_dagster.errors import ExecutionError
    from emboflow_dagster.formats.exports import lerobot_v3

    right = lerobot_v3._Plan.schema

    def wrong(plan):
        schema = right(plan)
        return schema.set(schema.get_field_index("index"), pa.field("index", index_type))

    monkeypatch.setattr(lerobot_v3._Plan, "schema", wrong)
    with pytest.raises(ExecutionError, match="index is") as caught:
        delivering.deliver(request(canonical, tmp_path / "out"))
    assert caught.value.kind == ErrorKind.CONTRACT
    assert not (tmp_path / "out" / "SHA256SUMS").exists()


def test_data_without_pictures_gets_an_environment_state_where_asked(tmp_path):
    write_canonical([episode(1, 6, pictures=False)], tmp_path / "c", fps=FPS)

    plain = delivering.deliver(request(tmp_path / "c", tmp_path / "plain"))
    more = delivering.deliver(
        request(tmp_path / "c", tmp_path / "more", environmentState="observation.state")
    )

    assert "observation.environment_state" not in plain["features"]
    assert more["features"]["observation.environment_state"]["shape"] == [3]
    with pytest.raises(InvalidInputError, match=r"there are action, gripper, observation\.state") as caught:
        delivering.deliver(request(tmp_path / "c", tmp_path / "none", environmentState="states"))
    assert caught.value.kind == ErrorKind.INPUT_MISSING


@pytest.mark.parametrize(
    ("codec", "rate", "why"), [("mpeg4", FPS, "codec mpeg4"), ("libx264", 21, "off the grid")]
)
def test_a_video_that_lerobot_would_not_find_frames_in_is_encoded_anew(tmp_path, codec, rate, why):
    import av

    write_canonical([episode(1, 12)], tmp_path / "c", fps=FPS)
    name = "videos/wrist/episode_000000.mp4"
    with av.open(str(tmp_path / "c" / name), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(1, number), format="rgb24")))
        container.mux(stream.encode())
    document = json.loads((tmp_path / "c/manifest.json").read_text())
    (row,) = (row for row in document["files"] if row["path"] == name)
    path = tmp_path / "c" / name
    row.update(sha256=file_sha256(path), size=path.stat().st_size)
    (tmp_path / "c/manifest.json").write_text(json.dumps(document))

    made = delivering.deliver(request(tmp_path / "c", tmp_path / "out"))

    assert made["reencoded"] == 1
    assert why in check_package(tmp_path / "out")["reencoded"][0]["reason"]
    assert check_lerobot(tmp_path / "out") == []


def test_rlds_is_read_back_with_every_number(canonical, tmp_path):
    from tfrecord import example_pb2

    from emboflow_dagster.formats.tfrecord_file import records

    made = delivering.deliver(request(canonical, tmp_path / "rlds", delivering.RLDS))

    report = probe_path(tmp_path / "rlds" / "reach" / "1.0.0").to_json()
    summary = report["structureSummary"]
    assert report["detectedFormatCandidates"][0]["format"] == "rlds_tfrecord"
    assert report["warnings"] == []
    assert (summary["episodes"], summary["episodeLengths"]) == (3, list(LENGTHS))
    assert summary["features"]["steps/observation/state"]["shape"] == [3]
    dataset = open_canonical(canonical)
    shard = tmp_path / "rlds/reach/1.0.0/reach-train.tfrecord-00000-of-00001"
    for number, record in records(shard):
        features = example_pb2.Example.FromString(record).features.feature
        state = np.array(features["steps/observation/state"].float_list.value, np.float32)
        assert np.array_equal(state.reshape(-1, 3), dataset.vector("observation.state", number))
        assert features["steps/is_last"].int64_list.value[-1] == 1
        assert features["steps/language_instruction"].bytes_list.value[0] in (b"place", b"lift")
        assert features["steps/observation/images.wrist"].bytes_list.value[0].startswith(b"\x89PNG")
    assert made["features"]["action"] == {"dtype": "float32", "shape": [2], "of": "action"}


@pytest.mark.skipif(importlib.util.find_spec("rerun") is not None, reason="rerun-sdk is installed")
def test_without_rerun_its_format_is_refused_with_what_brings_it(canonical, tmp_path):
    with pytest.raises(ConfigurationError, match="rerun") as refused:
        delivering.deliver(request(canonical, tmp_path / "out", delivering.RRD))
    assert (refused.value.kind, refused.value.hint) == (
        ErrorKind.EXTRA_MISSING,
        "pip install 'emboflow-dagster[rerun]'",
    )


def test_annotations_stand_beside_the_version(canonical, tmp_path):
    lines = [{"_id": "ann_2", "x": 1}, {"_id": "ann_0"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    node = {"schema": "emboflow-annotations/1", "annotationTaskId": "ant_1", "labelType": "segment"}
    rows = [{"_id": "ann_1", "payload": {"from": 0}}, {"_id": "ann_2", "x": 2}]
    (tmp_path / "b.json").write_text(
        json.dumps({**node, "reviewers": ["ada"], "annotations": rows}, indent=1)
    )
    given = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.json")]

    delivering.deliver(request(canonical, tmp_path / "out", delivering.ANNOTATED, annotations=given))

    found = [json.loads(line) for line in (tmp_path / "out/annotations.jsonl").read_text().splitlines()]
    assert [row["_id"] for row in found] == ["ann_0", "ann_1", "ann_2"]
    assert found[1] == {"annotationTaskId": "ant_1", "labelType": "segment", **rows[0]}
    (task,) = (tmp_path / "out/annotation_tasks.jsonl").read_text().splitlines()
    assert json.loads(task) == {**node, "reviewers": ["ada"]}
    assert open_canonical(tmp_path / "out").manifest.frames == 21
    assert check_package(tmp_path / "out")["format"] == "canonical+annotations"
    assert "3 annotations" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("breaking", "kind"),
    [
        (lambda t: (t / DATA).write_bytes(b"other"), ErrorKind.HASH_MISMATCH),
        (lambda t: (t / DATA).unlink(), ErrorKind.PAYLOAD_MISSING),
        (lambda t: (t / "more.txt").write_text("more"), ErrorKind.REF_MISMATCH),
    ],
)
def test_a_package_that_was_changed_is_found_out(tree, breaking, kind):
    check_package(tree)
    breaking(tree)
    with pytest.raises(IntegrityError) as caught:
        check_package(tree)
    assert caught.value.kind == kind


def test_half_a_package_is_none(tree):
    (tree / "SHA256SUMS").unlink()
    with pytest.raises(NotFoundError, match="half of one"):
        check_package(tree)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_is_the_same_bytes_and_holds_every_file(delivered, tmp_path, kind):
    folder = delivered[0]
    again = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    (again / "README.md").chmod(0o600)

    write_archive(folder, tmp_path / f"a.{kind}", kind, top="reach-v1")
    write_archive(again, tmp_path / f"b.{kind}", kind, top="reach-v1")

    assert kind_of(f"x.{kind}") == kind
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            archive.extractall(tmp_path / "out")  # noqa: S202 - written a moment ago
    else:
        with tarfile.open(tmp_path / f"a.{kind}") as archive:
            assert all((m.uid, m.gid, m.uname, m.mtime) == (0, 0, "", 315_532_800) for m in archive)
            archive.extractall(tmp_path / "out", filter="data")
    assert contents(tmp_path / "out" / "reach-v1") == contents(folder)


def training(delivery, out, **more):
    settings = {
        "steps": 3,
        "batchSize": 2,
        "seed": 7,
        "numWorkers": 0,
        "datasetRoot": "dataset",
        "device": None,
        "policyOptions": {},
        "options": {"wandb": {"project": "mine"}},
    }
    asked = {"policy": "act", "requires": [], "episodes": None, "settings": settings}
    return delivering.training({"delivery": str(delivery), "out": str(out), **asked, **more})


def test_a_training_config_pins_the_version_and_names_the_episodes(delivered, tmp_path):
    folder, made = delivered

    told = training(folder, tmp_path / "a", episodes="0,2", requires=["observation.state"])
    training(folder, tmp_path / "b", episodes="0,2", requires=["observation.state"])

    config = json.loads((tmp_path / "a/train_config.json").read_text())
    assert config["dataset"]["revision"] == made["versionSha256"] == told["versionSha256"]
    assert (config["dataset"]["episodes"], config["steps"], config["seed"]) == ([0, 2], 3, 7)
    assert config["wandb"] == {"enable": False, "project": "mine"}
    rows = [json.loads(line) for line in (tmp_path / "a/lineage/episodes.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in rows] == [0, 2]
    assert all(row["id"].startswith("ep_") and len(row["content"]) == 64 for row in rows)
    assert told["command"] in (tmp_path / "a/README.md").read_text()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert check_package(tmp_path / "a")["trainedOn"] == {"episodes": 2, "frames": 16}


def test_a_config_is_written_for_lerobot_packages_alone(canonical, tmp_path):
    delivering.deliver(request(canonical, tmp_path / "c", delivering.CANONICAL))
    with pytest.raises(InvalidInputError, match="this one is canonical") as caught:
        training(tmp_path / "c", tmp_path / "t")
    assert caught.value.kind == ErrorKind.FORMAT_UNSUPPORTED


def test_the_canonical_folder_stays_what_it_was(canonical, tmp_path):
    before = contents(canonical)
    for form in (delivering.LEROBOT, delivering.RLDS, delivering.MCAP, delivering.CANONICAL):
        delivering.deliver(request(canonical, Path(tmp_path, form), form))
    assert contents(canonical) == before
