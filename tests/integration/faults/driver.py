"""A process that does operations in children of its own and kills them at a chosen MongoDB command, at a call
on a file of the store, or some time after a command.

It forks, and never opens a connection itself: a child costs milliseconds, and has no thread to lose. One JSON
line in, one out; see :class:`Order` and :class:`Outcome`.
"""

import hashlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from pymongo import monitoring

from emboflow_dagster.blobs import gridfs as home_in_gridfs
from emboflow_dagster.blobs.homes import Homes
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.mongo import gridfs, object_import, objects, outbox, ownership, settling
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.object_storage.local import LocalObjectStore
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.object_storage.pump import Digest
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from tests.integration.faults import steps
from tests.integration.faults.operations import KNOWN

IN_TRANSACTION = " in a transaction"
LATER = "later"
ENDS = ("commitTransaction", "abortTransaction")


@dataclass
class Order:
    """What to do: an operation, where, how many at once, and the command to be killed at."""

    operation: str
    uri: str | None
    database: str
    home: str
    folder: str
    point: int = 0  #: 1 is the first command, or the first call of `steps`; 0 kills nobody
    moment: str = "started"  #: or `succeeded`, `later`: of a command; else of `steps`: of a call on a file
    delay_ms: float = 0  #: how long after the command `later` is
    processes: int = 1
    broken: str | None = None  #: one of :data:`BROKEN`

    def settings(self) -> Settings:
        """As a user would set them."""
        return Settings.from_env(
            home=self.home,
            mongo_uri=self.uri,
            database=self.database,
            workspace="acme",
            project="pick-place",
            actor="user:ada",
            allow_gridfs=True,
        )


@dataclass
class Outcome:
    """What one child came to."""

    killed: bool = False
    commands: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    acked: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    exit_code: int = 0


class Killer(monitoring.CommandListener):
    """Counts commands once armed, and ends the process at the chosen one."""

    def __init__(self, order: Order, say: Callable[[str, Any], None]) -> None:
        self.order = order
        self.say = say
        self.armed = False
        self.count = 0
        self._calls = itertools.count(1)
        self._mine = threading.local()  # a call's number: several threads may be at one

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.armed:
            self.count += 1
            inside = event.command.get("autocommit") is False and event.command_name not in ENDS
            self.say("command", event.command_name + IN_TRANSACTION * inside)
            self._kill_at("started")

    def succeeded(self, _: monitoring.CommandSucceededEvent) -> None:
        if self.armed:
            self._kill_at("succeeded")

    def failed(self, _: monitoring.CommandFailedEvent) -> None:
        if self.armed:
            self._kill_at("succeeded")

    def _kill_at(self, moment: str) -> None:
        if (self.count, moment) == (self.order.point, self.order.moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def at_file(self, name: str, moment: str) -> None:
        """A call on a file of the store is about to be done, half done, or done."""
        if not self.armed:
            return
        if moment == steps.BEFORE:
            self._mine.number = next(self._calls)
            self.say("file", name)
        if (self._mine.number, moment) == (self.order.point, self.order.moment):
            os.kill(os.getpid(), signal.SIGKILL)


def without_transactions() -> None:
    """Broken: what belongs together is written one after the other."""
    Mongo.in_transaction = lambda _, body: body(None)  # type: ignore[method-assign, assignment]


def metadata_first() -> None:
    """Broken: a blob is recorded before its bytes are stored."""
    real = Homes.store

    def store(self: Homes, source: Any, content_type: str) -> Any:
        data = source.read_bytes() if isinstance(source, Path) else bytes(source)
        digest = hashlib.sha256(data).hexdigest()
        key = key_of(digest)
        ref = {"bucket": "local", "key": key, "uri": self._store.uri_of(key), "checksum": f"sha256:{digest}"}
        late.append(lambda: real(self, source, content_type))
        from emboflow_dagster.model.storage import StorageRef

        return StorageRef.model_validate({**ref, "contentType": content_type, "size": len(data)})

    late: list[Callable[[], Any]] = []
    version = objects.put_version

    def put_version(*args: Any, **how: Any) -> Any:
        stored = version(*args, **how)
        while late:
            late.pop()()
        return stored

    Homes.store = store  # type: ignore[method-assign]
    objects.put_version = put_version


def written_in_place() -> None:
    """Broken: a payload is written under its final name, once room was made for it."""

    def put_block(self: LocalObjectStore, block: memoryview, *, replace: bool) -> Any:
        digest = Digest(hashlib.sha256(block).hexdigest(), len(block))
        path = self.root / key_of(digest.sha256)
        if replace or not self._kept(digest):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.ftruncate(fd, len(block))
            os.write(fd, block)
            os.close(fd)
        return self._stored(digest)

    LocalObjectStore._put_block = put_block  # type: ignore[method-assign]


def read_check_write() -> None:
    """Broken: the next version of a blob by reading the head, archiving it and replacing it."""

    def put_version(mongo: Mongo, blob: Any, **_: Any) -> Any:
        fields = blob.to_mongo()
        old = mongo["objects"].find_one({"_id": blob.object_id})
        if old is not None and old["data_sha256"] == fields["data_sha256"]:
            return objects.Put(objects.head(mongo, blob.workspace_id, blob.object_id), new=False)
        if old is None:
            mongo["objects"].insert_one({**fields, "version": 0, "prev_version": None})
        else:
            number = old["version"] + 1
            mongo["objects"].replace_one(
                {"_id": blob.object_id}, {**fields, "version": number, "prev_version": number - 1}
            )
            row = {k: v for k, v in old.items() if k not in ("tail", "request_ids")}
            mongo["object_history"].insert_one({**row, "_id": f"{blob.object_id}.v{old['version']}"})
        return objects.Put(objects.head(mongo, blob.workspace_id, blob.object_id), new=True)

    objects.put_version = put_version


def completed_before_its_bytes() -> None:
    """Broken: an upload is called complete before its bytes are stored."""
    import hashlib

    from emboflow_dagster.model.storage import StorageRef

    def upload(self: Blobs, object_id: str, source: bytes, **_: Any) -> Any:
        digest = hashlib.sha256(source).hexdigest()
        key = key_of(digest)
        where = {"bucket": "local", "key": key, "uri": self._store.uri_of(key), "size": len(source)}
        ref = StorageRef.model_validate({**where, "checksum": f"sha256:{digest}", "contentType": "a/b"})
        fields = {"storage_ref": ref.to_mongo(), "data_sha256": digest, "object_size_bytes": len(source)}
        done = {**fields, "upload_status": "completed"}
        self._mongo["objects"].update_one({"_id": object_id}, {"$set": done})
        objects.head(self._mongo, self._scope.workspace_id, object_id)
        self._homes.store(source, "a/b")
        return self.get(object_id)

    Blobs.upload = upload  # type: ignore[method-assign, assignment]


def claims_without_comparing() -> None:
    """Broken: who claims a blob does not look whether it has an owner."""

    def claim(mongo: Mongo, _: Any, session: Any, mentions: Any) -> None:
        for mention in mentions:
            mongo["objects"].update_one(
                {"_id": mention.ref.object_id}, {"$set": mention.owner}, session=session
            )

    ownership.claim = claim
    without_transactions()


def cleared_unseen() -> None:
    """Broken: what nobody waits for leaves the head before history has it."""

    def copy(mongo: Mongo, tail: outbox.Tail) -> None:
        mongo["objects"].update_one(*tail.clearing())
        mongo["object_history"].insert_many(tail.history())

    objects.copy = copy


def gridfs_last() -> None:
    """Broken: a blob is recorded before its chunks are stored."""
    version, late = objects.put_version, []

    def put(mongo: Mongo, source: bytes, **_: Any) -> Any:
        file_id = f"gfs_{uuid4().hex}"

        def write() -> None:
            upload = gridfs.Upload(mongo, file_id, {})
            upload.write(memoryview(source))
            upload.finish()

        late.append(write)
        return file_id, Digest(hashlib.sha256(source).hexdigest(), len(source))

    def put_version(*args: Any, **how: Any) -> Any:
        stored = version(*args, **how)
        while late:
            late.pop()()
        return stored

    home_in_gridfs.put = put
    objects.put_version = put_version


def renumbering() -> None:
    """Broken: imported versions are counted anew."""

    def put_exactly(mongo: Mongo, blob: Any, *, data: Any = None, lost: Any = ()) -> Any:
        return objects.put_version(mongo, blob, data=data, request_id=blob.request_id, compare=False)

    object_import.put_exactly = put_exactly


BROKEN = {
    broken.__name__: broken
    for broken in (
        without_transactions,
        metadata_first,
        written_in_place,
        read_check_write,
        cleared_unseen,
        gridfs_last,
        renumbering,
        completed_before_its_bytes,
        claims_without_comparing,
    )
}


def child(order: Order, out: int, go: int | None) -> None:
    """The body of one child: open, wait for the others, do it, tell."""

    def say(kind: str, value: Any) -> None:
        tell(out, (json.dumps([kind, value]) + "\n").encode())

    tell = os.write
    if order.broken:
        BROKEN[order.broken]()
    killer = Killer(order, say)
    steps.watch(Path(order.home) / "objects", killer.at_file)
    monitoring.register(killer)
    settling.PERIOD_S = 3600
    operation = KNOWN[order.operation]
    try:
        killer.armed = operation.opening
        if operation.opening and go is not None:
            os.read(go, 1)
        ef = EmboFlow.open(order.settings())
        if not operation.opening and go is not None:
            say("ready", None)
            os.read(go, 1)
        killer.armed = True
        operation.act(ef, Path(order.folder), lambda text: say("ack", text))
        settling.settling_of(ef.mongo).finish()  # what a thread does otherwise, at no point that can be named
        killer.armed = False
        ef.close()
    except EmboflowError as error:
        say("error", {**error.as_dict(), "class": type(error).__name__})
    except BaseException as error:  # noqa: BLE001 - told to the test, which fails
        import traceback

        trace = "".join(traceback.format_exception(error))[-4000:]
        say("error", {"code": None, "class": type(error).__name__, "message": trace})


def carry_out(order: Order) -> list[Outcome]:
    """Do it in ``order.processes`` children at once."""
    go_read, go_write = os.pipe()
    running: list[tuple[int, int]] = []
    for _ in range(order.processes):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(go_write)
            for _, other in running:
                os.close(other)
            try:
                child(order, write, go_read if order.processes > 1 else None)
            finally:
                os._exit(0)
        os.close(write)
        running.append((pid, read))
    os.close(go_read)
    streams = [os.fdopen(read, "rb") for _, read in running]
    if order.processes > 1 and not KNOWN[order.operation].opening:
        for stream in streams:
            stream.readline()
    os.close(go_write)
    return [_outcome(order, pid, stream) for (pid, _), stream in zip(running, streams, strict=True)]


def _outcome(order: Order, pid: int, stream: Any) -> Outcome:
    outcome = Outcome()
    with stream:
        for line in stream:
            kind, value = json.loads(line)
            if kind == "command":
                outcome.commands.append(value)
                if order.moment == LATER and len(outcome.commands) == order.point:
                    time.sleep(order.delay_ms / 1000)
                    os.kill(pid, signal.SIGKILL)  # not waited for yet, so the id is still its own
            elif kind == "file":
                outcome.files.append(value)
            elif kind == "ack":
                outcome.acked.append(value)
            elif kind == "error":
                outcome.error = value
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    outcome.killed = code == -signal.SIGKILL
    outcome.exit_code = code
    return outcome


def main() -> None:
    """Carry out orders until there are no more."""
    for line in sys.stdin:
        outcomes = carry_out(Order(**json.loads(line)))
        sys.stdout.write(json.dumps([asdict(outcome) for outcome in outcomes]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
