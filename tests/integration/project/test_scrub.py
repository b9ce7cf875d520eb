"""Reading every payload: told apart in each home, on every core, in slices, resumed after a kill."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import IntegrityError, InvalidInputError
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.homes import CONTENT, DAMAGES, Stored, flipped


def codes(report: Any) -> list[tuple[str, str, str]]:
    return [(p.code, p.id, p.field) for p in report.problems]


def noted(ef: EmboFlow) -> list[str]:
    return [row["name"] for row in marks.every(ef.mongo, Mark.QUARANTINE)]


@pytest.mark.parametrize("home", ["object_store", "in_object"])
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_each_damage_is_told_apart_in_each_home(ef: EmboFlow, home: str, damage: str) -> None:
    change, code = DAMAGES[damage]
    for number in range(3):
        ef.blobs.put(CONTENT + bytes([number]), object_id="model", home=home)
    Stored(ef, ef.blobs.get("model", 1)).become(change(CONTENT + b"\x01"))
    field = "storage_ref" if home == "object_store" else "data"

    looked = ef.verify(quarantine=False)
    assert [(c, f) for c, _, f in codes(looked)] == [(code, field)]
    assert "model version 1" in looked.problems[0].message
    assert noted(ef) == []

    assert codes(ef.verify()) == codes(looked)
    assert noted(ef) == ["model.v1"]
    again = ef.verify()
    assert codes(again) == codes(looked)
    assert again.counts["quarantined"] == 1
    assert ef.blobs.read("model") == CONTENT + b"\x02"


def test_a_restored_version_is_reported_until_somebody_says_so(ef: EmboFlow) -> None:
    stored = Stored(ef, ef.blobs.put(CONTENT, object_id="model"))
    stored.become(flipped(CONTENT))
    ef.verify()
    stored.become(CONTENT)

    assert codes(ef.verify()) == [("blob-quarantined", "model", "storage_ref")]
    ef.blobs.repair("model", 0)
    assert ef.verify().ok


def test_a_version_whose_bytes_were_collected_on_purpose_is_no_problem(ef: EmboFlow) -> None:
    for number in range(2):
        ef.blobs.put(CONTENT + bytes([number]), object_id="model")
    Stored(ef, ef.blobs.get("model", 0)).become(None)
    assert [c for c, _, _ in codes(ef.verify(quarantine=False))] == ["payload-missing"]

    marks.write(ef.mongo, Mark.TOMBSTONE, "model.v0", ef.scope.workspace_id)

    assert ef.verify().ok


def many(ef: EmboFlow, count: int) -> list[str]:
    """Blobs, every seventh damaged; the ids of those."""
    damaged = []
    for number in range(count):
        home = "in_object" if number % 5 == 0 else "object_store"
        name = f"b{number:03}"
        blob = ef.blobs.put(f"content {number}".encode() * 50, object_id=name, home=home)
        if number % 7 == 0:
            Stored(ef, blob).become(f"content {number}".encode() * 49 + b"!")
            damaged.append(name)
    return damaged


def test_many_threads_find_what_one_finds_in_the_same_order(ef: EmboFlow) -> None:
    damaged = many(ef, 40)

    reports = [ef.verify(workers=workers, quarantine=False) for workers in (1, 2, 7)]

    assert sorted(p.id for p in reports[0].problems) == damaged
    assert reports[0].to_json() == reports[1].to_json() == reports[2].to_json()
    assert reports[0].counts["payloads"] == 40


def test_slices_cover_everything_once_and_then_begin_anew(ef: EmboFlow) -> None:
    damaged = many(ef, 40)
    for _ in range(2):
        found: list[str] = []
        sound: set[str] = set()
        slices = 0
        complete = False
        while not complete:
            report = ef.scrub(max_bytes=2_000, workers=2)
            found += [p.id for p in report.problems]
            assert report.sound is not None
            assert not report.sound & sound
            sound |= report.sound
            complete = report.complete
            slices += 1
        assert sorted(found) == damaged
        assert len(sound) == 40 - len(damaged)
        assert slices > 3
    assert len(noted(ef)) == len(damaged)


def test_a_verification_within_a_budget_says_that_it_is_not_complete(ef: EmboFlow) -> None:
    damaged = many(ef, 20)
    report = ef.verify(max_bytes=1)
    assert not report.complete
    assert report.to_json()["complete"] is False
    while not report.complete:
        report = ef.verify(resume=True, max_bytes=1)
    assert sorted(p.id for p in report.problems) == damaged  # with what the interrupted ones had found
    assert report.counts["payloads"] == 20
    assert ef.verify(resume=True).counts["payloads"] == 20  # nothing to go on with: all of it


def test_a_budget_that_is_none_is_refused(ef: EmboFlow) -> None:
    for bound in ({"max_bytes": 0}, {"max_seconds": -1.0}):
        with pytest.raises(InvalidInputError, match="above 0"):
            ef.verify(**bound)  # type: ignore[arg-type]


def test_only_what_was_stored_since_is_read(ef: EmboFlow) -> None:
    ef.blobs.put(b"before", object_id="old")
    new = ef.blobs.put(b"after", object_id="new")

    assert ef.verify(since=new.updated_at).counts["payloads"] == 1


def test_keys_that_fill_a_page_are_all_read(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages end in the middle of a key, or hold one key only."""
    monkeypatch.setattr("emboflow_dagster.project.verify.walk.PAGE", 3)
    for number in range(7):
        ef.blobs.put(b"shared", object_id=f"s{number}")
        ef.blobs.put(f"own {number}".encode(), object_id=f"o{number}")
        ef.blobs.put(f"own {number}".encode(), object_id=f"d{number}", home="in_object")
    report = ef.scrub()
    assert report.sound is not None
    assert len(report.sound) == 21
    assert report.counts["payloads"] == 15


KILLED = """
import os, signal, sys
from emboflow_dagster import EmboFlow
from emboflow_dagster.project.verify import progress
progress.SAVE_EVERY_S = 0.0
def tick(payloads, size):
    if payloads == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
with EmboFlow.from_env() as ef:
    ef.verify(tick=tick, workers=2)
"""


def test_killed_in_the_middle_it_goes_on_there(ef: EmboFlow) -> None:
    damaged = many(ef, 30)
    result = subprocess.run(
        [sys.executable, "-c", KILLED, "20"], env=ef.settings.environment(), check=False, capture_output=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    row = marks.read(ef.mongo, Mark.SCRUB, f"{ef.scope.workspace_id}.verify")
    assert row is not None
    assert row["counts"]["payloads"] == 19  # the last item that was done and saved
    read: list[int] = []

    report = ef.verify(resume=True, tick=lambda payloads, _: read.append(payloads))

    assert read == list(range(20, 31))
    assert sorted(p.id for p in report.problems) == damaged
    assert sorted(noted(ef)) == sorted(f"{name}.v0" for name in damaged)
    assert marks.read(ef.mongo, Mark.SCRUB, f"{ef.scope.workspace_id}.verify") is None


def test_without_its_note_it_would_begin_anew(ef: EmboFlow) -> None:
    """The control of the test above."""
    many(ef, 10)
    assert not ef.verify(max_bytes=1).complete
    marks.erase(ef.mongo, Mark.SCRUB, f"{ef.scope.workspace_id}.verify")
    read: list[int] = []

    ef.verify(resume=True, tick=lambda payloads, _: read.append(payloads))

    assert read == list(range(1, 11))


def test_a_damaged_file_of_a_dataset_folder_is_set_aside_with_it(ef: EmboFlow, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "shared.txt").write_text("shared")
        (folder / f"{name}.txt").write_text(name)
        ef.assets.register(folder, type="folder", name=name)
    ref = ef.assets.get("one").storage_ref
    [key] = [k for k in ef.store.iter_keys() if ef.store.stat(k).size == len("shared")]
    path = ef.store.path_of(key)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"Shared")

    report = ef.verify()

    assert {p.code for p in report.problems} == {"hash-mismatch"}
    assert all("shared.txt" in p.message for p in report.problems)
    assert len(noted(ef)) == 2  # both folders have it
    assert ref.object_id is not None
    ef.blobs.repair(ref.object_id, 0, b"shared")
    assert noted(ef) == []
    assert ef.verify().ok
    path.chmod(0o644)
    path.write_bytes(b"sharee")
    with pytest.raises(IntegrityError):
        ef.blobs.repair(ref.object_id, 0)
