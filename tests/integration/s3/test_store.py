"""A bucket of payloads: what every home does, and what only a bucket can get wrong."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.object_storage import S3ObjectStore, open_store, s3_copy
from emboflow_dagster.object_storage.payload import StaleUpload
from emboflow_dagster.object_storage.s3_bucket import metadata_of
from emboflow_dagster.object_storage.s3_source import PART_BYTES
from tests.integration.s3.conftest import PREFIX
from tests.integration.s3.server import CREDENTIALS, ENDPOINT, client_at
from tests.store_behaviour import TYPE, Behaviour, content

#: The long version.
ALL = os.environ.get("EMBOFLOW_FAULTS") == "all"


@pytest.fixture
def held(s3_server, bucket):
    return lambda: s3_server.held(bucket)


@pytest.fixture
def damage(s3_server, bucket):
    def change(key: str, payload: bytes) -> None:
        name = f"{PREFIX}/{key}"
        metadata = s3_server.client.head_object(Bucket=bucket, Key=name)["Metadata"]
        s3_server.client.put_object(Bucket=bucket, Key=name, Body=payload, Metadata=metadata)

    return change


class TestBucket(Behaviour):
    """What every home does."""


def test_an_object_says_what_it_is(s3_server, bucket, store):
    for payload in (b"small", content(PART_BYTES + 1)):
        stored = store.put(payload, content_type="text/csv")
        head = s3_server.client.head_object(Bucket=bucket, Key=f"{PREFIX}/{stored.key}")

        assert head["ContentType"] == "text/csv"
        assert metadata_of(head) == {"sha256": hashlib.sha256(payload).hexdigest()}


@pytest.mark.parametrize("prefix", ["", "a", "a/b c"])
def test_the_uri_says_where_it_is_and_fits_a_reference(s3_server, bucket, prefix):
    store = open_store(f"s3://{bucket}/{prefix}")
    stored = store.put(b"x", content_type=TYPE)

    assert stored.bucket == bucket
    assert stored.uri == store.uri_of(stored.key)
    assert store.path_of(stored.key) is None
    assert s3_server.objects(bucket) == [f"{prefix}/{stored.key}".lstrip("/")]
    StorageRef(
        bucket=stored.bucket,
        key=stored.key,
        uri=stored.uri,
        checksum=f"sha256:{stored.sha256}",
        content_type=TYPE,
        size=stored.size,
    )


def test_what_is_there_is_not_sent_again(behind, proxy):
    store = behind()
    for payload in (b"small", content(PART_BYTES + 1)):
        first = store.put(payload, content_type=TYPE)
        seen = len(proxy.seen)
        assert store.put(io.BytesIO(payload), content_type=TYPE) == first
        again = proxy.seen[seen:]

        # A small one is sent on the condition that it is not there: one request in the usual case.
        assert again == (["PutObject", "HeadObject"] if payload == b"small" else ["HeadObject"])


def test_a_new_small_payload_costs_one_request(behind, proxy):
    store = behind()
    store.put(b"small", content_type=TYPE)

    assert proxy.seen == ["PutObject"]


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
@pytest.mark.parametrize("in_ranges", [False, True])
def test_what_is_there_for_long_counts_as_put_now(s3_server, bucket, store, monkeypatch, size, in_ranges):
    payload = content(size)
    stored = store.put(payload, content_type="text/csv")
    name = f"{PREFIX}/{stored.key}"
    before = s3_server.client.head_object(Bucket=bucket, Key=name)
    monkeypatch.setattr(s3_copy, "FRESH", timedelta(seconds=-10))
    if in_ranges:
        monkeypatch.setattr(s3_copy, "MAX_COPY_BYTES", 0)
        monkeypatch.setattr(s3_copy, "RANGE_BYTES", 6 << 20)
    while datetime.now(UTC) - before["LastModified"] < timedelta(seconds=1.1):
        time.sleep(0.1)  # times are told in seconds

    store.put(payload, content_type=TYPE)
    after = s3_server.client.head_object(Bucket=bucket, Key=name)

    assert after["LastModified"] > before["LastModified"]
    assert after["Metadata"] == before["Metadata"]
    assert after["ContentType"] == "text/csv"
    assert store.read_all(stored.key, sha256=stored.sha256, size=size) == payload
    assert s3_server.held(bucket) == [name]


def test_a_young_object_is_left_as_it_is(behind, proxy):
    store = behind()
    store.put(b"same", content_type=TYPE)
    store.put(b"same", content_type=TYPE)

    assert proxy.count("CopyObject") == 0


def test_an_object_that_goes_while_it_is_put_again_is_there_afterwards(
    s3_server, bucket, behind, proxy, monkeypatch
):
    from tests.integration.s3.proxy import Fault

    store = behind()
    stored = store.put(b"same", content_type=TYPE)
    monkeypatch.setattr(s3_copy, "FRESH", timedelta(seconds=-10))

    def delete(_exchange: object) -> None:
        s3_server.client.delete_object(Bucket=bucket, Key=f"{PREFIX}/{stored.key}")

    proxy.faults.append(Fault("CopyObject", before=delete))
    store.put(b"same", content_type=TYPE)

    assert store.exists(stored.key)


def test_what_was_put_there_by_other_means_is_replaced_by_the_good_copy(s3_server, bucket, store):
    stored = store.put(b"content", content_type=TYPE)
    name = f"{PREFIX}/{stored.key}"
    s3_server.client.put_object(Bucket=bucket, Key=name, Body=b"CONTENT")  # the same size, nothing said

    store.put(b"content", content_type=TYPE)

    assert store.read_all(stored.key, sha256=stored.sha256, size=7) == b"content"


def test_a_server_without_conditions_is_served_without(behind, proxy):
    proxy.answers("PutObject", 501, "NotImplemented")
    store = behind()

    stored = store.put(b"one", content_type=TYPE)
    store.put(b"two", content_type=TYPE)

    assert store.exists(stored.key)
    assert proxy.count("PutObject") == 3


def test_other_objects_of_the_prefix_are_no_keys(s3_server, bucket, store):
    stored = store.put(b"x", content_type=TYPE)
    for name in (f"{PREFIX}/sha256/", f"{PREFIX}/sha256/README", f"{PREFIX}/other", "sha256/aa/x"):
        s3_server.client.put_object(Bucket=bucket, Key=name, Body=b"")

    assert list(store.iter_keys()) == [stored.key]


def test_more_keys_than_a_page_are_listed_in_order(s3_server, bucket, store, monkeypatch):
    names = [f"sha256/{number // 16:02x}/{number:062x}" for number in range(40)]
    monkeypatch.setattr(
        "emboflow_dagster.object_storage.s3_bucket.Bucket.ask", _small_pages(store._s3.ask, 7)
    )
    for name in names:
        s3_server.client.put_object(Bucket=bucket, Key=f"{PREFIX}/{name}", Body=b"")

    assert list(store.iter_keys()) == names
    assert list(store.iter_keys("sha256/01")) == [n for n in names if n.startswith("sha256/01")]


def _small_pages(ask, most):
    def asked(_self, operation, **arguments):
        if operation == "list_objects_v2":
            arguments["MaxKeys"] = most
        return ask(operation, **arguments)

    return asked


def test_stale_uploads_are_found_by_their_last_part_and_ended(s3_server, bucket, store):
    """moto dates every upload 2010: one with a part of today is not stale, one without is. Others: today."""
    key = f"sha256/ab/{'c' * 62}"
    name = f"{PREFIX}/{key}"
    quiet, busy = (
        s3_server.client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"] for _ in range(2)
    )
    s3_server.client.upload_part(Bucket=bucket, Key=name, UploadId=busy, PartNumber=1, Body=b"part")
    s3_server.client.create_multipart_upload(Bucket=bucket, Key="others/upload")

    stale = store.stale_uploads(older_than_s=3600)
    both = store.stale_uploads(older_than_s=-10)

    old = [(key, 0, quiet)] if ENDPOINT is None else []
    assert [(found.name, found.size, found.upload_id) for found in stale] == old
    assert all(found.started_at.tzinfo is UTC for found in both)
    assert sorted(found.size for found in both) == [0, 4]
    for found in both:
        store.abort_upload(found)
        store.abort_upload(found)
    assert store.stale_uploads(older_than_s=-10) == []
    assert s3_server.held(bucket) == ["upload of others/upload"]


def test_an_upload_that_ended_is_ended_without_an_error(store):
    store.abort_upload(StaleUpload(f"sha256/ab/{'c' * 62}", datetime.now(UTC), None, "gone"))


def test_a_missing_bucket_is_refused_by_name_whatever_is_asked(bucket, tmp_path):
    store = open_store("s3://not-there/x")
    key = f"sha256/ab/{'c' * 62}"
    for ask in (
        lambda: store.put(b"x", content_type=TYPE),
        lambda: store.put(content(PART_BYTES + 1), content_type=TYPE),
        lambda: store.exists(key),
        lambda: store.stat(key),
        lambda: list(store.iter_keys()),
        lambda: store.delete(key),
        store.stale_uploads,
        store.check,
    ):
        with pytest.raises(ConfigurationError, match="bucket not-there") as caught:
            ask()
        assert caught.value.kind == ErrorKind.STORE_REFUSED
        assert "make the bucket" in (caught.value.hint or "")


def test_no_credentials_are_named_and_none_are_ever_shown(s3_server, bucket, monkeypatch, behind, proxy):
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    store = open_store(f"s3://{bucket}/x")

    with pytest.raises(ConfigurationError, match="no complete AWS credentials"):
        store.put(b"x", content_type=TYPE)

    proxy.answers("PutObject", 403, "SignatureDoesNotMatch", times=9)
    with pytest.raises(ConfigurationError, match="SignatureDoesNotMatch") as caught:
        behind().put(b"x", content_type=TYPE)
    told = f"{caught.value!r} {caught.value.hint} {store!r} {vars(store)!r}"
    assert not any(secret in told for secret in CREDENTIALS.values())


FORK = """
import os, sys
from emboflow_dagster.object_storage import open_store
store = open_store(sys.argv[1])
parent = store.put(b"parent", content_type="a/b")
child = os.fork()
fine = store.read_all(parent.key, sha256=parent.sha256, size=6) == b"parent"
store.put(b"child" if child == 0 else b"after", content_type="a/b")
os._exit(0 if fine and (child == 0 or os.waitpid(child, 0)[1] == 0) else 1)
"""


def test_a_forked_child_has_a_client_of_its_own(s3_server, bucket, store):
    done = subprocess.run(
        [sys.executable, "-c", FORK, store.url], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert len(s3_server.objects(bucket)) == 3


def test_six_threads_that_put_one_long_payload_leave_one(s3_server, bucket, store):
    payload = content(PART_BYTES + 100)

    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(lambda _: store.put(payload, content_type=TYPE), range(6)))

    assert len(set(stored)) == 1
    [name] = s3_server.objects(bucket)
    assert s3_server.client.get_object(Bucket=bucket, Key=name)["Body"].read() == payload


MEMORY = """
import os, sys
from pathlib import Path
from emboflow_dagster.object_storage import open_store

def resident(field):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) << 10

store, folder, size = open_store(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
kept = store.put(b"warm", content_type="a/b")
store.read_all(kept.key, sha256=kept.sha256, size=kept.size)
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
block = os.urandom(1 << 20)
stored = store.put((block for _ in range(size >> 20)), content_type="a/b")
store.get_to(stored.key, folder / "copy", sha256=stored.sha256, size=stored.size)
store.put(folder / "copy", content_type="a/b")
store.delete(stored.key)
store.put(folder / "copy", content_type="a/b")
with store.open(stored.key, sha256=stored.sha256, size=stored.size) as stream:
    while stream.read(1 << 20):
        pass
print((resident("VmHWM") - before) >> 20, stored.size)
"""


def test_memory_does_not_grow_with_the_payload_in_a_bucket(bucket, store, tmp_path):
    size = (300 if ALL else 96) << 20
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, store.url, str(tmp_path), str(size)],
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    grown, stored = map(int, done.stdout.split())
    assert stored == size
    assert grown < 64


def test_what_a_client_of_aws_checks_by_is_kept_with_the_object(s3_server, bucket, store, monkeypatch):
    """On AWS a sha256 goes with each part and is named again at the end; moto keeps it likewise."""
    from emboflow_dagster.object_storage.s3_checksum import SHA256

    monkeypatch.setattr(store, "_checksum", lambda: SHA256)
    for payload in (b"small", content(2 * PART_BYTES + 1)):
        stored = store.put(payload, content_type=TYPE)
        assert store.read_all(stored.key, sha256=stored.sha256, size=stored.size) == payload


def test_a_client_that_checks_by_itself_is_used_as_it_is(s3_server, bucket):
    """dagster-aws's S3Resource: the client's default is to add its own checksums, and to check them."""
    from dagster_aws.s3 import S3Resource

    resource = S3Resource(endpoint_url=s3_server.url, region_name="us-east-1")
    store = S3ObjectStore(bucket, "x", client=resource.get_client)
    for payload in (b"", b"small", content(PART_BYTES + 1)):
        stored = store.put(payload, content_type=TYPE)
        assert store.read_all(stored.key, sha256=stored.sha256, size=stored.size) == payload


def test_an_error_of_the_store_crosses_processes(bucket):
    with pytest.raises(ConfigurationError) as caught:
        S3ObjectStore("not-there", client=lambda: client_at("http://example.org")).check()
    assert pickle.loads(pickle.dumps(caught.value)).kind == ErrorKind.STORE_REFUSED  # noqa: S301  our own
    assert "plain http to example.org" in caught.value.message
