"""A stream of versions, between a put and the moment when history has its predecessor for good (decision 38).

The moment is held open: `PERIOD_S` keeps the thread from looking, ``lost`` keeps the copies from arriving,
as an election or the death of the process would.
"""

import time
from collections.abc import Callable

import pytest

from emboflow_dagster import BlobRef, Create
from emboflow_dagster.errors import EmboflowError, InvalidInputError, NotFoundError
from emboflow_dagster.mongo import objects, outbox, settling
from emboflow_dagster.mongo.settling import settling_of
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.sweep import Sweep
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.conftest import Opener
from tests.integration.project.test_cud import ASSET, ref
from tests.integration.project.test_gc import age, collect, kinds

Arrives = pytest.mark.parametrize("arrives", [True, False], ids=["copied", "lost"])


@pytest.fixture(autouse=True)
def held_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")
    monkeypatch.setattr(outbox, "STREAM", 0)
    monkeypatch.setattr(outbox, "_CLOSE_S", 60)
    monkeypatch.setattr(settling, "PERIOD_S", 3600)
    monkeypatch.setattr(settling, "_AGAIN_S", 0.0)


def lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "copy", lambda *_: None)


def stream(ef: EmboFlow, count: int, object_id: str = "model") -> list[bytes]:
    """So many versions; the contents."""
    contents = [f"{object_id} {number}".encode() for number in range(count)]
    for content in contents:
        ef.blobs.put(content, object_id=object_id)
    return contents


def tail(ef: EmboFlow, object_id: str = "model") -> list[int]:
    return [row["version"] for row in (ef.mongo["objects"].find_one({"_id": object_id}) or {})["tail"]]


def archived(ef: EmboFlow, object_id: str = "model") -> list[int]:
    rows = ef.mongo["object_history"].find({"object_id": object_id}).sort("version", 1)
    return [row["version"] for row in rows]


def copied(ef: EmboFlow, count: int) -> None:
    """Wait until a majority reader sees so many rows."""
    by = time.monotonic() + 10
    while len(archived(ef)) < count and time.monotonic() < by:
        time.sleep(0.005)


# ------------------------------------------------------------------------------------------------ readers


@Arrives
def test_every_reader_sees_one_sequence(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, arrives: bool) -> None:
    if not arrives:
        lose(monkeypatch)
    contents = stream(ef, 7)
    if arrives:
        copied(ef, 6)
    assert tail(ef) == [0, 1, 2, 3, 4, 5]
    assert archived(ef) == ([0, 1, 2, 3, 4, 5] if arrives else [])

    assert [blob.version for blob in ef.blobs.history("model")] == [6, 5, 4, 3, 2, 1, 0]
    assert [blob.version for blob in ef.blobs.history("model", below=5, limit=2)] == [4, 3]
    assert [row["version"] for row in ef.blobs.get_object_history("model", below=3)] == [2, 1, 0]
    assert [row["version"] for row in ef.blobs.iter_object_history("model")] == [6, 5, 4, 3, 2, 1, 0]
    assert [ef.blobs.read("model", number) for number in range(7)] == contents
    assert [ef.blobs.get("model", n).prev_version for n in range(7)] == [None, 0, 1, 2, 3, 4, 5]
    assert ef.verify(all=True).problems == []
    with pytest.raises(NotFoundError):
        ef.blobs.get("model", 7)


def test_what_leaves_the_head_before_history_has_it_is_found(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: cleared by whoever does not look, a lost copy is a lost version."""
    lose(monkeypatch)
    stream(ef, 4)
    ef.mongo["objects"].update_one(*outbox.clearing("model", [1]))

    assert {problem.code for problem in ef.verify(all=True).problems} >= {"version-gap"}
    with pytest.raises(NotFoundError):
        ef.blobs.read("model", 1)


@Arrives
def test_gc_counts_each_version_once_and_finishes_the_tail(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    if not arrives:
        lose(monkeypatch)
    contents = stream(ef, 6)
    if arrives:
        copied(ef, 5)
    ef.blobs.withdraw("model", 2, reason="a test")
    assert kinds(ef, version=1) == {EdgeKind.VERSION}

    dry = collect(ef, dry_run=True)
    assert (dry.kept, dry.freed_payloads, dry.versions, dry.archived_tails) == (
        {"version": 5},
        1,
        ["model.v2"],
        1,
    )
    assert tail(ef) == [0, 1, 2, 3, 4]
    done = collect(ef)

    assert (done.kept, done.freed_payloads, done.versions) == ({"version": 5}, 1, ["model.v2"])
    assert (tail(ef), archived(ef)) == ([], [0, 1, 2, 3, 4])
    assert [ef.blobs.read("model", n) for n in (0, 1, 3, 4, 5)] == [
        content for number, content in enumerate(contents) if number != 2
    ]
    assert ef.verify(all=True).problems == []


@Arrives
def test_all_versions_of_a_stream_are_let_go_each_once(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    if not arrives:
        lose(monkeypatch)
    stream(ef, 6)
    if arrives:
        copied(ef, 5)

    assert ef.blobs.withdraw("model", reason="a test").versions == 6
    assert collect(ef).freed_payloads == 6


@pytest.mark.parametrize("blind", [False, True], ids=["whole", "control"])
def test_a_payload_that_a_version_on_its_way_names_is_spared(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    """Gc has judged; then the withdrawn content gets new metadata, and a put makes that history."""
    lose(monkeypatch)
    ef.blobs.put(b"zero", object_id="model")
    ef.blobs.withdraw("model", reason="a test")
    bury, done = Sweep._bury, []

    def burying(self: Sweep, going: dict) -> object:
        buried = bury(self, going)
        if going and not done:
            done.append(True)
            ef.blobs.update_object_metadata("model", custom_metadata={"taken": "up"})
            ef.blobs.put(b"two", object_id="model")
            assert tail(ef) == [1]
        return buried

    monkeypatch.setattr(Sweep, "_bury", burying)
    if blind:  # as if only heads and history were asked
        rows = Sweep._rows
        monkeypatch.setattr(Sweep, "_rows", lambda self, keys, _: rows(self, keys, set()))
    age(ef)
    ef.gc(grace_s=0)

    assert done
    if blind:
        with pytest.raises(EmboflowError):
            ef.blobs.read("model", 1)
    else:
        assert ef.blobs.read("model", 1) == b"zero"


# ------------------------------------------------------------------------------------------------ owners


def of(name: str, blob: BlobRef) -> Create:
    """An asset that owns a blob."""
    return Create("assets", {**ASSET, "displayName": name, "storageRef": blob})


@Arrives
def test_owners_stay_with_their_versions(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    if not arrives:
        lose(monkeypatch)
    blob = ef.blobs.put(b"owned", object_id="model")
    [made] = ef.cud([of("rows", ref(blob))])
    stream(ef, 3)
    before = ef.blobs.get("model", 0)
    assert before.owner_record_id == made.id
    assert ef.blobs.get("model").owner_record_id is None
    assert ef.blobs.read_owned("assets", made.id, "storageRef") == b"owned"

    [other] = ef.cud([of("more", BlobRef(object_id="model", version=3))])
    with pytest.raises(EmboflowError):  # the newest alone can be claimed
        ef.cud([of("late", BlobRef(object_id="model", version=1))])
    settling_of(ef.mongo).finish()

    assert (tail(ef), archived(ef)) == ([], [0, 1, 2])
    assert ef.blobs.get("model", 0) == before
    assert ef.blobs.get("model").owner_record_id == other.id
    assert ef.verify(all=True).problems == []


# ------------------------------------------------------------------------------------------------ writers


def test_another_process_that_puts_finishes_what_was_lost(
    ef: EmboFlow, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dead:
        lose(dead)
        stream(ef, 5)
    monkeypatch.setattr(outbox, "STREAM", 8)

    opener().blobs.put(b"of another", object_id="model")

    assert (tail(ef), archived(ef)) == ([], [0, 1, 2, 3, 4])


def test_a_request_is_remembered_however_many_versions_follow(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch)
    first = ef.blobs.put(b"first", object_id="model", request_id="first")
    stream(ef, 3)
    for number in range(objects.KEPT_REQUESTS):
        ef.blobs.put(b"%d" % number, object_id="model", request_id=f"r{number}")
    head = ef.mongo["objects"].find_one({"_id": "model"}) or {}
    assert "first" not in {row["id"] for row in head["request_ids"]}

    again = ef.blobs.put(b"first", object_id="model", request_id="first")

    assert again.version == first.version
    assert ef.blobs.get("model").version == head["version"]


@pytest.mark.parametrize("puts", [1, 20])
def test_a_tail_that_nobody_looks_at_stays_short(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, puts: int
) -> None:
    monkeypatch.setattr(outbox, "STREAM", 1)
    monkeypatch.setattr(settling, "_MOST_ROWS", 5)
    longest = 0
    for number in range(puts):
        ef.blobs.put(b"%d" % number, object_id="model")
        longest = max(longest, len(tail(ef)))

    assert longest == (0 if puts == 1 else 5)
    assert [blob.version for blob in ef.blobs.history("model")] == list(reversed(range(puts)))


@pytest.fixture
def refusing(ef: EmboFlow) -> Callable[[bool], None]:
    """Have the server refuse every new row of the history, or take them again."""
    rules = ef.mongo.db.command("listCollections", filter={"name": "object_history"})
    validator = rules["cursor"]["firstBatch"][0]["options"]["validator"]

    def change(refuses: bool) -> None:
        now = {"nothing": "fits"} if refuses else validator
        ef.mongo.db.command("collMod", "object_history", validator=now)

    return change


def test_a_refused_copy_is_told_to_the_next_writer(
    ef: EmboFlow,
    refusing: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outbox, "STREAM", 1)
    refusing(True)
    try:
        ef.blobs.put(b"0", object_id="model")
        outbox.outbox_of(ef.mongo).streams("model")
        for number in (1, 2):  # nobody waits, so nobody is told
            ef.blobs.put(b"%d" % number, object_id="model")
        mine = settling_of(ef.mongo)
        mine.look()
        time.sleep(0.01)
        mine.look()
        assert "history does not take its versions" in caplog.text
        with pytest.raises(InvalidInputError, match="validator"):
            ef.blobs.put(b"3", object_id="model")
    finally:
        refusing(False)

    assert [ef.blobs.read("model", n) for n in range(4)] == [b"0", b"1", b"2", b"3"]
    assert ef.verify(all=True).problems == []
    ef.blobs.put(b"4", object_id="model", request_id="waited for")
    assert (tail(ef), archived(ef)) == ([], [0, 1, 2, 3])


def test_closing_empties_the_tails_of_however_many(
    ef: EmboFlow, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "_MOST", 2)
    lose(monkeypatch)
    names = [f"model-{number}" for number in range(5)]
    with opener() as other:
        for name in names:
            stream(other, 2, name)
        assert [tail(ef, name) for name in names] == [[0]] * 5

    assert [(tail(ef, name), archived(ef, name)) for name in names] == [([], [0])] * 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_followed_by_another(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PERIOD_S", 0.01)
    look, calls = settling.Settling.look, []

    def failing(self: settling.Settling) -> None:
        calls.append(True)
        if len(calls) == 1:
            raise RuntimeError
        look(self)

    monkeypatch.setattr(settling.Settling, "look", failing)
    stream(ef, 2)
    by = time.monotonic() + 10
    while tail(ef) and time.monotonic() < by:
        stream(ef, 2)
        time.sleep(0.05)

    assert tail(ef) == []
