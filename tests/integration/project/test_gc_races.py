"""gc with no grace at all beside writers: what was acknowledged can be read, always."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emboflow_dagster.blobs import pending
from emboflow_dagster.errors import EmboflowError, UnavailableError
from emboflow_dagster.mongo import marks, objects
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.object_storage import collecting
from emboflow_dagster.object_storage.local import LocalObjectStore
from emboflow_dagster.project.gc.keeping import KeptBlobs
from emboflow_dagster.project.handle import EmboFlow

CONTENTS = [f"content {n}".encode() for n in range(3)]
WRITERS, PUTS = 4, 12
WRITER = """
import json, sys
from emboflow_dagster.project.handle import EmboFlow
with EmboFlow.from_env() as ef:
    sys.stdin.readline()
    for n in range(int(sys.argv[2])):
        content = f"content {n % 3}".encode()
        blob = ef.blobs.put(content, object_id=f"{sys.argv[1]}-{n}")
        print(json.dumps([blob.object_id, blob.version, content.decode()]), flush=True)
        if n % 3 == 1:
            ef.blobs.withdraw(f"{sys.argv[1]}-{n - 1}", reason="a race")
"""


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")


def unreadable(ef: EmboFlow, acked: list[tuple[str, int, bytes]]) -> list[str]:
    """Acknowledged versions, not withdrawn afterwards, that cannot be read."""
    found = []
    for object_id, version, content in acked:
        try:
            if ef.blobs.read(object_id, version) != content:
                found.append(object_id)
        except EmboflowError as error:
            found.append(f"{object_id}: {error}")
    return found


def test_threads_that_put_what_is_being_collected(ef):
    acked: list[tuple[str, int, bytes]] = []
    withdrawn: set[str] = set()
    stop = threading.Event()

    def write(number: int) -> None:
        for n in range(PUTS):
            content = CONTENTS[n % len(CONTENTS)]
            blob = ef.blobs.put(content, object_id=f"w{number}-{n}")
            acked.append((blob.object_id, blob.version, content))
            if n % 3 == 1:
                withdrawn.add(f"w{number}-{n - 1}")
                ef.blobs.withdraw(f"w{number}-{n - 1}", reason="a race")

    def collect() -> None:
        while not stop.is_set():
            ef.gc(grace_s=0)

    collector = threading.Thread(target=collect)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    collector.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    collector.join()

    assert len(acked) == WRITERS * PUTS
    assert unreadable(ef, [row for row in acked if row[0] not in withdrawn]) == []
    assert ef.verify(all=True).problems == []


@pytest.mark.slow
def test_processes_that_put_what_two_collections_are_collecting(ef, monkeypatch):
    for name, value in ef.settings.environment().items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", WRITER]
    processes = [
        subprocess.Popen(
            [*command, f"p{n}", str(PUTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for n in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        threads = [threading.Thread(target=ef.gc, kwargs={"grace_s": 0}) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    said = [json.loads(line) for process in processes for line in process.communicate()[0].splitlines()]

    assert len(said) == len(processes) * PUTS
    kept = [(o, v, c.encode()) for o, v, c in said if int(o.partition("-")[2]) % 3 != 0]
    assert unreadable(ef, kept) == []
    assert ef.verify(all=True).problems == []


# ------------------------------------------------- the same moments, one by one; and without what guards them


def put_between(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, moment: str) -> list[str]:
    """A put of equal content at one moment of a collection; what it acknowledged and cannot be read."""
    ef.blobs.put(b"same", object_id="old")
    ef.blobs.withdraw("old", reason="a race")
    for key in ef.store.iter_keys():
        os.utime(ef.store.path_of(key), (1e9, 1e9))
    acked: list[tuple[str, int, bytes]] = []

    def put(name: str) -> None:
        blob = ef.blobs.put(b"same", object_id=name)
        acked.append((blob.object_id, blob.version, b"same"))

    def around(place: type, name: str, *, before: bool) -> None:
        real: Callable = getattr(place, name)

        def wrapped(*args, **how):
            if before and not acked:
                put("new")
            result = real(*args, **how)
            if not before and not acked:
                put("new")
            return result

        monkeypatch.setattr(place, name, wrapped)

    if moment == "metadata after it all":
        real = objects.put_version

        def put_version(*args, **how):
            monkeypatch.setattr(objects, "put_version", real)
            time.sleep(0.05)  # longer than a tick of the file system's clock: the payload is older than gc
            ef.gc(grace_s=0)  # the writer has put its bytes, and says nothing of them yet
            return real(*args, **how)

        monkeypatch.setattr(objects, "put_version", put_version)
        put("new")
    else:
        place, name, before = {
            "before it is condemned": (LocalObjectStore, "condemn", True),
            "before it is renamed": (Path, "rename", True),
            "when it is aside": (Path, "rename", False),
            "before it is destroyed": (LocalObjectStore, "destroy", True),
        }[moment]
        around(place, name, before=before)
        ef.gc(grace_s=0)
    monkeypatch.undo()
    assert acked
    return unreadable(ef, acked)


MOMENTS = (
    "before it is condemned",
    "before it is renamed",
    "when it is aside",
    "before it is destroyed",
    "metadata after it all",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_put_at_any_moment_of_a_collection_is_kept(ef, monkeypatch, moment):
    assert put_between(ef, monkeypatch, moment) == []
    assert ef.verify(all=True).problems == []


def condemn_without_a_second_look(self, key, before):
    aside = self._aside(key)
    path = self.path_of(key)
    if path.stat().st_mtime >= before:
        return False
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
    return True


@pytest.mark.parametrize(
    ("moment", "broken"),
    [
        ("before it is renamed", ("condemn", condemn_without_a_second_look)),
        ("before it is condemned", ("_kept", lambda self, digest: self.exists(collecting_key(digest)))),
        ("metadata after it all", ("writing", lambda self: collecting.suppress())),
    ],
    ids=["without a second look", "without a touch", "without flights"],
)
def test_a_collection_without_its_guards_is_caught(ef, monkeypatch, moment, broken):
    """The positive control: each guard is what keeps the put of its moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalObjectStore, *broken)
        patch.setattr("emboflow_dagster.project.gc.sweep.Sweep._named", lambda *_: set())
        assert put_between(ef, monkeypatch, moment) != []


def collecting_key(digest):
    return f"sha256/{digest.sha256[:2]}/{digest.sha256[2:]}"


# --------------------------------------------------------------- a store that takes nothing aside, as S3 is


class Plain:
    """A store of the protocol and nothing more: a put of what is there does not make it younger."""

    def __init__(self, inner: LocalObjectStore) -> None:
        self._inner = inner

    def put(self, source, *, content_type):
        data = bytes(source)
        import hashlib

        key = f"sha256/{hashlib.sha256(data).hexdigest()[:2]}/{hashlib.sha256(data).hexdigest()[2:]}"
        there = self._inner.path_of(key).stat() if self._inner.exists(key) else None
        stored = self._inner.put(data, content_type=content_type)
        if there is not None:
            os.utime(self._inner.path_of(key), ns=(there.st_atime_ns, there.st_mtime_ns))
        from dataclasses import replace

        return replace(stored, young=there is None)

    bucket = property(lambda self: self._inner.bucket)

    def __getattr__(self, name: str):
        if name in ("writing", "safe_before", "condemn", "spare", "destroy", "condemned"):
            raise AttributeError(name)
        return getattr(self._inner, name)


@pytest.fixture
def plain(ef) -> EmboFlow:
    from dataclasses import replace

    return EmboFlow(replace(ef._opened, store=Plain(ef.store)))


def old(ef: EmboFlow) -> None:
    for key in ef.store.iter_keys():
        os.utime(ef.store.path_of(key), (1e9, 1e9))


@pytest.mark.parametrize("noted", [True, False])
def test_a_writer_of_equal_content_is_seen_by_its_note(plain, monkeypatch, noted):
    plain.blobs.put(b"same", object_id="old")
    plain.blobs.withdraw("old", reason="a race")
    old(plain)
    real, acked = marks.write, []

    def write(mongo, kind, name, *args, **how):
        real(mongo, kind, name, *args, **how)
        if kind is Mark.CONDEMNED and not acked:
            acked.append(name)
            if noted:  # a writer that has said so, and refers to it a moment later
                real(mongo, Mark.PENDING, f"{name}:w", plain.scope.workspace_id, key=name)

    monkeypatch.setattr(marks, "write", write)
    report = plain.gc(grace_s=0)

    assert acked
    assert report.freed_payloads == (0 if noted else 1)


def test_a_writer_that_comes_when_it_is_condemned_waits_and_says_when_it_is_gone(plain, monkeypatch):
    blob = plain.blobs.put(b"same", object_id="old")
    key = blob.storage_ref.key
    marks.write(plain.mongo, Mark.CONDEMNED, key, plain.scope.workspace_id)
    looked = []

    def read(mongo, kind, name, *args):
        looked.append(kind)
        if len(looked) == 3:  # gc is through
            plain.store.delete(key)
            marks.erase(mongo, Mark.CONDEMNED, key)
        return real(mongo, kind, name, *args)

    real = marks.read
    monkeypatch.setattr(pending.marks, "read", read)
    with pytest.raises(UnavailableError, match="collected while it was put"):
        plain.blobs.put(b"same", object_id="new")
    monkeypatch.undo()
    assert plain.blobs.put(b"same", object_id="new").version == 0
    assert plain.blobs.read("new") == b"same"


def test_a_long_writer_of_a_plain_store_has_a_note_that_holds_gc_back(plain):
    blobs: KeptBlobs = plain.blobs
    with blobs.writing():
        ref = blobs.put_payload(b"part one", content_type="text/plain")
        with blobs.writing():
            assert plain.gc(grace_s=0).freed_payloads == 0
    old(plain)
    assert plain.gc(grace_s=0).orphans == 1
    assert not plain.store.exists(ref.key)
    assert plain.mongo["_emboflow_meta"].count_documents({"kind": "pending"}) == 0
