"""What keeps a payload, edge by edge; what is collected, and what that leaves."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from bson import ObjectId

from emboflow_dagster.errors import (
    ConfigurationError,
    ConflictError,
    ErrorKind,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo import marks, objects
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.tombstones import collected_names
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import settle

LONG_AGO = utc_now() - timedelta(days=400)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")


def age(ef: EmboFlow) -> None:
    """Everything in the store was put long ago."""
    for key in ef.store.iter_keys():
        os.utime(ef.store.path_of(key), (1e9, 1e9))


def collect(ef: EmboFlow, **how):
    age(ef)
    return ef.gc(**{"grace_s": 0, **how})


def withdrawn(ef: EmboFlow, object_id: str = "model", content: bytes = b"zero") -> str:
    blob = ef.blobs.put(content, object_id=object_id)
    ef.blobs.withdraw(object_id, reason="a test")
    return blob.storage_ref.key


def kinds(ef: EmboFlow, object_id: str = "model", version=None, grace=timedelta(0)) -> set[EdgeKind]:
    age(ef)
    return {edge.kind for edge in ef.blobs.why_kept(object_id, version, grace=grace)}


def snapshot(ef: EmboFlow):
    rows = {name: list(ef.mongo[name].find().sort("_id", 1)) for name in ("objects", "object_history")}
    files = sorted((p.name, p.stat().st_mtime) for p in Path(ef.store.root).rglob("*") if p.is_file())
    return rows, files, list(ef.mongo["_emboflow_meta"].find().sort("_id", 1))


# ------------------------------------------------------------------------------------------ letting go


def test_what_nobody_let_go_stays(ef):
    for content in (b"zero", b"one"):
        ef.blobs.put(content, object_id="model")

    report = collect(ef)

    assert (report.freed_payloads, report.kept) == (0, {"version": 2})
    assert [ef.blobs.read("model", n) for n in (0, 1)] == [b"zero", b"one"]
    assert kinds(ef) == {EdgeKind.VERSION}


def test_a_withdrawn_version_is_collected_and_says_so(ef):
    for content in (b"zero", b"one"):
        ef.blobs.put(content, object_id="model")
    settle(ef)
    documents = snapshot(ef)[0]
    ef.blobs.withdraw("model", 0, reason="recorded without consent")
    assert ef.blobs.read("model", 0) == b"zero"
    assert kinds(ef, version=0) == set()

    report = collect(ef)

    assert (report.freed_payloads, report.freed_bytes, report.tombstones) == (1, 4, 1)
    assert (report.versions, report.orphans) == (["model.v0"], 0)
    with pytest.raises(IntegrityError, match="recorded without consent") as caught:
        ef.blobs.read("model", 0)
    assert caught.value.kind is ErrorKind.BLOB_WITHDRAWN
    assert ef.blobs.read("model") == b"one"
    assert collected_names(ef.mongo, ef.scope.workspace_id) == {"model.v0"}
    assert snapshot(ef)[0] == documents
    assert collect(ef).freed_payloads == 0
    assert ef.verify(all=True).ok
    [row] = ef.audit.list(action="blob.withdraw")
    assert row.after_summary == {"versions": 1, "first": 0, "last": 0, "reason": "recorded without consent"}
    with pytest.raises(IntegrityError) as caught:
        ef.blobs.why_kept("model", 0)
    assert caught.value.kind is ErrorKind.BLOB_WITHDRAWN


def test_history_is_the_same_after_gc(ef):
    for number in range(4):
        ef.blobs.put(b"%d" % number, object_id="model")
    before = snapshot(ef)[0]["object_history"]
    ef.blobs.retain("model", keep_last=1)

    assert collect(ef).tombstones == 3
    for number in range(4, 9):
        ef.blobs.put(b"%d" % number, object_id="model")
    collect(ef)

    after = {row["_id"]: row for row in snapshot(ef)[0]["object_history"]}
    assert [after[row["_id"]] for row in before] == before


def test_a_dry_run_changes_nothing_and_tells_what_would_be_done(ef):
    key = withdrawn(ef)
    ef.blobs.put(b"kept", object_id="other")
    for n in range(3):
        ef.blobs.put(b"%d" % n, object_id="ruled")
    ef.blobs.retain("ruled", keep_last=1)
    age(ef)
    settle(ef)
    before = snapshot(ef)

    report = ef.gc(grace_s=0, dry_run=True)

    assert snapshot(ef) == before
    assert (report.freed_payloads, report.tombstones, report.let_go) == (3, 3, 2)
    assert ef.store.exists(key)
    assert ef.gc(grace_s=0).freed_payloads == 3


def test_what_a_crash_left_is_collected_when_the_grace_is_over(ef):
    ref = ef.blobs.put_payload(b"nobody's", content_type="text/plain")

    assert ef.gc(grace_s=3600).kept == {"young": 1}
    assert ef.verify(all=True).counts["unreferenced payloads"] == 0
    age(ef)
    assert ef.verify(all=True).counts["unreferenced payloads"] == 1
    report = collect(ef, grace_s=3600)

    assert (report.freed_payloads, report.orphans) == (1, 1)
    assert not ef.store.exists(ref.key)


def test_equal_content_after_a_withdrawal_is_a_version_that_is_kept(ef):
    withdrawn(ef)
    again = ef.blobs.put(b"zero", object_id="model")
    assert again.version == 1
    collect(ef)
    assert ef.blobs.read("model", 1) == b"zero"

    ef.blobs.withdraw("model", reason="again")
    collect(ef)
    first = ef.blobs.put(b"zero", object_id="model", request_id="r")
    second = ef.blobs.put(b"zero", object_id="model", request_id="r")

    assert (first.version, second.version) == (2, 2)
    collect(ef)
    assert ef.blobs.read("model") == b"zero"


def test_a_withdrawal_can_be_taken_back_until_it_is_collected(ef):
    withdrawn(ef)
    assert ef.blobs.reinstate("model", 0, reason="a mistake") == [0]
    collect(ef)
    assert ef.blobs.read("model") == b"zero"

    ef.blobs.withdraw("model", reason="now")
    collect(ef)
    with pytest.raises(IntegrityError) as caught:
        ef.blobs.reinstate("model", 0, reason="too late")
    assert caught.value.kind is ErrorKind.BLOB_WITHDRAWN


# ------------------------------------------------------------------------------------------------ edges


def test_the_grace_keeps_what_was_let_go(ef):
    key = withdrawn(ef)

    assert kinds(ef, grace=timedelta(hours=1)) == {EdgeKind.GRACE}
    assert collect(ef, grace_s=3600).kept == {"grace": 1}
    assert collect(ef).freed_payloads == 1
    assert not ef.store.exists(key)


def test_the_same_bytes_of_another_version_stay(ef):
    withdrawn(ef)
    ef.blobs.put(b"zero", object_id="other")

    assert kinds(ef) == {EdgeKind.SHARED}
    assert collect(ef).freed_payloads == 0
    ef.blobs.withdraw("other", reason="a test")

    report = collect(ef)
    assert (report.freed_payloads, sorted(report.versions)) == (1, ["model.v0", "other.v0"])


def test_another_workspace_keeps_its_bytes_and_is_not_named(ef, opener):
    withdrawn(ef)
    other = opener(workspace="globex")
    other.blobs.put(b"zero", object_id="theirs")

    assert kinds(ef) == set()
    assert collect(ef).freed_payloads == 0
    assert other.blobs.read("theirs") == b"zero"
    other.blobs.withdraw("theirs", reason="a test")

    report = collect(ef)
    assert (report.freed_payloads, report.tombstones, report.versions) == (1, 2, ["model.v0"])


def test_an_owner_keeps_what_it_owns(ef, asset_file):
    asset = ef.assets.register(asset_file, type="raw_file")
    object_id = asset.storage_ref.object_id

    with pytest.raises(ConflictError, match=f"owned by assets {asset.id}"):
        ef.blobs.withdraw(object_id, reason="a test")
    assert kinds(ef, object_id) >= {EdgeKind.VERSION, EdgeKind.OWNER, EdgeKind.RECORD}
    # The note alone, as a rule or a crash might leave it.
    note = {"releasedAt": LONG_AGO, "releasedBy": "x", "reason": "a test", "rule": "withdrawn"}
    marks.write(ef.mongo, Mark.RELEASE, f"{object_id}.v0", ef.scope.workspace_id, **note)
    assert collect(ef).kept == {"owner": 1}
    ef.mongo["objects"].update_one({"_id": object_id}, {"$set": {"owner_record_id": None}})
    assert collect(ef).kept == {"record": 1}
    ef.mongo["assets"].delete_one({"_id": asset.id})
    assert collect(ef).freed_payloads == 1


def test_an_owner_that_let_go_does_not_keep_it_although_it_still_names_it(ef, asset_file):
    asset = ef.assets.register(asset_file, type="raw_file")
    note = {"releasedAt": LONG_AGO, "releasedBy": "ada", "record": "assets", "field": "storageRef"}
    marks.write(
        ef.mongo,
        Mark.RELEASE,
        f"{asset.storage_ref.object_id}.v0",
        ef.scope.workspace_id,
        recordId=asset.id,
        **note,
    )

    assert collect(ef).tombstones == 1


def test_a_folder_keeps_its_files_and_lets_them_go(ef, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    asset = ef.assets.register(folder, type="folder")
    withdrawn(ef, content=b"a")

    assert kinds(ef) == {EdgeKind.LISTING}
    assert collect(ef).kept == {"version": 1, "listing": 2}
    ef.mongo["assets"].delete_one({"_id": asset.id})
    owner = {"owner_record": None, "owner_record_field": None, "owner_record_id": None}
    ef.mongo["objects"].update_one({"_id": asset.storage_ref.object_id}, {"$set": owner})
    ef.blobs.withdraw(asset.storage_ref.object_id, reason="a test")
    report = collect(ef)
    assert (report.freed_payloads, report.tombstones, report.orphans) == (3, 2, 1)


def test_a_listing_that_cannot_be_read_stops_the_collection(ef, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    asset = ef.assets.register(folder, type="folder")
    withdrawn(ef)
    ef.store.delete(asset.storage_ref.key)

    with pytest.raises(IntegrityError, match="nothing was collected"):
        collect(ef)
    assert ef.blobs.read("model") == b"zero"


def test_a_hold_keeps_everything_until_it_is_lifted(ef):
    for content in (b"zero", b"one"):
        ef.blobs.put(content, object_id="model")
    ef.blobs.withdraw("model", 0, reason="a test")
    ef.blobs.retain("model", hold=True, reason="case 7")
    ef.blobs.retain("model", keep_last=1)

    with pytest.raises(ForbiddenError, match="under legal hold by ada") as caught:
        ef.blobs.withdraw("model", 1, reason="a test")
    assert caught.value.kind is ErrorKind.LEGAL_HOLD
    assert kinds(ef, version=0) == {EdgeKind.HOLD}
    assert collect(ef).freed_payloads == 0
    ef.blobs.retain("model", hold=False)
    assert ef.blobs.retention("model").keep_last == 1
    assert collect(ef).versions == ["model.v0"]


def test_a_retention_rule_keeps_the_last_the_young_and_the_newest(ef):
    for number in range(6):
        ef.blobs.put(b"%d" % number, object_id="model")
    ef.mongo["object_history"].update_many({"version": {"$lt": 3}}, {"$set": {"updated_at": LONG_AGO}})
    ef.blobs.retain("model", keep_last=2, keep_days=30)
    assert collect(ef).versions == ["model.v0", "model.v1", "model.v2"]
    assert EdgeKind.RETENTION in kinds(ef, version=3)

    ef.blobs.retain("model", keep_last=1)
    assert collect(ef, grace_s=3600).let_go == 2
    ef.blobs.retain("model", keep_last=2)
    report = collect(ef)

    assert (report.reclaimed, report.versions) == (1, ["model.v3"])
    assert ef.blobs.read("model", 4) == b"4"
    ef.blobs.retain("model", keep_days=1)
    ef.mongo["objects"].update_many({}, {"$set": {"updated_at": LONG_AGO}})
    collect(ef)
    assert ef.blobs.read("model", 5) == b"5"


def test_a_temporary_blob_is_kept_until_it_expires(ef):
    ref = ef.blobs.put_payload(b"soon gone", content_type="text/plain").to_mongo()
    note = {"ref": ref, "expiresAt": utc_now() + timedelta(hours=1)}
    marks.write(ef.mongo, Mark.TEMPORARY, "tmp_1", ef.scope.workspace_id, **note)
    withdrawn(ef, content=b"soon gone")

    assert kinds(ef) == {EdgeKind.TEMPORARY}
    assert collect(ef).kept == {"temporary": 1}
    marks.write(ef.mongo, Mark.TEMPORARY, "tmp_1", ef.scope.workspace_id, ref=ref, expiresAt=LONG_AGO)
    assert collect(ef).freed_payloads == 1


def test_a_run_that_is_not_over_keeps_what_it_made(ef):
    ef.blobs.put(b"zero", object_id="model", workflow_id="run_1")
    row = {"_id": "run_1", "status": "running", "workspaceId": ef.scope.workspace_id}
    ef.mongo["workflow_runs"].insert_one(row, bypass_document_validation=True)

    with pytest.raises(ConflictError, match="run_1"):
        ef.blobs.withdraw("model", reason="a test")
    ef.mongo["workflow_runs"].update_one({}, {"$set": {"status": "success"}}, bypass_document_validation=True)
    ef.blobs.withdraw("model", reason="a test")
    assert collect(ef).freed_payloads == 1


def test_a_writer_that_said_so_keeps_a_payload(ef):
    key = withdrawn(ef)
    marks.write(ef.mongo, Mark.PENDING, f"{key}:w", ef.scope.workspace_id, key=key)

    assert kinds(ef) == {EdgeKind.PENDING}
    report = collect(ef)
    assert (report.freed_payloads, report.kept) == (0, {"pending": 1})
    ef.mongo["_emboflow_meta"].update_one(
        {"_id": f"pending:{key}:w"}, {"$set": {"createdAt": LONG_AGO}}
    )  # who wrote it is no more
    assert collect(ef).freed_payloads == 1


def test_bytes_inside_a_document_stay(ef):
    ef.blobs.put(b"inside", object_id="model", home="in_object")
    ef.blobs.withdraw("model", reason="a test")

    assert kinds(ef) == {EdgeKind.DOCUMENT}
    assert collect(ef).tombstones == 0
    assert ef.blobs.read("model") == b"inside"


# ---------------------------------------------------------------------------------- the rest of the store


def test_an_outbox_is_finished_and_its_versions_are_judged(ef, monkeypatch):
    monkeypatch.setattr(objects, "archive", lambda *_: 0)
    for content in (b"zero", b"one"):
        ef.blobs.put(content, object_id="model")
    monkeypatch.undo()
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")
    ef.blobs.withdraw("model", 0, reason="a test")

    report = collect(ef)

    assert (report.archived_tails, report.versions) == (1, ["model.v0"])
    assert ef.mongo["objects"].find_one({"_id": "model"})["tail"] == []


def test_an_upload_that_never_ended_is_removed_and_one_at_work_is_not(ef):
    ef.blobs.put(b"x")
    folder = ef.store.root / "tmp"
    (folder / "put-1-dead").write_bytes(b"half")
    os.utime(folder / "put-1-dead", (1, 1))
    with ef.store.writing():
        [flight] = folder.glob("flight-*")
        os.utime(flight, (time.time() - 90_000,) * 2)

        report = ef.gc()

        assert flight.exists()
    assert (report.aborted_uploads, report.aborted_bytes) == (1, 4)
    assert list(folder.iterdir()) == [flight]  # for this process's next put
    assert ef.gc().aborted_uploads == 0


def test_what_is_put_while_a_writer_is_at_work_is_not_collected(ef):
    with ef.blobs.writing():
        ref = ef.blobs.put_payload(b"part one", content_type="text/plain")
        report = ef.gc(grace_s=0)
        assert report.kept == {"young": 1}
    time.sleep(0.05)
    assert ef.gc(grace_s=0).orphans == 1
    assert not ef.store.exists(ref.key)


def test_what_an_interrupted_collection_took_aside_is_read_and_put_back(ef):
    blob = ef.blobs.put(b"zero", object_id="model")
    assert ef.store.condemn(blob.storage_ref.key, time.time() + 10)
    assert not ef.store.exists(blob.storage_ref.key)
    assert ef.blobs.read("model") == b"zero"

    ef.store.condemn(blob.storage_ref.key, time.time() + 10)
    collect(ef)
    assert ef.store.exists(blob.storage_ref.key)
    assert ef.verify().ok


@pytest.mark.parametrize("grace", [-1, 0, 3599])
def test_a_short_grace_is_for_tests_alone(ef, monkeypatch, grace):
    monkeypatch.delenv("EMBOFLOW_GC_UNSAFE_GRACE")
    with pytest.raises(InvalidInputError, match="one hour"):
        ef.gc(grace_s=grace)


def test_a_database_that_does_not_know_the_store_collects_nothing(ef):
    for number in range(1001):
        path = ef.store.root / "sha256" / f"{number % 7:02x}" / f"{number:062x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    with pytest.raises(ConfigurationError, match="this database knows 0"):
        collect(ef)
    assert collect(ef, force=True).freed_payloads == 1001


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501])
def test_a_withdrawal_says_why(ef, reason):
    ef.blobs.put(b"x", object_id="model")
    with pytest.raises(InvalidInputError, match="reason"):
        ef.blobs.withdraw("model", reason=reason)


@pytest.mark.parametrize("number", [0, -1, True, 1.5, 10**9])
def test_a_rule_has_sensible_numbers(ef, number):
    ef.blobs.put(b"x", object_id="model")
    with pytest.raises(InvalidInputError, match="keep_last"):
        ef.blobs.retain("model", keep_last=number)


def test_files_of_gridfs_are_collected_as_well(opener, monkeypatch):
    ef = opener(allow_gridfs=True)
    monkeypatch.setattr("emboflow_dagster.project.gc.collect.MIN_GRACE_S", 0)
    for content in (b"zero", b"one"):
        ef.blobs.put(content, object_id="model", home="gridfs")
    kept = ef.blobs.get("model").grid_fs_file_id
    ef.blobs.withdraw("model", 0, reason="a test")
    dead = ObjectId.from_datetime(LONG_AGO)
    ef.mongo["fs.chunks"].insert_one({"_id": dead, "files_id": "gfs_dead", "n": 0, "data": b"half"})
    foreign = ObjectId.from_datetime(LONG_AGO + timedelta(1))
    ef.mongo["fs.chunks"].insert_one({"_id": foreign, "files_id": "theirs", "n": 0, "data": b"half"})
    ef.mongo["fs.files"].update_many({}, {"$set": {"uploadDate": LONG_AGO}})

    report = collect(ef)

    assert (report.freed_payloads, report.freed_bytes, report.aborted_uploads) == (1, 4, 1)
    assert [row["_id"] for row in ef.mongo["fs.files"].find()] == [kept]
    assert {row["files_id"] for row in ef.mongo["fs.chunks"].find()} == {kept, "theirs"}
    assert ef.blobs.read("model") == b"one"
    with pytest.raises(IntegrityError) as caught:
        ef.blobs.read("model", 0)
    assert caught.value.kind is ErrorKind.BLOB_WITHDRAWN


def test_the_note_of_a_damaged_version_goes_with_its_bytes(ef):
    blob = ef.blobs.put(b"zero", object_id="model")
    ef.blobs.put(b"one", object_id="model")
    path = ef.store.path_of(blob.storage_ref.key)
    path.chmod(0o644)
    path.write_bytes(b"0000")
    with pytest.raises(IntegrityError):
        ef.blobs.read("model", 0)
    assert [row["name"] for row in marks.every(ef.mongo, Mark.QUARANTINE)] == ["model.v0"]
    ef.blobs.withdraw("model", 0, reason="damaged")

    assert collect(ef).tombstones == 1

    assert list(marks.every(ef.mongo, Mark.QUARANTINE)) == []
    assert ef.verify(all=True).ok


def test_what_is_past_its_time_is_removed(ef):
    temporary = ef.blobs.put_temporary(b"for a while")
    announced = ef.blobs.announce(owner=("assets", "storageRef"), name="rows.csv")
    for kind, name in ((Mark.TEMPORARY, temporary.id), (Mark.UPLOAD, announced.object_id)):
        ef.mongo["_emboflow_meta"].update_one(
            {"_id": f"{kind.value}:{name}"}, {"$set": {"expiresAt": LONG_AGO}}
        )

    report = collect(ef)

    assert (report.expired_temporary, report.expired_uploads) == (1, 1)
    assert ef.mongo["objects"].count_documents({}) == 0
    assert collect(ef).freed_payloads + report.freed_payloads == 1
    assert ef.verify(all=True).ok
