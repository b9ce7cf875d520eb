"""Voedger's rules about blobs and their owners, in each home (P-30..P-46).

`docs/parity.md` names these tests beside what Voedger does. Uploads always go to the object store.
"""

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from emboflow_dagster import BlobRef, Create, Deactivate, Update
from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError, NotFoundError
from emboflow_dagster.model.blob import BlobObject, StorageType, UploadStatus
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_cud import annotated, kinds, ref, refused

PAYLOAD = ("annotations", "payload")


@pytest.fixture
def ef(opener: Callable[..., EmboFlow]) -> EmboFlow:
    return opener(allow_gridfs=True)


@pytest.fixture(params=list(StorageType))
def home(request: pytest.FixtureRequest) -> StorageType:
    return request.param


def label(task: Any, target: Any, payload: Any) -> Create:
    fields = {"annotationTaskId": task.id, "targetRef": {"id": target.id}, "payload": payload}
    return Create("annotations", fields)


def owner_of(ef: EmboFlow, blob: BlobObject) -> tuple[str | None, str | None, str | None]:
    head = ef.blobs.get(blob.object_id)
    return head.owner_record, head.owner_record_field, head.owner_record_id


def test_p30_p38_an_upload_says_whose_it_will_be_and_is_there_when_all_bytes_are(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=PAYLOAD, name="boxes.json", content_type="application/json", size=4)
    assert owner_of(ef, blob) == (*PAYLOAD, None)
    assert blob.upload_status is UploadStatus.ANNOUNCED
    with pytest.raises(IntegrityError) as caught:
        ef.blobs.read(blob.object_id)
    assert caught.value.kind is ErrorKind.BLOB_INCOMPLETE
    for wrong in (b"[]", b"[1,2]"):
        with pytest.raises(IntegrityError) as caught:
            ef.blobs.upload(blob.object_id, io.BytesIO(wrong))
        assert caught.value.kind is ErrorKind.SIZE_MISMATCH
        assert ef.blobs.get(blob.object_id).upload_status is UploadStatus.ANNOUNCED
    with pytest.raises(NotFoundError):
        ef.blobs.read("obj_nobody")

    ef.blobs.upload(blob.object_id, b"[12]")

    assert ef.blobs.get(blob.object_id).upload_status is UploadStatus.COMPLETED
    assert ef.blobs.read(blob.object_id) == b"[12]"


def test_p31_the_owner_is_the_new_record_whatever_the_request_calls_it(
    ef: EmboFlow, home: StorageType
) -> None:
    blob = ef.blobs.put(b"[1]", home=home, owner=PAYLOAD)
    target = annotated(ef)[0]
    task = {"targetType": "asset", "targetRef": {"id": target.id}, "labelType": "box"}
    row, made = ef.cud(
        [
            Create(
                "annotations",
                {"annotationTaskId": "#task", "targetRef": {"id": target.id}, "payload": ref(blob)},
                ref="#label",
            ),
            Create("annotation_tasks", task, ref="#task"),
        ]
    )

    assert row.to_mongo()["annotationTaskId"] == made.id
    assert owner_of(ef, blob) == (*PAYLOAD, row.id)


def test_p32_p43_a_blob_is_read_by_its_record_and_field(ef: EmboFlow, home: StorageType) -> None:
    blob = ef.blobs.put(
        "größer".encode(), home=home, content_type="text/plain", custom_metadata={"name": "note.txt"}
    )
    row = annotated(ef, ref(blob))[2]
    where = ("annotations", row.id, "payload")

    assert ef.blobs.read_owned(*where) == "größer".encode()
    assert ef.blobs.info(*where).to_json() == {"name": "note.txt", "mimetype": "text/plain", "size": 8}
    assert ef.blobs.text(*where, start=4).text == "ßer"
    for kind, content, shown in (
        ("video/mp4", b"\x00\x01", "AAE="),
        ("application/json", b'{"a": 1}', '{"a": 1}'),
    ):
        other = ef.blobs.put(content, home=home, content_type=kind)
        ef.cud([Update("annotations", row.id, {"payload": ref(other)})])
        assert ef.blobs.text(*where).text == shown


def test_p33_p34_refusals_have_voedgers_texts(ef: EmboFlow) -> None:
    row = annotated(ef)[2]
    read, announce = ef.blobs.read_owned, ef.blobs.announce
    texts = {
        "blob owner nothing is unknown": lambda: announce(owner=("nothing", "f"), name="n"),
        "blob owner field f does not exist in blob owner assets": lambda: announce(
            owner=("assets", "f"), name="n"
        ),
        "blob owner assets.summary must be of blob type": lambda: announce(
            owner=("assets", "summary"), name="n"
        ),
        "document annotations with ID ann_none not found": lambda: read("annotations", "ann_none", "payload"),
        "no value for owner field payload in blob owner doc annotations": lambda: read(
            "annotations", row.id, "payload"
        ),
        "blob owner annotations.status must be of blob type": lambda: read("annotations", row.id, "status"),
    }
    for text, call in texts.items():
        with pytest.raises(EmboflowError) as caught:
            call()
        assert text in caught.value.message


def test_p35_p36_every_violation_is_told_with_its_code_and_nothing_is_written(
    ef: EmboFlow, home: StorageType
) -> None:
    target, task, _ = annotated(ef)
    owned = ef.blobs.put(b"owned", home=home)
    ef.cud([label(task, target, ref(owned))])
    meant = ef.blobs.put(b"meant", home=home, owner=("assets", "storageRef"))
    twice = ef.blobs.put(b"twice", home=home)

    error = refused(
        ef,
        label(task, target, ref(owned)),
        label(task, target, ref(meant)),
        label(task, target, ref(twice)),
        label(task, target, ref(twice)),
    )

    assert kinds(error) == [
        "blob-owner-not-empty",
        "blob-owner-mismatch",
        "blob-owner-field-mismatch",
        "blob-duplicate-reference",
    ]
    texts = [problem.message for problem in error.problems]
    assert "mentioned in CUD annotations.payload" in texts[0]
    assert "is used already in annotations." in texts[0]
    assert "is intended for assets.storageRef whereas it is being used in annotations.payload" in texts[1]
    assert "is used already in CUD annotations" in texts[3]
    assert owner_of(ef, twice) == (None, None, None)


def test_p39_a_temporary_blob_lives_as_long_as_was_said_and_is_nobodys(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = ef.blobs.put_temporary(b"x", ttl="1d")
    assert len(blob.id) == 43
    for left, there in ((1, True), (0, False)):
        now = blob.expires_at - timedelta(seconds=left)
        monkeypatch.setattr(Mongo, "server_time", lambda _, now=now: now)
        if there:
            assert ef.blobs.open_temporary(blob.id).read() == b"x"
        else:
            with pytest.raises(NotFoundError) as caught:
                ef.blobs.open_temporary(blob.id)
            assert caught.value.kind is ErrorKind.BLOB_EXPIRED
    monkeypatch.undo()
    target, task, _ = annotated(ef)
    error = refused(ef, label(task, target, BlobRef(object_id=blob.id, version=0)))
    assert kinds(error) == ["ref-not-found"]


def test_p40_p41_a_blob_meant_for_nobody_is_adopted_and_its_row_is_nobodys_to_write(
    ef: EmboFlow, home: StorageType
) -> None:
    target, task, _ = annotated(ef)
    blob = ef.blobs.put(b"free", home=home)
    for change in (
        Create("objects", {"object_id": "mine", "owner_record_id": "ann_1"}),
        Update("objects", blob.object_id, {"owner_record_id": "ann_1"}),
        Deactivate("objects", blob.object_id),
    ):
        assert refused(ef, change).kind in (ErrorKind.FORBIDDEN, ErrorKind.INVALID_INPUT)

    [row] = ef.cud([label(task, target, ref(blob))])

    assert owner_of(ef, blob) == (*PAYLOAD, row.id)


def test_p42_what_is_replaced_or_out_of_use_is_let_go(ef: EmboFlow, home: StorageType) -> None:
    first, second = (ef.blobs.put(content, home=home) for content in (b"first", b"second"))
    row = annotated(ef, ref(first))[2]
    ef.cud([Update("annotations", row.id, {"payload": ref(second)})])
    assert owner_of(ef, first) == (None, None, None)
    assert owner_of(ef, second) == (*PAYLOAD, row.id)

    ef.cud([Deactivate("annotations", row.id)])
    ef.blobs.release(second.object_id)

    assert owner_of(ef, second) == (None, None, None)
    assert [ef.blobs.read(blob.object_id) for blob in (first, second)] == [b"first", b"second"]
    assert ef.verify().problems == []


def test_p44_reading_a_part_is_no_damage(ef: EmboFlow, home: StorageType) -> None:
    blob = ef.blobs.put(b"x" * 200_000, home=home)

    with ef.blobs.open(blob.object_id) as stream:
        assert stream.read(10) == b"x" * 10

    assert not ef.blobs.quarantine.anything()
    assert ef.blobs.read(blob.object_id) == b"x" * 200_000


def test_p45_a_request_has_at_most_a_hundred_changes(ef: EmboFlow) -> None:
    changes = [Create("datasets", {"name": f"d{n}", "type": "canonical"}) for n in range(101)]

    assert "100" in refused(ef, *changes).message
    assert len(ef.cud(changes[:100])) == 100


def test_p46_the_first_thing_in_a_new_workspace_may_be_an_upload(opener: Callable[..., EmboFlow]) -> None:
    fresh = opener("brand-new", "first")
    blob = fresh.blobs.announce(owner=("assets", "storageRef"), name="rows.csv")
    done = fresh.blobs.upload(blob.object_id, b"t,x\n")

    [made] = fresh.cud(
        [Create("assets", {"type": "raw_file", "displayName": "rows", "storageRef": ref(done)})]
    )
    assert fresh.blobs.read_owned("assets", made.id, "storageRef") == b"t,x\n"
