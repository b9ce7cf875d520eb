"""A connection that could lose what it acknowledged is refused with the remedy; a password is never told."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from pymongo import MongoClient

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConfigurationError,
    EmboflowError,
    ErrorKind,
    InvalidInputError,
    UnavailableError,
)
from emboflow_dagster.mongo import client, embedded
from emboflow_dagster.mongo.client import Mongo, Session, connect, translated
from emboflow_dagster.mongo.embedded import locate_mongod
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

PASSWORD = "hunter2-canary"  # noqa: S105 - what must never be told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def standalone_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mongod without a replica set."""
    folder, port = tmp_path_factory.mktemp("standalone"), free_port()
    arguments = [
        "--dbpath",
        folder,
        "--port",
        port,
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
        "--noscripting",
    ]
    command = [str(part) for part in (locate_mongod(), *arguments, "--wiredTigerCacheSizeGB", "0.25")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    uri = f"mongodb://127.0.0.1:{port}"
    try:
        with MongoClient(uri, serverSelectionTimeoutMS=30_000) as driver:
            driver.admin.command("ping")
        yield uri
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def mongo(mongo_uri: str) -> Iterator[Mongo]:
    opened = connect(mongo_uri, f"test_{uuid4().hex[:12]}")
    yield opened
    opened.client.drop_database(opened.db.name)
    opened.close()


def test_a_standalone_server_is_refused(standalone_uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(standalone_uri)

    assert caught.value.kind == ErrorKind.TOPOLOGY
    assert "replSet" in str(caught.value.hint)
    settings = Settings.from_env(home=tmp_path, mongo_uri=standalone_uri)
    with pytest.raises(ConfigurationError):
        EmboFlow.open(settings)
    with MongoClient(standalone_uri) as driver:
        assert "emboflow" not in driver.list_database_names()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("w=1", "w=1"),
        ("w=0", "w=0"),
        ("w=3", "w=3"),
        ("journal=false", "journal=False"),
        ("retryWrites=false", "retrywrites=False"),
        ("readConcernLevel=local", "readconcernlevel=local"),
        ("w=1&journal=false", "w=1, journal=False"),
        ("w=majority&RETRYWRITES=false", "retrywrites=False"),
    ],
)
def test_weak_options_are_refused_before_anything_is_asked(options: str, named: str) -> None:
    # Nobody listens there: the refusal needs no server.
    uri = f"mongodb://ada:{PASSWORD}@127.0.0.1:{free_port()}/?{options}"
    began = time.monotonic()

    with pytest.raises(ConfigurationError) as caught:
        connect(uri, timeout_ms=20_000)

    assert caught.value.kind == ErrorKind.WRITE_CONCERN
    assert named in caught.value.message
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("mode", ["secondary", "primaryPreferred", "nearest"])
def test_reading_elsewhere_than_where_is_written_is_refused(mode: str) -> None:
    uri = f"mongodb://ada:{PASSWORD}@127.0.0.1:{free_port()}/?readPreference={mode}"

    with pytest.raises(ConfigurationError, match=f"readPreference={mode}") as caught:
        connect(uri, timeout_ms=20_000)

    assert PASSWORD not in f"{caught.value} {caught.value.hint}"


def test_options_that_repeat_ours_are_taken(mongo_uri: str) -> None:
    sign = "&" if "?" in mongo_uri else "/?"
    ours = "w=majority&journal=true&retryWrites=true&readConcernLevel=majority&readPreference=primary"
    opened = connect(f"{mongo_uri}{sign}{ours}")
    assert opened["x"].write_concern.document == {"w": "majority", "j": True}
    assert opened["x"].read_concern.level == "majority"
    opened.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "127.0.0.1:{port},127.0.0.1:{other}", "no-such-host.invalid"]
)
def test_a_host_that_does_not_answer_is_named_without_the_password(host: str) -> None:
    host = host.format(port=free_port(), other=free_port())

    with pytest.raises(UnavailableError) as caught:
        connect(f"mongodb://ada:{PASSWORD}@{host}/admin", timeout_ms=500)

    text = f"{caught.value} {caught.value.hint} {caught.value.as_dict()}"
    assert host.split(",")[0] in text
    assert PASSWORD not in text
    # Nor in the traceback of --debug.
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ada:{PASSWORD}@host",
        "mongodb://",
        f"mongodb://ada:{PASSWORD}@host:port",
        f"mongodb://ada:{PASSWORD}/x@host",
        f"mongodb://ada:{PASSWORD}@host/?w=banana&authMechanism=nothing",
        "",
    ],
)
def test_what_is_no_mongodb_uri_is_refused_without_the_password(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(uri, timeout_ms=500)
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"


def test_a_refused_login_says_what_to_check(mongo_uri: str) -> None:
    host = urlsplit(mongo_uri).netloc

    with pytest.raises(ConfigurationError) as caught:
        connect(f"mongodb://ada:{PASSWORD}@{host}/?directConnection=true")

    assert "authSource" in str(caught.value.hint)
    assert PASSWORD not in f"{caught.value}"


def test_the_drivers_failures_become_ours(mongo: Mongo) -> None:
    mongo["rows"].insert_one({"_id": 1})
    mongo.db.create_collection("strict", validator={"a": {"$type": "int"}})
    wrong: list[tuple[Callable[[], object], type[EmboflowError]]] = [
        (lambda: mongo["rows"].insert_one({"_id": 1}), AlreadyExistsError),
        (lambda: mongo["rows"].insert_many([{"_id": 2}, {"_id": 1}]), AlreadyExistsError),
        (lambda: mongo["strict"].insert_one({"a": "x"}), InvalidInputError),
        (lambda: mongo["strict"].insert_many([{"a": "x"}]), InvalidInputError),
        (
            lambda: mongo["strict"].find_one_and_update({}, {"$set": {"a": "x"}}, upsert=True),
            InvalidInputError,
        ),
        (lambda: mongo["rows"].find_one({"$nonsense": 1}), UnavailableError),
        (lambda: mongo["rows"].insert_one({"a": object()}), InvalidInputError),
        (lambda: mongo["rows"].insert_one({"a": 2**64}), InvalidInputError),
        (lambda: mongo["rows"].insert_one({"a": "x" * (17 << 20)}), InvalidInputError),
    ]
    for call, error in wrong:
        with pytest.raises(error), translated():
            call()


def test_a_transaction_is_all_or_nothing_and_repeated_on_a_conflict(mongo: Mongo) -> None:
    mongo["rows"].insert_one({"_id": 1, "n": 0})
    tries: list[int] = []

    def fails(session: Session) -> None:
        mongo["rows"].update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
        raise InvalidInputError("no")

    def meets_another(session: Session) -> None:
        tries.append(1)
        mongo["rows"].find_one({"_id": 1}, session=session)
        if len(tries) == 1:
            mongo["rows"].update_one({"_id": 1}, {"$inc": {"n": 10}})  # outside of the transaction
        with translated():
            mongo["rows"].update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)

    with pytest.raises(InvalidInputError, match="no"):
        mongo.in_transaction(fails)
    assert mongo["rows"].find_one({"_id": 1}) == {"_id": 1, "n": 0}
    mongo.in_transaction(meets_another)

    assert len(tries) == 2
    assert mongo["rows"].find_one({"_id": 1}) == {"_id": 1, "n": 11}


def test_a_server_that_goes_away_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_OUTAGE_S", 3)
    server = embedded.ensure(tmp_path)
    opened = connect(server.uri, timeout_ms=1_000)
    try:
        opened["rows"].insert_one({"_id": 1})
        os.kill(server.pid, 9)
        with pytest.raises(UnavailableError), translated():
            opened["rows"].insert_one({"_id": 2})
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            opened.in_transaction(lambda session: opened["rows"].find_one({}, session=session))
        assert 3 <= time.monotonic() - began < 10
    finally:
        opened.close()
        embedded.stop(tmp_path)


def test_the_servers_clock_is_aware(mongo: Mongo) -> None:
    assert abs(mongo.server_time().timestamp() - time.time()) < 60
