"""Versions of blobs: numbered without gaps whoever writes, whatever dies; read back verified."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pymongo.errors import WriteError

from emboflow_dagster.blobs.context import working_for
from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConflictError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.model.blob import StorageType
from emboflow_dagster.model.storage import IN_OBJECT_BYTES
from emboflow_dagster.mongo import objects
from emboflow_dagster.project.handle import EmboFlow


def test_each_new_content_is_the_next_version_and_keeps_the_old_bytes(ef: EmboFlow) -> None:
    for number in range(5):
        ef.blobs.put(f"content {number}".encode(), object_id="model")

    head = ef.blobs.get("model")

    assert (head.version, head.prev_version) == (4, 3)
    assert [b.version for b in ef.blobs.history("model")] == [4, 3, 2, 1, 0]
    assert [ef.blobs.read("model", n) for n in range(5)] == [f"content {n}".encode() for n in range(5)]
    assert {b.created_at for b in ef.blobs.history("model")} == {head.created_at}


def test_equal_content_is_no_new_version(ef: EmboFlow) -> None:
    first = ef.blobs.put(b"same", object_id="model", custom_metadata={"stage": "best"})
    again = ef.blobs.put(io.BytesIO(b"same"), object_id="model")

    assert again == first
    assert len(ef.blobs.history("model")) == 1


def test_a_repeated_request_makes_no_second_version(ef: EmboFlow) -> None:
    ef.blobs.put(b"one", object_id="model", request_id="r-1")
    ef.blobs.put(b"two", object_id="model", request_id="r-2")
    again = ef.blobs.put(b"one", object_id="model", request_id="r-1")

    assert again.version == 0
    assert ef.blobs.read("model") == b"two"


def test_a_request_is_remembered_for_ever(ef: EmboFlow) -> None:
    for number in range(80):  # more than the head remembers
        ef.blobs.put(f"{number}".encode(), object_id="model", request_id=f"r-{number}")

    assert ef.blobs.put(b"again", object_id="model", request_id="r-2").version == 2
    assert ef.blobs.get("model").version == 79


def test_64_writers_of_one_blob_get_64_consecutive_versions(ef: EmboFlow) -> None:
    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda n: ef.blobs.put(f"{n}".encode(), object_id="hot"), range(64)))

    assert sorted(b.version for b in stored) == list(range(64))
    for blob in stored:
        assert ef.blobs.get("hot", blob.version).data_sha256 == blob.data_sha256
    assert [b.version for b in ef.blobs.history("hot")] == list(range(63, -1, -1))


def test_an_archive_left_half_done_is_read_and_finished(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "archive", lambda *_: 0)  # what a kill between the two writes leaves
    for number in range(3):
        ef.blobs.put(f"{number}".encode(), object_id="model")
    assert ef.mongo["object_history"].count_documents({}) == 0
    assert [ef.blobs.read("model", n) for n in range(3)] == [b"0", b"1", b"2"]
    assert [b.version for b in ef.blobs.history("model")] == [2, 1, 0]
    monkeypatch.undo()

    ef.blobs.put(b"3", object_id="model")

    assert ef.mongo["object_history"].count_documents({}) == 3
    assert [b.version for b in ef.blobs.history("model")] == [3, 2, 1, 0]
    assert ef.mongo["objects"].find_one({"_id": "model"})["tail"] == []  # type: ignore[index]


def test_values_that_look_like_expressions_are_stored_as_they_are(ef: EmboFlow) -> None:
    ef.blobs.put(
        b"a", object_id="model", custom_metadata={"home": "$HOME", "n": {"x": "$$ROOT"}}, tags=["$version"]
    )
    ef.blobs.put(b"b", object_id="model", custom_metadata={"home": "$HOME"}, tags=["$version"])

    assert ef.blobs.get("model").custom_metadata == {"home": "$HOME"}
    assert ef.blobs.get("model", 0).custom_metadata == {"home": "$HOME", "n": {"x": "$$ROOT"}}
    assert ef.blobs.get("model").tags == ["$version"]


def test_a_flipped_byte_is_refused_by_name_and_found_by_verify(ef: EmboFlow) -> None:
    ef.blobs.put(b"first", object_id="model")
    blob = ef.blobs.put(b"second" * 1000, object_id="model")
    path = ef.blobs.local_path(ef.blobs.ref(blob))
    assert path is not None
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=r"model version 1.*" + blob.data_sha256):
        ef.blobs.read("model")
    assert ef.blobs.read("model", 0) == b"first"
    report = ef.verify()

    assert [(p.code, p.collection, p.id) for p in report.problems] == [("hash-mismatch", "objects", "model")]


def test_a_missing_payload_is_named(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"gone", object_id="model")
    path = ef.blobs.local_path(ef.blobs.ref(blob))
    assert path is not None
    path.unlink()

    with pytest.raises(IntegrityError) as caught:
        ef.blobs.read("model")

    assert caught.value.kind == ErrorKind.PAYLOAD_MISSING
    assert [p.code for p in ef.verify().problems] == ["payload-missing"]


def test_unknown_ids_and_versions_are_not_found(ef: EmboFlow) -> None:
    ef.blobs.put(b"x", object_id="model")

    with pytest.raises(NotFoundError, match="Object not found for object_id=other"):
        ef.blobs.get("other")
    with pytest.raises(NotFoundError, match=r"Object not found for object_id=model, version=7\."):
        ef.blobs.get("model", 7)
    assert ef.blobs.history("other") == []


def test_refused_metadata_stores_nothing(ef: EmboFlow) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ef.blobs.put(b"x" * 100, object_id="model", custom_metadata={"$set": 1})

    assert caught.value.kind == ErrorKind.KEY_OPERATOR
    assert list(ef.store.iter_keys()) == []
    assert ef.mongo["objects"].count_documents({}) == 0


def test_what_is_stored_inside_a_run_says_so(ef: EmboFlow) -> None:
    with working_for("run_1", "tsk_1"):
        inside = ef.blobs.put(b"x", object_id="a")
    outside = ef.blobs.put(b"x", object_id="b")

    assert (inside.workflow_id, inside.task_id) == ("run_1", "tsk_1")
    assert (outside.workflow_id, outside.task_id) == (None, None)


def test_a_large_file_streams_through(ef: EmboFlow, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(bytes(range(256)) * (96 << 10))  # 24 MiB
    blob = ef.blobs.put(source)

    back = ef.blobs.fetch(blob.object_id, tmp_path / "back.bin")

    assert back.read_bytes() == source.read_bytes()
    assert blob.object_size_bytes == source.stat().st_size


def test_an_id_of_another_workspace_is_taken_and_unreadable(opener) -> None:
    opener("acme").blobs.put(b"secret", object_id="model")
    other = opener("rival")

    with pytest.raises(AlreadyExistsError):
        other.blobs.put(b"mine", object_id="model")
    with pytest.raises(NotFoundError):
        other.blobs.read("model")


HOMES = (StorageType.OBJECT_STORE, StorageType.IN_OBJECT)


@pytest.mark.parametrize("second", HOMES)
@pytest.mark.parametrize("first", HOMES)
def test_every_version_is_read_from_its_own_home(
    ef: EmboFlow, first: StorageType, second: StorageType
) -> None:
    ef.blobs.put(b"one", object_id="model", home=first)
    ef.blobs.put(b"two", object_id="model", home=second)

    assert [b.storage_type for b in ef.blobs.history("model")] == [second, first]
    assert [ef.blobs.read("model", n) for n in (0, 1)] == [b"one", b"two"]
    raw = ef.mongo["objects"].find_one({"_id": "model"}) or {}
    assert ("data" in raw) is (second is StorageType.IN_OBJECT)
    assert (raw["storage_ref"] is None) is (second is StorageType.IN_OBJECT)
    assert ef.verify().ok


def test_equal_content_in_another_home_is_a_new_version(ef: EmboFlow) -> None:
    ef.blobs.put(b"same", object_id="model", home=StorageType.IN_OBJECT)

    assert ef.blobs.put(b"same", object_id="model", home=StorageType.IN_OBJECT).version == 0
    assert ef.blobs.put(b"same", object_id="model").version == 1


@pytest.mark.parametrize(("size", "fits"), [(IN_OBJECT_BYTES, True), (IN_OBJECT_BYTES + 1, False)])
def test_a_document_holds_256_kib(ef: EmboFlow, size: int, fits: bool) -> None:
    content = b"x" * size
    if fits:
        ef.blobs.put(content, object_id="model", home=StorageType.IN_OBJECT)
        assert ef.blobs.read("model") == content
        return
    with pytest.raises(InvalidInputError, match="256 KiB") as caught:
        ef.blobs.put(content, object_id="model", home=StorageType.IN_OBJECT)
    assert caught.value.kind is ErrorKind.SIZE


def test_the_server_holds_the_bound_too(ef: EmboFlow) -> None:
    ef.blobs.put(b"x", object_id="model", home=StorageType.IN_OBJECT)

    with pytest.raises(WriteError, match="failed validation"):
        ef.mongo["objects"].update_one({"_id": "model"}, {"$set": {"data": b"x" * (IN_OBJECT_BYTES + 1)}})


def test_64_writers_of_large_documents_wait_for_the_outbox(ef: EmboFlow) -> None:
    def put(number: int) -> int:
        content = bytes([number]) * IN_OBJECT_BYTES
        return ef.blobs.put(content, object_id="hot", home=StorageType.IN_OBJECT).version

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(put, range(64))) == list(range(64))
    assert ef.verify().ok


def test_a_version_that_is_not_kept_is_replaced(ef: EmboFlow) -> None:
    first = ef.blobs.put(b"one", object_id="scratch", control_version=False)
    second = ef.blobs.put(b"two", object_id="scratch", control_version=False)

    assert (first.version, second.version) == (0, 1)
    assert second.created_at == first.created_at
    assert [b.version for b in ef.blobs.history("scratch")] == [1]
    with pytest.raises(NotFoundError):
        ef.blobs.get("scratch", 0)
    assert ef.verify().ok


def test_kept_versions_are_not_replaced(ef: EmboFlow) -> None:
    ef.blobs.put(b"one", object_id="model")

    with pytest.raises(ConflictError, match="model version 0") as caught:
        ef.blobs.put(b"two", object_id="model", control_version=False)

    assert caught.value.kind is ErrorKind.BLOB_UNCONTROLLED
    assert ef.blobs.read("model") == b"one"


def test_versions_are_kept_from_the_first_put_that_asks_for_it(ef: EmboFlow) -> None:
    ef.blobs.put(b"one", object_id="model", control_version=False)
    ef.blobs.put(b"two", object_id="model", control_version=False)
    ef.blobs.put(b"three", object_id="model")
    ef.blobs.put(b"four", object_id="model")

    assert [b.version for b in ef.blobs.history("model")] == [3, 2, 1]
    assert ef.blobs.read("model", 1) == b"two"
    assert ef.verify().ok
