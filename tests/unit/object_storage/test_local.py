"""A folder of payloads: what goes in comes out, or an error does."""

import hashlib
import io
import os
import random
import stat
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import (
    ConfigurationError,
    ErrorKind,
    UnavailableError,
)
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.object_storage import LocalObjectStore, ObjectStore, open_store
from emboflow_dagster.object_storage.pump import BUFFER_BYTES
from tests.store_behaviour import RING, TYPE, Behaviour, content


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path / "objects")


def files(store: LocalObjectStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


@pytest.fixture
def held(store):
    return lambda: files(store)


@pytest.fixture
def damage(store):
    def change(key: str, payload: bytes) -> None:
        path = store.path_of(key)
        path.chmod(0o644)
        path.write_bytes(payload)

    return change


class TestFolder(Behaviour):
    """What every home does."""


@pytest.mark.parametrize("size", [2 * RING, 2 * RING + 4096])
def test_payloads_longer_than_the_ring_come_back_the_same(store, tmp_path, size):
    payload = content(size)
    stored = store.put(io.BytesIO(payload), content_type=TYPE)
    copy = store.get_to(stored.key, tmp_path / "copy", sha256=stored.sha256, size=size)
    assert copy.read_bytes() == payload


def test_a_folder_that_is_not_there_has_no_keys_and_no_uploads(tmp_path):
    store = LocalObjectStore(tmp_path / "none")
    assert list(store.iter_keys()) == []
    assert store.stale_uploads() == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2 * BUFFER_BYTES), min_size=2, max_size=6), st.integers(0, 1_000))
def test_any_chunking_of_long_payloads_round_trips(store, lengths, seed):
    rng = random.Random(seed)
    chunks = [rng.randbytes(length) for length in lengths]
    stored = store.put(iter(chunks), content_type=TYPE)
    assert stored.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert store.read_all(stored.key, sha256=stored.sha256, size=stored.size) == b"".join(chunks)


def test_equal_content_is_stored_once_and_counts_as_new(store):
    first = store.put(b"same", content_type=TYPE)
    inode = store.path_of(first.key).stat().st_ino
    long_ago = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    os.utime(store.path_of(first.key), (long_ago, long_ago))

    second = store.put(io.BytesIO(b"same"), content_type="text/plain")

    assert second == first
    assert store.path_of(first.key).stat().st_ino == inode
    assert store.stat(first.key).modified_at > datetime.now(UTC) - timedelta(minutes=5)


def test_a_long_payload_that_is_there_already_leaves_no_temporary_file(store):
    payload = content(RING + 3)
    first = store.put(io.BytesIO(payload), content_type=TYPE)
    inode = store.path_of(first.key).stat().st_ino

    assert store.put(io.BytesIO(payload), content_type=TYPE) == first
    assert store.path_of(first.key).stat().st_ino == inode
    assert files(store) == [store.path_of(first.key)]


def test_a_stored_file_is_read_only(store):
    stored = store.put(b"x", content_type=TYPE)
    assert stat.S_IMODE(store.path_of(stored.key).stat().st_mode) == 0o444


def test_the_uri_says_where_it_is_and_fits_a_reference(tmp_path):
    store = LocalObjectStore(tmp_path / "our objects#1")
    stored = store.put(b"x", content_type=TYPE)

    assert stored.uri == store.uri_of(stored.key) == store.path_of(stored.key).as_uri()
    assert " " not in stored.uri
    reference = StorageRef(
        bucket=stored.bucket,
        key=stored.key,
        uri=stored.uri,
        checksum=f"sha256:{stored.sha256}",
        content_type=TYPE,
        size=stored.size,
    )
    assert open_store(store.root.as_uri()).exists(reference.key)


def test_only_old_temporary_files_are_stale(store):
    store.put(b"x", content_type=TYPE)
    old, new = store.root / "tmp" / "put-1-old", store.root / "tmp" / "put-1-new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, 1))

    assert [(one.name, one.size) for one in store.stale_uploads()] == [(old.name, 4)]
    assert [one.name for one in store.stale_uploads(older_than_s=-60)] == [new.name, old.name]
    for one in store.stale_uploads() * 2:
        store.abort_upload(one)
    assert not old.exists()


def test_memory_does_not_grow_with_the_payload(store, tmp_path):
    size = 40 * BUFFER_BYTES
    block = content(BUFFER_BYTES // 4)

    tracemalloc.start()
    try:
        stored = store.put((block for _ in range(size // len(block))), content_type=TYPE)
        store.get_to(stored.key, tmp_path / "t", sha256=stored.sha256, size=stored.size)
        with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
            while stream.read(1 << 20):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert stored.size == size
    # The ring itself is mapped memory, not traced: BUFFERS * BUFFER_BYTES.
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("form", ["{root}", "file://{root}", "file://localhost{root}", "file:{root}"])
def test_a_url_or_a_path_opens_a_folder(tmp_path, form):
    opened = open_store(form.format(root=tmp_path / "o"))
    assert isinstance(opened, LocalObjectStore)
    assert opened.root == tmp_path / "o"


def test_a_percent_encoded_folder_is_decoded(tmp_path):
    folder = tmp_path / "a b%20#c"
    opened: ObjectStore = open_store(folder.as_uri())
    assert opened.path_of("x") == folder / "x"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket", "known are"),
        ("http://user:secret@host/x", "known are"),
        ("file://otherhost/x", "not a folder"),
        ("file:///x?y=1", "not a folder"),
        ("~no-such-user/objects", "no user of that name"),
    ],
)
def test_what_is_no_home_is_refused_with_the_remedy(url, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_store(url)
    assert "EMBOFLOW_OBJECT_STORE=file:///" in (caught.value.hint or "") or "file:///" in (
        caught.value.hint or ""
    )
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = LocalObjectStore(tmp_path / "file" / "objects")

    with pytest.raises(UnavailableError) as caught:
        store.put(b"x", content_type=TYPE)
    assert caught.value.kind == ErrorKind.UNAVAILABLE
