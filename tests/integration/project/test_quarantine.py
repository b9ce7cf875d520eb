"""Damaged versions are set aside, named, refused, found again by every process, and put right again."""

import hashlib
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.blobs.quarantine import Quarantine
from emboflow_dagster.errors import EmboflowError, IntegrityError, InvalidInputError, UnavailableError
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import gridfs, marks
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.conftest import Opener
from tests.integration.project.homes import CONTENT, DAMAGES, Stored, flipped

HOMES = ("object_store", "in_object")


@pytest.fixture(params=HOMES)
def stored(request: pytest.FixtureRequest, ef: EmboFlow) -> Stored:
    """Three versions of a blob; the middle one is looked at."""
    for number in range(3):
        ef.blobs.put(CONTENT + bytes([number]), object_id="model", home=request.param)
    return Stored(ef, ef.blobs.get("model", 1))


def notes(ef: EmboFlow) -> list[dict[str, Any]]:
    return list(marks.every(ef.mongo, Mark.QUARANTINE))


def failure(stored: Stored) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        stored.ef.blobs.read("model", stored.blob.version)
    return caught.value


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_version_is_named_noted_and_refused_from_then_on(stored: Stored, damage: str) -> None:
    change, code = DAMAGES[damage]
    content = CONTENT + b"\x01"
    left = change(content)
    stored.become(left)

    first, second = failure(stored), failure(stored)

    assert first.kind.value == code
    assert "model version 1" in first.message
    assert stored.blob.sha256 in first.message or left is None
    [note] = notes(stored.ef)
    assert (note["name"], note["damage"], note["recordedSha256"]) == ("model.v1", code, stored.blob.sha256)
    assert note["foundSha256"] == (hashlib.sha256(left).hexdigest() if left is not None else None)
    assert note["foundSize"] == (len(left) if left is not None else None)
    assert note["storageType"] == stored.blob.storage_type
    assert note["seenBy"] == "ada"
    if left is not None:
        assert note["foundSha256"] in first.message
    assert second.kind.value == "blob-quarantined"
    assert "model version 1" in second.message
    assert stored.blob.sha256 in second.message
    assert "emboflow blob repair model --version 1" in str(second.hint)
    assert stored.ef.blobs.read("model", 0) == CONTENT + b"\x00"
    assert stored.ef.blobs.read("model") == CONTENT + b"\x02"
    assert stored.ef.blobs.get("model", 1).version == 1


def test_sound_versions_are_not_noted(stored: Stored, tmp_path: Path) -> None:
    assert stored.ef.blobs.read("model", 1) == CONTENT + b"\x01"
    stored.ef.blobs.fetch("model", tmp_path / "copy", 1)
    with pytest.raises(EmboflowError):
        stored.ef.blobs.read("model", 7)

    assert notes(stored.ef) == []


def test_the_first_sighting_stays(stored: Stored, opener: Opener) -> None:
    stored.become(flipped(CONTENT + b"\x01"))
    failure(stored)
    [before] = notes(stored.ef)

    other = opener(actor="user:eve")
    with pytest.raises(IntegrityError, match="quarantined"):
        other.blobs.read("model", 1)
    other.blobs.quarantine.note(other.blobs.get("model", 1), other.blobs.repairs.examine(stored.blob)[0])

    assert notes(stored.ef) == [before]


def test_what_a_process_does_not_know_yet_is_still_no_wrong_byte(stored: Stored, opener: Opener) -> None:
    other = opener()
    other.blobs.read("model", 0)  # its copy of the notes is fresh, and empty
    stored.become(flipped(CONTENT + b"\x01"))
    failure(stored)

    with pytest.raises(IntegrityError) as caught:
        other.blobs.read("model", 1)

    assert caught.value.kind.value == "hash-mismatch"


def test_a_lifted_note_is_seen_at_once_by_who_still_remembers_it(stored: Stored, opener: Opener) -> None:
    stored.become(flipped(CONTENT + b"\x01"))
    failure(stored)
    other = opener()
    with pytest.raises(IntegrityError, match="quarantined"):
        other.blobs.read("model", 1)

    stored.ef.blobs.repair("model", 1, CONTENT + b"\x01")

    assert other.blobs.read("model", 1) == CONTENT + b"\x01"


def test_a_database_that_is_down_hides_no_integrity_error(ef: EmboFlow, monkeypatch: Any) -> None:
    stored = Stored(ef, ef.blobs.put(CONTENT, object_id="model"))
    ref = ef.blobs.ref(stored.blob)
    ef.blobs.read("model")
    stored.become(flipped(CONTENT))

    def down(*_: object, **__: object) -> None:
        raise UnavailableError("nobody answers")

    monkeypatch.setattr("emboflow_dagster.blobs.quarantine.objects.at_version", lambda *_: stored.blob)
    for name in ("read", "once", "every"):
        monkeypatch.setattr(f"emboflow_dagster.blobs.quarantine.marks.{name}", down)
    ef.blobs.quarantine.forget()
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            ef.blobs.read_ref(ref)
        assert caught.value.kind.value == "hash-mismatch"


def test_versions_that_share_the_payload_are_set_aside_with_it(ef: EmboFlow) -> None:
    one = Stored(ef, ef.blobs.put(CONTENT, object_id="one"))
    ef.blobs.put(b"other", object_id="two")
    ef.blobs.put(CONTENT, object_id="two")
    ef.blobs.put(b"last", object_id="two")
    ef.blobs.put(CONTENT, object_id="small", home="in_object")
    one.become(flipped(CONTENT))

    with pytest.raises(IntegrityError):
        ef.blobs.read("one")

    assert [n["name"] for n in notes(ef)] == ["one.v0", "two.v1"]
    with pytest.raises(IntegrityError, match="two version 1: quarantined"):
        ef.blobs.open("two", 1)
    assert ef.blobs.read("two") == b"last"
    assert ef.blobs.read("small") == CONTENT
    ef.blobs.repair("two", 1, CONTENT)
    assert notes(ef) == []
    assert ef.blobs.read("one") == CONTENT


def test_another_workspace_sees_for_itself(ef: EmboFlow, opener: Opener) -> None:
    one = Stored(ef, ef.blobs.put(CONTENT, object_id="one"))
    other = opener(workspace="other")
    other.blobs.put(CONTENT, object_id="two")
    one.become(flipped(CONTENT))
    with pytest.raises(IntegrityError):
        ef.blobs.read("one")

    with pytest.raises(IntegrityError) as caught:
        other.blobs.read("two")

    assert caught.value.kind.value == "hash-mismatch"
    assert {n["workspaceId"] for n in notes(ef)} == {ef.scope.workspace_id, other.scope.workspace_id}
    assert [n["objectId"] for n in ef.blobs.quarantine.notes()] == ["one"]


def test_what_was_collected_on_purpose_is_no_damage(ef: EmboFlow) -> None:
    stored = Stored(ef, ef.blobs.put(CONTENT, object_id="model"))
    stored.become(None)
    marks.write(ef.mongo, Mark.TOMBSTONE, "model.v0", ef.scope.workspace_id)

    with pytest.raises(IntegrityError):
        ef.blobs.read("model")

    assert notes(ef) == []


def test_a_store_that_is_not_there_sets_nothing_aside(ef: EmboFlow, tmp_path: Path) -> None:
    ef.blobs.put(CONTENT, object_id="model")
    shutil.move(tmp_path / "home" / "objects", tmp_path / "unmounted")

    with pytest.raises(UnavailableError, match="is not there"):
        ef.blobs.read("model")

    assert notes(ef) == []


@pytest.mark.parametrize(
    ("field", "value"), [("data_sha256", "0" * 64), ("storage_ref.checksum", f"sha256:{'0' * 64}")]
)
def test_a_wrong_recorded_hash_is_told_from_damaged_bytes(ef: EmboFlow, field: str, value: str) -> None:
    stored = Stored(ef, ef.blobs.put(CONTENT, object_id="model"))
    ef.blobs.put(CONTENT, object_id="same")
    stored.record(**{field: value})

    with pytest.raises(IntegrityError) as caught:
        ef.blobs.read("model")

    assert caught.value.kind.value == "hash-recorded-wrong"
    assert stored.blob.sha256 in caught.value.message
    assert "0" * 64 in caught.value.message
    assert [n["name"] for n in notes(ef)] == ["model.v0"]
    assert ef.blobs.read("same") == CONTENT
    with pytest.raises(IntegrityError, match="quarantined"):
        ef.blobs.open("model")
    with pytest.raises(InvalidInputError, match="the record is wrong"):
        ef.blobs.repair("model", 0, CONTENT)
    stored.record(data_sha256=stored.blob.sha256, **{"storage_ref.checksum": f"sha256:{stored.blob.sha256}"})
    ef.blobs.repair("model", 0)
    assert ef.blobs.read("model") == CONTENT


def test_a_reference_with_another_hash_accuses_no_version(ef: EmboFlow) -> None:
    blob = ef.blobs.put(CONTENT, object_id="model")
    ref = ef.blobs.ref(blob).model_copy(update={"checksum": f"sha256:{'0' * 64}"})

    with pytest.raises(IntegrityError):
        ef.blobs.read_ref(ref)

    assert notes(ef) == []
    assert ef.blobs.read("model") == CONTENT


# ----------------------------------------------------------------------------------------------- repair


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_repair_from_a_source(stored: Stored, damage: str, tmp_path: Path) -> None:
    content = CONTENT + b"\x01"
    file = tmp_path / "backup"
    file.write_bytes(content)
    for source in (content, file, io.BytesIO(content), iter([content[:3], content[3:]])):
        stored.become(DAMAGES[damage][0](content))
        failure(stored)
        stored.ef.blobs.repair("model", 1, source)
        assert stored.ef.blobs.read("model", 1) == content
    assert notes(stored.ef) == []
    rows = [row for row in stored.ef.audit.list(limit=500) if row.action == "blob.repair"]
    assert len(rows) == 4
    assert rows[0].resource_id == "model"
    assert rows[0].before_summary is not None
    assert rows[0].before_summary["damage"] == DAMAGES[damage][1]
    assert stored.ef.verify().problems == []


def test_repair_refuses_other_bytes_and_writes_nothing(stored: Stored) -> None:
    damaged = flipped(CONTENT + b"\x01")
    stored.become(damaged)
    failure(stored)
    keys = list(stored.ef.store.iter_keys())

    with pytest.raises(InvalidInputError) as caught:
        stored.ef.blobs.repair("model", 1, b"something else")

    assert caught.value.kind.value == "hash-mismatch"
    assert stored.blob.sha256 in caught.value.message
    assert list(stored.ef.store.iter_keys()) == keys
    assert len(notes(stored.ef)) == 1


def test_repair_without_a_source_only_believes_what_it_reads(stored: Stored) -> None:
    stored.become(flipped(CONTENT + b"\x01"))
    failure(stored)
    with pytest.raises(IntegrityError) as caught:
        stored.ef.blobs.repair("model", 1)
    assert caught.value.kind.value == "hash-mismatch"
    assert len(notes(stored.ef)) == 1

    stored.become(CONTENT + b"\x01")  # restored from a backup
    stored.ef.blobs.repair("model", 1)

    assert stored.ef.blobs.read("model", 1) == CONTENT + b"\x01"
    assert notes(stored.ef) == []


def test_a_put_of_the_same_content_heals_it(ef: EmboFlow, tmp_path: Path) -> None:
    file = tmp_path / "again"
    file.write_bytes(CONTENT)
    for source in (CONTENT, file, io.BytesIO(CONTENT), iter([CONTENT])):
        for left in (flipped(CONTENT), None):
            blob = ef.blobs.put(CONTENT, object_id="model")
            Stored(ef, blob).become(left)
            with pytest.raises(IntegrityError):
                ef.blobs.read("model")
            again = file if source is file else (CONTENT if source is CONTENT else io.BytesIO(CONTENT))
            if not isinstance(source, bytes | Path | io.BytesIO):
                again = iter([CONTENT[:5], CONTENT[5:]])

            ef.blobs.put(again, object_id="another")

            assert ef.blobs.read("model") == CONTENT
            assert notes(ef) == []


def test_a_put_into_the_document_heals_it(ef: EmboFlow) -> None:
    blob = ef.blobs.put(CONTENT, object_id="model", home="in_object")
    Stored(ef, blob).become(flipped(CONTENT))
    with pytest.raises(IntegrityError):
        ef.blobs.read("model")

    again = ef.blobs.put(CONTENT, object_id="model", home="in_object")

    assert again.version == 0
    assert ef.blobs.read("model") == CONTENT
    assert notes(ef) == []


@pytest.mark.parametrize("damage", ["a chunk flipped", "a chunk gone", "the file gone"])
@pytest.mark.parametrize("repaired", [False, True])
def test_a_put_into_gridfs_and_a_repair_heal_it(opener: Opener, damage: str, *, repaired: bool) -> None:
    ef = opener(allow_gridfs=True)
    content = CONTENT * 30_000  # several chunks
    blob = ef.blobs.put(content, object_id="model", home="gridfs")
    chunk = {"files_id": blob.grid_fs_file_id, "n": 1}
    if damage == "the file gone":
        ef.mongo[gridfs.FILES].delete_one({"_id": blob.grid_fs_file_id})
    elif damage == "a chunk gone":
        ef.mongo[gridfs.CHUNKS].delete_one(chunk)
    else:
        data = ef.mongo[gridfs.CHUNKS].find_one(chunk)["data"]
        ef.mongo[gridfs.CHUNKS].update_one(chunk, {"$set": {"data": flipped(data)}})
    with pytest.raises(IntegrityError):
        ef.blobs.read("model")

    if repaired:
        ef.blobs.repair("model", 0, content)
    else:
        assert ef.blobs.put(content, object_id="model", home="gridfs").version == 0

    assert ef.blobs.read("model") == content
    assert notes(ef) == []
    assert ef.verify().problems == []
    files = [str(row["_id"]) for row in ef.mongo[gridfs.FILES].find()]
    assert ef.blobs.get("model").grid_fs_file_id in files


def test_without_a_note_an_altered_payload_is_trusted_by_its_size(ef: EmboFlow) -> None:
    """Why the note matters: the positive control of healing."""
    blob = ef.blobs.put(CONTENT, object_id="model")
    Stored(ef, blob).become(flipped(CONTENT))

    ef.blobs.put(CONTENT, object_id="another")

    with pytest.raises(IntegrityError):
        ef.blobs.read("another")


def test_the_outbox_is_repaired_too(ef: EmboFlow) -> None:
    """A version on its way from head to history, as a killed writer leaves it."""
    for number in range(2):
        ef.blobs.put(CONTENT + bytes([number]), object_id="model", home="in_object")
    old = ef.mongo["object_history"].find_one_and_delete({"object_id": "model"})
    assert old is not None
    del old["_id"]
    ef.mongo["objects"].update_one(
        {"_id": "model"}, {"$set": {"tail": [{**old, "_id": "model", "data": flipped(CONTENT + b"\x00")}]}}
    )
    with pytest.raises(IntegrityError):
        ef.blobs.read("model", 0)

    ef.blobs.repair("model", 0, CONTENT + b"\x00")

    assert ef.blobs.read("model", 0) == CONTENT + b"\x00"


# ---------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(ef: EmboFlow, tmp_path: Path) -> Path:
    """A folder registered as an asset; one of its files is damaged."""
    source = tmp_path / "logs"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("alpha")
    (source / "deep" / "b.txt").write_text("bravo")
    ef.assets.register(source, type="folder", name="logs")
    return source


def damage_of(ef: EmboFlow, content: str, left: bytes | None) -> None:
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = ef.store.path_of(f"sha256/{digest[:2]}/{digest[2:]}")
    assert path is not None
    path.chmod(0o644)
    path.unlink() if left is None else path.write_bytes(left)


@pytest.mark.parametrize(
    ("left", "code"), [(b"Alpha", "hash-mismatch"), (b"alph", "size-mismatch"), (None, "payload-missing")]
)
def test_a_damaged_file_of_a_folder_is_its_folders_damage(
    ef: EmboFlow, folder: Path, left: bytes | None, code: str
) -> None:
    asset = ef.assets.get("logs")
    damage_of(ef, "alpha", left)

    with pytest.raises(IntegrityError) as caught, ef.assets.path(asset):
        pass

    assert caught.value.kind.value == code
    [note] = notes(ef)
    assert note["objectId"] == asset.storage_ref.object_id
    assert note["damage"] == code
    assert asset.storage_ref.object_id is not None
    # The listing itself is sound and can be read.
    assert b"deep/b.txt" in ef.blobs.read(asset.storage_ref.object_id)

    ef.blobs.repair(asset.storage_ref.object_id, 0, folder)

    with ef.assets.path(asset) as path:
        assert (path / "a.txt").read_text() == "alpha"
    assert notes(ef) == []


def test_the_note_is_there_for_another_process(ef: EmboFlow, tmp_path: Path) -> None:
    stored = Stored(ef, ef.blobs.put(CONTENT, object_id="model"))
    stored.become(flipped(CONTENT))
    program = (
        "import sys\n"
        "from emboflow_dagster import EmboFlow\n"
        "from emboflow_dagster.errors import IntegrityError\n"
        "with EmboFlow.from_env() as ef:\n"
        "    try:\n"
        "        ef.blobs.read('model')\n"
        "    except IntegrityError as error:\n"
        "        print(error.kind.value)\n"
    )
    said = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=ef.settings.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(result.stdout.strip())

    assert said == ["hash-mismatch", "blob-quarantined"]
    ef.blobs.quarantine.forget()  # as a few seconds would
    with pytest.raises(IntegrityError, match="quarantined"):
        ef.blobs.open("model")


def test_notes_are_asked_for_once_in_a_while_not_for_every_read(ef: EmboFlow, database: Mongo) -> None:
    blob = ef.blobs.put(CONTENT, object_id="model")
    ref = ef.blobs.ref(blob)
    asked = 0
    quarantine = ef.blobs.quarantine
    original = Quarantine.notes

    def counted(self: Quarantine, object_id: str | None = None) -> Any:
        nonlocal asked
        asked += 1
        return original(self, object_id)

    quarantine.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quarantine, "notes", counted)
        for _ in range(50):
            ef.blobs.read_ref(ref)

    assert asked == 1
    assert database[META].count_documents({"kind": "quarantine"}) == 0
