"""The disk under payloads or `mongod` is full: what was acknowledged is there, nothing is partial."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import EmboflowError, ErrorKind, UnavailableError
from emboflow_dagster.mongo import embedded
from emboflow_dagster.object_storage import LocalObjectStore
from emboflow_dagster.object_storage.payload import StoredObject, key_of
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

HOMES = ("object_store", "in_object", "gridfs")
SIZES = {"object_store": 3_000_000, "in_object": 200_000, "gridfs": 700_000}
ROOM_BYTES = 24 << 20
pytestmark = pytest.mark.timeout(600)  # servers that wait for a server that cannot come
Acked = list[tuple[str, int, str]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that has room for a server, and for little else."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=420m", "small", str(disk)], check=False
    ).returncode:
        pytest.skip("this container may not mount")
    yield disk
    embedded.stop(disk / "home")
    subprocess.run(["umount", "-l", str(disk)], check=True)


def leave(disk: Path, room: int = ROOM_BYTES) -> None:
    """Take all but ``room`` bytes of a disk."""
    with (disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
        while (left := shutil.disk_usage(disk).free - room) > 0:
            file.write(b"x" * min(left, 1 << 20))


def put_until_it_fails(
    ef: EmboFlow, homes: Any, then: Callable[[], object] = lambda: None
) -> tuple[Acked, EmboflowError]:
    """Versions of six blobs, in homes by turns; those that were acknowledged, and what ended it.

    After nine of them ``then`` is called before each.
    """
    acked: Acked = []
    for n, home in enumerate(cycle(homes)):
        if n > 8:
            then()
        content = os.urandom(SIZES[home])
        try:
            blob = ef.blobs.put(content, object_id=f"blob-{n % 6}", home=home)
        except EmboflowError as error:
            return acked, error
        acked.append((blob.object_id, blob.version, hashlib.sha256(content).hexdigest()))
    raise AssertionError("unreachable")


def lost(ef: EmboFlow, acked: Acked) -> list[tuple[str, int]]:
    """Acknowledged versions that cannot be read as they were put."""
    found = []
    for object_id, version, sha256 in acked:
        try:
            same = hashlib.sha256(ef.blobs.read(object_id, version)).hexdigest() == sha256
        except EmboflowError:
            same = False
        if not same:
            found.append((object_id, version))
    return found


def settings_at(home: Path, objects: Path) -> Settings:
    return Settings.from_env(
        home=home,
        object_store=objects.as_uri(),
        workspace="acme",
        project="p",
        actor="user:ada",
        allow_gridfs=True,
    )


def under_the_payloads(mongo_uri: str, disk: Path, database: str) -> Settings:
    made = settings_at(disk / "home", disk / "objects")
    return replace(made, mongo_uri=mongo_uri, database=database)


@pytest.fixture
def database(mongo_uri: str, tmp_path: Path) -> Iterator[str]:
    from emboflow_dagster.mongo.client import connect

    name = f"full_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    yield name
    mongo = connect(mongo_uri, name)
    mongo.client.drop_database(name)
    mongo.close()


def test_a_full_disk_under_the_payloads(small_disk: Path, mongo_uri: str, database: str) -> None:
    with EmboFlow.open(under_the_payloads(mongo_uri, small_disk, database)) as ef:
        leave(small_disk)
        acked, error = put_until_it_fails(ef, ["object_store"])

        assert (type(error), error.kind) == (UnavailableError, ErrorKind.DISK_FULL)
        assert str(small_disk) in error.message
        assert len(acked) > 4
        assert lost(ef, acked) == []
        assert ef.verify().problems == []
        ef.blobs.put(b"small enough for a document", object_id="blob-0", home="in_object")

        (small_disk / "filler").unlink()
        again = ef.blobs.put(b"more", object_id="blob-0")
        assert ef.blobs.read("blob-0", again.version) == b"more"
        assert ef.verify().problems == []


def test_a_store_that_takes_what_a_full_disk_left_for_the_payload_is_found_out(
    small_disk: Path, mongo_uri: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: written under its final name, without looking at what came of it."""

    def put(store: LocalObjectStore, source: bytes, **_: object) -> StoredObject:
        key = key_of(hashlib.sha256(source).hexdigest())
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError), path.open("wb", buffering=0) as file:
            file.write(source)
        return StoredObject(
            store.bucket, key, store.uri_of(key), hashlib.sha256(source).hexdigest(), len(source), young=True
        )

    with EmboFlow.open(under_the_payloads(mongo_uri, small_disk, database)) as ef:
        leave(small_disk)
        monkeypatch.setattr(LocalObjectStore, "put", put)
        acked: Acked = []
        for n in range(12):
            content = os.urandom(SIZES["object_store"])
            blob = ef.blobs.put(content, object_id=f"blob-{n % 6}")
            acked.append((blob.object_id, blob.version, hashlib.sha256(content).hexdigest()))

        assert lost(ef, acked) != []
        assert {problem.code for problem in ef.verify().problems} >= {"size-mismatch"}


ROUNDS = [[home] for home in HOMES] if os.environ.get("EMBOFLOW_FAULTS") == "all" else [HOMES]


@pytest.mark.parametrize("homes", ROUNDS, ids="+".join)
def test_a_full_disk_under_mongod(small_disk: Path, tmp_path: Path, homes: Any) -> None:
    settings = settings_at(small_disk / "home", tmp_path / "objects")
    with EmboFlow.open(settings) as ef:
        ef.blobs.put(b"the first", object_id="blob-0")
        leave(small_disk)

        def squeeze() -> None:
            leave(small_disk, 0)
            with suppress(Exception):  # what is in the journal goes to the data files now, not in a minute
                ef.mongo.client.admin.command("fsync")

        acked, error = put_until_it_fails(ef, homes, squeeze)

        assert (type(error), error.kind) == (UnavailableError, ErrorKind.DISK_FULL), error
        assert str(small_disk) in error.message
        assert len(acked) > 4
        # The positive control: a writer that asks for no acknowledgement, and takes that for one.
        with suppress(Exception):
            ef.mongo.unacknowledged("objects").insert_one({"_id": "careless", "object_id": "careless"})
    with pytest.raises(EmboflowError) as caught:
        EmboFlow.open(settings)
    assert caught.value.kind == ErrorKind.DISK_FULL

    (small_disk / "filler").unlink()
    with EmboFlow.open(settings) as ef:
        assert lost(ef, [*acked, ("careless", 0, "0" * 64)]) == [("careless", 0)]
        assert ef.verify().problems == []
        for home in HOMES:
            again = ef.blobs.put(home.encode(), object_id="blob-0", home=home)
            assert ef.blobs.read("blob-0", again.version) == home.encode()
        ef.gc()
        assert ef.verify().problems == []
