"""The home of payloads in GridFS: streamed, verified, and nowhere to be found where nobody allowed it."""

import hashlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from bson.objectid import ObjectId
from gridfs import GridFS

from emboflow_dagster.errors import ConfigurationError, ConflictError, ErrorKind, IntegrityError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.blob import StorageType
from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.project.handle import EmboFlow

MIB = 1 << 20


@pytest.fixture
def allowed(opener: Callable[..., EmboFlow]) -> EmboFlow:
    return opener(allow_gridfs=True)


def put(ef: EmboFlow, content: Any, **how: Any) -> str:
    blob = ef.blobs.put(content, object_id="model", home=StorageType.GRIDFS, **how)
    assert blob.grid_fs_file_id is not None
    return blob.grid_fs_file_id


@pytest.mark.parametrize(
    "size", [0, 1, gridfs.CHUNK_BYTES, gridfs.CHUNK_BYTES + 1, 4 * MIB, 4 * MIB + 1, 9 * MIB]
)
def test_what_goes_in_comes_out(allowed: EmboFlow, size: int) -> None:
    content = os.urandom(size)
    file_id = put(allowed, io.BytesIO(content))

    blob = allowed.blobs.get("model")
    assert allowed.blobs.read("model") == content
    assert (blob.size, blob.sha256, blob.storage_type) == (
        size,
        hashlib.sha256(content).hexdigest(),
        "gridfs",
    )
    assert file_id.startswith("gfs_")
    assert allowed.verify().ok


def test_every_client_of_gridfs_can_read_it(allowed: EmboFlow) -> None:
    content = os.urandom(5 * MIB)
    file_id = put(allowed, content)

    file = GridFS(allowed.mongo.client[allowed.mongo.db.name]).get(file_id)

    assert file.read() == content
    assert file.metadata == {
        "workspace_id": allowed.scope.workspace_id,
        "content_type": "application/octet-stream",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_file_with_an_object_id_is_read_too(allowed: EmboFlow) -> None:
    content = b"written by another program" * 1000
    put(allowed, content)
    foreign = GridFS(allowed.mongo.client[allowed.mongo.db.name]).put(content)
    allowed.mongo["objects"].update_one({"_id": "model"}, {"$set": {"grid_fs_file_id": foreign}})

    assert allowed.blobs.get("model").grid_fs_file_id == str(foreign)
    assert allowed.blobs.read("model") == content
    assert gridfs.delete(allowed.mongo, str(foreign))


def test_pieces_of_any_size_are_read(allowed: EmboFlow) -> None:
    content = os.urandom(MIB + 17)
    put(allowed, content)

    with allowed.blobs.open("model") as stream:
        pieces = [stream.read(n) for n in (1, 4096, 300_000)]
        pieces += iter(lambda: stream.read(77_777), b"")
    assert b"".join(pieces) == content


def _flip(ef: EmboFlow, file_id: str, number: int) -> None:
    row: Raw = ef.mongo[gridfs.CHUNKS].find_one({"files_id": file_id, "n": number}) or {}
    data = bytearray(row["data"])
    data[-1] ^= 1
    ef.mongo[gridfs.CHUNKS].update_one({"_id": row["_id"]}, {"$set": {"data": bytes(data)}})


def _lose_last_chunk(ef: EmboFlow, file_id: str) -> None:
    ef.mongo[gridfs.CHUNKS].delete_one({"files_id": file_id, "n": 4})


def _lose_middle_chunk(ef: EmboFlow, file_id: str) -> None:
    ef.mongo[gridfs.CHUNKS].delete_one({"files_id": file_id, "n": 2})


def _cut_chunk(ef: EmboFlow, file_id: str) -> None:
    ef.mongo[gridfs.CHUNKS].update_one({"files_id": file_id, "n": 4}, {"$set": {"data": b"short"}})


def _shorten(ef: EmboFlow, file_id: str) -> None:
    ef.mongo[gridfs.FILES].update_one({"_id": file_id}, {"$set": {"length": gridfs.CHUNK_BYTES}})


def _lose_all_chunks(ef: EmboFlow, file_id: str) -> None:
    ef.mongo[gridfs.CHUNKS].delete_many({"files_id": file_id})


def _lose_file(ef: EmboFlow, file_id: str) -> None:
    gridfs.delete(ef.mongo, file_id)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda ef, id_: _flip(ef, id_, 0), ErrorKind.HASH_MISMATCH),
        (lambda ef, id_: _flip(ef, id_, 4), ErrorKind.HASH_MISMATCH),
        (_lose_last_chunk, ErrorKind.SIZE_MISMATCH),
        (_lose_middle_chunk, ErrorKind.SIZE_MISMATCH),
        (_cut_chunk, ErrorKind.SIZE_MISMATCH),
        (_shorten, ErrorKind.SIZE_MISMATCH),
        (_lose_all_chunks, ErrorKind.PAYLOAD_MISSING),
        (_lose_file, ErrorKind.PAYLOAD_MISSING),
        (lambda *_: None, None),  # the control: nothing is wrong
    ],
)
def test_damage_is_found_before_the_last_bytes_are_handed_out(
    allowed: EmboFlow, damage: Callable[[EmboFlow, str], None], kind: ErrorKind | None
) -> None:
    content = os.urandom(5 * gridfs.CHUNK_BYTES - 10)
    damage(allowed, put(allowed, content))

    handed: list[bytes] = []
    if kind is None:
        assert allowed.blobs.read("model") == content
        return
    with (
        pytest.raises(IntegrityError, match=r"model version 0: GridFS file gfs_") as caught,
        allowed.blobs.open("model") as stream,
    ):
        handed.extend(iter(lambda: stream.read(50_000), b""))
    assert caught.value.kind is kind
    assert sum(map(len, handed)) < len(content)
    assert [p.code for p in allowed.verify().problems] == [kind.value]


def test_a_put_is_refused_where_gridfs_is_not_allowed_and_what_was_written_stays_readable(
    allowed: EmboFlow, opener: Callable[..., EmboFlow]
) -> None:
    put(allowed, b"written while it was allowed")
    ef = opener()

    with pytest.raises(ConfigurationError, match="not allowed") as caught:
        put(ef, b"new")

    assert caught.value.hint is not None
    assert "EMBOFLOW_ALLOW_GRIDFS" in caught.value.hint
    assert ef.blobs.read("model") == b"written while it was allowed"


def test_a_deployment_that_does_not_ask_for_gridfs_has_no_such_collections(ef: EmboFlow) -> None:
    for name in (gridfs.FILES, gridfs.CHUNKS):
        ef.mongo[name].drop()  # of other tests

    ef.blobs.put(b"x", object_id="a")
    ef.blobs.put(b"x", object_id="b", home=StorageType.IN_OBJECT)
    ef.blobs.save_or_update_object(b"x", object_id="c", save_data_in_collection=False)

    assert not [name for name in ef.mongo.db.list_collection_names() if name.startswith("fs.")]


def test_a_payload_that_no_version_needs_is_taken_back(allowed: EmboFlow) -> None:
    put(allowed, b"same")
    put(allowed, b"same")
    put(allowed, b"same", request_id="again")
    with pytest.raises(ConflictError):
        put(allowed, b"other", control_version=False)

    assert len(list(gridfs.iter_files(allowed.mongo))) == 1
    assert allowed.mongo[gridfs.CHUNKS].count_documents({}) == 1


def test_a_source_that_fails_leaves_nothing(allowed: EmboFlow) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(9 * MIB)
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="camera"):
        put(allowed, broken())

    assert allowed.mongo[gridfs.CHUNKS].count_documents({}) == 0
    assert allowed.mongo["objects"].count_documents({}) == 0


def test_files_and_what_a_crash_left_can_be_listed(
    allowed: EmboFlow, opener: Callable[..., EmboFlow]
) -> None:
    mine = put(allowed, b"mine")
    rival = opener("rival", allow_gridfs=True)
    theirs = rival.blobs.put(b"theirs", home="gridfs").grid_fs_file_id
    upload = gridfs.Upload(allowed.mongo, "gfs_dead", {})
    upload.write(memoryview(b"no file will follow"))
    later = utc_now() + timedelta(hours=1)

    found = list(gridfs.iter_files(allowed.mongo, allowed.scope.workspace_id))
    assert [(f.file_id, f.size) for f in found] == [(mine, 4)]
    assert abs(found[0].uploaded_at - utc_now()) < timedelta(minutes=5)
    assert {f.file_id for f in gridfs.iter_files(allowed.mongo)} == {mine, theirs}
    assert list(gridfs.iter_files(allowed.mongo, before=found[0].uploaded_at)) == []
    assert list(gridfs.orphan_chunks(allowed.mongo, before=later)) == ["gfs_dead"]
    assert list(gridfs.orphan_chunks(allowed.mongo, before=utc_now() - timedelta(hours=1))) == []
    assert not gridfs.delete(allowed.mongo, "gfs_dead")
    assert list(gridfs.orphan_chunks(allowed.mongo, before=later)) == []
    assert gridfs.delete(allowed.mongo, mine)
    assert not gridfs.delete(allowed.mongo, str(ObjectId()))


_STREAMS = """
import resource, sys
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

block = bytes(1 << 20)
size = int(sys.argv[1])
with EmboFlow.open(Settings.from_env(allow_gridfs=True)) as ef:
    def store(count):
        blob = ef.blobs.put((block for _ in range(count)), home="gridfs")
        with ef.blobs.open(blob.object_id) as stream:
            read = sum(len(piece) for piece in iter(lambda: stream.read(1 << 20), b""))
        assert read == count << 20
    store(24)
    before = used()
    store(size)
    print(used() - before)
"""


def test_memory_does_not_grow_with_the_payload(allowed: EmboFlow) -> None:
    variables = {**os.environ, **allowed.settings.environment()}
    done = subprocess.run(
        [sys.executable, "-c", _STREAMS, "160"], env=variables, capture_output=True, text=True, check=True
    )

    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 24 * MIB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
