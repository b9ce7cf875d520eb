"""LeRobot trees made for this: every version, long files, pictures in tables, and the usual errors."""

import io
import json
import re

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pyarrow as pa  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253
import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical import from_lerobot
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.writer import write_canonical
from tests.unit.formats import lerobot_trees as trees

TOP = "observation.images.top"


def read(root, **more):
    skipped = []
    return list(from_lerobot.episodes(root, fps=trees.FPS, skipped=skipped, **more)), skipped


def greys(episode, camera="top"):
    return [round(float(picture.mean())) for picture in episode.cameras[camera].frames()]


def test_a_good_tree_gives_its_episodes_and_its_videos_as_they_are(tmp_path):
    root = trees.tree_v21(tmp_path / "x")
    found, skipped = read(root, asset_id="ast_1")

    assert [(e.length, e.task, e.source["ref"], e.flags) for e in found] == [
        (6, "stack", "episode 0", ()),
        (4, "stack", "episode 1", ()),
    ]
    assert skipped == []
    assert found[1].features["action"][:, 1].tolist() == [101.5, 102.5, 103.5, 104.5]
    assert found[0].specs["action"].names == ("a", "b")
    assert found[1].source_timestamp_ns.tolist() == [0, 100_000_001, 200_000_003, 300_000_012]
    write_canonical(iter(found), tmp_path / "d", fps=trees.FPS)
    package = open_canonical(tmp_path / "d")
    source = root / f"videos/chunk-000/{TOP}/episode_000001.mp4"
    assert package.path("videos/top/episode_000001.mp4").read_bytes() == source.read_bytes()
    assert package.frames(1).column("timestamp").to_pylist() == [0.0, 0.1, 0.2, 0.3]


def test_encode_copies_none_and_false_takes_none(tmp_path):
    root = trees.tree_v21(tmp_path / "x", (5,))

    (encoded,), _ = read(root, videos="encode")
    assert encoded.cameras["top"].video is None
    assert np.allclose(greys(encoded), [0, 10, 20, 30, 40], atol=3)
    (plain,), _ = read(root, videos=False)
    assert plain.cameras == {}


@pytest.mark.parametrize("one_file", [True, False])
def test_long_files_of_version_3_are_cut_where_the_metadata_say(tmp_path, one_file):
    root = trees.tree_v30(tmp_path / "x", (6, 4, 5), one_file=one_file)
    found, _ = read(root)

    assert [e.length for e in found] == [6, 4, 5]
    assert [e.task for e in found] == ["stack"] * 3
    assert [e.cameras["top"].video is not None for e in found] == [not one_file] * 3
    expected = [list(range(0, 60, 10)), list(range(60, 100, 10)), list(range(100, 150, 10))]
    assert all(np.allclose(greys(e), grey, atol=3) for e, grey in zip(found, expected, strict=True))
    with pytest.raises(from_lerobot.MissingVideoError, match=r"cannot be copied: its file has 15 frames"):
        read(trees.tree_v30(tmp_path / "y"), videos="copy")


def test_version_3_without_its_episode_metadata_has_no_videos_but_all_rows(tmp_path):
    root = trees.tree_v30(tmp_path / "x", meta=False)

    found, skipped = read(root, on_missing_video="drop-feature")

    assert [(e.length, e.task) for e in found] == [(6, "stack"), (4, "stack"), (5, "stack")]
    assert [item["source"]["ref"] for item in skipped] == [TOP]


def test_pictures_in_the_tables_become_a_camera(tmp_path):
    from PIL import Image

    def png(value):
        sink = io.BytesIO()
        Image.fromarray(trees.picture(value)).save(sink, "PNG")
        return {"bytes": sink.getvalue(), "path": f"{value}.png"}

    lengths = [40, 5]
    trees.write_info(tmp_path, trees.info("v2.1", lengths))
    (tmp_path / "data").mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    parts = []
    for index, length in enumerate(lengths):
        cells = pa.array([png(100 * index + place) for place in range(length)], kind)
        parts.append(pa.table(trees.rows(index, length, **{TOP: cells})))
    # Both episodes in one file, and row groups that end within them.
    pq.write_table(pa.concat_tables(parts), tmp_path / "data/all.parquet", row_group_size=16)

    found, _ = read(tmp_path)

    assert [greys(e) for e in found] == [list(range(40)), list(range(100, 105))]
    assert found[0].cameras["top"].shape == (32, 32, 3)


def test_a_picture_outside_of_the_tree_is_not_read(tmp_path):
    from PIL import Image

    Image.fromarray(trees.picture(9)).save(tmp_path / "secret.png")
    root = tmp_path / "x"
    trees.write_info(root, trees.info("v2.1", [2]))
    (root / "data").mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "../secret.png"}] * 2, kind)
    pq.write_table(pa.table(trees.rows(0, 2, **{TOP: cells})), root / "data/episode_000000.parquet")

    found, skipped = read(root, on_missing_video="drop-episode")

    assert found == []
    assert "cannot be decoded" in skipped[0]["reason"]


@pytest.mark.parametrize(
    ("policy", "kept", "cameras"),
    [("drop-episode", [1], {"top"}), ("drop-feature", [0, 1], {"side"})],
)
def test_what_happens_to_a_missing_video(tmp_path, policy, kept, cameras):
    side = "observation.images.side"
    root = trees.tree_v21(tmp_path / "x", features=(TOP, side))
    (root / f"videos/chunk-000/{TOP}/episode_000000.mp4").unlink()

    found, skipped = read(root, on_missing_video=policy)

    assert [int(e.source["ref"].split()[1]) for e in found] == kept
    assert all(cameras <= set(e.cameras) for e in found)
    assert ("top" in found[0].cameras) == (policy == "drop-episode")
    assert len(skipped) == 1
    with pytest.raises(
        from_lerobot.MissingVideoError, match=r"episode 0: observation\.images\.top: no video"
    ):
        read(root)


def test_a_phantom_camera_costs_no_episode(tmp_path):
    root = trees.tree_v21(tmp_path / "x", features=(TOP,))
    document = json.loads((root / "meta/info.json").read_text())
    document["features"]["observation.images.ghost"] = document["features"][TOP]
    trees.write_info(root, document)

    for policy in ("drop-episode", "drop-feature"):
        found, skipped = read(root, on_missing_video=policy)
        assert [set(e.cameras) for e in found] == [{"top"}, {"top"}]
        assert [item["reason"] for item in skipped] == ["declared as a video, and no file has it"]
    with pytest.raises(from_lerobot.MissingVideoError, match="ghost"):
        read(root)


@pytest.mark.parametrize(
    ("frames", "more", "reason"),
    [(5, {}, "5 pictures for 6 frames"), (None, {}, "no frame could be decoded|not readable")],
)
def test_a_video_that_is_too_short_or_broken_is_a_missing_one(tmp_path, frames, more, reason):
    root = trees.tree_v21(tmp_path / "x")
    path = root / f"videos/chunk-000/{TOP}/episode_000000.mp4"
    if frames is None:
        path.write_bytes(path.read_bytes()[:64] + bytes(2_000))
    else:
        trees.video(path, range(frames))

    found, skipped = read(root, on_missing_video="drop-episode", **more)

    assert len(found) == 1
    assert re.search(reason, skipped[0]["reason"])


def test_a_video_at_a_varying_or_another_rate_is_encoded_never_copied(tmp_path):
    root = trees.tree_v21(tmp_path / "x", (6, 6, 6))
    folder = root / f"videos/chunk-000/{TOP}"
    trees.video(folder / "episode_000000.mp4", [0, 10, 20, 30, 40, 50, 60, 70], gaps=(2, 5))
    trees.video(folder / "episode_000001.mp4", [0, 10, 20, 30, 40, 50], fps=20)
    trees.video(folder / "episode_000002.mp4", [0, 10, 20, 30, 40, 50, 60, 70])

    found, _ = read(root)

    assert [e.cameras["top"].video for e in found] == [None] * 3
    assert np.allclose(greys(found[2]), [0, 10, 20, 30, 40, 50], atol=3)
    with pytest.raises(from_lerobot.MissingVideoError, match="its rate is not constant"):
        read(root, videos="copy")
    write_canonical(iter(found), tmp_path / "d", fps=trees.FPS)
    assert open_canonical(tmp_path / "d").manifest.frames == 18


@pytest.mark.parametrize("template", ["data/{episode_index}.parquet", "{episode_index.__class__}", None])
def test_templates_that_do_not_resolve_are_no_obstacle(tmp_path, template):
    root = trees.tree_v21(tmp_path / "x", chunk=7, data_path=template, video_path=template)

    found, _ = read(root)

    assert [e.length for e in found] == [6, 4]
    assert all(e.cameras["top"].video is not None for e in found)


def test_types_are_coerced_and_what_is_no_number_is_named(tmp_path):
    trees.write_info(tmp_path, trees.info("v2.1", [3]))
    (tmp_path / "data").mkdir()
    plain = trees.rows(0, 3)
    table = {
        **{name: plain[name].cast(pa.float64()) for name in ("episode_index", "frame_index", "index")},
        "timestamp": pa.array([[0.0], [0.1], [0.2]]),
        "action": pa.array([True, False, True]),
        "grid": pa.array([[[1, 2], [3, 4]]] * 3),
        "ragged": pa.array([[1.0], [1.0, 2.0], []]),
        "note": pa.array(["a", "b", "c"]),
        "hole": pa.array([1.0, None, 3.0]),
        "valid": pa.array([1, 0, 1]),
        "a/b": pa.array([1, 2, 3], pa.uint8()),
    }
    pq.write_table(pa.table(table), tmp_path / "data/episode_000000.parquet")

    (found,), skipped = read(tmp_path)

    assert found.features["action"].tolist() == [[1.0], [0.0], [1.0]]
    assert found.features["grid"].tolist() == [[1.0, 2.0, 3.0, 4.0]] * 3
    assert np.isnan(found.features["hole"][1, 0])
    assert found.features["source.valid"].tolist() == [[1.0], [0.0], [1.0]]
    assert "a.b" in found.features
    assert all(values.dtype == np.float32 for values in found.features.values())
    reasons = {item["source"]["ref"]: item["reason"] for item in skipped}
    assert reasons["ragged"] == "its rows are of different lengths"
    assert reasons["note"] == "values of type string are no numbers"
    assert reasons["observation.state"] == "declared, and no such column in the data"
    write_canonical([found], tmp_path / "d", fps=trees.FPS)


def test_a_writer_that_numbers_every_file_from_0_is_read_by_the_names(tmp_path):
    trees.write_info(tmp_path, trees.info("v2.0", [3, 2]))
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(trees.rows(0, 3)), tmp_path / "data/episode_000000.parquet")
    pq.write_table(pa.table(trees.rows(0, 2)), tmp_path / "data/episode_000001.parquet")

    found, _ = read(tmp_path)

    assert [(e.source["ref"], e.length) for e in found] == [("episode 0", 3), ("episode 1", 2)]


def test_stamps_off_the_grid_and_numbers_out_of_order_are_flagged_and_kept(tmp_path):
    trees.write_info(tmp_path, trees.info("v2.1", [4]))
    (tmp_path / "data").mkdir()
    table = trees.rows(0, 4, timestamp=pa.array([5.0, 5.1, 5.25, 5.3]), frame_index=pa.array([0, 2, 1, 3]))
    pq.write_table(pa.table(table), tmp_path / "data/episode_000000.parquet")

    (found,), _ = read(tmp_path)

    assert found.flags == ("off_grid", "frame_index_renumbered")
    assert found.t0_ns == 5_000_000_000
    assert found.source_timestamp_ns.tolist()[2] == 5_250_000_000


def test_several_tasks_and_success_are_those_of_the_data(tmp_path):
    root = trees.tree_v21(tmp_path / "x", (4,), features=())
    table = trees.rows(0, 4, task_index=pa.array([0.0, 0.0, 1.0, 1.0]))
    table["next.success"] = pa.array([False, False, False, True])
    pq.write_table(pa.table(table), root / "data/chunk-000/episode_000000.parquet")

    (found,), _ = read(root)
    write_canonical([found], tmp_path / "d", fps=trees.FPS)

    package = open_canonical(tmp_path / "d")
    assert package.tasks() == ["stack", "rest"]
    assert package.frames().column("task_index").to_pylist() == [0, 0, 1, 1]
    (row,) = package.episodes()
    assert (row["tasks"], row["success"]) == (["stack", "rest"], True)
    ((own,), _) = read(root, task="mine")
    assert own.tasks == ("mine",)


def test_what_is_no_tree_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="LeRobot version") as caught:
        read(tmp_path)
    assert caught.value.kind is ErrorKind.FORMAT_UNSUPPORTED
    root = trees.tree_v21(tmp_path / "x", (3,), features=())
    (root / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1 no table PAR1")
    found, skipped = read(root)
    assert found == []
    assert "not readable" in skipped[0]["reason"]
