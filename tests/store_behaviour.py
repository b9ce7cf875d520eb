"""What every home of payloads does: what goes in comes out, or an error does.

A home's test module derives a class from :class:`Behaviour` and has the fixtures ``store``, ``held`` (lists
all that the store keeps, also what is half done) and ``damage`` (gives a key other bytes, past the store).
"""

import errno
import hashlib
import io
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import (
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from emboflow_dagster.object_storage.pump import BUFFER_BYTES, BUFFERS

TYPE = "application/octet-stream"
RING = BUFFER_BYTES * BUFFERS
MIB = 1 << 20
SIZES = [0, 1, 4095, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1]
SIZES += [RING, RING + BUFFER_BYTES + 17]


def content(size: int) -> bytes:
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // 32 + 1))[:size]


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


# One store a test, made by a fixture; the same tests for several kinds of stores.
UNFIT = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]


class Behaviour:
    """The tests of all homes."""

    @pytest.mark.parametrize("size", SIZES)
    def test_every_length_comes_back_the_same(self, store, held, tmp_path, size):
        payload = content(size)
        digest = hashlib.sha256(payload).hexdigest()
        recording = tmp_path / "recording"
        recording.write_bytes(payload)

        stored = store.put(recording, content_type=TYPE)

        assert (stored.sha256, stored.size, stored.bucket) == (digest, size, store.bucket)
        assert stored.key == f"sha256/{digest[:2]}/{digest[2:]}"
        assert store.read_all(stored.key, sha256=digest, size=size) == payload
        copy = store.get_to(stored.key, tmp_path / "out" / "copy", sha256=digest, size=size)
        assert copy.read_bytes() == payload
        assert [path.name for path in copy.parent.iterdir()] == ["copy"]
        assert len(held()) == 1

    @pytest.mark.parametrize("size", [0, 10, BUFFER_BYTES + 5])
    def test_every_kind_of_source_is_the_same_payload(self, store, held, tmp_path, size):
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
        assert len(held()) == 1

    def test_a_stream_is_read_from_where_it_is_and_left_open(self, store):
        stream = io.BytesIO(b"headerpayload")
        stream.seek(6)

        stored = store.put(stream, content_type=TYPE)

        assert stored.sha256 == hashlib.sha256(b"payload").hexdigest()
        assert not stream.closed

    @settings(max_examples=40, deadline=None, suppress_health_check=UNFIT)
    @given(st.lists(st.binary(max_size=3_000), max_size=30), st.integers(1, 5_000))
    def test_any_chunking_of_any_bytes_round_trips(self, store, chunks, step):
        payload = b"".join(chunks)

        stored = store.put(iter(chunks), content_type=TYPE)

        assert stored.sha256 == hashlib.sha256(payload).hexdigest()
        with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
            assert b"".join(iter(lambda: stream.read(step), b"")) == payload
            assert stream.verified

    @settings(max_examples=40, deadline=None, suppress_health_check=UNFIT)
    @given(
        st.binary(min_size=1, max_size=5_000),
        st.data(),
        st.sampled_from(["flip", "truncate", "append", "empty"]),
        st.integers(1, 6_000),
    )
    def test_damage_is_never_read(self, store, damage, tmp_path, payload, data, kind, step):
        stored = store.put(payload, content_type=TYPE)
        where = data.draw(st.integers(0, len(payload) - 1))
        broken = {
            "flip": payload[:where] + bytes([payload[where] ^ 1]) + payload[where + 1 :],
            "truncate": payload[:where],
            "append": payload + b"x",
            "empty": b"",
        }[kind]
        damage(stored.key, broken)
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
        damage(stored.key, payload)

    def test_a_reader_of_exactly_the_size_is_told_before_the_last_byte(self, store, damage):
        """Whoever knows the length never sees an end of file, and must be told all the same."""
        payload = content(3 * BUFFER_BYTES)
        stored = store.put(payload, content_type=TYPE)
        damage(stored.key, b"X" + payload[1:])

        with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
            stream.read(1 << 20)
            with pytest.raises(IntegrityError):
                stream.read(stored.size - (1 << 20))

    def test_only_a_whole_read_claims_to_be_verified(self, store):
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

    def test_lines_can_be_read(self, store):
        stored = store.put(b"one\ntwo\nthree", content_type="text/plain")
        with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
            assert [line.rstrip() for line in stream] == [b"one", b"two", b"three"]

    def test_a_missing_payload_is_an_integrity_error(self, store, tmp_path):
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

    def test_a_payload_of_the_wrong_size_is_healed_by_the_next_put(self, store, damage):
        stored = store.put(b"content", content_type=TYPE)
        damage(stored.key, b"cont")

        store.put(b"content", content_type=TYPE)

        assert store.read_all(stored.key, sha256=stored.sha256, size=7) == b"content"

    def test_sixteen_putters_of_the_same_and_of_other_payloads(self, store, held):
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
        assert len(held()) == 4

    def test_a_source_that_fails_leaves_nothing_and_keeps_its_own_error(self, store, held):
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

        assert held() == []

    @pytest.mark.parametrize("size", [10, RING + 10])
    def test_a_failure_of_the_source_is_not_blamed_on_the_store(self, store, held, size):
        def reset():
            yield content(size)
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

        with pytest.raises(ConnectionResetError) as caught:
            store.put(reset(), content_type=TYPE)
        assert not isinstance(caught.value, UnavailableError)
        assert held() == []

    @pytest.mark.parametrize("source", ["text", io.StringIO("text"), ["text"], [1], 5, None, {"a": 1}])
    def test_what_is_no_payload_is_refused(self, store, held, source):
        with pytest.raises((InvalidInputError, TypeError)):
            store.put(source, content_type=TYPE)
        assert held() == []

    def test_what_is_no_file_is_refused(self, store, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path, tmp_path / "none", tmp_path / "fifo"):
            with pytest.raises(InvalidInputError) as caught:
                store.put(path, content_type=TYPE)
            assert caught.value.kind == ErrorKind.FILE_UNREADABLE

    @pytest.mark.parametrize(
        "key", ["/etc/passwd", "../x", "sha256/../../x", "", "a//b", "a/./b", "x" * 1025, "a\0b", "a\\b"]
    )
    def test_a_key_cannot_leave_the_store(self, store, tmp_path, key):
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

    def test_keys_are_listed_in_order_and_by_prefix(self, store):
        keys = sorted(store.put(content(size), content_type=TYPE).key for size in range(1, 40))

        assert list(store.iter_keys()) == keys
        shard = keys[0][: len("sha256/ab/")]
        for prefix in ("sha256/", shard, shard[:-2], keys[3], "sha", "other"):
            assert list(store.iter_keys(prefix)) == [key for key in keys if key.startswith(prefix)]
