"""Quality and previews of episodes that a node computed, ``emboflow-episodes/1``."""

import json

import numpy as np  # noqa: TID253 - this module is about arrays and pictures
import pytest
from PIL import Image  # noqa: TID253

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.from_arrays import EpisodeFolder
from emboflow_dagster.formats.previews.bundle import preview_bundle
from emboflow_dagster.formats.quality.report import quality_report

FPS = 20


def moving(length, seed=0):
    """A state and an action that never stand still."""
    grid = np.arange(length)[:, None] / FPS
    waves = np.sin(grid * np.array([1.0, 1.7, 2.3]) + seed) + grid * 0.1
    return {"observation.state": waves, "action": np.diff(waves, axis=0, append=waves[-1:] + 0.01)}


def video(path, length, still=()):
    import av

    rng = np.random.default_rng(7)
    board = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(length):
            at = still[0] if still and still[0] <= number < still[1] else number
            picture = np.roll(board, 3 * at, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    out = EpisodeFolder(tmp_path / "computed")
    stamps = 10**18 + np.arange(60) * (10**9 // FPS)
    names = {"observation.state": ["shoulder", "elbow", "wrist"]}
    video(tmp_path / "computed" / "wrist.mp4", 60, still=(20, 40))
    out.add(
        "data/demo_1", {**moving(60), "timestamp_ns": stamps}, task="lift", fps=FPS,
        names=names, videos={"wrist": "wrist.mp4"},
    )  # fmt: skip
    out.add("data/demo_2", moving(50, 1), fps=FPS)
    return tmp_path / "computed"


def by_name(report):
    return {check["check"]: check for check in report["checks"]}


def test_what_a_node_computed_is_measured(folder, tmp_path):
    report = quality_report(folder, evidence=tmp_path / "measured.jsonl")

    checks = by_name(report)
    assert (report["kind"], report["subject"]) == ("emboflow-episodes/1", "computed")
    assert report["verdict"] == "warn"
    assert checks["time_monotonic"]["coverage"] == {"declared": 2, "resolved": 1, "unresolved": 1}
    assert checks["nan_inf"]["severity"] == checks["frozen_action"]["severity"] == "pass"
    assert checks["frame_count"]["severity"] == checks["decode_all_frames"]["severity"] == "pass"
    assert checks["video_freeze"]["severity"] == "warn"
    assert not {"stats_recompute", "index_integrity", "declared_counts", "sync_age"} & set(checks)
    rows = [json.loads(line) for line in (tmp_path / "measured.jsonl").read_text().splitlines()]
    (freeze,) = [row for row in rows if row["check"] == "video_freeze" and row["metric"] == "freezeS"]
    assert (freeze["episode"], freeze["feature"]) == ("data/demo_1", "wrist")
    assert (freeze["startFrame"], freeze["endFrame"]) == (20, 39)
    assert freeze["startNs"] == 10**18 + 20 * (10**9 // FPS)


@pytest.mark.parametrize(
    ("break_it", "check", "verdict"),
    [
        (lambda a: a["action"].__setitem__((3, 0), np.nan), "nan_inf", "fail"),
        (lambda a: a.update(timestamp_ns=a["timestamp_ns"][::-1]), "time_monotonic", "fail"),
        (lambda a: a["timestamp_ns"].__iadd__((np.arange(40) > 9) * 10**9), "gaps", "warn"),
        (lambda a: a.update({"observation.state": np.ones((40, 3))}), "frozen_state", "fail"),
    ],
)
def test_faults_of_computed_episodes_are_found(tmp_path, break_it, check, verdict):
    arrays = {**moving(40), "timestamp_ns": 10**18 + np.arange(40) * (10**9 // FPS)}
    EpisodeFolder(tmp_path / "good").add("a", arrays, fps=FPS)
    assert by_name(quality_report(tmp_path / "good"))[check]["severity"] == "pass"
    break_it(arrays)
    EpisodeFolder(tmp_path / "bad").add("a", arrays, fps=FPS)

    assert by_name(quality_report(tmp_path / "bad"))[check]["severity"] == verdict


def test_what_cannot_be_read_is_unresolved_and_never_clean(folder):
    (folder / "000000.npz").write_bytes(b"no arrays")
    (folder / "000001.npz").write_bytes(b"nor here")

    report = quality_report(folder, checks=["nan_inf", "frozen_action"])

    assert (report["verdict"], report["clean"]) == ("unresolved", False)
    assert by_name(report)["nan_inf"]["coverage"] == {"declared": 2, "resolved": 0, "unresolved": 2}
    (folder / "000000.npz").unlink()
    with pytest.raises(InvalidInputError, match="is no file of the folder"):
        quality_report(folder)


def test_arrays_of_another_length_are_unresolved(tmp_path):
    arrays = {**moving(40), "force": np.ones((39, 2)), "timestamp_ns": np.arange(39)}
    EpisodeFolder(tmp_path / "a").add("a", arrays, fps=FPS)

    found = by_name(quality_report(tmp_path / "a"))

    assert found["nan_inf"]["coverage"]["unresolved"] == 2
    assert found["time_monotonic"]["coverage"]["resolved"] == 0


def test_what_a_node_computed_is_drawn(folder, tmp_path):
    index = preview_bundle(folder, tmp_path / "out")

    assert (index["kind"], index["notes"]) == ("emboflow-episodes/1", [])
    assert [file["kind"] for file in index["files"]] == ["joints", "images", "synced", "clip", "joints"]
    assert index["files"][0]["title"] == "data/demo_1 (lift, 60 frames)"
    for file in index["files"]:
        if file["path"].endswith(".png"):
            with Image.open(tmp_path / "out" / file["path"]) as picture:
                assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def test_time_without_a_rate_is_counted_in_frames(tmp_path):
    from emboflow_dagster.formats.previews.arrays import shown

    arrays = moving(10)
    out = EpisodeFolder(tmp_path / "a")
    out.add("none", arrays)
    out.add("stamped", {**arrays, "timestamp_ns": np.arange(10) * 10**8 + 5})
    out.add("rated", arrays, fps=5)

    (none, stamped, rated) = shown(tmp_path / "a")

    assert (none.scene.unit, none.panels[0][1][-1]) == ("frames", 9)
    assert (stamped.scene.unit, stamped.panels[0][1][-1]) == ("s", pytest.approx(0.9))
    assert (rated.scene.unit, rated.panels[0][1][-1]) == ("s", pytest.approx(1.8))


def test_damaged_arrays_become_a_note(folder, tmp_path):
    (folder / "000000.npz").write_bytes(b"no arrays")

    index = preview_bundle(folder, tmp_path / "out")

    assert [file["kind"] for file in index["files"]] == ["joints"]
    assert len(index["notes"]) == 1
    assert index["notes"][0].startswith("data/demo_1: 000000.npz: no arrays can be read")
