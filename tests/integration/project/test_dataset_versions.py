"""Versions that share their episodes: what is stored, what is kept, what is found damaged, what differs."""

import json
from pathlib import Path

import pytest

from emboflow_dagster.blobs import pages
from emboflow_dagster.errors import IntegrityError, NotFoundError
from emboflow_dagster.formats.canonical.checking import check_folder
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.project.gc import marking
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_gc import collect
from tests.integration.project.versions_made import damage, episode, files_below, key, made, payloads

MANY = [episode(seed, 4 + seed % 5) for seed in range(120)]


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")


def test_a_version_without_one_episode_stores_a_fraction(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY)
    before = payloads(ef)
    made(ef, tmp_path / "2", "reach", [*MANY[:50], *MANY[51:]])
    fresh = {name: size for name, size in payloads(ef).items() if name not in before}

    assert len(fresh) <= 8  # pages on the way to the episode, and the manifest
    assert sum(fresh.values()) < 0.1 * sum(before.values())
    assert ef.verify().problems == []
    assert [e["id"] for e in ef.datasets.episodes("reach")] == [
        e["id"] for e in ef.datasets.episodes("reach", "v1") if e["episode"] != 50
    ]


@pytest.mark.parametrize("older", [False, True], ids=["tree", "older layout"])
def test_both_layouts_are_exported_verified_and_kept(ef: EmboFlow, tmp_path: Path, older: bool) -> None:
    rich = [episode(seed, rich=True) for seed in (1, 2)]
    made(ef, tmp_path / "1", "reach", rich, older=older)
    count = len(payloads(ef))
    report = collect(ef)
    out = ef.datasets.export("reach", tmp_path / "out")

    assert (report.freed_payloads, len(payloads(ef))) == (older, count - older)
    assert ef.verify().problems == []
    files = files_below(out)
    package = files_below(tmp_path / "1" / "package")
    assert {name: files[name] for name in package if name != "manifest.json"} == {
        name: sha256 for name, sha256 in package.items() if name != "manifest.json"
    }
    checked = check_folder(out, expect=ef.datasets.version("reach").manifest_ref.checksum)
    assert (checked.problems, checked.by_episode, checked.episodes) == ([], not older, 2)
    assert [e["length"] for e in ef.datasets.episodes("reach")] == [6, 6]
    assert open_canonical(out).frames().num_rows == 12


def test_gc_that_would_not_look_below_the_pages_would_take_live_bytes(
    ef: EmboFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: there is something to lose."""
    made(ef, tmp_path / "1", "reach", MANY[:20])
    monkeypatch.setattr(marking.pages, "root_of", lambda _: None)
    assert collect(ef, force=True).freed_payloads > 0
    monkeypatch.undo()
    assert not ef.verify().ok


def test_gc_takes_nothing_when_a_page_cannot_be_read(ef: EmboFlow, tmp_path: Path) -> None:
    version = made(ef, tmp_path / "1", "reach", MANY)
    manifest = ef.datasets.manifest(version)
    leaf = next(line["sha256"] for line in _lines(ef, manifest["tree"]["sha256"]))
    path = ef.store.path_of(key(leaf))
    assert path is not None
    path.unlink()
    count = len(payloads(ef))

    with pytest.raises(IntegrityError, match="nothing was collected"):
        collect(ef)
    assert len(payloads(ef)) == count


def _lines(ef: EmboFlow, sha256: str) -> list[dict]:
    path = ef.store.path_of(key(sha256))
    assert path is not None
    return [json.loads(line) for line in path.read_bytes().splitlines()[1:]]


def test_a_version_that_is_withdrawn_leaves_what_others_share(ef: EmboFlow, tmp_path: Path) -> None:
    first = made(ef, tmp_path / "1", "reach", MANY[:30])
    second = made(ef, tmp_path / "2", "reach", MANY[1:30])
    ref = first.manifest_ref
    only_first = next(iter(ef.datasets.episodes("reach", "v1")))["files"]["frames"]["sha256"]
    for status in ("deprecated", "withdrawn"):
        ef.mongo["dataset_versions"].update_one({"_id": first.id}, {"$set": {"status": status}})
    ef.blobs.release(str(ref.object_id), ref.version)
    collect(ef)

    assert not ef.store.exists(key(only_first))
    assert not ef.store.exists(ref.key)
    assert check_folder(ef.datasets.export("reach", tmp_path / "out")).ok
    assert ef.datasets.version("reach") == second
    assert ef.verify().problems == []


def test_damage_of_an_episode_and_of_a_page_is_told_for_every_version_that_needs_it(
    ef: EmboFlow, tmp_path: Path
) -> None:
    first = made(ef, tmp_path / "1", "reach", MANY)
    second = made(ef, tmp_path / "2", "reach", MANY[1:])
    third = made(ef, tmp_path / "3", "reach", MANY[:60])
    last = list(ef.datasets.episodes("reach", "v1"))[-1]
    damage(ef, last["files"]["frames"]["sha256"])
    blobs = {v.manifest_ref.object_id: v.version_tag for v in (first, second, third)}

    def found() -> list[tuple[str, str]]:
        problems = ef.verify(quarantine=False).problems
        return sorted((p.code, blobs[str(p.id)]) for p in problems)

    assert found() == [("hash-mismatch", "v1"), ("hash-mismatch", "v2")]
    with pytest.raises(IntegrityError):
        ef.datasets.export("reach", tmp_path / "out", tag="v2")
    assert not (tmp_path / "out" / "manifest.json").exists()
    good = (tmp_path / "1" / "version" / "objects" / last["files"]["frames"]["sha256"]).read_bytes()
    for version in (first, second):
        ef.blobs.repair(str(version.manifest_ref.object_id), 0, good)
    assert found() == []
    damage(ef, ef.datasets.manifest(third)["tree"]["sha256"])
    assert found() == [("hash-mismatch", "v3")]


def test_verify_that_believed_a_page_sound_for_its_bytes_would_miss_the_second_version(
    ef: EmboFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    from emboflow_dagster.project.verify import payloads as verified

    made(ef, tmp_path / "1", "reach", MANY)
    made(ef, tmp_path / "2", "reach", MANY[1:])
    damage(ef, list(ef.datasets.episodes("reach", "v1"))[-1]["files"]["frames"]["sha256"])
    monkeypatch.setattr(verified.Payloads, "_new_parts", _believing(verified.Payloads._new_parts))

    assert len(ef.verify(quarantine=False).problems) == 1


def _believing(real):
    def new_parts(self, ref, walked):
        for path, inner in real(self, ref, walked):
            self._whole.update(walked)
            yield path, inner

    return new_parts


# ------------------------------------------------------------------------------------------ differences


def test_the_difference_of_two_versions_episode_by_episode(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY)
    changed = [*MANY[:10], *MANY[11:], episode(900, 9, task="place")]
    changed[20] = episode(21, 4 + 21 % 5, task="place", success=True)  # labels alone
    changed[40] = episode(41, 30)  # the same recording, longer
    made(ef, tmp_path / "2", "reach", changed)
    found = ef.datasets.diff("reach")

    assert (found["from"]["versionTag"], found["to"]["versionTag"]) == ("v1", "v2")
    assert found["counts"] == {"added": 1, "removed": 1, "changed": 2, "unchanged": 117}
    assert (found["same"], found["reordered"]) == (False, False)
    assert [(r["episode"], r["source"]["ref"]) for r in found["removed"]] == [(10, "data/demo_10")]
    assert [(r["episode"], r["length"], r["tasks"]) for r in found["added"]] == [(119, 9, ["place"])]
    labels, data = found["changed"]
    assert (labels["from"], labels["to"], labels["data"]) == (21, 20, False)
    assert labels["fields"] == {
        "tasks": {"from": ["lift"], "to": ["place"]},
        "success": {"from": None, "to": True},
    }
    assert (data["from"], data["to"], data["data"]) == (41, 40, True)
    assert data["fields"] == {"length": {"from": 5, "to": 30}}
    assert {row["feature"] for row in data["stats"]} == {"action", "observation.state"}
    assert found["labels"]["tasks"] == {"lift": -2, "place": 2}
    assert found["labels"]["success"] == {"unknown": -1, "yes": 1}
    assert {row["dimension"] for row in found["stats"]} == {"x", "y", "z", "dx", "dy"}
    assert 0 < found["payloads"]["onlyTo"] < found["payloads"]["both"]


def test_the_way_back_is_the_mirror(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY[:40])
    made(ef, tmp_path / "2", "reach", MANY[5:44])
    there, back = ef.datasets.diff("reach"), ef.datasets.diff("reach", "v2", "v1")

    assert there["added"] == back["removed"]
    assert there["removed"] == back["added"]
    assert there["labels"]["tasks"] == {"lift": -1}
    assert [-(r["shift"] or 0) for r in there["stats"]] != [0] * 5
    assert there["payloads"]["onlyTo"] == back["payloads"]["onlyFrom"]


def test_versions_of_both_layouts_are_compared_by_their_values(ef: EmboFlow, tmp_path: Path) -> None:
    rich = [episode(seed, rich=True) for seed in (1, 2, 3)]
    made(ef, tmp_path / "1", "reach", rich, older=True)
    made(ef, tmp_path / "2", "reach", rich)
    made(ef, tmp_path / "3", "reach", rich[1:], older=True)

    assert ef.datasets.diff("reach", "v1", "v2")["same"]
    assert ef.datasets.diff("reach", "v2", "v3")["counts"] == {
        "added": 0,
        "removed": 1,
        "changed": 0,
        "unchanged": 2,
    }
    assert ef.datasets.diff("reach", "v2", "v2")["payloads"]["onlyTo"] == 0


def test_another_order_is_told(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", MANY[:40])
    made(ef, tmp_path / "2", "reach", [*MANY[20:40], *MANY[:20]])
    found = ef.datasets.diff("reach")

    assert (found["reordered"], found["same"], found["counts"]["unchanged"]) == (True, False, 40)


def test_copies_of_one_episode_are_counted(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "reach", [*MANY[:4], MANY[1], MANY[1]])
    made(ef, tmp_path / "2", "reach", [*MANY[:4], MANY[1]])
    ids = [e["id"] for e in ef.datasets.episodes("reach", "v1")]

    assert len(set(ids)) == 6
    assert ef.datasets.diff("reach")["counts"] == {"added": 0, "removed": 1, "changed": 0, "unchanged": 5}


def test_two_datasets_are_compared(ef: EmboFlow, tmp_path: Path) -> None:
    made(ef, tmp_path / "1", "train", MANY[:4])
    made(ef, tmp_path / "2", "test", MANY[3:6], fps=10)
    found = ef.datasets.diff("train", "train:v1", "test:v1")

    assert (found["from"]["dataset"], found["to"]["dataset"]) == ("train", "test")
    assert found["manifest"] == {"fps": {"from": 20, "to": 10}}
    assert found["counts"]["unchanged"] == 1
    with pytest.raises(NotFoundError, match="first one"):
        ef.datasets.diff("train")


def test_the_difference_reads_only_pages_that_differ(
    ef: EmboFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(ef, tmp_path / "1", "reach", MANY)
    made(ef, tmp_path / "2", "reach", MANY[1:])
    read: set[str] = set()
    real = pages.lines

    def counted(page: pages.Page, payload: bytes) -> list[bytes]:
        if page.level == 0:
            read.add(page.sha256)
        return real(page, payload)

    monkeypatch.setattr(pages, "lines", counted)
    assert ef.datasets.diff("reach")["counts"]["removed"] == 1
    assert len(read) <= 4
