"""An episode that is forgotten is nowhere any more, and a tombstone says what went with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster import BlobRef, Create, Deactivate
from emboflow_dagster.errors import (
    ConflictError,
    EmboflowError,
    ErrorKind,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    TransitionError,
)
from emboflow_dagster.formats.canonical.checking import check_folder
from emboflow_dagster.project.dataset_changes import Delete, Merge, Relabel, Split, Trim
from emboflow_dagster.project.forget.tombstone import digest_of
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_datasets import flow
from tests.integration.project.versions_made import episode, made, payloads
from tests.integration.project.whole_project import write_demos

FEW = [episode(seed, rich=True) for seed in (1, 2, 3)]
WHY = "the person in the picture asked for it"


def files_of(ef: EmboFlow, dataset: str, place: int) -> set[str]:
    """The payloads of an episode of the latest version."""
    [entry] = [e for e in ef.datasets.episodes(dataset) if e["episode"] == place]
    return {file["sha256"] for file in entry["files"].values()}


def names(ef: EmboFlow) -> set[str]:
    return {key.removeprefix("sha256/").replace("/", "") for key in payloads(ef)}


def statuses(ef: EmboFlow, dataset: str) -> list[str]:
    return [f"{v.version_tag} {v.status.value}" for v in ef.datasets.versions(dataset)]


def test_it_is_left_out_withdrawn_destroyed_and_told(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    ef.datasets.edit("reach", [Relabel([1], task="place")])
    mine = files_of(ef, "reach", 1)
    rest = [e["content"] for e in ef.datasets.episodes("reach") if e["episode"] != 1]
    [gone] = [e for e in ef.datasets.episodes("reach") if e["episode"] == 1]
    before = names(ef)

    plan = ef.datasets.forget("reach", [1], reason=WHY, dry_run=True)
    assert (names(ef), statuses(ef, "reach")) == (before, ["v2 available", "v1 available"])
    told = ef.datasets.forget("reach", [1], reason=WHY)

    assert [row["versionTag"] for row in plan["versions"]] == ["v2", "v1"]
    assert plan["successors"] == [{"datasetId": ef.datasets.get("reach").id, "of": "v2", "episodes": 2}]
    assert {row["sha256"] for row in plan["payloads"]} == mine
    assert before - names(ef) == mine
    assert statuses(ef, "reach") == ["v3 available", "v2 withdrawn", "v1 withdrawn"]
    assert [e["content"] for e in ef.datasets.episodes("reach")] == rest
    assert (told["state"], told["reason"], told["by"]) == ("destroyed", WHY, ef.scope.actor)
    assert told["destroyed"]["payloads"] == len(mine)
    assert [(e["id"], e["content"]) for e in told["episodes"]] == [(gone["id"], gone["content"])]
    [row] = ef.audit.list(action="dataset.forget")
    assert (row.after_summary or {})["tombstone"] == told["digest"] == digest_of(told)
    assert [r["id"] for r in ef.datasets.forgotten()] == [told["id"]]
    report = ef.verify(all=True)
    assert (report.problems, report.counts["forgotten"] >= len(mine)) == ([], True)
    assert ef.gc().freed_payloads == 0
    assert ef.verify(all=True).problems == []


def test_an_old_version_says_why_it_cannot_be_read(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    ef.datasets.forget("reach", [0], reason=WHY)

    with pytest.raises(IntegrityError, match=r"^episode ep_\w+: forgotten by \S+ on .*asked for it") as said:
        ef.datasets.export("reach", tmp_path / "old", tag="v1")
    assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
    assert "\n" not in str(said.value)
    assert ef.datasets.diff("reach")["counts"]["removed"] == 1
    with pytest.raises(TransitionError, match="withdrawn"):
        ef.datasets.restore("reach", "v1")
    assert ef.verify(all=True).problems == []
    ef.datasets.export("reach", tmp_path / "new")
    assert check_folder(tmp_path / "new").problems == []


def test_diffs_edits_and_undo_after_it(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    ef.datasets.edit("reach", [Relabel([1], task="place")])
    contents = [e["content"] for e in ef.datasets.episodes("reach")]
    before = ef.datasets.diff("reach", "v1", "v2")
    ef.datasets.forget("reach", [1], reason=WHY)

    # Versions that had it are compared as before, and listed with what its page says; no byte of it is read.
    assert ef.datasets.diff("reach", "v1", "v2") == before
    for since in ("v1", "v2"):
        found = ef.datasets.diff("reach", since, "v3")
        assert [(row["episode"], row["id"]) for row in found["removed"]] == [
            (1, list(ef.datasets.episodes("reach", since))[1]["id"])
        ]
    assert [e["content"] for e in ef.datasets.episodes("reach", "v2")] == contents
    # Edits go on, undo stops at it.
    ef.datasets.edit("reach", [Relabel([1], task="fold")])
    ef.datasets.edit("reach", [Trim(0, 1, 5)])
    assert ef.datasets.undo("reach").version_tag == "v6"
    assert ef.datasets.undo("reach").version_tag == "v7"
    left = [contents[0], contents[2]]
    assert [e["content"] for e in ef.datasets.episodes("reach")] == left
    assert ef.datasets.diff("reach", "v3", "v7")["counts"] == {
        "added": 0,
        "removed": 0,
        "changed": 0,
        "unchanged": 2,
    }
    for way in (lambda: ef.datasets.undo("reach"), lambda: ef.datasets.restore("reach", "v1")):
        with pytest.raises(
            TransitionError, match=r"v[12] was withdrawn: it has episode ep_\w+: forgotten by"
        ):
            way()
    assert len(ef.datasets.versions("reach")) == 7
    assert ef.verify(all=True).problems == []


def test_pieces_copies_and_other_datasets_go_with_it(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "night", FEW[1:2])
    made(ef, tmp_path / "2", "reach", FEW)
    ef.datasets.edit("reach", [Merge("night")])
    ef.datasets.edit("reach", [Trim(1, 1, 5)])
    made(ef, tmp_path / "3", "other", [episode(9)])
    [named] = [e["id"] for e in ef.datasets.episodes("reach") if e["episode"] == 1]

    told = ef.datasets.forget("reach", [named], reason=WHY)

    assert [e["source"]["ref"] for e in ef.datasets.episodes("reach")] == ["data/demo_1", "data/demo_3"]
    assert statuses(ef, "night") == ["v1 withdrawn"]  # it had nothing else
    assert statuses(ef, "other") == ["v1 available"]
    assert len(told["versions"]) == 4
    assert ef.verify(all=True).problems == []
    assert ef.datasets.forget("reach", [named], reason=WHY)["id"] == told["id"]


def test_a_piece_leaves_its_sibling(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW[:2])
    ef.datasets.edit("reach", [Split(0, [3])])
    sibling = files_of(ef, "reach", 0)

    ef.datasets.forget("reach", [1], reason=WHY)

    assert [(e["source"]["ref"], e["length"]) for e in ef.datasets.episodes("reach")] == [
        ("data/demo_1", 3),
        ("data/demo_2", 6),
    ]
    assert sibling <= names(ef)
    assert statuses(ef, "reach") == ["v3 available", "v2 withdrawn", "v1 withdrawn"]
    assert ef.verify(all=True).problems == []


def test_bytes_that_somebody_else_has_stay(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    [entry] = [e for e in ef.datasets.episodes("reach") if e["episode"] == 2]
    frames = entry["files"]["frames"]
    with ef.store.open(
        f"sha256/{frames['sha256'][:2]}/{frames['sha256'][2:]}", sha256=frames["sha256"], size=frames["size"]
    ) as stream:
        ef.blobs.put(stream.read(), object_id="copy")

    told = ef.datasets.forget("reach", [2], reason=WHY)

    kept = [row["sha256"] for row in told["payloads"] if row.get("keptBy")]
    assert kept == [frames["sha256"]]
    assert len(ef.blobs.read("copy")) == frames["size"]
    assert ef.verify(all=True).problems == []


def test_what_was_made_of_it_goes_too(ef: EmboFlow, tmp_path: Path) -> None:
    version = made(ef, tmp_path / "1", "reach", FEW)
    preview = artifact(ef, "preview", {"datasetVersionId": version.id})
    of_it = artifact(ef, "report of it", {}, inputs=[preview])
    other = artifact(ef, "another", {})
    [entry] = [e for e in ef.datasets.episodes("reach") if e["episode"] == 0]
    notes = {
        "of it": annotation(ef, version.id, {"episodeId": entry["id"]}),
        "of another": annotation(ef, version.id, {"episode": 1}),
    }

    told = ef.datasets.forget("reach", [0], reason=WHY)

    assert {row["id"] for row in told["artifacts"]} == {preview, of_it}
    assert [row["id"] for row in told["annotations"]] == [notes["of it"]]
    rows = {row["_id"]: row for row in ef.mongo["annotations"].find()}
    assert [rows[notes[name]]["status"] for name in notes] == ["rejected", "draft"]
    assert rows[notes["of it"]]["payload"] == {}
    ref = ef.artifacts.get(preview).storage_ref
    with pytest.raises(IntegrityError, match="forgotten: the person in the picture"):
        ef.blobs.read(str(ref.object_id), ref.version)
    with pytest.raises(IntegrityError, match="forgotten"):
        ef.blobs.why_kept(str(ref.object_id), ref.version)
    assert ef.blobs.read("another") == b"another"
    assert ef.artifacts.get(other).id == other
    assert ef.verify(all=True).problems == []
    assert ef.gc().freed_payloads == 0


def artifact(ef: EmboFlow, name: str, summary: dict[str, Any], inputs: list[str] | None = None) -> str:
    """One whose bytes are its name."""
    blob = ef.blobs.put(name.encode(), object_id=name.replace(" ", "-"))
    ref = BlobRef(object_id=blob.object_id, version=blob.version)
    fields = {"type": "preview_bundle", "producerId": "ada", "storageRef": ref, "summary": summary}
    fields |= {"lineage": {"inputArtifactIds": inputs or []}}
    [done] = ef.cud([Create("artifacts", fields)])
    return done.id


def annotation(ef: EmboFlow, target: str, selector: dict[str, Any]) -> str:
    task = {"targetType": "dataset_version", "targetRef": {"id": target}, "labelType": "segment"}
    fields = {
        "annotationTaskId": "#task",
        "targetRef": {"id": target, "selector": selector},
        "payload": {"label": "a face"},
    }
    return ef.cud([Create("annotation_tasks", task, ref="#task"), Create("annotations", fields)])[1].id


def test_a_legal_hold_refuses_all_of_it(ef: EmboFlow, tmp_path: Path) -> None:
    version = made(ef, tmp_path / "1", "reach", FEW)
    ef.blobs.retain(str(version.manifest_ref.object_id), hold=True, reason="a lawsuit")
    before = names(ef)

    with pytest.raises(ForbiddenError, match="legal hold") as said:
        ef.datasets.forget("reach", [0], reason=WHY)
    assert said.value.kind is ErrorKind.LEGAL_HOLD
    assert (names(ef), statuses(ef, "reach")) == (before, ["v1 available"])
    assert ef.datasets.forgotten() == []


def test_what_is_refused_changes_nothing(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    wrong: list[tuple[dict[str, Any], type[EmboflowError]]] = [
        ({"episodes": [7]}, InvalidInputError),
        ({"episodes": []}, InvalidInputError),
        ({"episodes": [0], "reason": " "}, InvalidInputError),
        ({"episodes": [0], "base": "v9"}, ConflictError),
    ]
    for how, error in wrong:
        with pytest.raises(error):
            ef.datasets.forget("reach", **{"reason": WHY, **how})
    assert statuses(ef, "reach") == ["v1 available"]


def test_versions_of_before_are_destroyed_whole(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", [episode(seed) for seed in (1, 2, 3)], older=True)
    ef.datasets.edit("reach", [Delete([2])])

    ef.datasets.forget("reach", [0], reason=WHY)

    assert [e["source"]["ref"] for e in ef.datasets.episodes("reach")] == ["data/demo_2"]
    assert statuses(ef, "reach") == ["v3 available", "v2 withdrawn", "v1 withdrawn"]
    assert ef.verify(all=True).problems == []
    with pytest.raises(IntegrityError, match="forgotten"):
        ef.datasets.export("reach", tmp_path / "old", tag="v1")


def test_what_came_again_is_forgotten_again(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    [named] = [e["id"] for e in ef.datasets.episodes("reach") if e["episode"] == 0]
    first = ef.datasets.forget("reach", [named], reason=WHY)
    with pytest.raises(ForbiddenError, match=first["id"]):
        made(ef, tmp_path / "1a", "reach", FEW)
    ef.datasets.reinstate(first["id"], reason="by mistake")
    made(ef, tmp_path / "2", "reach", FEW)
    assert ef.verify(all=True).problems == []
    again = ef.datasets.forget("reach", [named], reason=WHY)

    assert again["id"] != first["id"]
    assert [e["source"]["ref"] for e in ef.datasets.episodes("reach")] == ["data/demo_2", "data/demo_3"]
    assert ef.datasets.forget("reach", [named], reason=WHY)["state"] == "destroyed"
    assert ef.verify(all=True).problems == []


def test_a_dataset_that_is_archived_has_no_successor(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    ef.cud([Deactivate("datasets", ef.datasets.get("reach").id)])

    ef.datasets.forget("reach", [0], reason=WHY)

    assert statuses(ef, "reach") == ["v1 withdrawn"]
    assert ef.verify(all=True).problems == []


def test_a_tombstone_is_json(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", FEW)
    assert json.loads(json.dumps(told := ef.datasets.forget("reach", [0], reason=WHY))) == told


def test_the_recording_and_all_that_workflows_made_of_it(ef: EmboFlow, tmp_path: Path) -> None:
    for name, lengths in (("one", [4]), ("two", [5]), ("both", [6, 7])):
        ef.assets.register(write_demos(tmp_path / f"{name}.hdf5", lengths), type="hdf5_dataset", name=name)
        ef.assets.probe(name)
    ef.workflows.publish(flow())
    work(ef, "one", "two", "both")
    work(ef, "two")
    work(ef, "one", "two", "both")
    source = {e["source"]["assetId"]: e["id"] for e in ef.datasets.episodes("lift")}
    ids = {name: source[ef.assets.get(name).id] for name in ("one", "two", "both")}
    packages = {a.id: set(a.lineage.asset_ids) for a in ef.artifacts.list(limit=0)}
    mine = {id_ for id_, assets in packages.items() if ef.assets.get("one").id in assets}

    with pytest.raises(ConflictError, match="asset both: other episodes come from it"):
        ef.datasets.forget("lift", [ids["both"]], reason=WHY, with_source=True)
    assert ef.verify(all=True).problems == []
    told = ef.datasets.forget("lift", [ids["one"]], reason=WHY, with_source=True)

    assert {row["id"] for row in told["artifacts"]} == mine != set(packages)
    assert told["cache"]
    assert (told["sources"][0]["name"], ef.assets.get("one").status.value) == ("one", "archived")
    assert ef.assets.get("one").storage_ref.sha256 not in names(ef)
    assert ef.assets.get("two").storage_ref.sha256 in names(ef)
    assert [e["length"] for e in ef.datasets.episodes("lift")] == [5, 6, 7]
    assert ef.verify(all=True).problems == []
    assert ef.gc().freed_payloads == 0
    again = work(ef, "two", "both")
    assert [e["length"] for e in ef.datasets.episodes("lift")] == [5, 6, 7]
    assert again.status == "success"
    assert ef.verify(all=True).problems == []


def work(ef: EmboFlow, *assets: str) -> Any:
    done = ef.runs.work(ef.runs.request("publishing", assets=assets).id)
    assert done.status == "success", [t.error_message for t in ef.tasks.list(done.id)]
    return done
