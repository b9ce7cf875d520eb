"""Edits: a version more, nothing less; each one undone, told in the audit log, and valid data."""

from pathlib import Path

import numpy as np  # noqa: TID253 - episodes are numbers
import pytest

from emboflow_dagster.errors import ConflictError, InvalidInputError, NotFoundError, TransitionError
from emboflow_dagster.formats.canonical.checking import check_folder
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, open_canonical
from emboflow_dagster.formats.canonical.stats import feature_stats, merge_stats
from emboflow_dagster.project import dataset_edits
from emboflow_dagster.project.dataset_changes import Delete, Merge, Relabel, Split, Trim
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.versions_made import episode, made, payloads

MANY = [episode(seed, 4 + seed % 5) for seed in range(60)]
RICH = [episode(seed, rich=True) for seed in (1, 2, 3)]


def exported(ef: EmboFlow, out: Path, tag: str | None = None) -> CanonicalDataset:
    """A version as it leaves the house, checked number for number."""
    ef.datasets.export("reach", out, tag=tag)
    assert check_folder(out).problems == []
    return open_canonical(out)


def pictures(path: Path) -> list[float]:
    """The mean brightness of every picture."""
    import av

    with av.open(str(path)) as container:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]


def test_a_deleted_episode_is_a_version_more_and_kilobytes(ef: EmboFlow, tmp_path: Path) -> None:
    first = made(ef, tmp_path / "1", "reach", MANY)
    before = payloads(ef)
    second = ef.datasets.edit("reach", [Delete([10])], reason="the arm hit the table")
    fresh = {name: size for name, size in payloads(ef).items() if name not in before}

    assert sum(fresh.values()) < 60_000
    assert len(fresh) <= 8
    assert (second.parent_version_id, second.version_tag) == (first.id, "v2")
    assert (second.stats["episodes"], second.stats["frames"]) == (59, first.stats["frames"] - 4)
    assert ef.datasets.version("reach") == second
    assert ef.datasets.version("reach", "v1") == first
    assert ef.datasets.diff("reach")["counts"] == {"added": 0, "removed": 1, "changed": 0, "unchanged": 59}
    row = ef.audit.list(action="dataset.edit")[0]
    assert (row.resource_id, (row.before_summary or {})["versionTag"]) == (second.id, "v1")
    edit = (second.summary or {})["edit"]
    assert edit == (row.after_summary or {})["edit"]
    assert (edit["reason"], edit["episodes"]) == ("the arm hit the table", {"from": 60, "to": 59})
    assert edit["changes"] == [{"kind": "delete", "episodes": [10], "count": 1}]
    assert ef.verify().problems == []


def test_the_statistics_of_an_edited_version_are_those_of_its_episodes(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY)
    ef.datasets.edit("reach", [Delete([0, 7, 59])])
    made(ef, tmp_path / "2", "anew", [e for i, e in enumerate(MANY) if i not in (0, 7, 59)])

    edited = ef.datasets.manifest(ef.datasets.version("reach"))
    anew = ef.datasets.manifest(ef.datasets.version("anew"))
    assert {k: edited[k] for k in ("stats", "tree", "episodes", "frames", "tasks", "features")} == {
        k: anew[k] for k in ("stats", "tree", "episodes", "frames", "tasks", "features")
    }
    exported(ef, tmp_path / "out")


def test_labels_change_no_data(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", RICH)
    before = [e["files"] for e in ef.datasets.episodes("reach")]
    ids = [e["id"] for e in ef.datasets.episodes("reach")]
    relabel = Relabel([0, ids[2]], task="place", success="yes", add_flags=["checked"])
    ef.datasets.edit("reach", [relabel, Relabel([2], remove_flags=["checked"])])
    out = exported(ef, tmp_path / "out")

    rows = list(out.episodes())
    assert [row["tasks"] for row in rows] == [["place"], ["lift"], ["place"]]
    assert [row["success"] for row in rows] == [True, None, True]
    assert [row["flags"] for row in rows] == [["checked"], [], []]
    assert out.tasks() == ["place", "lift"]
    assert [e["files"] for e in ef.datasets.episodes("reach")] == before
    assert [row["data"] for row in ef.datasets.diff("reach")["changed"]] == [False, False]


@pytest.mark.parametrize("older", [False, True], ids=["tree", "older layout"])
def test_a_trimmed_episode_is_its_frames_streams_and_pictures(
    ef: EmboFlow, tmp_path: Path, older: bool
) -> None:
    made(ef, tmp_path / "1", "reach", RICH, older=older)
    whole = exported(ef, tmp_path / "whole")
    ef.datasets.edit("reach", [Trim(1, 2, 5)])
    out = exported(ef, tmp_path / "out")

    for name in ("action", "observation.state"):
        assert np.array_equal(out.vector(name, 1), whole.vector(name, 1)[2:5])
        assert np.array_equal(out.vector(name, 2), whole.vector(name, 2))
    row, before = list(out.episodes())[1], list(whole.episodes())[1]
    assert (row["length"], row["t0_ns"] - before["t0_ns"]) == (3, 100_000_000)
    assert row["flags"] == ["video_reencoded"]
    assert row["stats/action/mean"] == feature_stats(out.vector("action", 1))["mean"]
    assert out.frames(1).column("timestamp").to_pylist() == [0.0, 0.05, 0.1]
    raw, old = (d.raw_streams().to_pylist() for d in (out, whole))
    mine = [r["source_timestamp_ns"] for r in raw if r["episode_index"] == 1]
    assert mine == [r["source_timestamp_ns"] for r in old if r["episode_index"] == 1][4:10]
    assert [r["sample_index"] for r in raw if r["episode_index"] == 1] == list(range(6))
    video = "videos/wrist/episode_000001.mp4"
    assert np.allclose(pictures(out.path(video)), pictures(whole.path(video))[2:5], atol=3)
    assert out.path("videos/wrist/episode_000000.mp4").read_bytes() == (
        whole.path("videos/wrist/episode_000000.mp4").read_bytes()
    )
    assert ef.verify().problems == []


def test_a_split_episode_is_the_same_frames_in_parts(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", RICH)
    whole = exported(ef, tmp_path / "whole")
    ef.datasets.edit("reach", [Split(1, [2, 5])])
    out = exported(ef, tmp_path / "out")

    assert [row["length"] for row in out.episodes()] == [6, 2, 3, 1, 6]
    parts = np.concatenate([out.vector("action", n) for n in (1, 2, 3)])
    assert np.array_equal(parts, whole.vector("action", 1))
    assert out.raw_streams().num_rows == whole.raw_streams().num_rows
    assert len({e["id"] for e in ef.datasets.episodes("reach")}) == 5
    assert merge_stats([feature_stats(out.vector("action", n)) for n in range(5)])["mean"] == pytest.approx(
        whole.stats()["action"]["mean"]
    )


def test_merged_datasets_share_their_bytes(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY[:20])
    made(ef, tmp_path / "2", "night", MANY[18:40])
    before = payloads(ef)
    version = ef.datasets.edit("reach", [Merge("night"), Delete([3])])
    fresh = {name for name in payloads(ef) if name not in before}

    assert version.stats["episodes"] == 41
    assert len(fresh) <= 8
    entries = list(ef.datasets.episodes("reach"))
    assert [e["source"]["ref"] for e in entries][18:21] == ["data/demo_19", "data/demo_18", "data/demo_19"]
    assert len({e["id"] for e in entries}) == 41
    exported(ef, tmp_path / "out")
    assert ef.verify().problems == []


def test_only_alike_datasets_are_merged(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY[:3])
    made(ef, tmp_path / "2", "slow", MANY[:3], fps=10)
    made(ef, tmp_path / "3", "seen", RICH)
    for name, text in (("slow", "fps"), ("seen", "features")):
        with pytest.raises(InvalidInputError, match=text):
            ef.datasets.edit("reach", [Merge(name)])
    assert [v.version_tag for v in ef.datasets.versions("reach")] == ["v1"]


def test_every_edit_is_undone_one_after_the_other(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY[:8])
    ef.datasets.edit("reach", [Delete([0])])
    ef.datasets.edit("reach", [Relabel([0], task="place")])
    before = payloads(ef)

    def trees() -> list[str]:
        newest = ef.datasets.versions("reach")
        return [ef.datasets.manifest(v)["tree"]["sha256"] for v in reversed(newest)]

    ef.datasets.undo("reach")
    last = ef.datasets.undo("reach", reason="both were wrong")
    v1, v2, v3, v4, v5 = trees()
    assert (v4, v5) == (v2, v1)
    assert len({v1, v2, v3}) == 3
    assert len(payloads(ef)) - len(before) == 2  # a manifest each
    assert (last.summary or {})["edit"]["restoresTag"] == "v1"
    assert last.stats == ef.datasets.version("reach", "v1").stats
    with pytest.raises(TransitionError, match="no edit to undo"):
        ef.datasets.undo("reach")
    redone = ef.datasets.restore("reach", "v3")
    assert ef.datasets.manifest(redone)["tree"]["sha256"] == v3
    ef.datasets.undo("reach")
    assert trees()[-1] == v2
    assert [r.action for r in ef.audit.list(limit=6)].count("dataset.undo") == 3
    assert ef.verify().problems == []


def test_an_edit_of_the_older_layout_is_undone(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", RICH, older=True)
    ef.datasets.edit("reach", [Delete([1])])
    assert [row["source_ref"] for row in exported(ef, tmp_path / "a").episodes()] == [
        "data/demo_1",
        "data/demo_3",
    ]
    ef.datasets.undo("reach")

    assert len(list(exported(ef, tmp_path / "b").episodes())) == 3
    assert ef.datasets.diff("reach", "v1", "v3")["same"]
    assert ef.verify().problems == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([], "at least one"),
        ([Delete([])], "no episode is named"),
        ([Delete([99])], "episode 99: there is none"),
        ([Delete(["ep_0"])], "there is none"),
        ([Delete([-1])], "a place from 0"),
        ([Delete(range(4))], "at least one"),
        ([Relabel([0])], "nothing is named"),
        ([Relabel([0], success="maybe")], "yes, no, unknown"),
        ([Relabel([0], task="lift")], "nothing would change"),
        ([Relabel([0], task="a\nb")], "one line"),
        ([Trim(0, 3, 3)], "start < stop"),
        ([Trim(0, 0, 99)], "it has 4"),
        ([Split(0, [0])], "frames above 0"),
        ([Split(0, [4])], "found frames"),
        ([Split(0, [2]), Trim(0, 1)], "split"),
    ],
)
def test_what_cannot_be_done_changes_nothing(ef: EmboFlow, tmp_path: Path, changes: list, text: str) -> None:
    version = made(ef, tmp_path / "1", "reach", MANY[:4])
    before = payloads(ef)
    with pytest.raises(InvalidInputError, match=text):
        ef.datasets.edit("reach", changes)

    assert ef.datasets.versions("reach") == [version]
    assert payloads(ef) == before


def test_who_was_overtaken_changes_nothing(
    ef: EmboFlow, opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(ef, tmp_path / "1", "reach", MANY[:4])
    other = opener()
    real = dataset_edits.commit

    def late(*args, **how):
        monkeypatch.undo()
        other.datasets.edit("reach", [Delete([1])])
        return real(*args, **how)

    monkeypatch.setattr(dataset_edits, "commit", late)
    with pytest.raises(ConflictError, match="another version came"):
        ef.datasets.edit("reach", [Delete([0])])
    with pytest.raises(ConflictError, match="v2, not v1"):
        ef.datasets.edit("reach", [Delete([0])], base="v1")
    with pytest.raises(NotFoundError):
        ef.datasets.edit("absent", [Delete([0])])
    assert [v.version_tag for v in ef.datasets.versions("reach")] == ["v2", "v1"]
    assert len(list(ef.datasets.episodes("reach"))) == 3
    assert ef.verify().problems == []
