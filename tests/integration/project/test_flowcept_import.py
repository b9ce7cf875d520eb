"""A Flowcept database comes over whole, damage named row by row, and goes back out."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from emboflow_dagster.blobs import flowcept_import
from emboflow_dagster.blobs.flowcept_report import TransferReport
from emboflow_dagster.errors import (
    ConfigurationError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from emboflow_dagster.mongo import gridfs, object_import
from emboflow_dagster.mongo.flowcept import FlowceptDatabase
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flowcept_documents import (
    CREATED,
    DEFECTS,
    GOOD,
    PICKLED,
    Writer,
    sha,
    write_defects,
    write_good,
)


@pytest.fixture
def foreign(mongo_uri: str) -> Iterator[Database[Any]]:
    """An empty database of another program."""
    client: MongoClient[Any] = MongoClient(mongo_uri)
    name = f"flowcept_{uuid4().hex[:10]}"
    yield client[name]
    client.drop_database(name)
    client.drop_database(f"{name}_out")
    client.close()


@pytest.fixture
def load(ef: EmboFlow, foreign: Database[Any], mongo_uri: str) -> Callable[..., TransferReport]:
    return lambda **how: ef.blobs.import_flowcept(mongo_uri, foreign.name, **how)


def codes(report: TransferReport) -> set[tuple[str, int | None, str]]:
    return {(f.object_id, f.version, f.code.value) for f in report.findings}


def everything(ef: EmboFlow) -> dict[tuple[str, int], bytes]:
    found = {}
    for head in ef.blobs.list_objects(limit=1000):
        for row in ef.blobs.iter_object_history(head.object_id):
            blob = ef.blobs.get(head.object_id, row["version"])
            if blob.completed:
                found[head.object_id, blob.version] = ef.blobs.read(head.object_id, blob.version)
    return found


def test_a_sound_database_comes_over_whole(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_good(Writer(foreign))

    report = load()

    assert report.findings == []
    assert report.ok
    assert dict(report.counts) == {
        "objects": 6,
        "versions": len(GOOD),
        "new": len(GOOD),
        "bytes": sum(map(len, GOOD.values())),
    }
    assert everything(ef) == GOOD
    assert ef.verify().ok


def test_metadata_comes_over_under_our_names(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_good(Writer(foreign))
    load()

    blob = ef.blobs.get("outside")
    assert (blob.type, blob.workflow_id, blob.custom_metadata, blob.tags) == (
        "ml_model",
        "wf-1",
        {"stage": "best"},
        ["best"],
    )
    assert blob.created_at == datetime(2026, 11, 26, 14, 45, 38, 543_000, tzinfo=UTC)
    assert blob.updated_at == datetime(2026, 11, 26, 14, 45, 40, 543_000, tzinfo=UTC)
    assert (blob.created_by, blob.prev_version) == ("ada", 1)
    assert ef.blobs.get("outside", 0).task_id == "task-0"
    assert ef.blobs.get("seed-spelling").type == "embedding_index"
    assert ef.blobs.get_dataset("data").data == b"snapshot"
    assert [ef.blobs.get("inside", n).storage_type for n in range(3)] == ["in_object"] * 3
    assert ef.blobs.get("outside").storage_type == "object_store"


def test_a_pickle_stays_the_bytes_it_is(
    ef: EmboFlow,
    foreign: Database[Any],
    load: Callable[..., TransferReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    Writer(foreign).head("pickled", 0, **Writer(foreign).inside(PICKLED), pickle=True)
    load()

    assert ef.blobs.get("pickled").serializer == "pickle"
    assert ef.blobs.read("pickled") == PICKLED


def test_every_damage_is_reported_and_what_can_be_saved_is(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_defects(Writer(foreign))

    report = load()

    assert everything(ef) == DEFECTS
    odd = "a name: with/odd characters"
    assert codes(report) == {
        ("text", 0, "hash-missing"),
        ("not-bytes", 0, "hash-missing"),
        ("not-bytes", 0, "data-not-bytes"),
        ("uncontrolled", None, "history-gap"),
        ("mixed", None, "history-gap"),
        ("moved-out", 1, "stale-data"),
        ("moved-in", 1, "stale-pointer"),
        (odd, None, "id-changed"),
        (odd, 0, "metadata-as-text"),
        ("altered", 0, "hash-mismatch"),
        ("altered", 0, "size-mismatch"),
        ("gap", 1, "history-gap"),
        ("lost-middle", 1, "gridfs-missing"),
        ("lost-first", 0, "payload-missing"),
        ("lost-first", 0, "history-gap"),
        ("lost-newest", 1, "gridfs-damaged"),
        ("lost-newest", 1, "newest-lost"),
        ("all-lost", 0, "payload-missing"),
        ("all-lost", 0, "newest-lost"),
        ("twice", 0, "history-duplicate"),
        ("beyond", None, "history-beyond-head"),
        ("beyond", 0, "history-duplicate"),
        ("deleted", None, "history-orphan"),
        ("epochless", 0, "time-replaced"),
        ("epochless", 0, "field-ignored"),
    }
    assert not report.ok
    assert report.counts["lost"] == 5
    assert ef.verify().ok  # numbers without gaps, every recorded hash that of the bytes


def test_a_lost_version_keeps_its_number_and_says_so(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_defects(Writer(foreign))
    load()

    assert [r["version"] for r in ef.blobs.get_object_history("lost-middle")] == [2, 1, 0]
    lost = ef.blobs.get("lost-middle", 1)
    assert (lost.completed, lost.custom_metadata) == (False, {"flowcept_lost": "gridfs-missing"})
    with pytest.raises(IntegrityError, match="lost-middle version 1") as caught:
        ef.blobs.read("lost-middle", 1)
    assert caught.value.kind is ErrorKind.BLOB_INCOMPLETE
    assert [r["version"] for r in ef.blobs.get_object_history("mixed")] == [2, 1]
    with pytest.raises(NotFoundError):
        ef.blobs.get("all-lost")
    for object_id in ("lost-middle", "lost-first", "lost-newest", "uncontrolled", "gap"):
        version = ef.blobs.get(object_id).version
        assert ef.blobs.put(b"goes on", object_id=object_id).version == version + 1
    assert ef.verify().ok


def test_repeated_it_brings_only_what_is_new(
    ef: EmboFlow,
    foreign: Database[Any],
    load: Callable[..., TransferReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = Writer(foreign)
    write_good(writer)
    write_defects(writer)
    load()
    before = everything(ef)
    placed = Counter[str]()
    place = flowcept_import.Homes.place
    monkeypatch.setattr(
        flowcept_import.Homes, "place", lambda self, *a: placed.update("p") or place(self, *a)
    )

    again = load()

    assert (again.counts["new"], again.counts["unchanged"]) == (0, len(before) + 2)  # two of them are lost
    assert everything(ef) == before
    assert placed.total() == 1  # what could not be read the first time is tried again
    foreign["object_history"].insert_one({**(foreign["objects"].find_one({"object_id": "data"}) or {})})
    foreign["objects"].update_one(
        {"object_id": "data"}, {"$set": {"version": 1, "updated_at": CREATED + 9, **writer.inside(b"more")}}
    )
    third = load()
    assert third.counts["new"] == 1
    assert [ef.blobs.read("data", n) for n in (0, 1)] == [b"snapshot", b"more"]
    assert ef.verify().ok


def test_an_import_that_died_goes_on(
    ef: EmboFlow,
    foreign: Database[Any],
    load: Callable[..., TransferReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_good(Writer(foreign))
    put, calls = object_import.put_exactly, Counter[str]()

    def dying(*args: Any, **how: Any) -> Any:
        calls["put"] += 1
        if calls["put"] == 5:
            raise UnavailableError("the database went away")
        return put(*args, **how)

    monkeypatch.setattr(object_import, "put_exactly", dying)
    with pytest.raises(UnavailableError):
        load()
    assert ef.verify().ok
    monkeypatch.undo()

    report = load()

    assert (report.counts["unchanged"], report.counts["new"]) == (4, len(GOOD) - 4)
    assert everything(ef) == GOOD


def test_two_imports_at_once_bring_everything_once(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_good(Writer(foreign))
    write_defects(Writer(foreign))
    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert everything(ef) == GOOD | DEFECTS
    assert ef.verify().ok


def test_a_dry_run_reads_everything_and_writes_nothing(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    writer = Writer(foreign)
    write_good(writer)
    write_defects(writer)

    dry = load(dry_run=True)

    assert (ef.blobs.list_objects(), list(ef.store.iter_keys())) == ([], [])
    real = load()
    assert codes(dry) == codes(real)
    assert dry.counts == real.counts


def test_an_object_with_another_history_is_left_alone(
    ef: EmboFlow, opener: Callable[..., EmboFlow], foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    ef.blobs.put(b"ours", object_id="inside")
    opener("rival").blobs.put(b"theirs", object_id="data")
    write_good(Writer(foreign))

    report = load()

    assert codes(report) == {("inside", None, "conflict"), ("data", None, "conflict")}
    assert ef.blobs.read("inside") == b"ours"
    beside = load(prefix="flowcept.")
    assert beside.ok
    assert ef.blobs.read("flowcept.inside", 1) == b"in-object 1"
    with pytest.raises(InvalidInputError):
        load(prefix="no spaces ")


def test_what_was_put_here_since_stays(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_good(Writer(foreign))
    load()
    ef.blobs.put(b"put here", object_id="data")

    assert load().ok
    assert ef.blobs.read("data", 1) == b"put here"


def test_payloads_go_to_the_home_that_was_asked_for(
    opener: Callable[..., EmboFlow], foreign: Database[Any], mongo_uri: str
) -> None:
    write_good(Writer(foreign))
    ef = opener(allow_gridfs=True)
    with pytest.raises(ConfigurationError):
        opener().blobs.import_flowcept(mongo_uri, foreign.name, home="gridfs")

    ef.blobs.import_flowcept(mongo_uri, foreign.name, home="gridfs")

    assert ef.blobs.get("outside").storage_type == "gridfs"
    assert everything(ef) == GOOD
    assert len(list(gridfs.iter_files(ef.mongo))) == 4


def test_what_is_no_flowcept_database_is_refused(ef: EmboFlow, mongo_uri: str) -> None:
    with pytest.raises(NotFoundError, match="no collection 'objects'"):
        ef.blobs.import_flowcept(mongo_uri, "nothing_here")
    for call in (ef.blobs.import_flowcept, ef.blobs.export_flowcept):
        with pytest.raises(ConfigurationError, match="one of EmboFlow's"):
            call(mongo_uri, ef.mongo.db.name)
        with pytest.raises(ConfigurationError, match="not a MongoDB URI"):
            call("http://example.org", "flowcept")
    with pytest.raises(UnavailableError, match="no MongoDB answers at the URI of Flowcept's"):
        FlowceptDatabase("mongodb://127.0.0.1:9/", "flowcept", timeout_ms=200)


def test_it_goes_back_out_as_flowcept_writes_it(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport], mongo_uri: str
) -> None:
    write_good(Writer(foreign))
    load()
    out: Database[Any] = foreign.client[f"{foreign.name}_out"]

    report = ef.blobs.export_flowcept(mongo_uri, out.name)

    assert report.ok
    assert report.counts["new"] == len(GOOD)
    for name in ("objects", "object_history"):
        mine = {(r["object_id"], r["version"]): r for r in out[name].find({}, {"_id": 0})}
        theirs = {(r["object_id"], r["version"]): r for r in foreign[name].find({}, {"_id": 0})}
        assert mine.keys() == theirs.keys()
        for key, row in theirs.items():
            plain = {**row, "object_type": row.get("object_type", row.get("type"))}
            for field in plain.keys() - {"type", "grid_fs_file_id", "created_at", "updated_at"}:
                assert mine[key].get(field) == plain[field], (key, field)
            assert abs(mine[key]["created_at"] - row["created_at"]) < 0.001
            if "grid_fs_file_id" in row:
                assert Writer(out).files.get(mine[key]["grid_fs_file_id"]).read() == GOOD[key]
    assert out["fs.files"].count_documents({}) == 3  # one payload is that of two versions
    before = sorted(out["fs.chunks"].distinct("_id"))
    assert ef.blobs.export_flowcept(mongo_uri, out.name).ok
    assert sorted(out["fs.chunks"].distinct("_id")) == before


def test_odd_ids_and_metadata_come_back_as_they_were(
    ef: EmboFlow, foreign: Database[Any], load: Callable[..., TransferReport], mongo_uri: str
) -> None:
    write_defects(Writer(foreign))
    load()
    out: Database[Any] = foreign.client[f"{foreign.name}_out"]

    report = ef.blobs.export_flowcept(mongo_uri, out.name)

    row = out["objects"].find_one({"object_id": "a name: with/odd characters"})
    assert row is not None
    assert row["custom_metadata"]["a.b"] == 1
    assert row["custom_metadata"]["nan"] != row["custom_metadata"]["nan"]
    assert codes(report) == {("lost-middle", 1, "incomplete"), ("gap", 1, "incomplete")}


def test_an_export_overwrites_nothing_that_is_not_ours(
    ef: EmboFlow, foreign: Database[Any], mongo_uri: str
) -> None:
    writer = Writer(foreign)
    writer.head("newer", 3, **writer.inside(b"theirs"))
    writer.head("other", 0, **writer.inside(b"theirs"))
    writer.head("older", 0, **writer.inside(b"ours 0"))
    for object_id, contents in {"newer": [b"a"], "other": [b"ours"], "older": [b"ours 0", b"ours 1"]}.items():
        for content in contents:
            ef.blobs.put(content, object_id=object_id, home="in_object")
    ef.blobs.put(b"not asked for", object_id="another")

    report = ef.blobs.export_flowcept(mongo_uri, foreign.name, object_ids=["newer", "other", "older"])

    assert codes(report) == {("newer", 3, "conflict"), ("other", 0, "conflict")}
    rows = {r["object_id"]: (r["version"], r["data"]) for r in foreign["objects"].find({})}
    assert rows == {"newer": (3, b"theirs"), "other": (0, b"theirs"), "older": (1, b"ours 1")}
    assert [r["data"] for r in foreign["object_history"].find({})] == [b"ours 0"]


def test_a_dry_export_writes_nothing_and_damage_is_named(
    ef: EmboFlow, foreign: Database[Any], mongo_uri: str
) -> None:
    blob = ef.blobs.put(b"x" * 1000, object_id="model")
    ef.blobs.put(b"whole", object_id="model")
    path = ef.blobs.local_path(ef.blobs.ref(blob))
    assert path is not None
    path.unlink()

    dry = ef.blobs.export_flowcept(mongo_uri, foreign.name, dry_run=True)

    assert foreign.list_collection_names() == []
    assert codes(dry) == {("model", 0, "damaged")}
    assert ef.blobs.export_flowcept(mongo_uri, foreign.name).counts["new"] == 1
    assert (foreign["objects"].find_one({}) or {})["data_sha256"] == sha(b"whole")


def test_progress_is_told_after_each_version(
    foreign: Database[Any], load: Callable[..., TransferReport]
) -> None:
    write_good(Writer(foreign))
    seen: list[int] = []

    load(progress=lambda report: seen.append(report.counts["versions"]))

    assert seen == list(range(1, len(GOOD) + 1))
