"""The embedded server against everything that may happen to it, with a real `mongod`."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.mongo import embedded
from emboflow_dagster.mongo.embedded import launch, locks, log, place, processes, wire

STARTER = """
import sys, time
from pathlib import Path
from emboflow_dagster.mongo import embedded
server = embedded.ensure(Path(sys.argv[1]))
print(server.pid, server.port, server.started, flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    """Child processes of a test, ended with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def start(home: Path, linger_s: float = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(home), str(linger_s)], stdout=subprocess.PIPE, text=True
    )


def write(uri: str, number: int) -> None:
    with closing(MongoClient(uri, serverSelectionTimeoutMS=5_000)) as client:
        majority = WriteConcern("majority", j=True)
        client["kept"].get_collection("numbers", write_concern=majority).insert_one({"_id": number})


def read(uri: str) -> list[int]:
    with closing(MongoClient(uri, serverSelectionTimeoutMS=5_000)) as client:
        return [document["_id"] for document in client["kept"]["numbers"].find().sort("_id", 1)]


def kill(pid: int) -> None:
    target = processes.process(pid)
    assert target is not None
    with processes.Handle(target) as running:
        running.send(signal.SIGKILL)
        assert running.wait(10)


def hang_up_on_all(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


def pids(home: Path) -> list[int]:
    return [found.pid for found, _ in processes.mongods_on(place.Place(home).data)]


def test_starts_once_and_is_found_again_quickly(home):
    assert embedded.find(home) is None

    began = time.monotonic()
    first = embedded.ensure(home)
    cold_s = time.monotonic() - began
    began = time.monotonic()
    second = embedded.ensure(home)
    again_s = time.monotonic() - began

    assert (first.started, second.started) == (True, False)
    assert (second.uri, second.pid) == (first.uri, first.pid)
    assert embedded.find(home) == second
    assert pids(home) == [first.pid]
    assert cold_s < 20  # about 0.5 s on an idle machine
    assert again_s < 0.5  # about 2 ms


def test_runs_with_the_promised_settings(home):
    server = embedded.ensure(home)
    options = wire.run_command(server.port, {"getCmdLineOpts": 1})["parsed"]
    parameters = wire.run_command(server.port, {"getParameter": "*"})

    assert options["net"]["bindIp"] == "127.0.0.1"
    assert options["net"]["unixDomainSocket"]["enabled"] is False
    assert options["security"]["javascriptEnabled"] is False
    assert options["storage"]["wiredTiger"]["engineConfig"]["cacheSizeGB"] == 0.25
    assert parameters["transactionLifetimeLimitSeconds"] == 5
    assert parameters["diagnosticDataCollectionEnabled"] is False
    assert Path(options["storage"]["dbPath"]) == home.resolve() / "mongo" / "data"
    assert (home / "mongo").stat().st_mode & 0o077 == 0
    environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"EMBOFLOW_" not in environment


def test_the_uri_supports_transactions_retryable_writes_and_majority(home):
    server = embedded.ensure(home)
    with closing(MongoClient(server.uri, w="majority", journal=True, readConcernLevel="majority")) as client:
        numbers = client["kept"]["numbers"]
        with client.start_session() as session:
            with session.start_transaction():
                numbers.insert_one({"_id": 1}, session=session)
            session.start_transaction()
            numbers.insert_one({"_id": 2}, session=session)
            session.abort_transaction()
        numbers.insert_one({"_id": 3})

        assert [document["_id"] for document in numbers.find().sort("_id", 1)] == [1, 3]
        assert client.admin.command("hello")["setName"] in server.uri


def test_comes_back_on_the_same_data_after_kill_9(home):
    first = embedded.ensure(home)
    for number in range(5):
        write(first.uri, number)
        kill(embedded.ensure(home).pid)
        assert embedded.find(home) is None
        embedded.ensure(home)

    last = embedded.ensure(home)

    assert last.pid != first.pid
    assert read(last.uri) == [0, 1, 2, 3, 4]


def test_survives_the_starter(home, children):
    child = start(home, linger_s=60)
    children.append(child)
    assert child.stdout is not None
    pid = int(child.stdout.readline().split()[0])

    child.kill()
    child.wait()

    found = embedded.ensure(home)
    assert (found.pid, found.started) == (pid, False)
    assert os.getsid(pid) not in {os.getsid(0), child.pid}  # Ctrl-C in a terminal reaches a session


@pytest.mark.parametrize("after_s", [0.02, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7])
def test_a_starter_killed_at_any_moment_leaves_a_home_that_starts(home, children, after_s):
    child = start(home, linger_s=60)
    children.append(child)
    time.sleep(after_s)
    child.kill()
    child.wait()

    server = embedded.ensure(home)

    write(server.uri, 1)
    assert read(server.uri) == [1]
    assert pids(home) == [server.pid]


def test_a_server_without_its_state_file_is_adopted(home):
    """What a starter leaves that is killed between the start and the note of it."""
    first = embedded.ensure(home)
    (home / "mongo" / "state.json").unlink()

    adopted = embedded.ensure(home)

    assert (adopted.pid, adopted.started) == (first.pid, False)


def test_eight_starters_at_once_give_one_server(home, children):
    children.extend(start(home, linger_s=0) for _ in range(8))
    outputs = [child.communicate(timeout=60)[0].split() for child in children]

    assert len({(pid, port) for pid, port, _ in outputs}) == 1
    assert sorted(started for _, _, started in outputs) == ["False"] * 7 + ["True"]
    assert pids(home) == [int(outputs[0][0])]


def test_threads_at_once_give_one_server(home):
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(embedded.ensure(home).pid)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(found) == 8
    assert len(set(found)) == 1


def test_without_the_start_lock_starters_race(home, monkeypatch, children):
    """The positive control of the two tests above: it is the lock that makes them pass."""
    here = place.Place(home)
    here.make()
    with locks.exclusively(here.start_lock, timeout_s=1):
        child = start(home)
        children.append(child)
        time.sleep(1.5)
        assert child.poll() is None
        assert pids(home) == []
    assert child.communicate(timeout=60)[0].split()[2] == "True"


def test_a_stale_pid_file_naming_another_process_is_not_believed(home, children):
    first = embedded.ensure(home)
    write(first.uri, 1)
    kill(first.pid)
    bystander = subprocess.Popen(["sleep", "60"], text=True)
    children.append(bystander)
    state_file = home / "mongo" / "state.json"
    other = processes.process(bystander.pid)
    assert other is not None
    state = {**json.loads(state_file.read_text()), "pid": other.pid, "started": other.started}
    state_file.write_text(json.dumps(state))

    assert embedded.find(home) is None
    assert embedded.stop(home) is False
    second = embedded.ensure(home)

    assert second.started
    assert read(second.uri) == [1]
    assert bystander.poll() is None


def test_the_server_of_a_copied_home_is_not_taken_for_ones_own(home, tmp_path):
    first = embedded.ensure(home)
    embedded.stop(home)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(home), str(copy)], check=True)
    first = embedded.ensure(home)
    # The worst case: the copy's note names the live server of the original, which has the same id.
    (copy / "mongo" / "state.json").write_text((home / "mongo" / "state.json").read_text())
    try:
        assert embedded.find(copy) is None
        second = embedded.ensure(copy)
        assert second.started
        assert second.pid != first.pid
    finally:
        embedded.stop(copy)
    assert embedded.find(home) is not None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "port": "y", "instance": 0}']
)
def test_a_torn_state_file_is_only_a_lost_hint(home, content):
    first = embedded.ensure(home)
    (home / "mongo" / "state.json").write_text(content)

    found = embedded.ensure(home)

    assert (found.pid, found.started) == (first.pid, False)


@pytest.mark.parametrize(
    "silent",
    [
        False,
        # The server asks the silent listener for 30 s whether that is itself.
        pytest.param(True, marks=pytest.mark.slow),
    ],
)
def test_a_port_taken_while_it_was_down_is_not_fatal(home, silent):
    first = embedded.ensure(home)
    write(first.uri, 1)
    kill(first.pid)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", first.port))
        thief.listen()
        if not silent:
            threading.Thread(target=hang_up_on_all, args=(thief,), daemon=True).start()
        second = embedded.ensure(home)

        assert second.port != first.port
        assert read(second.uri) == [1]
        write(second.uri, 2)
    embedded.stop(home)
    third = embedded.ensure(home)

    assert third.port == second.port  # the last one is kept while it is free
    assert read(third.uri) == [1, 2]


def test_a_port_taken_between_the_choice_and_the_start_is_not_fatal(home, monkeypatch):
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        taken = thief.getsockname()[1]
        free = launch._free_port
        choices = [taken, taken]
        monkeypatch.setattr(
            launch, "_free_port", lambda preferred: choices.pop() if choices else free(preferred)
        )

        server = embedded.ensure(home)

    assert choices == []
    assert server.port != taken
    write(server.uri, 1)


def test_another_homes_server_on_the_remembered_port_is_never_reached(home, tmp_path):
    first = embedded.ensure(home)
    embedded.stop(home)
    other_home = tmp_path / "other"
    other_place = place.Place(other_home)
    other_place.make()
    other_place.write_state(place.State(1, "gone", first.port, "none"))
    # Only a place that has an instance may hold a state file.
    other_place.write_instance(place.Instance("0123456789ab"))
    try:
        other = embedded.ensure(other_home)
        assert other.port == first.port
        with pytest.raises(Exception, match=r"replica set|No servers|primary"):
            write(first.uri.replace("?", "?serverSelectionTimeoutMS=500&"), 1)
        second = embedded.ensure(home)
        assert second.port != other.port
        assert read(second.uri) == []
    finally:
        embedded.stop(other_home)


def test_foreign_files_are_refused_and_left_alone(home):
    stranger = home / "mongo" / "WiredTiger"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("somebody's data")

    with pytest.raises(ConfigurationError, match=r"WiredTiger.*not made by") as caught:
        embedded.ensure(home)

    assert caught.value.kind == ErrorKind.DATA_FOLDER
    assert stranger.read_text() == "somebody's data"
    assert pids(home) == []


def test_data_without_its_database_files_is_refused(home):
    server = embedded.ensure(home)
    embedded.stop(home)
    (server.data_dir / "WiredTiger").unlink()

    with pytest.raises(ConfigurationError, match="WiredTiger file is missing") as caught:
        embedded.ensure(home)

    assert caught.value.kind == ErrorKind.DATA_FOLDER


def test_corrupt_data_is_refused_with_the_servers_own_reason(home):
    server = embedded.ensure(home)
    embedded.stop(home)
    (server.data_dir / "WiredTiger.turtle").write_bytes(b"\0" * 1000)

    with pytest.raises(ConfigurationError, match=r"(?i)wiredtiger") as caught:
        embedded.ensure(home)

    assert caught.value.kind == ErrorKind.MONGOD_START
    assert "mongod.log" in (caught.value.hint or "")
    assert pids(home) == []


def test_the_data_of_another_home_is_refused(home):
    embedded.ensure(home)
    embedded.stop(home)
    instance_file = home / "mongo" / "instance.json"
    instance_file.write_text(json.dumps({**json.loads(instance_file.read_text()), "id": "0123456789ab"}))

    with pytest.raises(ConfigurationError, match="belongs to the replica set") as caught:
        embedded.ensure(home)

    assert caught.value.kind == ErrorKind.DATA_FOLDER
    assert pids(home) == []


@pytest.mark.parametrize(("version", "reason"), [("9.0.1", "is older"), ("4.4.29", "of the release series")])
def test_data_of_a_newer_or_much_older_server_is_refused(home, version, reason):
    embedded.ensure(home)
    embedded.stop(home)
    instance_file = home / "mongo" / "instance.json"
    content = json.loads(instance_file.read_text())
    instance_file.write_text(json.dumps({**content, "server_version": version}))

    with pytest.raises(ConfigurationError, match=reason) as caught:
        embedded.ensure(home)

    assert caught.value.kind == ErrorKind.DATA_FOLDER
    instance_file.write_text(json.dumps(content))
    assert embedded.ensure(home).started


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_the_folder_of_another_user_is_refused(home):
    (home / "mongo").mkdir(parents=True)
    os.chown(home / "mongo", 12345, 12345)

    with pytest.raises(ConfigurationError, match="belongs to user 12345") as caught:
        embedded.ensure(home)

    assert caught.value.kind == ErrorKind.DATA_FOLDER


def test_a_start_that_was_cut_short_leaves_nothing_to_trip_over(home):
    here = place.Place(home)
    here.make()
    here.claim()
    (here.data / "WiredTiger").write_text("half of a file")

    server = embedded.ensure(home)

    write(server.uri, 1)


def test_a_broken_argument_is_reported_with_what_the_server_said(home):
    with pytest.raises(ConfigurationError, match="noSuchParameter") as caught:
        embedded.ensure(home, extra_arguments=("--setParameter", "noSuchParameter=1"))

    assert caught.value.kind == ErrorKind.MONGOD_START


def test_stop_ends_it_and_leaves_the_data(home):
    server = embedded.ensure(home)
    write(server.uri, 1)

    assert embedded.stop(home) is True

    assert pids(home) == []
    assert embedded.find(home) is None
    assert embedded.stop(home) is False
    assert (server.data_dir / "mongod.lock").read_text() == ""  # a clean shutdown, nothing to recover
    assert read(embedded.ensure(home).uri) == [1]


def test_stop_ends_a_server_that_does_not_answer(home):
    server = embedded.ensure(home)
    os.kill(server.pid, signal.SIGSTOP)

    began = time.monotonic()
    assert embedded.stop(home, grace_s=0.5) is True

    assert time.monotonic() - began < 10
    assert pids(home) == []


def test_a_server_that_others_use_is_left_running(home, children):
    embedded.ensure(home)
    child = start(home, linger_s=60)
    children.append(child)
    assert child.stdout is not None
    child.stdout.readline()

    assert embedded.stop(home, only_if_unused=True) is False
    assert embedded.find(home) is not None

    child.kill()
    child.wait()
    assert embedded.stop(home, only_if_unused=True) is True
    assert embedded.find(home) is None


def test_stop_of_a_home_that_never_was_creates_nothing(tmp_path):
    assert embedded.stop(tmp_path / "none") is False
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_a_running_server_is_bounded(home, monkeypatch):
    server = embedded.ensure(home)
    monkeypatch.setattr("emboflow_dagster.mongo.embedded.server.MAX_LOG_BYTES", 1_000)
    monkeypatch.setattr(log.bound_log, "__kwdefaults__", {"max_bytes": 1_000})
    before = log.log_size(server.log_path)
    assert before > 1_000

    embedded.ensure(home)

    assert server.log_path.with_name("mongod.log.1").stat().st_size >= before
    deadline = time.monotonic() + 5
    while not server.log_path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert log.log_size(server.log_path) < before
    assert embedded.find(home) is not None
