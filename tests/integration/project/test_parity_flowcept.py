"""Flowcept's blob calls, each in each home: what it does is done, what it gets wrong is not (P-01..P-27).

`docs/parity.md` names these tests beside what Flowcept 1.0.3 does.
"""

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.blobs.flowcept import FlowceptBlobs
from emboflow_dagster.errors import (
    ConflictError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    ObjectNotFoundError,
)
from emboflow_dagster.model.blob import StorageType
from emboflow_dagster.model.collections import COLLECTIONS, indexes_of
from emboflow_dagster.model.storage import IN_OBJECT_BYTES
from emboflow_dagster.mongo import gridfs, objects
from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.object_storage.local import LocalObjectStore
from emboflow_dagster.project.handle import EmboFlow

HOMES = tuple(StorageType)


@pytest.fixture
def ef(opener: Callable[..., EmboFlow]) -> EmboFlow:
    return opener(allow_gridfs=True)


@pytest.fixture
def blobs(ef: EmboFlow) -> FlowceptBlobs:
    return ef.blobs


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest) -> StorageType:
    return request.param


def head(ef: EmboFlow, object_id: str) -> Raw:
    return ef.mongo["objects"].find_one({"_id": object_id}) or {}


# P-01, P-02, P-03


def test_p01_a_save_without_an_id_makes_one_and_with_it_updates(
    blobs: FlowceptBlobs, home: StorageType
) -> None:
    object_id = blobs.save_or_update_object(b"one", home=home)

    assert blobs.save_or_update_object(b"two", object_id=object_id, home=home) == object_id
    assert blobs.save_or_update_object(b"one", home=home) != object_id
    assert blobs.get_blob_object(object_id).data == b"two"


def test_p02_get_returns_the_object_with_all_that_was_said(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(
        b"weights",
        object_id="m",
        type="ml_model",
        task_id="tsk_1",
        workflow_id="run_1",
        custom_metadata={"stage": "best"},
        home=home,
    )

    found = blobs.get_blob_object("m")

    assert (found.type, found.object_type, found.task_id, found.workflow_id) == (
        "ml_model",
        "ml_model",
        "tsk_1",
        "run_1",
    )
    assert (found.custom_metadata, found.version, found.data) == ({"stage": "best"}, 0, b"weights")
    assert found.storage_type == home.value


def test_p03_the_current_run_and_task_are_the_default(blobs: FlowceptBlobs, home: StorageType) -> None:
    with blobs.context("run_1", "tsk_1"):
        blobs.save_or_update_object(b"a", object_id="inside", home=home)
        blobs.save_or_update_object(b"a", object_id="said", workflow_id="run_9", home=home)
    blobs.save_or_update_object(b"a", object_id="outside", home=home)

    ids = {o: (blobs.get(o).workflow_id, blobs.get(o).task_id) for o in ("inside", "said", "outside")}
    assert ids == {"inside": ("run_1", "tsk_1"), "said": ("run_9", "tsk_1"), "outside": (None, None)}


def test_contexts_nest_and_a_new_thread_is_outside_of_them(blobs: FlowceptBlobs) -> None:
    seen: list[str | None] = []
    with blobs.context("outer", "t"):
        with blobs.context("inner"):
            seen += [blobs.current_workflow_id, blobs.current_task_id]
        seen += [blobs.current_workflow_id, blobs.current_task_id]
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: blobs.current_workflow_id).result())
        with pytest.raises(RuntimeError), blobs.context("failing"):
            raise RuntimeError
        seen.append(blobs.current_workflow_id)
    assert [*seen, blobs.current_workflow_id] == ["inner", None, "outer", "t", None, "outer", None]


# P-04 .. P-08


def test_p04_an_uncontrolled_update_replaces_the_payload(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(b"one", object_id="m", control_version=False, home=home)
    first = blobs.get_blob_object("m")
    time.sleep(0.002)
    blobs.save_or_update_object(b"two", object_id="m", control_version=False, home=home)
    second = blobs.get_blob_object("m")

    assert (first.version, second.version, second.data) == (0, 1, b"two")
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at >= first.created_at


def test_p05_the_first_controlled_save_has_no_history(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType
) -> None:
    blobs.save_or_update_object(b"one", object_id="m", control_version=True, home=home)

    found = blobs.get_blob_object("m")
    assert (found.version, found.prev_version) == (0, None)
    assert ef.mongo["object_history"].count_documents({}) == 0


def test_p06_p07_a_controlled_update_keeps_the_old_bytes(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType
) -> None:
    for content in (b"one", b"two"):
        blobs.save_or_update_object(content, object_id="m", home=home)

    assert [blobs.get_blob_object("m", n).data for n in (0, 1, None)] == [b"one", b"two", b"two"]
    assert [row["version"] for row in ef.mongo["object_history"].find({})] == [0]
    assert ef.verify().ok


def test_p08_the_history_is_metadata_newest_first(blobs: FlowceptBlobs, home: StorageType) -> None:
    for content in (b"one", b"two"):
        blobs.save_or_update_object(content, object_id="m", home=home)

    rows = blobs.get_object_history("m")

    assert [row["version"] for row in rows] == [1, 0]
    assert {row["storage_type"] for row in rows} == {home.value}
    assert not {"data", "grid_fs_file_id", "storage_ref"} & {key for row in rows for key in row}
    assert blobs.list_object_versions("m") == rows


def test_the_history_comes_in_pages(blobs: FlowceptBlobs) -> None:
    for number in range(7):
        blobs.save_or_update_object(b"%d" % number, object_id="m")

    pages = [blobs.get_object_history("m", below=below, limit=3) for below in (None, 4, 1)]
    assert [[row["version"] for row in page] for page in pages] == [[6, 5, 4], [3, 2, 1], [0]]
    assert [row["version"] for row in blobs.iter_object_history("m")] == [6, 5, 4, 3, 2, 1, 0]


# P-09, P-10


@pytest.fixture
def no_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a payload was read")

    monkeypatch.setattr(LocalObjectStore, "open", refuse)
    monkeypatch.setattr(gridfs, "find", refuse)
    monkeypatch.setattr(objects, "data", refuse)


@pytest.mark.usefixtures("no_reads")
def test_p09_the_fingerprint_reads_no_payload(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(b"abc", object_id="m", home=home)
    blobs.save_or_update_object(b"abcd", object_id="m", home=home)

    assert blobs.get_blob_fingerprint("m", 0) == {
        "object_id": "m",
        "version": 0,
        "object_size_bytes": 3,
        "data_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "data_hash_algo": "sha256",
        "storage_type": home.value,
    }
    assert blobs.get_blob_fingerprint("m")["version"] == 1


@pytest.mark.usefixtures("no_reads")
@pytest.mark.parametrize("other", HOMES)
def test_p10_equal_is_by_hash_whatever_the_homes(
    blobs: FlowceptBlobs, home: StorageType, other: StorageType
) -> None:
    blobs.save_or_update_object(b"same", object_id="a", home=home)
    blobs.save_or_update_object(b"diff", object_id="a", home=home)
    blobs.save_or_update_object(b"same", object_id="b", home=other)

    assert blobs.blob_objects_equal("a", "b", version_a=0)
    assert not blobs.blob_objects_equal("a", "b", fallback_to_payload=True)


@pytest.mark.parametrize(
    ("hashes", "sizes", "fallback", "expected"),
    [
        (("x", "x"), (1, 2), False, True),  # the hashes decide
        (("x", "y"), (1, 1), True, False),
        ((None, "x"), (1, 2), True, False),  # different sizes
        ((None, "x"), (4, 4), False, False),
        ((None, None), (None, None), False, False),
        ((None, "x"), (4, 4), True, True),  # the bytes decide, and they are equal
    ],
)
def test_p10_without_a_hash_the_size_and_then_the_bytes_decide(
    blobs: FlowceptBlobs,
    monkeypatch: pytest.MonkeyPatch,
    hashes: tuple[Any, Any],
    sizes: tuple[Any, Any],
    fallback: bool,
    expected: bool,
) -> None:
    for object_id, digest, size in zip("ab", hashes, sizes, strict=True):
        blobs.save_or_update_object(b"same", object_id=object_id)
        made = blobs.get(object_id).model_copy(update={"data_sha256": digest, "object_size_bytes": size})
        monkeypatch.setitem(_ROWS, object_id, made)
    whole = type(blobs).get
    monkeypatch.setattr(type(blobs), "get", lambda self, id_, version=None: _ROWS[id_])
    monkeypatch.setattr(type(blobs), "open_blob", lambda self, b: blobs._homes.open(whole(self, b.object_id)))

    assert blobs.blob_objects_equal("a", "b", fallback_to_payload=fallback) is expected


_ROWS: dict[str, Any] = {}


# P-11, P-24


def test_p11_p24_64_writers_all_succeed_gapless(blobs: FlowceptBlobs, home: StorageType) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(
            pool.map(
                lambda n: blobs.save_or_update_object(b"%d" % n, object_id="hot", home=home),
                range(64 if home is not StorageType.GRIDFS else 32),
            )
        )

    rows = blobs.get_object_history("hot")
    assert [row["version"] for row in rows] == list(range(len(rows) - 1, -1, -1))
    assert len({row["data_sha256"] for row in rows}) == len(rows) == (32 if home == "gridfs" else 64)


def test_writers_of_content_and_of_metadata_do_not_hinder_each_other(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType
) -> None:
    blobs.save_or_update_object(b"start", object_id="hot", home=home)

    def write(number: int) -> None:
        if number % 2:
            blobs.update_object_metadata("hot", tags=[f"t{number}"])
        else:
            blobs.save_or_update_object(b"%d" % number, object_id="hot", home=home)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))

    assert [row["version"] for row in blobs.get_object_history("hot")] == list(range(24, -1, -1))
    assert ef.verify().ok


# P-12, P-13


def test_p12_metadata_changes_and_the_payload_does_not_move(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType
) -> None:
    blobs.save_or_update_object(b"weights", object_id="m", custom_metadata={"stage": "new"}, home=home)
    before = head(ef, "m")
    files = list(ef.store.iter_keys()), list(gridfs.iter_files(ef.mongo))

    assert blobs.update_object_metadata("m", custom_metadata={"stage": "$best"}, tags=["$x"]) == "m"

    after = head(ef, "m")
    assert (after["version"], after["prev_version"]) == (1, 0)
    for pointer in ("data", "storage_ref", "grid_fs_file_id", "data_sha256", "object_size_bytes"):
        assert after.get(pointer) == before.get(pointer)
    assert (list(ef.store.iter_keys()), list(gridfs.iter_files(ef.mongo))) == files
    assert [blobs.get_blob_object("m", n).custom_metadata for n in (0, 1)] == [
        {"stage": "new"},
        {"stage": "$best"},
    ]
    assert [blobs.get_blob_object("m", n).data for n in (0, 1)] == [b"weights", b"weights"]
    assert blobs.get("m").tags == ["$x"]
    assert ef.verify().ok


def test_p12_a_new_version_of_metadata_belongs_to_nobody_yet(ef: EmboFlow, blobs: FlowceptBlobs) -> None:
    blobs.save_or_update_object(b"x", object_id="m")
    ef.mongo["objects"].update_one({"_id": "m"}, {"$set": {"owner_record_id": "art_1"}})

    blobs.update_object_metadata("m", type="ml_model")

    assert [blobs.get("m", n).owner_record_id for n in (0, 1)] == ["art_1", None]


def test_p12_nothing_to_change_is_nothing_done(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(b"x", object_id="m", home=home)

    assert blobs.update_object_metadata("m") == "m"
    assert blobs.get("m").version == 0
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_912, tzinfo=UTC)
    for _ in range(2):  # repeated by someone who did not hear of the first time
        blobs.update_object_metadata("m", custom_metadata={"when": moment, "a": {"b": 1}}, tags=["t"])
    assert blobs.get("m").version == 1


def test_p12_uncontrolled_metadata_updates(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(b"x", object_id="m", control_version=False, home=home)
    blobs.update_object_metadata("m", tags=["a"], control_version=False)
    blobs.save_or_update_object(b"x", object_id="kept", home=home)

    assert [row["version"] for row in blobs.get_object_history("m")] == [1]
    assert blobs.get_blob_object("m").data == b"x"
    with pytest.raises(ConflictError) as caught:
        blobs.update_object_metadata("kept", tags=["a"], control_version=False)
    assert caught.value.kind is ErrorKind.BLOB_UNCONTROLLED


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda b: b.update_object_metadata(None), r"object_id must not be None\."),
        (lambda b: b.update_object_metadata("no", tags=["a"]), r"Object not found for object_id=no\."),
        (lambda b: b.get_blob_object("no"), r"Object not found for object_id=no\."),
        (lambda b: b.get_blob_object("no", version=3), r"Object not found for object_id=no, version=3\."),
        (lambda b: b.get_blob_object("m", version=7), r"Object not found for object_id=m, version=7\."),
        (lambda b: b.get_blob_fingerprint("m", 7), r"Object not found for object_id=m, version=7\."),
        (lambda b: b.blob_objects_equal("m", "no"), r"Object not found for object_id=no\."),
    ],
)
def test_p12_p13_the_texts_are_flowcepts(
    blobs: FlowceptBlobs, call: Callable[[FlowceptBlobs], object], text: str
) -> None:
    blobs.save_or_update_object(b"x", object_id="m")

    with pytest.raises(ValueError, match=f"^{text}$"):
        call(blobs)
    assert blobs.get_object_history("no") == []


# P-14 .. P-19


def test_p14_p18_models_and_datasets(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_ml_model(b"m", "model", custom_metadata={"a": 1}, home=home)
    blobs.save_or_update_dataset(b"d", "data", "tsk_1", "run_1", {"b": 2}, home=home)
    blobs.save_or_update_object(b"d", "old-data", type="dataset", home=home)

    assert (blobs.get_ml_model("model").type, blobs.get_dataset("data").type) == (
        "ml_model",
        "dataset_snapshot",
    )
    assert blobs.get_dataset("data").custom_metadata == {"b": 2}
    assert blobs.get_dataset("old-data", 0).data == b"d"
    assert [row["object_id"] for row in blobs.ml_model_query({})] == ["model"]
    assert {row["object_id"] for row in blobs.dataset_query({})} == {"data", "old-data"}
    assert [row["object_id"] for row in blobs.dataset_query({"workflow_id": "run_1"})] == ["data"]
    for wrong in (lambda: blobs.get_ml_model("data"), lambda: blobs.get_dataset("model")):
        with pytest.raises(ObjectNotFoundError, match="Object not found for object_id="):
            wrong()


def test_p15_tags(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(b"x", object_id="m", tags=["a", "b"], home=home)
    blobs.save_or_update_object(b"y", object_id="m", home=home)

    assert [blobs.get("m", n).tags for n in (0, 1)] == [["a", "b"], ["a", "b"]]
    assert [row["object_id"] for row in blobs.blob_object_query({"tags": "b"})] == ["m"]


def test_p16_the_dict_has_no_nulls_and_neither_it_nor_the_repr_the_payload(
    blobs: FlowceptBlobs, home: StorageType
) -> None:
    blobs.save_or_update_object(b"the secret payload", object_id="m", home=home)
    found = blobs.get_blob_object("m")
    assert found.data == b"the secret payload"

    assert copy.copy(found) == found
    assert found.to_dict()["version"] == 0
    assert None not in found.to_dict().values()
    for text in (repr(found), str(found.to_dict()), str(found.metadata.to_json())):
        assert "secret payload" not in text


def test_p17_lists_histories_and_downloads(blobs: FlowceptBlobs, home: StorageType, tmp_path: Path) -> None:
    for number in range(4):
        blobs.save_or_update_object(
            b"%d" % number,
            object_id=f"o{number}",
            workflow_id=f"run_{number % 2}",
            task_id=f"tsk_{number}",
            type="ml_model" if number else "artifact",
            home=home,
        )

    def ids(**filters: Any) -> list[str]:
        return sorted(blob.object_id for blob in blobs.list_objects(**filters))

    assert ids() == ["o0", "o1", "o2", "o3"]
    assert ids(workflow_id="run_1") == ["o1", "o3"]
    assert ids(task_id="tsk_2") == ["o2"]
    assert ids(type="ml_model", workflow_id="run_0") == ["o2"]
    assert ids(object_id="o3") == ["o3"]
    assert ids(filter={"version": {"$gte": 0}}, workflow_id="run_0") == ["o0", "o2"]
    assert [blob.object_id for blob in blobs.list_objects(limit=1)] == ["o3"]
    path = blobs.download_object("o2", tmp_path)
    assert (path.name, path.read_bytes()) == ("o2.v0.bin", b"2")
    assert blobs.get_blob_object("o2").filename == "o2.v0.bin"


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 1.5, "5"])
def test_p17_the_limit_is_1_to_1000(blobs: FlowceptBlobs, limit: Any) -> None:
    for call in (
        blobs.list_objects,
        blobs.blob_object_query,
        lambda limit: blobs.get_object_history("m", limit=limit),
    ):
        with pytest.raises(InvalidInputError, match="limit"):
            call(limit=limit)


@pytest.mark.parametrize(
    ("filter_", "kind"),
    [
        ({"$where": "1"}, ErrorKind.OPERATOR_NOT_ALLOWED),
        ({"$expr": {}}, ErrorKind.OPERATOR_NOT_ALLOWED),
        ({"workspace_id": "ws_other"}, ErrorKind.FILTER_SCOPE_FIELD),
        ({"$or": [{"workspaceId": "ws_other"}]}, ErrorKind.FILTER_SCOPE_FIELD),
        ([], ErrorKind.FILTER_TYPE),
    ],
)
def test_p17_a_query_runs_no_code_and_stays_in_its_workspace(
    blobs: FlowceptBlobs, filter_: Any, kind: ErrorKind
) -> None:
    for call in (blobs.blob_object_query, blobs.dataset_query, blobs.object_report):
        with pytest.raises(InvalidInputError) as caught:
            call(filter_)
        assert caught.value.kind is kind


def test_p17_another_workspace_is_not_seen(opener: Callable[..., EmboFlow]) -> None:
    opener("acme").blobs.save_or_update_object(b"x", object_id="m", type="ml_model")
    rival = opener("rival").blobs

    assert rival.blob_object_query({"$or": [{"object_id": "m"}, {"object_id": {"$exists": True}}]}) == []
    assert (rival.list_objects(), rival.get_object_history("m")) == ([], [])
    assert rival.object_report()["total_objects"] == 0
    with pytest.raises(ObjectNotFoundError):
        rival.update_object_metadata("m", tags=["mine"])


def test_p17_object_type_is_the_same_as_type(blobs: FlowceptBlobs) -> None:
    blobs.insert_or_update_object(b"x", object_id="m", object_type="ml_model")

    assert [r["object_id"] for r in blobs.blob_object_query({"object_type": "ml_model"})] == ["m"]
    nested = {"$or": [{"object_type": {"$in": ["ml_model"]}}, {"version": 9}], "type": "ml_model"}
    assert [r["object_id"] for r in blobs.blob_object_query(nested)] == ["m"]
    assert blobs.blob_object_query({"object_type": "ml_model", "type": "artifact"}) == []
    with pytest.raises(InvalidInputError, match="object_type"):
        blobs.save_or_update_object(b"x", type="a", object_type="b")


def test_p19_the_report_counts_without_bytes(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object(b"12345", object_id="a", type="ml_model", workflow_id="run_1", home=home)
    blobs.save_or_update_object(b"123", object_id="b", task_id="tsk_1", home=home)
    blobs.save_or_update_object(b"1", object_id="b", home=home)

    assert blobs.object_report() == {
        "total_objects": 2,
        "by_type": {"ml_model": 1, "artifact": 1},
        "by_storage": {home.value: 2},
        "task_linked": 1,
        "workflow_linked": 1,
        "max_version": 1,
        "total_size_bytes": 6,
        "avg_size_bytes": 3.0,
        "max_size_bytes": 5,
    }
    assert blobs.object_report({"type": "ml_model"})["total_objects"] == 1
    assert blobs.object_report({"type": "nothing"}) == {
        "total_objects": 0,
        "by_type": {},
        "by_storage": {},
        "task_linked": 0,
        "workflow_linked": 0,
        **dict.fromkeys(("max_version", "total_size_bytes", "avg_size_bytes", "max_size_bytes")),
    }


# P-20, P-21, P-27


def test_p20_what_is_recorded_about_a_save_never_holds_the_payload(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType
) -> None:
    blobs.save_or_update_object(b"the secret payload", object_id="m", home=home)

    for name in ef.mongo.db.list_collection_names():
        if name not in {"objects", gridfs.CHUNKS}:
            assert not [row for row in ef.mongo[name].find({}) if b"secret payload" in str(row).encode()]
    assert ("data" in head(ef, "m")) is (home is StorageType.IN_OBJECT)


def test_p21_p27_the_indexes_are_there_before_the_first_save(ef: EmboFlow) -> None:
    unique = {"objects": ["object_id"], "object_history": ["object_id", "version"]}
    for name in ("objects", "object_history"):
        have = ef.mongo[name].index_information()
        for index in indexes_of(COLLECTIONS[name]):
            assert [key for key, _ in have[index.name]["key"]] == list(index.keys)
        assert have["_".join(unique[name]) + "_unique"]["unique"]
    keys = {tuple(k for k, _ in row["key"]) for row in ef.mongo["objects"].index_information().values()}
    assert {("workflow_id",), ("task_id",), ("data_sha256",)} <= keys


# P-22 .. P-26: what Flowcept gets wrong


@pytest.mark.parametrize("second", HOMES)
def test_p22_each_version_has_its_own_home_and_leaves_no_pointer_behind(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType, second: StorageType
) -> None:
    for number, where in enumerate((home, second, home)):
        blobs.save_or_update_object(b"content %d" % number, object_id="m", home=where)

    for number, where in enumerate((home, second, home)):
        fingerprint = blobs.get_blob_fingerprint("m", number)
        assert blobs.get_blob_object("m", number).data == b"content %d" % number
        assert fingerprint["storage_type"] == where.value
    for row in (head(ef, "m"), *ef.mongo["object_history"].find({})):
        there = {name for name in ("data", "storage_ref", "grid_fs_file_id") if row.get(name) is not None}
        assert len(there) == 1
    assert ef.verify().ok


def test_p22_metadata_of_a_version_that_moved(ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType) -> None:
    for where in (StorageType.IN_OBJECT, StorageType.OBJECT_STORE, home):
        blobs.save_or_update_object(where.value.encode(), object_id="m", home=where)
        blobs.update_object_metadata("m", tags=[where.value])

    assert blobs.get_blob_object("m").data == home.value.encode()
    assert ef.verify().ok


def test_p23_a_pickle_is_refused_in_every_home(ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType) -> None:
    with pytest.raises(InvalidInputError) as caught:
        blobs.save_or_update_object({"a": 1}, object_id="m", pickle=True, home=home)  # type: ignore[arg-type]

    assert caught.value.kind is ErrorKind.SERIALISED_UNSAFE
    assert ef.mongo["objects"].count_documents({}) == 0
    with pytest.raises(InvalidInputError):  # Python objects are no payloads without it
        blobs.save_or_update_object(42, object_id="m", home=home)  # type: ignore[arg-type]


def test_p25_what_is_kept_stays_readable_and_the_id_stays_usable(
    ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType
) -> None:
    for number in range(5):
        blobs.save_or_update_object(b"%d" % number, object_id="m", home=home)
    history = [row["_id"] for row in ef.mongo["object_history"].find({}).sort("version", 1)]

    assert history == [f"m.v{n}" for n in range(4)]
    assert [blobs.get_blob_object("m", n).data for n in range(5)] == [b"%d" % n for n in range(5)]
    assert not hasattr(blobs, "delete_object_keys")


def test_p26_text_is_stored_as_utf8_with_its_hash(blobs: FlowceptBlobs, home: StorageType) -> None:
    blobs.save_or_update_object("Gelenk über 90°", object_id="a", home=home)
    blobs.save_or_update_object("Gelenk über 90°".encode(), object_id="b", home=home)

    assert blobs.get_blob_object("a").data == "Gelenk über 90°".encode()
    assert blobs.get_blob_fingerprint("a")["data_sha256"] is not None
    assert blobs.blob_objects_equal("a", "b")


# What the house decides where Flowcept is silent


def test_equal_content_and_metadata_make_no_new_version(blobs: FlowceptBlobs, home: StorageType) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_912, tzinfo=UTC)
    metadata = {"a": [1, {"b": None}], "when": moment}
    for _ in range(3):
        blobs.save_or_update_object(b"x", object_id="m", custom_metadata=metadata, tags=["t"], home=home)
    blobs.save_or_update_object(b"x", object_id="m", home=home)

    assert blobs.get("m").version == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"custom_metadata": {"stage": "best"}},
        {"tags": ["other"]},
        {"type": "ml_model"},
        {"task_id": "tsk_2"},
        {"workflow_id": "run_2"},
    ],
)
def test_changed_metadata_is_never_lost_though_the_content_is_equal(
    blobs: FlowceptBlobs, home: StorageType, changed: dict[str, Any]
) -> None:
    before = {
        "custom_metadata": {"stage": "new"},
        "tags": ["t"],
        "type": "artifact",
        "task_id": "tsk_1",
        "workflow_id": "run_1",
    }
    blobs.save_or_update_object(b"x", object_id="m", home=home, **before)
    blobs.save_or_update_object(b"x", object_id="m", home=home, **changed)

    after = blobs.get("m")
    assert after.version == 1
    assert {name: getattr(after, name) for name in before} == {**before, **changed}


def test_a_repeated_request_makes_no_second_version(blobs: FlowceptBlobs, home: StorageType) -> None:
    for content in (b"one", b"two", b"one"):
        blobs.save_or_update_object(content, object_id="m", request_id=f"r-{content!r}", home=home)

    assert [row["version"] for row in blobs.get_object_history("m")] == [1, 0]


def test_times_are_dates_whatever_the_time_zone(
    ef: EmboFlow, blobs: FlowceptBlobs, monkeypatch: pytest.MonkeyPatch, home: StorageType
) -> None:
    for zone in ("Asia/Shanghai", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        blobs.save_or_update_object(b"x", object_id=zone.rpartition("/")[2], home=home)
        raw = head(ef, zone.rpartition("/")[2])
        assert isinstance(raw["created_at"], datetime)
        assert abs(raw["created_at"] - datetime.now(UTC)) < timedelta(minutes=5)
        assert blobs.get_blob_object(raw["_id"]).updated_at.tzinfo is UTC
    monkeypatch.delenv("TZ")
    time.tzset()


def test_the_history_never_changes(ef: EmboFlow, blobs: FlowceptBlobs, home: StorageType) -> None:
    for number in range(3):
        blobs.save_or_update_object(b"%d" % number, object_id="m", home=home)
    before = list(ef.mongo["object_history"].find({}).sort("_id", 1))

    for number in range(10):
        blobs.save_or_update_object(b"more %d" % number, object_id="m", home=home)
        blobs.update_object_metadata("m", tags=[f"t{number}"])

    found = list(ef.mongo["object_history"].find({"version": {"$lt": 2}}).sort("_id", 1))
    assert found == before
    assert blobs.get("m").version == 22


def test_too_large_for_a_document_is_said_plainly(blobs: FlowceptBlobs) -> None:
    for size in (IN_OBJECT_BYTES + 1, (16 << 20) + 1):
        with pytest.raises(InvalidInputError, match="256 KiB"):
            blobs.save_or_update_object(bytes(size), save_data_in_collection=True)
    with pytest.raises(InvalidInputError, match="save_data_in_collection"):
        blobs.save_or_update_object(b"x", save_data_in_collection=True, home="gridfs")


def test_a_damaged_payload_raises_when_it_is_asked_for(ef: EmboFlow, blobs: FlowceptBlobs) -> None:
    blobs.save_or_update_object(b"x" * 100, object_id="m", home="gridfs")
    ef.mongo[gridfs.CHUNKS].update_many({}, {"$set": {"data": b"y" * 100}})

    found = blobs.get_blob_object("m")
    with pytest.raises(IntegrityError, match="m version 0"):
        _ = found.data
