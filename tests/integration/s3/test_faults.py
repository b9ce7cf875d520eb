"""S3 behind a network that fails: every fault ends in the right bytes, or in an error that says why."""

import hashlib
import io
import os
import time
from itertools import product
from pathlib import Path

import pytest

from emboflow_dagster.errors import (
    ConfigurationError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    UnavailableError,
)
from emboflow_dagster.object_storage import s3_read
from emboflow_dagster.object_storage.s3_bucket import metadata_of
from emboflow_dagster.object_storage.s3_source import PART_BYTES
from tests.integration.s3.proxy import Fault, flipped
from tests.integration.s3.server import client_at

TYPE = "application/octet-stream"
SMALL = os.urandom(300_000)
LONG = os.urandom(PART_BYTES + 1_234_567)
#: All combinations, or each fault once.
ALL = os.environ.get("EMBOFLOW_FAULTS") == "all"
real_sleep = time.sleep


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Between attempts; they grow to seconds otherwise."""
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(min(seconds, 0.02)))


@pytest.fixture
def stored(store):
    return store.put(SMALL, content_type=TYPE)


def in_steps(store, put, _path):
    with store.open(put.key, sha256=put.sha256, size=put.size) as stream:
        return b"".join(iter(lambda: stream.read(70_001), b""))


READERS = {
    "stream": in_steps,
    "read_all": lambda store, put, path: store.read_all(put.key, sha256=put.sha256, size=put.size),
    "get_to": lambda store, put, path: store.get_to(
        put.key, path, sha256=put.sha256, size=put.size
    ).read_bytes(),
}


def reader(name, folder):
    return lambda store, put: READERS[name](store, put, folder / "copy")


READ_FAULTS = {
    "503": lambda proxy: proxy.answers("GetObject", 503, "SlowDown", times=2),
    "500": lambda proxy: proxy.answers("GetObject", 500, "InternalError", times=2),
    "cut": lambda proxy: proxy.cuts("GetObject"),
    "broken off at the start": lambda proxy: proxy.breaks_off("GetObject", 0),
    "broken off three times": lambda proxy: proxy.breaks_off("GetObject", 99_999, times=3),
    "stalled": lambda proxy: proxy.breaks_off("GetObject", 200_000, stall_s=3),
    "flipped": lambda proxy: proxy.flips_the_reply("GetObject", 123_456),
    "flipped at the end": lambda proxy: proxy.flips_the_reply("GetObject", -1),
}


def each_or_all(faults, *others):
    """Every combination; in the short version as many as hold every value once."""
    rows = list(product(faults, *others))
    if ALL:
        return rows
    longest = max(len(faults), *(len(other) for other in others))
    columns = [list(faults), *(list(other) for other in others)]
    return [tuple(column[n % len(column)] for column in columns) for n in range(longest)]


@pytest.mark.parametrize(("fault", "name", "size"), each_or_all(READ_FAULTS, READERS, ["small", "long"]))
def test_a_read_gives_the_right_bytes_through_every_fault(store, behind, proxy, tmp_path, fault, name, size):
    payload = SMALL if size == "small" else LONG
    stored = store.put(payload, content_type=TYPE)
    read = reader(name, tmp_path)
    READ_FAULTS[fault](proxy)
    store = behind(read_timeout=1)

    if (fault, name) == ("flipped", "stream") and len(payload) > s3_read.BUFFER_BYTES:
        # The flipped bit had been handed out before the last bytes were read: no stream can take it back.
        with pytest.raises(UnavailableError, match="arrived altered; what is stored is right"):
            read(store, stored)

    assert read(store, stored) == payload


@pytest.mark.parametrize("at", [123_456, -1])
def test_the_same_flip_is_read_as_if_it_were_right_without_the_hash(bucket, proxy, store, at):
    """The positive control: the plain client hands out the wrong bytes and says nothing."""
    stored = store.put(SMALL, content_type=TYPE)
    proxy.flips_the_reply("GetObject", at)
    plain = client_at(proxy.url)

    found = plain.get_object(Bucket=bucket, Key=f"team/emboflow/{stored.key}")["Body"].read()

    assert found != SMALL
    assert len(found) == len(SMALL)


def test_the_same_break_is_an_error_without_going_on(bucket, proxy, stored):
    """The positive control: the plain client repeats no answer that it has begun to read."""
    proxy.breaks_off("GetObject", 99_999)
    plain = client_at(proxy.url)

    with pytest.raises(Exception, match=r"IncompleteRead|broken|ended"):
        plain.get_object(Bucket=bucket, Key=f"team/emboflow/{stored.key}")["Body"].read()


def test_a_stream_goes_on_where_it_broke_off(behind, proxy, store):
    stored = store.put(LONG, content_type=TYPE)
    proxy.breaks_off("GetObject", 3_000_000)
    through = behind()

    with through.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
        found = b"".join(iter(lambda: stream.read(1 << 20), b""))
        assert stream.verified

    assert found == LONG
    assert proxy.count("GetObject") == 2


def test_a_flipped_bit_that_was_handed_out_is_an_error_that_clears_the_store(store, behind, proxy):
    stored = store.put(LONG, content_type=TYPE)
    proxy.flips_the_reply("GetObject", 5)

    with pytest.raises(UnavailableError, match="arrived altered; what is stored is right"):
        in_steps(behind(), stored, None)


@pytest.mark.parametrize("name", ["read_all", "get_to"])
def test_a_flipped_bit_that_was_not_handed_out_is_read_again(store, behind, proxy, tmp_path, name):
    stored = store.put(LONG, content_type=TYPE)
    proxy.flips_the_reply("GetObject", 5)

    assert READERS[name](behind(), stored, tmp_path / "copy") == LONG


@pytest.mark.parametrize("name", READERS)
def test_a_payload_that_is_wrong_every_time_is_refused_with_both_digests(
    behind, proxy, stored, tmp_path, name
):
    proxy.flips_the_reply("GetObject", 1_000, times=99)
    found = hashlib.sha256(flipped(SMALL, 1_000)).hexdigest()

    with pytest.raises(IntegrityError, match=found) as caught:
        READERS[name](behind(), stored, tmp_path / "copy")

    assert caught.value.kind == ErrorKind.HASH_MISMATCH
    assert stored.sha256 in caught.value.message
    assert stored.key in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", READERS)
def test_an_answer_that_is_shortened_once_is_asked_for_again(behind, proxy, stored, tmp_path, name):
    proxy.shortens("GetObject", 1_000)

    assert READERS[name](behind(), stored, tmp_path / "copy") == SMALL


@pytest.mark.parametrize("name", READERS)
def test_a_reader_that_is_never_served_gives_up(behind, proxy, stored, tmp_path, name):
    proxy.breaks_off("GetObject", 10, times=99)

    with pytest.raises(UnavailableError, match="broke off again and again"):
        READERS[name](behind(), stored, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("operation", ["GetObject", "HeadObject", "PutObject", "ListObjects"])
def test_a_store_that_is_down_is_unavailable_and_named(behind, proxy, store, bucket, operation):
    stored = store.put(b"there", content_type=TYPE)
    proxy.answers(operation, 503, "SlowDown", times=99)
    down = behind(attempts=2)
    calls = {
        "GetObject": lambda: down.read_all(stored.key, sha256=stored.sha256, size=stored.size),
        "HeadObject": lambda: down.stat(stored.key),
        "PutObject": lambda: down.put(b"new", content_type=TYPE),
        "ListObjects": lambda: list(down.iter_keys()),
    }

    with pytest.raises(UnavailableError, match=f"bucket {bucket}") as caught:
        calls[operation]()

    assert caught.value.kind == ErrorKind.UNAVAILABLE


# ------------------------------------------------------------------------------------------------ put

WRITE_FAULTS = {
    "503": lambda proxy, what: proxy.answers(what, 503, "SlowDown", times=2),
    "500": lambda proxy, what: proxy.answers(what, 500, "InternalError", times=2),
    "cut": lambda proxy, what: proxy.cuts(what, times=2),
    "reply lost": lambda proxy, what: proxy.loses_the_reply(what),
    "stalled": lambda proxy, what: proxy.breaks_off(what, 0, stall_s=3),
}
LONG_STEPS = (
    "HeadObject",
    "ListMultipartUploads",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
)


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_a_small_put_arrives_once_through_every_fault(s3_server, bucket, behind, proxy, fault):
    WRITE_FAULTS[fault](proxy, "PutObject")

    stored = behind(read_timeout=1).put(SMALL, content_type=TYPE)

    assert s3_server.objects(bucket) == [f"team/emboflow/{stored.key}"]
    assert (
        s3_server.client.get_object(Bucket=bucket, Key=s3_server.objects(bucket)[0])["Body"].read() == SMALL
    )


def test_the_lost_reply_of_a_conditional_put_is_a_failure_for_who_does_not_look(bucket, proxy):
    """The positive control: repeated, the put is told that the object is there, and that is all."""
    from botocore.exceptions import ClientError

    proxy.loses_the_reply("PutObject")
    plain = client_at(proxy.url)

    with pytest.raises(ClientError, match="PreconditionFailed"):
        plain.put_object(Bucket=bucket, Key="x", Body=SMALL, IfNoneMatch="*")


@pytest.mark.parametrize(("step", "fault"), each_or_all(LONG_STEPS, ["503", "cut", "reply lost"]))
def test_a_long_put_arrives_once_through_every_fault_of_every_step(
    s3_server, bucket, behind, proxy, step, fault
):
    WRITE_FAULTS[fault](proxy, step)

    stored = behind(read_timeout=2).put(io.BytesIO(LONG), content_type=TYPE)

    assert s3_server.objects(bucket) == [f"team/emboflow/{stored.key}"]
    found = s3_server.client.get_object(Bucket=bucket, Key=s3_server.objects(bucket)[0])
    assert found["Body"].read() == LONG
    assert metadata_of(found) == {"sha256": hashlib.sha256(LONG).hexdigest()}
    abandoned = fault == "reply lost" and step == "CreateMultipartUpload"  # nobody knows its name: gc ends it
    assert len(s3_server.uploads(bucket)) == (1 if abandoned else 0)


@pytest.mark.parametrize("payload", [SMALL, LONG], ids=["small", "long"])
def test_what_arrives_altered_is_refused_by_the_server_and_sent_again(
    s3_server, bucket, behind, proxy, payload
):
    step = "PutObject" if payload is SMALL else "UploadPart"
    proxy.flips_the_request(step, 777, times=2)

    stored = behind().put(payload, content_type=TYPE)

    assert proxy.refused == [step, step]
    assert stored.sha256 == hashlib.sha256(payload).hexdigest()
    [name] = s3_server.objects(bucket)
    assert s3_server.client.get_object(Bucket=bucket, Key=name)["Body"].read() == payload


def test_an_upload_that_somebody_aborts_meanwhile_is_begun_anew(s3_server, bucket, behind, proxy):
    def abort(_exchange: object) -> None:
        for key, upload_id in s3_server.uploads(bucket):
            s3_server.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)

    proxy.faults.append(Fault("CompleteMultipartUpload", before=abort))

    stored = behind().put(LONG, content_type=TYPE)

    assert s3_server.held(bucket) == [f"team/emboflow/{stored.key}"]
    assert proxy.count("CreateMultipartUpload") == 2


def test_what_cannot_be_gone_on_with_is_aborted(s3_server, bucket, behind, proxy):
    proxy.answers("UploadPart", 403, "AccessDenied", skip=1, times=9)

    with pytest.raises(ConfigurationError, match="AccessDenied") as caught:
        behind().put(LONG, content_type=TYPE)

    assert caught.value.kind == ErrorKind.STORE_REFUSED
    assert s3_server.held(bucket) == []


def test_a_source_that_changes_meanwhile_is_refused_and_nothing_is_there(
    s3_server, bucket, behind, proxy, tmp_path
):
    source: Path = tmp_path / "recording"
    source.write_bytes(LONG)

    def change(_exchange: object) -> None:
        with source.open("r+b") as file:
            file.seek(PART_BYTES + 5)
            file.write(b"changed")

    proxy.faults.append(Fault("CreateMultipartUpload", before=change))

    with pytest.raises(InvalidInputError, match="changed while it was stored"):
        behind().put(source, content_type=TYPE)

    assert s3_server.held(bucket) == []
