"""A folder of payloads: what goes in comes out, or an error does."""

import errno
import hashlib
import io
import os
import random
import stat
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import (
    ConfigurationError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.object_storage import LocalObjectStore, ObjectStore, open_store
from emboflow_dagster.object_storage.pump import BUFFER_BYTES, BUFFERS

TYPE = "application/octet-stream"
RING = BUFFER_BYTES * BUFFERS
SIZES = [0, 1, 4095, 1 << 20, (1 << 20) + 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1]
LONG_SIZES = [RING, RING + BUFFER_BYTES, RING + 2 * BUFFER_BYTES + 17, 2 * RING + 4096]


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path / "objects")


def content(size: int) -> bytes:
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // 32 + 1))[:size]


def files(store: LocalObjectStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def damage(store: LocalObjectStore, key: str, change: bytes) -> None:
    path = store.path_of(key)
    path.chmod(0o644)
    path.write_bytes(change)


@pytest.mark.parametrize("size", SIZES + LONG_SIZES)
def test_every_length_comes_back_the_same(store, tmp_path, size):
    payload = content(size)
    digest = hashlib.sha256(payload).hexdigest()
    recording = tmp_path / "recording"
    recording.write_bytes(payload)

    stored = store.put(recording, content_type=TYPE)

    assert (stored.sha256, stored.size, stored.bucket) == (digest, size, "local")
    assert stored.key == f"sha256/{digest[:2]}/{digest[2:]}"
    assert store.read_all(stored.key, sha256=digest, size=size) == payload
    copy = store.get_to(stored.key, tmp_path / "out" / "copy", sha256=digest, size=size)
    assert copy.read_bytes() == payload
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    assert files(store) == [store.path_of(stored.key)]


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a socket does."""

    def __init__(self, payload: bytes, step: int) -> None:
        self.inner, self.step = io.BytesIO(payload), step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        view = memoryview(buffer)[: self.step]
        return self.inner.readinto(view)


class OnlyRead:
    """The least a stream can be."""

    def __init__(self, payload: bytes) -> None:
        self.inner = io.BytesIO(payload)

    def read(self, size: int) -> bytes:
        return self.inner.read(size)


@pytest.mark.parametrize("size", [0, 10, BUFFER_BYTES + 5])
def test_every_kind_of_source_is_the_same_payload(store, tmp_path, size):
    payload = content(size)
    path = tmp_path / "file"
    path.write_bytes(payload)
    with path.open("rb") as opened:
        sources = [
            payload,
            bytearray(payload),
            memoryview(payload),
            path,
            opened,
            io.BytesIO(payload),
            Dribble(payload, 70_001),
            OnlyRead(payload),
            iter([payload[:3], b"", payload[3:]]),
            [payload],
        ]
        stored = {store.put(source, content_type=TYPE) for source in sources}

    assert len(stored) == 1
    assert len(files(store)) == 1


def test_a_stream_is_read_from_where_it_is_and_left_open(store):
    stream = io.BytesIO(b"headerpayload")
    stream.seek(6)

    stored = store.put(stream, content_type=TYPE)

    assert stored.sha256 == hashlib.sha256(b"payload").hexdigest()
    assert not stream.closed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=3_000), max_size=30), st.integers(1, 5_000))
def test_any_chunking_of_any_bytes_round_trips(store, chunks, step):
    payload = b"".join(chunks)

    stored = store.put(iter(chunks), content_type=TYPE)

    assert stored.sha256 == hashlib.sha256(payload).hexdigest()
    with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
        assert b"".join(iter(lambda: stream.read(step), b"")) == payload
        assert stream.verified


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2 * BUFFER_BYTES), min_size=2, max_size=6), st.integers(0, 1_000))
def test_any_chunking_of_long_payloads_round_trips(store, lengths, seed):
    rng = random.Random(seed)
    chunks = [rng.randbytes(length) for length in lengths]
    stored = store.put(iter(chunks), content_type=TYPE)
    assert stored.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert store.read_all(stored.key, sha256=stored.sha256, size=stored.size) == b"".join(chunks)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(min_size=1, max_size=5_000),
    st.data(),
    st.sampled_from(["flip", "truncate", "append", "empty"]),
    st.integers(1, 6_000),
)
def test_damage_is_never_read(store, tmp_path, payload, data, kind, step):
    stored = store.put(payload, content_type=TYPE)
    where = data.draw(st.integers(0, len(payload) - 1))
    broken = {
        "flip": payload[:where] + bytes([payload[where] ^ 1]) + payload[where + 1 :],
        "truncate": payload[:where],
        "append": payload + b"x",
        "empty": b"",
    }[kind]
    damage(store, stored.key, broken)
    target = tmp_path / "target"

    def in_steps() -> None:
        with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
            while stream.read(step):
                pass

    for read in (
        in_steps,
        lambda: store.read_all(stored.key, sha256=stored.sha256, size=stored.size),
        lambda: store.get_to(stored.key, target, sha256=stored.sha256, size=stored.size),
    ):
        with pytest.raises(IntegrityError) as caught:
            read()
        assert stored.key in caught.value.message
        assert stored.sha256 in caught.value.message
        assert hashlib.sha256(broken).hexdigest() in caught.value.message
    assert not target.exists()
    damage(store, stored.key, payload)


def test_a_reader_of_exactly_the_size_is_told_before_the_last_byte(store):
    """Whoever knows the length never sees an end of file, and must be told all the same."""
    payload = content(3 * BUFFER_BYTES)
    stored = store.put(payload, content_type=TYPE)
    damage(store, stored.key, b"X" + payload[1:])

    with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
        stream.read(1 << 20)
        with pytest.raises(IntegrityError):
            stream.read(stored.size - (1 << 20))


def test_only_a_whole_read_claims_to_be_verified(store):
    payload = content(3 << 20)
    stored = store.put(payload, content_type=TYPE)

    with store.open(stored.key, sha256=stored.sha256, size=stored.size) as whole:
        whole.read(10)
        assert not whole.verified
        whole.read()
        assert whole.verified
    with store.open(stored.key, sha256=stored.sha256, size=stored.size, offset=5, length=7) as part:
        assert part.read() == payload[5:12]
        assert not part.verified
    with store.open(stored.key, sha256=stored.sha256, size=stored.size, offset=stored.size + 5) as beyond:
        assert beyond.read() == b""
    with store.open(stored.key, sha256=stored.sha256, size=stored.size, length=1 << 60) as more:
        assert more.read() == payload
        assert more.verified


def test_lines_can_be_read(store):
    stored = store.put(b"one\ntwo\nthree", content_type="text/plain")
    with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
        assert [line.rstrip() for line in stream] == [b"one", b"two", b"three"]


def test_a_missing_payload_is_an_integrity_error(store, tmp_path):
    stored = store.put(b"x", content_type=TYPE)
    assert store.delete(stored.key) is True
    assert store.delete(stored.key) is False
    assert not store.exists(stored.key)

    for read in (
        lambda: store.open(stored.key, sha256=stored.sha256, size=1),
        lambda: store.read_all(stored.key, sha256=stored.sha256, size=1),
        lambda: store.get_to(stored.key, tmp_path / "t", sha256=stored.sha256, size=1),
    ):
        with pytest.raises(IntegrityError, match="missing") as caught:
            read()
        assert caught.value.kind == ErrorKind.PAYLOAD_MISSING
    with pytest.raises(NotFoundError):
        store.stat(stored.key)


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


def test_a_payload_of_the_wrong_size_is_healed_by_the_next_put(store):
    stored = store.put(b"content", content_type=TYPE)
    damage(store, stored.key, b"cont")

    store.put(b"content", content_type=TYPE)

    assert store.read_all(stored.key, sha256=stored.sha256, size=7) == b"content"


def test_sixteen_putters_of_the_same_and_of_other_payloads(store):
    payloads = [content(100_000 + number % 4) for number in range(16)]
    stored: list[str] = []
    threads = [
        threading.Thread(target=lambda p=p: stored.append(store.put(p, content_type=TYPE).key))
        for p in payloads
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(stored) == 16
    assert sorted(set(stored)) == list(store.iter_keys())
    assert len(files(store)) == 4


def test_a_stored_file_is_read_only(store):
    stored = store.put(b"x", content_type=TYPE)
    assert stat.S_IMODE(store.path_of(stored.key).stat().st_mode) == 0o444


def test_a_source_that_fails_leaves_nothing_and_keeps_its_own_error(store):
    class TornError(Exception):
        pass

    def torn(size: int):
        yield content(size)
        raise TornError

    for size in (10, RING + 10):
        with pytest.raises(TornError):
            store.put(torn(size), content_type=TYPE)
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        store.put(closed, content_type=TYPE)

    assert files(store) == []


@pytest.mark.parametrize("size", [10, RING + 10])
def test_a_failure_of_the_source_is_not_blamed_on_the_store(store, size):
    def reset():
        yield content(size)
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(ConnectionResetError) as caught:
        store.put(reset(), content_type=TYPE)
    assert not isinstance(caught.value, UnavailableError)
    assert files(store) == []


@pytest.mark.parametrize("source", ["text", io.StringIO("text"), ["text"], [1], 5, None, {"a": 1}])
def test_what_is_no_payload_is_refused(store, source):
    with pytest.raises((InvalidInputError, TypeError)):
        store.put(source, content_type=TYPE)
    assert files(store) == []


def test_what_is_no_file_is_refused(store, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "none", tmp_path / "fifo"):
        with pytest.raises(InvalidInputError) as caught:
            store.put(path, content_type=TYPE)
        assert caught.value.kind == ErrorKind.FILE_UNREADABLE


@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../x", "sha256/../../x", "", "a//b", "a/./b", "x" * 1025, "a\0b", "a\\b"]
)
def test_a_key_cannot_leave_the_store(store, tmp_path, key):
    for call in (
        lambda: store.open(key, sha256="0" * 64, size=1),
        lambda: store.get_to(key, tmp_path / "t", sha256="0" * 64, size=1),
        lambda: store.exists(key),
        lambda: store.stat(key),
        lambda: store.delete(key),
        lambda: store.uri_of(key),
        lambda: store.path_of(key),
    ):
        with pytest.raises(InvalidInputError):
            call()


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


def test_keys_are_listed_in_order_and_by_prefix(store):
    keys = sorted(store.put(content(size), content_type=TYPE).key for size in range(1, 40))
    (store.root / "tmp" / "left-over").write_bytes(b"")

    assert list(store.iter_keys()) == keys
    shard = keys[0][: len("sha256/ab/")]
    for prefix in ("sha256/", shard, shard[:-2], keys[3], "sha", "other"):
        assert list(store.iter_keys(prefix)) == [key for key in keys if key.startswith(prefix)]
    assert list(LocalObjectStore(store.root / "none").iter_keys()) == []


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
        ("s3://bucket/prefix", "s3"),
        ("gs://bucket", "known are"),
        ("http://user:secret@host/x", "known are"),
        ("file://otherhost/x", "not a folder"),
        ("file:///x?y=1", "not a folder"),
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
