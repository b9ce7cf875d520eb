"""What servers of S3's protocol do differently: each by a proxy that answers as one of them was seen to.

MinIO and rclone write metadata in capitals. Ceph and Swift say of an upload that has ended that there is no
such object. rclone says of an empty list of uploads that there is no such upload, and looks at no condition.
"""

import hashlib
import io
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from emboflow_dagster.errors import ConfigurationError, ErrorKind, IntegrityError
from emboflow_dagster.object_storage import S3ObjectStore, s3_copy
from emboflow_dagster.object_storage.payload import StaleUpload, key_of
from emboflow_dagster.object_storage.prefix import Prefix
from emboflow_dagster.object_storage.s3_deliver import deliver_file
from emboflow_dagster.object_storage.s3_source import PART_BYTES
from tests.integration.s3.conftest import PREFIX
from tests.integration.s3.proxy import Exchange, Fault
from tests.integration.s3.server import BUCKET, CREDENTIALS, ENDPOINT, client_at
from tests.store_behaviour import TYPE, content

ALWAYS = 10**6
KEY = f"sha256/ab/{'c' * 62}"


def capitals(exchange: Exchange) -> None:
    prefix = "x-amz-meta-"
    exchange.reply_headers = [
        (f"X-Amz-Meta-{name[len(prefix) :].title()}" if name.lower().startswith(prefix) else name, value)
        for name, value in exchange.reply_headers
    ]


def test_metadata_in_capitals_is_the_same(s3_server, bucket, behind, proxy, tmp_path, monkeypatch):
    proxy.faults.append(Fault("HeadObject", times=ALWAYS, after=capitals))
    store, long = behind(), content(PART_BYTES + 1)
    for payload in (b"small", long):
        stored = store.put(payload, content_type=TYPE)
        assert store.put(io.BytesIO(payload), content_type=TYPE) == stored
    assert (proxy.count("CreateMultipartUpload"), proxy.count("UploadPart")) == (1, 2)

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    (tmp_path / "long").write_bytes(long)
    assert deliver_file(f"s3://{bucket}/to/long", tmp_path / "long")
    assert not deliver_file(f"s3://{bucket}/to/long", tmp_path / "long")


def test_an_upload_that_ended_may_be_called_a_missing_object(s3_server, bucket, behind, proxy):
    s3_server.client.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/{KEY}")
    proxy.answers("ListParts", 404, "NoSuchKey")
    proxy.answers("AbortMultipartUpload", 404, "NoSuchKey")

    assert behind().stale_uploads(older_than_s=-10) == []
    behind().abort_upload(StaleUpload(KEY, datetime.now(UTC), None, "gone"))

    assert proxy.seen[-1] == "AbortMultipartUpload"


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchUpload"), (501, "NotImplemented")])
def test_a_server_that_lists_no_uploads_is_served_without(behind, proxy, status, code):
    proxy.answers("ListMultipartUploads", status, code, times=ALWAYS)
    store, payload = behind(), content(PART_BYTES + 1)

    stored = store.put(payload, content_type=TYPE)

    assert store.read_all(stored.key, sha256=stored.sha256, size=stored.size) == payload
    assert store.stale_uploads() == []


def test_a_condition_that_nobody_looked_at_is_looked_at_here(s3_server, bucket, proxy, tmp_path):
    """In parts: the tag of the object is no MD5 that would tell the other bytes."""
    client = s3_server.client

    def put(filled: bytes) -> None:
        upload = {"Bucket": bucket, "Key": "lake/a.bin"}
        upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
        tag = client.upload_part(**upload, PartNumber=1, Body=filled * 1000)["ETag"]
        client.complete_multipart_upload(
            **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]}
        )

    put(b"a")
    # A real server would see that a signed header was removed: it is taken as it is.
    prefix = Prefix(
        f"s3://{bucket}/lake", client=lambda: client_at(proxy.url if ENDPOINT is None else s3_server.url)
    )
    [found] = prefix.objects()
    put(b"b")
    unconditional = Fault(
        "GetObject", times=2, before=lambda exchange: exchange.headers.pop("if-match", None)
    )
    proxy.faults.append(unconditional)

    with pytest.raises(IntegrityError, match="changed since it was listed") as caught:
        prefix.bring(found, tmp_path / "a.bin")

    assert caught.value.kind is ErrorKind.OBJECT_CHANGED


def test_an_upload_whose_parts_cannot_be_replaced_is_begun_anew(s3_server, bucket, behind, proxy):
    payload = content(PART_BYTES + 1)
    name = f"{PREFIX}/{key_of(hashlib.sha256(payload).hexdigest())}"
    upload = {"Bucket": bucket, "Key": name}
    upload["UploadId"] = s3_server.client.create_multipart_upload(**upload)["UploadId"]
    s3_server.client.upload_part(**upload, PartNumber=1, Body=b"X" * PART_BYTES)
    if ENDPOINT is None:
        proxy.answers("UploadPart", 501, "NotImplemented")

    stored = behind().put(payload, content_type=TYPE)

    assert behind().read_all(stored.key, sha256=stored.sha256, size=stored.size) == payload
    assert s3_server.held(bucket) == [name]


@pytest.mark.parametrize("in_ranges", [False, True])
def test_a_server_that_copies_nothing_is_sent_it_again(
    s3_server, bucket, behind, proxy, monkeypatch, in_ranges
):
    store, payload = behind(), content(PART_BYTES + 1)
    stored = store.put(payload, content_type=TYPE)
    monkeypatch.setattr(s3_copy, "FRESH", timedelta(seconds=-10))
    proxy.answers("CopyObject", 501, "NotImplemented")

    def answer(exchange: Exchange) -> None:  # rclone's
        exchange.status, exchange.reply = 200, b""

    proxy.faults.append(Fault("UploadPartCopy", before=answer))
    if in_ranges:
        monkeypatch.setattr(s3_copy, "MAX_COPY_BYTES", 0)

    assert store.put(payload, content_type=TYPE) == stored

    assert proxy.count("CreateMultipartUpload") == (3 if in_ranges else 2)
    assert s3_server.held(bucket) == [f"{PREFIX}/{stored.key}"]


def test_a_url_is_lent_with_the_signature_that_every_server_takes(bucket):
    query = parse_qs(urlsplit(Prefix(f"s3://{bucket}/lake").lend("a.bin")).query)

    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["3600"]


@pytest.mark.parametrize("operation", ["HeadBucket", "HeadObject"])
def test_a_refusal_without_a_reason_is_asked_for_one(behind, proxy, operation):
    proxy.answers(operation, 403, "")
    proxy.answers("ListObjects", 403, "RequestTimeTooSkewed")
    store = behind()

    with pytest.raises(ConfigurationError, match="RequestTimeTooSkewed") as caught:
        store.check() if operation == "HeadBucket" else store.exists(KEY)

    assert "clock" in str(caught.value.hint)


def test_https_to_a_server_without_it_is_no_matter_of_certificates(s3_server, bucket):
    if s3_server.url.startswith("https:"):
        pytest.skip("this one has it")
    store = S3ObjectStore(
        bucket, client=lambda: client_at(s3_server.url.replace("http:", "https:"), attempts=1)
    )

    with pytest.raises(ConfigurationError, match="speaks no TLS"):
        store.check()


# ------------------------------------------------------- what moto takes no notice of, and real servers do

real = pytest.mark.skipif(
    ENDPOINT is None, reason="moto knows no keys; `make test-s3` has a server that does"
)
OTHER = {
    "secret": ({"AWS_SECRET_ACCESS_KEY": "n0t-the-secret-of-it"}, "secret key|access key"),
    "key": ({"AWS_ACCESS_KEY_ID": "AKIANOTTHERE"}, "secret key|access key"),
    "clock": ({}, "clock"),
}


@real
@pytest.mark.parametrize("wrong", OTHER)
def test_what_is_wrong_with_a_request_is_said_whatever_is_asked(bucket, store, monkeypatch, wrong):
    from botocore import auth

    store.put(b"there", content_type=TYPE)
    environment, hint = OTHER[wrong]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    other = S3ObjectStore(bucket, PREFIX)
    now = auth.get_current_datetime
    late = timedelta(hours=3 if wrong == "clock" else 0)
    for ask in (
        other.check,
        lambda: other.put(b"x", content_type=TYPE),
        lambda: other.put(content(PART_BYTES + 1), content_type=TYPE),
        lambda: other.exists(KEY),
        lambda: list(other.iter_keys()),
        other.stale_uploads,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(auth, "get_current_datetime", lambda *a, **k: now(*a, **k) + late)
            with pytest.raises(ConfigurationError) as caught:
                ask()
        told = f"{caught.value.message} {caught.value.hint}"
        assert caught.value.kind is ErrorKind.STORE_REFUSED
        assert any(word in told for word in hint.split("|")), told
        assert "\n" not in told
        assert not any(secret in told for secret in (*CREDENTIALS.values(), *environment.values()))


@real
@pytest.mark.skipif(BUCKET is not None, reason="a thousand objects in a bucket that may cost money")
def test_a_page_is_a_thousand(s3_server, bucket, store):
    from concurrent.futures import ThreadPoolExecutor

    names = [f"sha256/{number // 16:02x}/{number:062x}" for number in range(1_005)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda name: s3_server.client.put_object(Bucket=bucket, Key=f"{PREFIX}/{name}", Body=b""),
                names,
            )
        )

    assert list(store.iter_keys()) == sorted(names)
    assert len(list(Prefix(f"s3://{bucket}/team").objects())) == 1_005


@pytest.mark.parametrize("name", ["ü/ñ 日本.txt", "sp ace/a+b.txt", "per%cent%20.txt", "q?x#y&z=.txt"])
def test_names_of_every_kind_are_listed_lent_and_brought(s3_server, bucket, tmp_path, name):
    from urllib.request import urlopen

    s3_server.client.put_object(Bucket=bucket, Key=f"lake/{name}", Body=b"content")
    s3_server.client.put_object(Bucket=bucket, Key="lake/empty", Body=b"")
    prefix = Prefix(f"s3://{bucket}/lake")
    found = {row.path: row for row in prefix.objects()}

    assert set(found) == {name, "empty"}
    for number, (path, row) in enumerate(found.items()):
        prefix.bring(row, tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == (b"" if path == "empty" else b"content")
    with urlopen(prefix.lend(name)) as reply:  # noqa: S310  http(s) by construction
        assert reply.read() == b"content"
