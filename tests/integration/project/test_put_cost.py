"""What a put asks of the database, counted in commands, and what several threads share."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pymongo import MongoClient, monitoring
from pymongo.read_concern import ReadConcern

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import UnavailableError
from emboflow_dagster.model.blob import StorageType
from emboflow_dagster.mongo import objects, outbox, settling
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow


class Counting(monitoring.CommandListener):
    """The names of the commands, ``!`` behind those that nobody waits for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        unasked = event.command.get("writeConcern") == {"w": 0}
        self.names.append(event.command_name + "!" * unasked)

    def succeeded(self, _: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, _: monitoring.CommandFailedEvent) -> None:
        pass


@pytest.fixture
def counted(ef: EmboFlow, mongo_uri: str) -> Iterator[tuple[Blobs, list[str]]]:
    """The blobs of a project over a connection of its own, and the commands that it sends."""
    listener = Counting()
    client: MongoClient = MongoClient(mongo_uri, event_listeners=[listener], retryWrites=True, tz_aware=True)
    mongo = Mongo(client, ef.mongo.db.name, mongo_uri)
    blobs = Blobs(mongo, ef.store, ef.scope)
    blobs.quarantine.anything()  # what is damaged is asked once in a while, not by every put
    listener.names.clear()
    yield blobs, listener.names
    client.close()


@pytest.mark.parametrize("home", [StorageType.OBJECT_STORE, StorageType.IN_OBJECT])
def test_a_new_object_is_one_command(counted: tuple[Blobs, list[str]], home: StorageType) -> None:
    blobs, commands = counted

    blobs.put(b"x" * 1024, home=home)

    assert commands == ["insert"]


@pytest.mark.parametrize("home", [StorageType.OBJECT_STORE, StorageType.IN_OBJECT])
def test_a_new_version_waits_for_two_commands(counted: tuple[Blobs, list[str]], home: StorageType) -> None:
    blobs, commands = counted
    blobs.put(b"one", object_id="model", home=home)
    blobs.put(b"two", object_id="model", home=home)
    commands.clear()

    blobs.put(b"three", object_id="model", home=home)

    assert commands == ["findAndModify", "insert", "update!"]


@pytest.mark.parametrize("home", [StorageType.OBJECT_STORE, StorageType.IN_OBJECT])
def test_a_new_version_of_a_stream_waits_for_one_command(
    counted: tuple[Blobs, list[str]], home: StorageType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_CLOSE_S", 60)
    monkeypatch.setattr(settling, "PERIOD_S", 3600)
    blobs, commands = counted
    for number in range(outbox.STREAM):
        blobs.put(b"%d" % number, object_id="model", home=home)
    assert commands[-3:] == ["findAndModify", "insert", "update!"]
    commands.clear()

    blobs.put(b"one more", object_id="model", home=home)
    assert commands == ["findAndModify", "insert!"]
    assert [blob.version for blob in blobs.history("model")] == list(range(outbox.STREAM, -1, -1))


def test_a_version_too_large_to_wait_in_its_head_waits_for_two(
    counted: tuple[Blobs, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "STREAM", 0)
    blobs, commands = counted
    for content in (b"1", b"2"):
        blobs.put(content * 8_000, object_id="model", home=StorageType.IN_OBJECT)
    commands.clear()

    blobs.put(b"3", object_id="model", home=StorageType.IN_OBJECT)

    assert commands == ["findAndModify", "insert", "update!"]


@pytest.mark.parametrize("home", [StorageType.OBJECT_STORE, StorageType.IN_OBJECT])
@pytest.mark.parametrize(("version", "expected"), [(None, ["find"]), (1, ["find"]), (0, ["find", "find"])])
def test_a_read_is_one_command_and_one_more_for_what_is_history(
    counted: tuple[Blobs, list[str]], home: StorageType, version: int | None, expected: list[str]
) -> None:
    blobs, commands = counted
    for content in (b"one", b"two"):
        blobs.put(content, object_id="model", home=home)
    objects.archive(blobs._mongo, "model")
    commands.clear()

    content = blobs.read("model", version)

    assert (b"one" if version == 0 else b"two", expected) == (content, commands)


def test_history_has_every_superseded_version_when_a_put_returns(ef: EmboFlow) -> None:
    """Durably, for the first of them; for a stream's, as one reads what is there now."""
    there = ef.mongo.db.with_options(read_concern=ReadConcern("local"))
    for number in range(20):
        ef.blobs.put(f"{number}".encode(), object_id="model")

        source = ef.mongo.db if number < outbox.STREAM else there
        rows = source["object_history"].find({"object_id": "model"}, {"version": 1}).sort("version", 1)
        assert [row["version"] for row in rows] == list(range(number))


def test_what_waited_in_a_tail_has_left_it_soon_and_when_the_database_is_closed(ef: EmboFlow) -> None:
    for number in range(20):
        ef.blobs.put(f"{number}".encode(), object_id="model")
    by = time.monotonic() + 10
    while waiting(ef, "model") and time.monotonic() < by:
        time.sleep(0.02)
    assert waiting(ef, "model") == []
    assert ef.mongo["object_history"].count_documents({"object_id": "model"}) == 19

    with EmboFlow.open(ef.settings) as other:
        for number in range(20):
            other.blobs.put(f"again {number}".encode(), object_id="model")
        assert waiting(ef, "model") != []

    assert waiting(ef, "model") == []
    assert ef.mongo["object_history"].count_documents({"object_id": "model"}) == 39


def waiting(ef: EmboFlow, object_id: str) -> list[int]:
    """The versions in a tail."""
    return [row["version"] for row in (ef.mongo["objects"].find_one({"_id": object_id}) or {})["tail"]]


@pytest.mark.parametrize("lost", ["never written", "taken back by an election"])
def test_a_copy_that_history_does_not_have_is_made_again(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Nothing leaves a tail before a majority has it: what nobody waited for may not have happened."""
    monkeypatch.setattr(outbox, "STREAM", 0)
    monkeypatch.setattr(settling, "PERIOD_S", 3600)  # looked at below instead
    monkeypatch.setattr(settling, "_AGAIN_S", 0.05)
    if lost == "never written":
        monkeypatch.setattr(objects, "copy", lambda *_: None)
    for number in range(3):
        ef.blobs.put(f"{number}".encode(), object_id="model")
    ef.mongo["object_history"].delete_many({"object_id": "model"})
    mine = settling.settling_of(ef.mongo)

    mine.look()
    assert waiting(ef, "model") == [0, 1]
    assert [ef.blobs.read("model", number) for number in range(3)] == [b"0", b"1", b"2"]
    time.sleep(0.06)
    mine.look()

    assert waiting(ef, "model") == []
    assert ef.mongo["object_history"].count_documents({"object_id": "model"}) == 2
    assert [ef.blobs.read("model", number) for number in range(3)] == [b"0", b"1", b"2"]


def test_an_asked_for_archive_leaves_no_tail(ef: EmboFlow) -> None:
    for number in range(3):
        ef.blobs.put(f"{number}".encode(), object_id="model")
        objects.archive(ef.mongo, "model")

        assert (ef.mongo["objects"].find_one({"_id": "model"}) or {})["tail"] == []


def test_threads_share_their_inserts_and_each_gets_its_own_history(ef: EmboFlow) -> None:
    def put(number: int) -> None:
        for content in range(8):
            ef.blobs.put(f"{number} {content}".encode(), object_id=f"model-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))

    for number in range(8):
        rows = ef.mongo["object_history"].find({"object_id": f"model-{number}"}).sort("version", 1)
        assert [row["version"] for row in rows] == list(range(7))
    assert ef.verify().ok


def test_a_row_that_cannot_be_moved_fails_its_own_put_alone(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares an insert with a row that is refused does it again without that row."""
    monkeypatch.setattr(outbox, "STREAM", 1_000)  # whose puts wait for nothing
    real = outbox.move

    def refusing(mongo: Mongo, tails: list[outbox.Tail]) -> None:
        if any(tail.object_id == "bad" for tail in tails):
            raise UnavailableError("refused")
        real(mongo, tails)

    monkeypatch.setattr(outbox, "move", refusing)

    def put(name: str) -> int:
        done = 0
        for content in range(10):
            try:
                ef.blobs.put(f"{content}".encode(), object_id=name)
            except UnavailableError:
                done -= 1
            done += 1
        return done

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(put, ["bad", *(f"good-{n}" for n in range(5))]))

    assert done == [1, 10, 10, 10, 10, 10]
    for number in range(5):
        assert ef.mongo["object_history"].count_documents({"object_id": f"good-{number}"}) == 9
    assert [b.version for b in ef.blobs.history("bad")] == list(range(9, -1, -1))


def test_a_writer_that_hangs_holds_the_others_up_for_moments_only(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE_S", 0.05)
    with outbox.outbox_of(ef.mongo).turn("model"), ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda n: ef.blobs.put(f"{n}".encode(), object_id="model"), range(4)))

    assert sorted(blob.version for blob in stored) == [0, 1, 2, 3]
    assert outbox.outbox_of(ef.mongo)._gates == {}
