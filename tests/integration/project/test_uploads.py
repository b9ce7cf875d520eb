"""Uploads that are announced before their record exists, and blobs that are there for a while."""

import io
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster import Create
from emboflow_dagster.blobs.expiry import Expired, remove_expired, temporary_refs
from emboflow_dagster.errors import (
    EmboflowError,
    ErrorKind,
    IntegrityError,
    NotFoundError,
    TransitionError,
)
from emboflow_dagster.model.blob import UploadStatus
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_cud import ref

OWNER = ("assets", "storageRef")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moves the server's clock."""

    def later(by: timedelta) -> None:
        real = Mongo.server_time
        monkeypatch.setattr(Mongo, "server_time", lambda self: real(self) + by)

    return later


def test_what_is_announced_is_written_completed_and_owned(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv", content_type="text/csv", size=4)
    head = ef.blobs.get(blob.object_id)
    assert (head.upload_status, head.data_sha256, head.object_size_bytes) == (
        UploadStatus.ANNOUNCED,
        None,
        None,
    )
    assert (head.owner_record, head.owner_record_field, head.owner_record_id) == (*OWNER, None)
    assert ef.verify().problems == []
    for read in (
        lambda: ef.blobs.read(blob.object_id),
        lambda: ef.blobs.ref(head),
        lambda: ef.blobs.put(b"x", object_id=blob.object_id),
    ):
        with pytest.raises(IntegrityError) as caught:
            read()
        assert caught.value.kind is ErrorKind.BLOB_INCOMPLETE

    done = ef.blobs.upload(blob.object_id, io.BytesIO(b"t,x\n"))

    assert (done.upload_status, done.version, done.object_size_bytes) == (UploadStatus.COMPLETED, 0, 4)
    assert ef.blobs.read(blob.object_id) == b"t,x\n"
    assert ef.mongo[META].find_one({"kind": "upload"}) is None
    [made] = ef.cud([Create("assets", {"type": "raw_file", "displayName": "rows", "storageRef": ref(done)})])
    assert ef.blobs.info("assets", made.id, "storageRef").name == "rows.csv"
    assert ef.verify().problems == []


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ({"owner": ("nothing", "f")}, "blob-field", "blob owner nothing is unknown"),
        ({"owner": ("assets", "f")}, "blob-field", "blob owner field f does not exist in blob owner assets"),
        ({"owner": ("assets", "summary")}, "blob-field", "blob owner assets.summary must be of blob type"),
        ({"name": ""}, "name-empty", ""),
        ({"content_type": "rows"}, "content-type", ""),
        ({"size": -1}, "size", ""),
        ({"size": True}, "size", ""),
        ({"expires": "1 day"}, "invalid-input", "'1s' to '30d'"),
        ({"expires": "31d"}, "invalid-input", ""),
    ],
)
def test_an_announcement_is_refused(ef: EmboFlow, how: Any, kind: str, text: str) -> None:
    with pytest.raises(EmboflowError) as caught:
        ef.blobs.announce(**{"owner": OWNER, "name": "rows.csv", **how})

    assert (caught.value.kind.value, text in caught.value.message) == (kind, True)
    assert ef.mongo["objects"].count_documents({}) == 0


def test_other_bytes_than_announced_leave_the_upload_open(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv", size=4)
    right = "a1fff0ffefb9eace7230c24e50731f0a91c62f9cefdfe77121c2f607125dffae"

    with pytest.raises(IntegrityError, match="found 3 bytes, announced are 4") as caught:
        ef.blobs.upload(blob.object_id, b"abc")
    assert caught.value.kind is ErrorKind.SIZE_MISMATCH
    with pytest.raises(IntegrityError, match=f"expected is {right}") as caught:
        ef.blobs.upload(blob.object_id, b"abcd", sha256=right)
    assert caught.value.kind is ErrorKind.HASH_MISMATCH

    assert ef.blobs.get(blob.object_id).upload_status is UploadStatus.ANNOUNCED
    assert ef.blobs.upload(blob.object_id, b"abcd").completed


def test_a_source_that_breaks_leaves_the_upload_open(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv")

    def breaks() -> Any:
        yield b"t,x\n"
        raise RuntimeError("the line is dead")

    with pytest.raises(RuntimeError, match="the line is dead"):
        ef.blobs.upload(blob.object_id, breaks())

    assert ef.blobs.get(blob.object_id).upload_status is UploadStatus.ANNOUNCED
    assert list(ef.store.iter_keys()) == []


def test_a_completed_upload_is_not_uploaded_again(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv")
    ef.blobs.upload(blob.object_id, b"one")

    for call in (
        lambda: ef.blobs.upload(blob.object_id, b"two"),
        lambda: ef.blobs.abandon(blob.object_id),
    ):
        with pytest.raises(TransitionError, match="the upload is completed"):
            call()
    assert ef.blobs.read(blob.object_id) == b"one"


def test_of_two_uploads_at_once_one_completes(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv")

    def meanwhile() -> Any:
        yield b"slow"
        ef.blobs.upload(blob.object_id, b"fast")

    with pytest.raises(TransitionError, match="the upload is completed"):
        ef.blobs.upload(blob.object_id, meanwhile())
    assert ef.blobs.read(blob.object_id) == b"fast"


def test_an_upload_expires(ef: EmboFlow, clock: Any) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv", expires="1h")
    clock(timedelta(minutes=59))
    kept = ef.blobs.announce(owner=OWNER, name="kept.csv", expires="1h")
    clock(timedelta(minutes=1))

    with pytest.raises(NotFoundError, match="the upload has expired at") as caught:
        ef.blobs.upload(blob.object_id, b"x")

    assert caught.value.kind is ErrorKind.BLOB_EXPIRED
    assert ef.blobs.upload(kept.object_id, b"x").completed
    ef.blobs.abandon(blob.object_id)
    assert ef.verify().problems == []


def test_an_abandoned_upload_is_gone(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv")

    ef.blobs.abandon(blob.object_id)

    assert ef.mongo["objects"].count_documents({}) == 0
    assert ef.mongo[META].find_one({"kind": "upload"}) is None
    for call in (ef.blobs.get, ef.blobs.abandon, lambda id_: ef.blobs.upload(id_, b"x")):
        with pytest.raises(NotFoundError):
            call(blob.object_id)


def test_uploads_of_another_workspace_are_not_there(ef: EmboFlow, opener: Any) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv")
    rival = opener("rival")

    for call in (rival.blobs.abandon, lambda id_: rival.blobs.upload(id_, b"x")):
        with pytest.raises(NotFoundError):
            call(blob.object_id)


def test_verify_finds_an_upload_that_can_never_expire(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=OWNER, name="rows.csv")
    ef.mongo[META].delete_many({"kind": "upload"})

    assert [(p.code, p.id) for p in ef.verify().problems] == [("blob-incomplete", blob.object_id)]


# -------------------------------------------------------------------------------------------------- temporary


def test_a_temporary_blob_is_read_until_its_time(ef: EmboFlow, clock: Any) -> None:
    blob = ef.blobs.put_temporary(b"preview", content_type="image/png", ttl="1d")

    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", blob.id)
    assert ef.mongo["objects"].count_documents({}) == 0
    clock(timedelta(days=1, minutes=-10))
    with ef.blobs.open_temporary(blob.id) as stream:
        assert stream.read() == b"preview"
    assert ef.blobs.get_temporary(blob.id) == blob
    assert ef.verify().problems == []
    clock(timedelta(minutes=10))
    with pytest.raises(NotFoundError, match="the temporary blob has expired") as caught:
        ef.blobs.open_temporary(blob.id)

    assert caught.value.kind is ErrorKind.BLOB_EXPIRED


def test_a_temporary_blob_ends_at_its_time_to_the_millisecond(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = ef.blobs.put_temporary(b"preview", ttl=timedelta(seconds=90))
    for left, readable in ((1000, True), (1, True), (0, False)):
        now = blob.expires_at - timedelta(milliseconds=left)
        monkeypatch.setattr(Mongo, "server_time", lambda _, now=now: now)
        if readable:
            assert ef.blobs.get_temporary(blob.id).size == 7
        else:
            with pytest.raises(NotFoundError):
                ef.blobs.get_temporary(blob.id)


def test_temporary_blobs_are_seen_in_their_workspace_alone(ef: EmboFlow, opener: Any, tmp_path: Path) -> None:
    path = tmp_path / "preview.png"
    path.write_bytes(b"preview")
    blob = ef.blobs.put_temporary(path)

    for handle, id_ in ((opener("rival"), blob.id), (ef, blob.id[::-1]), (ef, "../x"), (ef, 7)):
        with pytest.raises(NotFoundError) as caught:
            handle.blobs.open_temporary(id_)  # type: ignore[arg-type]
        assert caught.value.kind is ErrorKind.NOT_FOUND
    assert opener("acme", "other").blobs.get_temporary(blob.id) == blob


def test_every_temporary_id_is_another_one() -> None:
    from emboflow_dagster.blobs.temporary import new_temporary_id

    made = {new_temporary_id() for _ in range(10_000)}

    assert len(made) == 10_000
    assert [id_ for id_ in made if id_.startswith("-")] == []  # one in 64 would be an option to a shell


@pytest.mark.parametrize("ttl", ["", "0s", "1w", "31d", "1.5d", timedelta(0), timedelta(days=31), 60])
def test_a_time_to_live_that_is_none(ef: EmboFlow, ttl: Any) -> None:
    with pytest.raises(EmboflowError, match="ttl: found"):
        ef.blobs.put_temporary(b"x", ttl=ttl)

    assert list(ef.store.iter_keys()) == []


def test_verify_finds_a_temporary_blob_without_bytes(ef: EmboFlow) -> None:
    ef.blobs.put_temporary(b"preview")
    for key in list(ef.store.iter_keys()):
        ef.store.delete(key)

    assert [p.code for p in ef.verify().problems] == ["payload-missing"]


def test_what_is_past_its_time_is_removed_and_nothing_else(ef: EmboFlow) -> None:
    ended = [ef.blobs.announce(owner=OWNER, name=f"{n}", expires="1h") for n in range(2)]
    done = ef.blobs.announce(owner=OWNER, name="done", expires="1h")
    note = ef.mongo[META].find_one({"kind": "upload", "name": done.object_id})
    ef.blobs.upload(done.object_id, b"done")
    assert note is not None
    ef.mongo[META].insert_one(note)  # as a crash leaves it
    kept = ef.blobs.announce(owner=OWNER, name="kept", expires="1d")
    short, long = ef.blobs.put_temporary(b"short", ttl="1h"), ef.blobs.put_temporary(b"long")
    later = ef.mongo.server_time() + timedelta(hours=2)

    assert remove_expired(ef.mongo, later, dry_run=True) == Expired(3, 1)
    assert ef.mongo["objects"].count_documents({}) == 4
    assert [ref["size"] for ref in temporary_refs(ef.mongo, later)] == [4]
    assert remove_expired(ef.mongo, later) == Expired(2, 1)
    assert remove_expired(ef.mongo, later) == Expired(0, 0)

    left = {row["_id"] for row in ef.mongo["objects"].find()}
    assert left == {done.object_id, kept.object_id}
    assert not left & {blob.object_id for blob in ended}
    assert ef.blobs.read(done.object_id) == b"done"
    assert ef.blobs.get_temporary(long.id) == long
    with pytest.raises(NotFoundError):
        ef.blobs.get_temporary(short.id)
    assert ef.verify().problems == []
