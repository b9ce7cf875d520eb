"""What a bucket's URL, endpoint and errors may be; no server is asked here."""

from types import SimpleNamespace

import pytest

from emboflow_dagster.errors import ConfigurationError, ErrorKind, UnavailableError
from emboflow_dagster.object_storage import S3ObjectStore, open_store
from emboflow_dagster.object_storage.pump import BUFFER_BYTES
from emboflow_dagster.object_storage.s3_bucket import default_client
from emboflow_dagster.object_storage.s3_checksum import MD5, SHA256, checksum_for
from emboflow_dagster.object_storage.s3_endpoint import check_endpoint
from emboflow_dagster.object_storage.s3_errors import error_of
from emboflow_dagster.object_storage.s3_source import MAX_PARTS, PART_BYTES, part_bytes_of

SECRET = "wJalrXUtnFEMI-s3cret"  # noqa: S105  nobody's


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://lake", "lake", ""),
        ("s3://lake/", "lake", ""),
        ("s3://lake.raw-1/a/b", "lake.raw-1", "a/b"),
        ("s3://lake/a b/", "lake", "a b"),
    ],
)
def test_a_url_names_a_bucket_and_a_prefix(url, bucket, prefix):
    store = open_store(url)

    assert isinstance(store, S3ObjectStore)
    assert (store.bucket, store.prefix) == (bucket, prefix)
    assert repr(store) == f"S3ObjectStore({store.url!r})"


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///key",
        "s3://Lake",
        "s3://192.168.1.1/x",
        "s3://la",
        f"s3://key:{SECRET}@lake/x",
        "s3://lake:9000/x",
        f"s3://lake/x?X-Amz-Signature={SECRET}",
        "s3://lake/x#y",
        "s3://lake/../x",
        "s3://lake//x",
        "s3://lake/a%2Fb",
        "s3://lake/a\\b",
        "s3://lake/a\0b",
        "s3://lake/" + "x" * 600,
        "s3://[lake/x",
    ],
)
def test_what_is_no_bucket_with_a_prefix_is_refused_with_the_remedy(url):
    with pytest.raises(ConfigurationError, match="EMBOFLOW_OBJECT_STORE") as caught:
        open_store(url)

    assert "s3://bucket/prefix" in (caught.value.hint or "")
    assert SECRET not in f"{caught.value!r}{caught.value.hint}"


def test_no_server_is_asked_before_the_first_payload():
    assert not open_store("s3://lake/x")._s3._made  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.eu-central-1.amazonaws.com",
        "https://minio.example.org:9000",
        "https://10.0.0.7:9000",
        "https://[fd12::7]:9000/",
        "http://127.0.0.1:9000",
        "http://127.8.8.8",
        "http://[::1]:9000",
        "http://[::ffff:127.0.0.1]",
        "http://localhost:4566",
    ],
)
def test_endpoints_by_https_or_on_this_machine_are_used(url):
    assert check_endpoint(url) in url


@pytest.mark.parametrize(
    "url",
    [
        "http://s3.example.com",
        "http://10.0.0.7:9000",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "file:///etc/passwd",
        "gopher://x:70/",
        "s3.example.com",
        "",
        "//s3.example.com",
        "javascript:alert(1)",
        "https://169.254.169.254",
        "http://169.254.170.2",
        "https://[fd00:ec2::254]",
        "https://[fe80::1]",
        "https://[::ffff:169.254.169.254]",
        "https://[2002:a9fe:a9fe::]",
        "https://metadata.google.internal",
        "https://metadata.google.internal.",
        "https://100.100.100.200",
        "https://[::]",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "https://255.255.255.255",
        "https://127.1",
        "https://2130706433",
        "https://0x7f.1",
        "https://256.1.1.1",
        f"https://a:{SECRET}@s3.example.com",
        "https://s3.example.com@evil.com",
        f"https://s3.example.com?x={SECRET}",
        "https://s3.example.com/#a",
        "https://",
        "https://:443",
        "https://a..b",
        "https://s3.example.com:99999",
        "https://s3.example.com\n",
        "https://a\0b",
        "\thttps://h.com",
        "https://\u0435xample.com",
    ],
)
def test_endpoints_that_are_none_or_not_safe_are_refused(url):
    with pytest.raises(ConfigurationError) as caught:
        check_endpoint(url)

    assert caught.value.kind == ErrorKind.STORE_REFUSED
    assert SECRET not in f"{caught.value!r}{caught.value.hint}"


def answered(code: str, status: int, message: str = f"see {SECRET}"):
    reply = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return failed("ClientError", error_response=reply, operation_name="PutObject")


def failed(name: str, **fields):
    """An exception of the S3 client, which is heavy to import, made when the test runs."""
    return SimpleNamespace(name=name, fields=fields)


def raised(error):
    from botocore import exceptions

    return getattr(exceptions, error.name)(**error.fields)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answered("SlowDown", 503), "SlowDown"),
        (answered("InternalError", 500), "InternalError"),
        (answered("429", 429), "429"),
        (answered("BadDigest", 400), "BadDigest"),
        (failed("EndpointConnectionError", endpoint_url=f"http://{SECRET}"), "EndpointConnectionError"),
        (failed("ReadTimeoutError", endpoint_url=f"http://{SECRET}"), "ReadTimeoutError"),
        (failed("ConnectionClosedError", endpoint_url=f"http://{SECRET}"), "ConnectionClosedError"),
    ],
)
def test_what_may_work_again_is_unavailable(error, words):
    found = error_of(raised(error), "lake", "s3.example.com")

    assert isinstance(found, UnavailableError)
    assert found.kind == ErrorKind.UNAVAILABLE
    assert words in found.message
    assert "lake" in found.message
    assert SECRET not in f"{found!r}{found.hint}"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (answered("AccessDenied", 403), "permission"),
        (answered("403", 403), "permission"),
        (answered("InvalidAccessKeyId", 403), "endpoint"),
        (answered("SignatureDoesNotMatch", 403), "secret key"),
        (answered("ExpiredToken", 400), "sign in"),
        (answered("NoSuchBucket", 404), "make the bucket"),
        (answered("404", 404), "make the bucket"),
        (answered("PermanentRedirect", 301), "region"),
        (answered("RequestTimeTooSkewed", 403), "clock"),
        (failed("NoCredentialsError"), "AWS_ACCESS_KEY_ID"),
        (failed("ProfileNotFound", profile=SECRET), "list-profiles"),
        (
            failed("SSLError", endpoint_url=f"http://{SECRET}", error="CERTIFICATE_VERIFY_FAILED"),
            "AWS_CA_BUNDLE",
        ),
        (
            failed("SSLError", endpoint_url=f"http://{SECRET}", error="WRONG_VERSION_NUMBER"),
            "is the port right",
        ),
        (failed("NoRegionError"), "AWS_REGION"),
    ],
)
def test_what_the_store_refuses_says_what_to_do(error, hint):
    found = error_of(raised(error), "lake", "s3.example.com")

    assert isinstance(found, ConfigurationError)
    assert found.kind == ErrorKind.STORE_REFUSED
    assert hint in (found.hint or "")
    assert SECRET not in f"{found!r}{found.hint}"


def test_a_lacking_permission_is_named():
    text = "User: arn:aws:iam::1:user/x is not authorized to perform: s3:PutObject on resource"
    found = error_of(raised(answered("AccessDenied", 403, text)), "lake", "s3.example.com")

    assert found is not None
    assert "AccessDenied to s3:PutObject" in found.message


def test_what_is_no_failure_of_s3_stays_what_it_is():
    assert error_of(ZeroDivisionError(), "lake", "s3.example.com") is None


@pytest.mark.parametrize(
    ("endpoint", "checksum"),
    [
        ("s3.amazonaws.com", SHA256),
        ("s3.eu-central-1.amazonaws.com:443", SHA256),
        ("s3.cn-north-1.amazonaws.com.cn", SHA256),
        ("s3.us-west-004.backblazeb2.com", MD5),
        ("amazonaws.com.example.org", MD5),
        ("127.0.0.1:9000", MD5),
    ],
)
def test_a_body_is_checked_by_what_its_server_checks(endpoint, checksum):
    assert checksum_for(endpoint) is checksum


@pytest.mark.parametrize("size", [1, 10 << 30, MAX_PARTS * PART_BYTES, MAX_PARTS * PART_BYTES + 1, 5 << 40])
def test_ten_thousand_parts_are_enough_for_every_size(size):
    part = part_bytes_of(size)

    assert -(-size // part) <= MAX_PARTS
    assert part % BUFFER_BYTES == 0
    assert part == PART_BYTES or size > MAX_PARTS * PART_BYTES


def test_who_looks_on_waits_for_seconds(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    patient, quick = default_client().meta.config, default_client(patient=False).meta.config

    assert quick.read_timeout * quick.retries["total_max_attempts"] <= 20 < patient.read_timeout
    assert patient.signature_version == quick.signature_version == "s3v4"
