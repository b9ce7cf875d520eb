"""LeRobot trees as they stand on people's disks: moved, cut, in another unit, of another version, several."""

import io
import json
import os
import shutil

import av  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pyarrow as pa  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253
import pytest
from PIL import Image  # noqa: TID253

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical import from_lerobot
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality.report import quality_report
from emboflow_dagster.runtime.normalize_readers import read as read_asset
from tests.unit.formats import lerobot_trees as trees

LENGTHS = (6, 4, 5)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A 2.1 tree without videos, to be copied."""
    return trees.tree_v21(tmp_path_factory.mktemp("plain") / "tree", LENGTHS, features=())


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A 3.0 tree with one video of all episodes, to be copied."""
    return trees.tree_v30(tmp_path_factory.mktemp("long") / "tree", LENGTHS)


@pytest.fixture
def copied(tmp_path):
    """Copies a tree, as often as asked."""
    count = iter(range(1_000))

    def copy(tree, *below):
        return shutil.copytree(tree, tmp_path.joinpath(f"copy{next(count)}", *below))

    return copy


def data(tree, episode):
    return tree / f"data/chunk-000/episode_{episode:06d}.parquet"


def put(path, name, values):
    """Set or append one column."""
    table = pq.read_table(path)
    if name in table.column_names:
        table = table.set_column(table.column_names.index(name), name, values)
    else:
        table = table.append_column(name, values)
    pq.write_table(table, path)


def change(path, **fields):
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | fields))


def warned(report):
    return {(warning.code, warning.path) for warning in report.warnings}


def read(tree, fps: float | None = trees.FPS, **more):
    skipped = []
    found = list(from_lerobot.episodes(tree, fps=fps, skipped=skipped, **more))
    return found, {row["source"]["ref"]: row["reason"] for row in skipped}


def test_what_the_metadata_say_of_episodes_is_compared_with_the_rows(plain, copied):
    listed = [{"episode_index": i, "tasks": [f"t{i}"], "length": n} for i, n in enumerate(LENGTHS)]
    where = "meta/episodes.jsonl"

    def codes(lines, tree=None):
        tree = tree or copied(plain)
        trees.lines(tree / where, lines)
        return {code for code, path in warned(probe_path(tree)) if path in (where, "data", "task_index")}

    assert codes(listed[::-1]) == set()
    assert codes(listed[:2]) == {"missing_episode_meta"}
    assert codes([*listed, listed[0] | {"episode_index": 3}]) == {"missing_data"}
    assert codes([*listed, listed[0]]) == {"metadata_mismatch"}
    assert codes([listed[0] | {"length": 7}, *listed[1:]]) == {"declared_frames_mismatch"}
    assert codes([{"episode_index": float("nan")}, {"episode_index": 1e300}, *listed]) == set()
    gap = copied(plain)
    data(gap, 1).unlink()
    assert codes([listed[0], listed[2]], gap) == {"episode_index_gap"}
    assert [e.source["ref"] for e in read(gap)[0]] == ["episode 0", "episode 2"]


def test_a_file_that_cannot_be_read_costs_its_own_episodes(plain, long, copied):
    tree = copied(plain)
    data(tree, 0).write_text(POINTER)
    data(tree, 2).write_bytes(data(tree, 2).read_bytes()[:-40])

    found, left = read(tree)

    assert [e.source["ref"] for e in found] == ["episode 1"]
    assert "git lfs pull" in left["data/chunk-000/episode_000000.parquet"]
    assert "not readable" in left["data/chunk-000/episode_000002.parquet"]

    # Of several files with several episodes the one at the cut may be half there: its length decides.
    for split, kept in ((10, [0, 1]), (8, [0])):
        tree = copied(long)
        file = tree / "data/chunk-000/file-000.parquet"
        table = pq.read_table(file)
        pq.write_table(table.slice(0, split), file)
        (tree / "data/chunk-000/file-001.parquet").write_text(POINTER)
        found, left = read(tree, videos=False)
        assert [e.source["ref"] for e in found] == [f"episode {i}" for i in kept]
        assert "data/chunk-000/file-001.parquet" in left


def test_rows_of_episodes_that_are_not_together_are_no_episodes(long, copied):
    tree = copied(long)
    file = tree / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take([0, 6, 1, 7, 2, 8, 3, 9, 4, 5, *range(10, 15)]), file)

    found, left = read(tree, videos=False)

    assert [(e.source["ref"], e.length) for e in found] == [("episode 2", 5)]
    assert left == dict.fromkeys(("episode 0", "episode 1"), "its rows are not together")
    assert ("interleaved_episodes", "data") in warned(probe_path(tree))


def test_parts_of_long_videos_are_nobody_elses_and_as_long_as_the_rows(long, copied):
    place, feature = "meta/episodes/chunk-000/file-000.parquet", "observation.images.top"
    column = f"videos/{feature}/"
    assert not {code for code, path in warned(probe_path(long)) if path == feature}

    tree = copied(long)
    put(tree / place, f"{column}from_timestamp", pa.array([0.0, 0.0, 0.0]))
    assert ("metadata_mismatch", feature) in warned(probe_path(tree))
    with pytest.raises(InvalidInputError, match="pictures of another episode"):
        read(tree)
    kept, left = read(tree, on_missing_video="drop-episode")
    assert [e.source["ref"] for e in kept] == ["episode 0"]
    assert set(left) == {"episode 1", "episode 2"}

    tree = copied(long)
    put(tree / place, f"{column}chunk_index", pa.array([0.0, float("nan"), 0.0]))
    put(tree / place, "dataset_from_index", pa.array([0, 6, 11]))
    assert {("missing_videos", feature), ("metadata_mismatch", "meta/episodes")} <= warned(probe_path(tree))
    with pytest.raises(InvalidInputError, match=r"episode 1: observation\.images\.top: no video"):
        read(tree)

    tree = copied(long)
    trees.video(tree / f"videos/{feature}/chunk-000/file-000.mp4", [10 * i for i in range(9)], fps=30)
    codes = {code for code, path in warned(probe_path(tree)) if path and path.endswith("file-000.mp4")}
    assert codes == {"declared_frames_mismatch", "fps_mismatch"}


def test_tasks_are_those_of_the_version_and_else_the_words_of_the_rows(plain, long, copied):
    tree = copied(long)
    trees.lines(tree / "meta/tasks.jsonl", [{"task_index": 0, "task": "other"}])
    assert {e.task for e in read(tree, videos=False)[0]} == {"stack"}
    assert ("metadata_mismatch", "meta/tasks.jsonl") in warned(probe_path(tree))
    for table in ({"task_index": ["zero"], "task": ["a"]}, {"task_index": [float("nan")], "task": ["a"]}):
        tree = copied(long)
        pq.write_table(pa.table(table), tree / "meta/tasks.parquet")
        assert {e.task for e in read(tree, videos=False)[0]} == {"stack"}
        assert ("metadata_missing", "meta/tasks.parquet") in warned(probe_path(tree))

    tree = copied(plain)
    (tree / "meta/tasks.jsonl").write_text('{"task_index": NaN, "task": "x"}\n{"task_index": Infinity}\nx\n')
    (tree / "meta/episodes.jsonl").unlink()
    for episode, length in enumerate(LENGTHS):
        said = ["reach"] * (length - 1) + ["grasp"]
        put(data(tree, episode), "language_instruction", pa.array(said).dictionary_encode())
        put(data(tree, episode), "task_index", pa.array([1e300] * length))
    found, _ = read(tree)
    assert found[0].tasks == ("reach", "grasp")
    assert "language_instruction" not in found[0].features
    put(data(tree, 0), "task_index", pa.array([7] * LENGTHS[0]))
    trees.lines(tree / "meta/tasks.jsonl", [{"task_index": 0, "task": "stack"}])
    assert ("metadata_mismatch", "task_index") in warned(probe_path(tree))


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (lambda n: pa.array([1_700_000_000_000_000_000 + i * 100_000_000 + i for i in range(n)]), "ns"),
        (lambda n: pa.array([1_700_000_000_000 + i * 100 for i in range(n)]), "ms"),
        (lambda n: pa.array([1_700_000_000_000.0 + i * 100 for i in range(n)]), "ms"),
        (lambda n: pa.array([1_700_000_000_000 + i * 100 for i in range(n)], pa.timestamp("ms")), "ns"),
        (lambda n: pa.array([1_700_000_000 + i / 10 for i in range(n)]), "s"),
        (lambda n: pa.array([1e300 + i for i in range(n)]), None),
        (lambda n: pa.array([float("nan")] * n), None),
        (lambda n: pa.array(["then"] * n), None),
    ],
)
def test_stamps_are_read_in_the_unit_that_the_rate_tells(plain, copied, times, unit):
    tree = copied(plain)
    for episode, length in enumerate(LENGTHS):
        put(data(tree, episode), "timestamp", times(length))

    found, _ = read(tree)
    report = probe_path(tree)

    assert report.structure["episodes"] == 3
    if unit is None:
        assert found[0].source_timestamp_ns is None
        assert "invalid_stamps" in found[0].flags
        assert ("invalid_stamp", "timestamp") in warned(report)
        return
    assert found[0].t0_ns == 1_700_000_000_000_000_000
    steps = np.diff(found[0].source_timestamp_ns)
    assert (np.abs(steps - 100_000_000) < 300).all()
    assert "off_grid" not in found[0].flags
    assert (f"stamps_in_{unit}" in found[0].flags) == (unit != "s")
    assert (("timestamp_unit", "timestamp") in warned(report)) == (unit != "s")
    assert "fps_mismatch" not in report.codes


def test_index_columns_of_any_type_leave_the_episodes_what_they_are(plain, copied):
    kinds = {
        "lists": lambda e, n: pa.array([[e]] * n, pa.large_list(pa.int64())),
        "twos": lambda e, n: pa.array([[e, e]] * n),
        "nulls": lambda e, n: pa.array([*[e] * (n - 1), None], pa.int64()),
        "no lists": lambda e, n: pa.array([*[[e]] * (n - 1), None], pa.list_(pa.int64())),
        "words": lambda e, n: pa.array([f"e{e}"] * n),
        "doubles": lambda e, n: pa.array([float(e)] * n),
    }
    for name, column in kinds.items():
        tree = copied(plain)
        for episode, length in enumerate(LENGTHS):
            put(data(tree, episode), "episode_index", column(episode, length))
        report = probe_path(tree)
        assert report.structure["episodeLengths"] == {"0": 6, "1": 4, "2": 5}, name
        assert "unreadable" not in report.codes, name
        assert [(e.source["ref"], e.length) for e in read(tree)[0]] == [
            (f"episode {i}", n) for i, n in enumerate(LENGTHS)
        ], name


def test_columns_that_are_odd_cost_themselves_and_absent_rows_become_nan(plain, copied):
    tree = copied(plain)
    for episode, length in enumerate(LENGTHS):
        path = data(tree, episode)
        state = [[1.0, 2.0]] * (length - 1)
        put(path, "observation.state", pa.array([*state, None], pa.list_(pa.float64())))
        put(path, "", pa.array([1.0] * length))
        put(path, "observation/pos", pa.array([[1.0, 2.0, 3.0]] * length))
        put(path, "observation.pos", pa.array([[4.0]] * length))
        put(path, "grid", pa.array([[[1.0, 2.0], [3.0, 4.0]]] * length, pa.list_(pa.list_(pa.float32()))))
        table = pq.read_table(path)
        twice = pa.table([*table.columns, table.column("action")], names=[*table.column_names, "action"])
        pq.write_table(twice, path)

    found, left = read(tree)

    assert {name: values.shape[1] for name, values in found[0].features.items()} == {
        "observation.state": 2,
        "observation.pos": 3,
        "grid": 4,
    }
    assert np.isnan(found[0].features["observation.state"][-1]).all()
    assert np.isfinite(found[0].features["observation.state"][:-1]).all()
    assert left["action"] == "several columns have this name"
    assert left["observation.pos"] == "another column is called observation.pos"
    assert left[""] == "has no name"
    assert {("shape_mismatch", "observation.state"), ("shape_mismatch", "action")} <= warned(probe_path(tree))


def test_depth_is_never_made_a_picture_of_8_bits(plain, copied):
    def png(value):
        target = io.BytesIO()
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(target, "PNG")
        return {"bytes": target.getvalue(), "path": None}

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    tree = copied(plain)
    for episode, length in enumerate(LENGTHS):
        cells = pa.array([png(1_000 + i) for i in range(length)], kind)
        put(data(tree, episode), "observation.images.depth", cells)
    with pytest.raises(InvalidInputError, match="more than 8 bits"):
        read(tree)
    found, left = read(tree, on_missing_video="drop-feature")
    assert [e.cameras for e in found] == [{}, {}, {}]
    assert "depth" in left["observation.images.depth"]

    tree = copied(plain)
    feature = "observation.images.depth"
    features = json.loads((tree / "meta/info.json").read_text())["features"]
    change(tree / "meta/info.json", features=features | {feature: {"dtype": "video", "shape": [16, 16, 1]}})
    for episode, length in enumerate(LENGTHS):
        path = tree / f"videos/chunk-000/{feature}/episode_{episode:06d}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=trees.FPS)
            stream.width = stream.height = 16
            stream.pix_fmt = "gray16le"
            for place in range(length):
                pixels = np.full((16, 16), 1_000 + place, np.uint16)
                frame = av.VideoFrame.from_ndarray(pixels, format="gray16le")
                frame.pts = place
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    with pytest.raises(InvalidInputError, match="more than 8 bits"):
        read(tree)
    assert feature in read(tree, on_missing_video="drop-feature")[1]


def test_versions_are_read_however_they_are_written_and_others_are_named(plain, copied):
    for said in ("v2.1", "2.1", 2.1, "v2.1.0"):
        tree = copied(plain)
        change(tree / "meta/info.json", codebase_version=said)
        assert probe_path(tree).format == "lerobot_v2.1", said
    for said in ("v1.6", "v4.0", "v3.1", ["v2.1"], None):
        tree = copied(plain)
        change(tree / "meta/info.json", codebase_version=said, fps=1e999, features=[])
        report = probe_path(tree)
        assert (report.format, report.structure["episodes"]) == ("unknown", 3), said
        assert {("unrecognised_schema", "meta/info.json"), ("metadata_mismatch", "meta/info.json")} <= warned(
            report
        )
    change(tree / "meta/info.json", codebase_version="v4.0")
    asset = {"id": "a", "path": str(tree), "format": "unknown"}
    with pytest.raises(InvalidInputError, match=r"LeRobot v4\.0 is not read; 2\.0, 2\.1 and 3\.0 are"):
        list(read_asset(asset, {"task": None}, 10.0, []))
    old = tree.parent / "old"
    (old / "meta_data").mkdir(parents=True)
    (old / "meta_data/info.json").write_text("{}")
    assert warned(probe_path(old)) == {("unrecognised_schema", "meta_data/info.json")}


def test_a_dataset_is_found_below_the_folder_that_was_registered(plain, long, copied, tmp_path):
    tree = copied(plain, "a", "b")
    top = tree.parent.parent
    (top / ".git/lfs/meta").mkdir(parents=True)
    shutil.copytree(plain, top / ".cache/x")
    shutil.copytree(plain, tree / "backup")

    report = probe_path(top)

    assert (report.format, report.structure["root"]) == ("lerobot_v2.1", "a/b")
    assert (report.structure["episodes"], report.structure["frames"]) == (3, 15)
    assert [w.message for w in report.warnings if w.code == "multiple_recordings"] == [
        "1 more datasets stand inside of it and are not read: a/b/backup"
    ]
    assert [e.source["ref"] for e in read(top)[0]] == ["episode 0", "episode 1", "episode 2"]

    both = tmp_path / "both"
    shutil.copytree(plain, both / "one")
    shutil.copytree(long, both / "two")
    change(both / "one/meta/info.json", fps=20)
    report = probe_path(both)
    assert report.structure["episodes"] == 6
    assert {root: part["fps"] for root, part in report.structure["datasets"].items()} == {
        "one": 20,
        "two": 10,
    }
    assert ("multiple_recordings", None) in warned(report)
    found, _ = read(both, fps=None, videos=False)
    assert [(e.fps, e.length) for e in found] == [(20.0, n) for n in LENGTHS] + [(10.0, n) for n in LENGTHS]
    checks = quality_report(both)["checks"]
    counts = next(check for check in checks if check["check"] == "declared_counts")
    assert {"one/episodes", "two/frames"} <= set(counts["values"]["counts"])


def test_undeclared_videos_are_named(tmp_path):
    trees.tree_v21(tmp_path, (3,))
    change(tmp_path / "meta/info.json", features={})

    found, left = read(tmp_path)

    assert not found[0].cameras
    assert (
        left["videos/chunk-000/observation.images.top/episode_000000.mp4"] == "a video of no declared feature"
    )


def test_an_unreadable_folder_below_is_no_crash(plain, copied):
    tree = copied(plain)
    (tree / "data/broken.parquet").symlink_to("nowhere")
    os.mkfifo(tree / "data/pipe.parquet")

    assert probe_path(tree).structure["episodes"] == 3
