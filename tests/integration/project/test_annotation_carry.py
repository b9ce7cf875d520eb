"""Annotations at the versions of a dataset: what is equal by hash stays valid, the rest says why not."""

from pathlib import Path
from typing import Any

import h5py  # noqa: TID253 - a recording is written here
import numpy as np  # noqa: TID253 - episodes are numbers
import pytest

from emboflow_dagster.errors import EmboflowError, ForbiddenError, InvalidInputError, TransitionError
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.orchestration.annotation_events import annotation_rows
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.project.dataset_changes import Delete, Merge, Relabel, Split, Trim
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.conftest import Opener
from tests.integration.project.versions_made import episode, made

STAMPS = {"source_timestamp_ns": 2**60 + np.arange(20, dtype=np.int64) * 50_000_000, "t0_ns": 2**60}
PLACE = Place("acme", "pick-place")
FEW = [episode(1, 20, **STAMPS), episode(2, 20), episode(3, 20)]
"""A second each, at 20 frames a second; the first one has stamps."""


def said(ef: EmboFlow, version: DatasetVersion, *selectors: dict[str, Any], **people: Any) -> list[str]:
    """One annotation for each selector, approved."""
    task = ef.annotations.open(version.id, label_type="segment")
    ids = [ef.annotations.add(task.id, {"label": f"n{n}"}, selector=s).id for n, s in enumerate(selectors)]
    ef.annotations.submit(task.id)
    ef.annotations.approve(task.id)
    if people:
        ef.annotations.open(version.id, label_type="segment")
    return ids


def test_what_was_said_of_a_package_holds_at_the_version_it_became(ef: EmboFlow, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for number in range(3):
            rows = np.random.default_rng(number).normal(size=(20, 7))
            file.create_dataset(f"data/demo_{number}/actions", data=rows)
    asset = ef.assets.register(tmp_path / "a.hdf5", name="demos", type="hdf5_dataset").id
    ef.workflows.publish(
        {
            "workflow": "lifts",
            "nodes": [
                {"id": "src", "type": "source"},
                {"id": "episodes", "type": "normalize", "after": ["src"], "config": {"fps": 20}},
                {
                    "id": "people",
                    "type": "annotation",
                    "after": ["episodes"],
                    "config": {"labelType": "grasp"},
                },
                {
                    "id": "publish",
                    "type": "publish-dataset",
                    "after": ["episodes", "people"],
                    "config": {"dataset": "lifts"},
                },
            ],
        }
    )
    run = ef.workflows.run("lifts", assets=[asset])
    ef.runs.work(run.id)
    [task] = ef.annotations.tasks.find({})
    assert task.target_type.value == "artifact"
    of_one = ef.annotations.add(task.id, {"label": "slip"}, selector={"episode": 1, "from": 0.25, "to": 0.5})
    ef.annotations.add(task.id, {"label": "fine"})
    elsewhere = ef.annotations.open(task.target_ref.id, label_type="other")
    ef.annotations.add(elsewhere.id, {"label": "x"}, selector={"episode": 7})
    ef.annotations.submit(task.id)
    ef.annotations.approve(task.id)
    assert ef.annotations.annotated() == []  # the control: no version was made of it yet
    assert ef.runs.work(run.id).status.value == "success"

    [(dataset, latest, at)] = ef.annotations.annotated()
    assert (dataset.name, latest.version_tag) == ("lifts", "v1")
    assert at == max(one.updated_at for one in ef.annotations.tasks.find({}))
    assert told(ef, "lifts") == [
        ("valid", "", 1),
        ("valid", "", None),
        ("removed", "the version that it was said of has no such episode", None),
    ]
    ef.datasets.edit("lifts", [Trim(1, 1, 15)])
    rows = {row.annotation.id: row for row in ef.annotations.at("lifts")}
    assert rows[of_one.id].state.value == "stale"
    assert rows[of_one.id].said_at == "v1"
    there = ef.annotations.confirm(of_one.id, "lifts", episode=1, start=0.2, stop=0.45)
    assert (there.state.value, there.said_at) == ("valid", "v2")
    assert next(iter(ef.annotations.at("lifts", "v1"))).state.value == "valid"


def told(ef: EmboFlow, dataset: str = "reach", tag: str | None = None) -> list[tuple[str, str, Any]]:
    return [
        (row.state.value, row.reason, None if row.spot is None else row.spot.episode)
        for row in ef.annotations.at(dataset, tag)
    ]


def test_an_annotation_is_bound_to_the_hash_of_its_episode(ef: EmboFlow, tmp_path: Path) -> None:
    version = made(ef, tmp_path / "1", "reach", FEW)
    entries = list(ef.datasets.episodes("reach"))
    task = ef.annotations.open(version.id, label_type="segment")

    by_place = ef.annotations.add(task.id, {}, selector={"episode": 1, "from": 0.25, "to": 1})
    by_id = ef.annotations.add(task.id, {}, selector={"episode": entries[1]["id"], "joint": "elbow"})

    bound = {"episode": entries[1]["id"], "episodePlace": 1, "episodeSha256": entries[1]["content"]}
    assert by_place.target_ref.selector == {**bound, "from": 0.25, "to": 1.0}
    assert by_id.target_ref.selector == {**bound, "joint": "elbow"}
    for wrong in (
        {"episode": 3},
        {"episode": "ep_none"},
        {"episode": 0, "from": 0.5, "to": 1.5},
        {"episode": 0, "from": 0.5, "to": 0.1},
        {"episode": 0, "to": 0.1},
        {"episode": 0, "from": "soon"},
        {"episode": 0, "from": float("nan")},
    ):
        with pytest.raises(InvalidInputError):
            ef.annotations.add(task.id, {}, selector=wrong)
    assert len(ef.annotations.of(task.id)) == 2


def test_it_is_carried_over_and_goes_stale_without_a_write(ef: EmboFlow, tmp_path: Path) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW)
    ids = said(ef, v1, {"episode": 0, "from": 0.5, "to": 0.75}, {"episode": 1}, {"episode": 2}, {})
    rows = ef.audit.list(limit=1_000)
    assert told(ef) == [("valid", "", 0), ("valid", "", 1), ("valid", "", 2), ("valid", "", None)]

    ef.datasets.edit("reach", [Trim(0, 4), Relabel([1], success="no")])
    assert told(ef) == [
        ("stale", "trimmed: 20 to 16 frames", 0),
        ("stale", "relabelled: success", 1),
        ("valid", "", 2),
        ("stale", "the version holds other episodes", None),
    ]
    moved = ef.annotations.at("reach")[0].spot
    assert moved is not None
    assert (moved.start, moved.stop) == pytest.approx((0.3, 0.55))
    ef.datasets.edit("reach", [Delete([1])])
    assert [state for state, _, _ in told(ef)] == ["stale", "removed", "valid", "stale"]
    assert ef.annotations.counts("reach") == {"valid": 1, "stale": 2, "removed": 1, "forgotten": 0}
    assert told(ef, tag="v1") == [("valid", "", 0), ("valid", "", 1), ("valid", "", 2), ("valid", "", None)]
    ef.datasets.undo("reach")
    ef.datasets.undo("reach")
    assert [state for state, _, _ in told(ef)] == ["valid"] * 4, "the same episodes are there again"
    assert {row.annotation.id for row in ef.annotations.at("reach")} == set(ids)
    actions = {row.action for row in ef.audit.list(limit=1_000) if row.id not in {old.id for old in rows}}
    assert actions == {"dataset.edit", "dataset.undo"}
    assert ef.verify(all=True).problems == []


def test_a_diff_says_what_becomes_of_them(ef: EmboFlow, tmp_path: Path) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW)
    ids = said(ef, v1, {"episode": 0}, {"episode": 1}, {"episode": 2})
    ef.datasets.edit("reach", [Relabel([0], task="place"), Delete([1])])

    found = ef.datasets.diff("reach")["annotations"]

    assert found["counts"] == {"valid": 1, "stale": 1, "removed": 1, "forgotten": 0}
    assert [(row["id"], row["state"], row["reason"]) for row in found["rows"]] == [
        (ids[0], "stale", "relabelled: tasks"),
        (ids[1], "removed", "the episode is not in it"),
    ]
    back = ef.datasets.diff("reach", "v2", "v1")["annotations"]
    assert (back["counts"]["valid"], back["rows"]) == (1, [])


def test_what_is_confirmed_holds_from_there_on_and_is_in_the_log(ef: EmboFlow, tmp_path: Path) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW)
    ids = said(ef, v1, {"episode": 0, "from": 0.5, "to": 0.75}, {"episode": 1, "from": 0.5}, {})
    ef.datasets.edit("reach", [Trim(0, 4), Trim(1, 4)])

    first = ef.annotations.confirm(ids[0], "reach", comment="still the grasp")
    assert (first.state.value, first.said_at, first.confirmed_by) == ("valid", "v2", "ada")
    with pytest.raises(InvalidInputError, match="where it is now cannot be told"):
        ef.annotations.confirm(ids[1], "reach")  # without stamps nobody knows
    with pytest.raises(InvalidInputError, match="about a time"):
        ef.annotations.confirm(ids[1], "reach", episode=1)
    with pytest.raises(InvalidInputError, match=r"0 to 0\.8 s"):
        ef.annotations.confirm(ids[1], "reach", episode=1, start=0.9)
    ef.annotations.confirm(ids[1], "reach", episode=1, start=0.3)
    ef.annotations.confirm(ids[2], "reach", "v2")
    assert [state for state, _, _ in told(ef)] == ["valid"] * 3
    assert [row.annotation.payload for row in ef.annotations.at("reach")] == [
        {"label": "n0"},
        {"label": "n1"},
        {"label": "n2"},
    ]

    [row] = ef.audit.list(action="annotation.confirm", resource_id=ids[0])
    after = row.after_summary or {}
    assert (row.actor_id, after["comment"], after["from"]) == ("ada", "still the grasp", pytest.approx(0.3))
    assert (row.before_summary or {})["reason"] == "trimmed: 20 to 16 frames"
    count = len(ef.audit.list(limit=1_000))
    ef.annotations.confirm(ids[0], "reach")
    assert len(ef.audit.list(limit=1_000)) == count, "what is valid needs no confirmation"
    ef.datasets.edit("reach", [Delete([2])])
    assert [state for state, _, _ in told(ef)] == ["valid", "valid", "stale"]
    assert [state for state, _, _ in told(ef, tag="v1")] == ["valid"] * 3
    assert ef.verify(all=True).problems == []


def test_only_who_reviews_confirms(ef: EmboFlow, opener: Opener, tmp_path: Path) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW)
    task = ef.annotations.open(v1.id, label_type="segment")
    ef.annotations.assign(task.id, reviewers=["ada"])
    one = ef.annotations.add(task.id, {}, selector={"episode": 0}).id
    ef.datasets.edit("reach", [Relabel([0], task="place")])
    with opener(actor="user:bob") as bob, pytest.raises(ForbiddenError, match="only ada"):
        bob.annotations.confirm(one, "reach")
    ef.annotations.submit(task.id)
    ef.annotations.reject(task.id, "no")
    with pytest.raises(TransitionError):
        ef.annotations.confirm(one, "reach")
    assert ef.annotations.at("reach") == []


def test_a_split_leaves_each_time_in_the_part_that_has_it(ef: EmboFlow, tmp_path: Path) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW)
    said(ef, v1, {"episode": 0, "from": 0.1, "to": 0.2}, {"episode": 0, "from": 0.6, "to": 0.7},
         {"episode": 0, "from": 0.4, "to": 0.6}, {"episode": 0})  # fmt: skip
    ef.datasets.edit("reach", [Split(0, [10])])

    rows = ef.annotations.at("reach")

    assert {(row.state.value, row.reason) for row in rows} == {("stale", "split into 2")}
    spots = [row.spot and (row.spot.episode, row.spot.start, row.spot.stop) for row in rows]
    assert spots == [(0, 0.1, 0.2), (1, pytest.approx(0.1), pytest.approx(0.2)), None, None]
    done = ef.annotations.confirm_all(rows, "reach", "v2")
    assert [row.state.value for row in done] == ["valid", "valid"]
    ef.datasets.edit("reach", [Trim(1, 0, 5)])
    assert [row.state.value for row in ef.annotations.at("reach")] == ["valid", "stale", "stale", "stale"]


def test_merged_episodes_bring_theirs(ef: EmboFlow, tmp_path: Path) -> None:
    night = made(ef, tmp_path / "1", "night", FEW[1:2])
    made(ef, tmp_path / "2", "reach", FEW)
    said(ef, night, {"episode": 0}, {})
    assert told(ef) == []
    ef.datasets.edit("reach", [Merge("night")])
    [(state, _, place)] = told(ef)
    assert (state, place in (1, 3)) == ("valid", True)
    ef.datasets.edit("reach", [Delete([1, 3])])
    assert [state for state, _, _ in told(ef)] == ["removed"]


def test_the_older_layout_is_compared_too(ef: EmboFlow, tmp_path: Path) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW, older=True)
    said(ef, v1, {"episode": 0}, {"episode": 2})
    ef.datasets.edit("reach", [Relabel([0], task="place")])
    assert told(ef) == [("stale", "relabelled: tasks", 0), ("valid", "", 2)]


def test_a_forgotten_episode_takes_them_along_wherever_they_were_confirmed(
    ef: EmboFlow, tmp_path: Path
) -> None:
    v1 = made(ef, tmp_path / "1", "reach", FEW)
    ids = said(ef, v1, {"episode": 0}, {"episode": 1}, {"episode": 2})
    ef.datasets.edit("reach", [Trim(0, 4)])
    ef.annotations.confirm(ids[2], "reach", episode=0)  # somebody means the first one

    gone = ef.datasets.forget("reach", [0], reason="asked for")

    assert {row["id"] for row in gone["annotations"]} == {ids[0], ids[2]}
    assert [state for state, _, _ in told(ef)] == ["forgotten", "valid", "forgotten"]
    assert all(not row.annotation.payload for row in ef.annotations.at("reach") if row.state == "forgotten")
    assert ef.verify(all=True).problems == []


def test_review_flags_are_shared_and_say_who_and_why(ef: EmboFlow, opener: Opener, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    mine = ef.annotations.flag("reach", 1, "blurry", comment="the wrist camera", start=0.1, stop=0.4)
    with opener(actor="user:bob") as bob:
        theirs = bob.annotations.flag("reach", 1, "check-again")
        assert [row.annotation.created_by for row in bob.annotations.at("reach")] == ["ada", "bob"]
    assert mine.annotation_task_id == theirs.annotation_task_id
    assert mine.payload == {"flag": "blurry", "comment": "the wrist camera"}
    for wrong in ("", "two words", "x" * 65):
        with pytest.raises(InvalidInputError):
            ef.annotations.flag("reach", 1, wrong)
    with pytest.raises(EmboflowError):
        ef.annotations.flag("reach", 7, "blurry")

    ef.annotations.unflag(mine.id, "it is sharp enough")
    with pytest.raises(TransitionError):
        ef.annotations.unflag(mine.id)
    assert [row.annotation.id for row in ef.annotations.at("reach")] == [theirs.id]
    [row] = ef.audit.list(action="annotation.unflag")
    assert (row.after_summary or {})["comment"] == "it is sharp enough"
    ef.annotations.cancel(mine.annotation_task_id)
    again = ef.annotations.flag("reach", 0, "blurry")
    assert again.annotation_task_id != mine.annotation_task_id
    other = said(ef, ef.datasets.version("reach"), {"episode": 0})[0]
    with pytest.raises(InvalidInputError, match="no review flag"):
        ef.annotations.unflag(other)
    assert ef.verify(all=True).problems == []


def test_the_dataset_s_page_in_dagster_counts_them(ef: EmboFlow, tmp_path: Path) -> None:
    assert list(annotation_rows(ef, PLACE)) == []
    made(ef, tmp_path / "1", "reach", FEW)
    ef.annotations.flag("reach", 0, "blurry")
    [before] = annotation_rows(ef, PLACE)
    ef.annotations.flag("reach", 1, "blurry")
    ef.datasets.edit("reach", [Relabel([0], task="place")])
    [after] = annotation_rows(ef, PLACE)

    assert before.id == after.id
    assert before.mark != after.mark
    event = after.told()
    assert event is not None
    assert event.asset_key.path[-2:] == ["datasets", "reach"]
    said = {name: value.value for name, value in event.metadata.items()}
    assert said == {
        "dataset_version": "v2",
        "annotations_valid": 1,
        "annotations_stale": 1,
        "annotations_removed": 0,
        "annotations_forgotten": 0,
        "annotations_list": "emboflow annotation list --version reach:v2",
    }
