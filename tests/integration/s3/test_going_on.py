"""A long put that is interrupted is gone on with: only what is missing is sent, and only to its like."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emboflow_dagster.errors import IntegrityError, UnavailableError
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.object_storage.s3_source import PART_BYTES, of_file
from tests.integration.s3.conftest import PREFIX
from tests.integration.s3.proxy import CutError, Fault, wait_until

TYPE = "application/octet-stream"
PARTS = 4
PUT = """
import sys
from pathlib import Path
from emboflow_dagster.object_storage import open_store
open_store(sys.argv[1]).put(Path(sys.argv[2]), content_type="application/octet-stream")
"""


@pytest.fixture
def recording(tmp_path) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(os.urandom((PARTS - 1) * PART_BYTES + 1000))
    return path


@pytest.fixture
def parts(recording, store):
    with recording.open("rb") as file:
        return of_file(file, store._checksum())


@pytest.fixture
def name(parts) -> str:
    return f"{PREFIX}/{key_of(parts.sha256)}"


def listed(server, bucket) -> dict[int, str]:
    """The parts that the server has of the one open upload."""
    [(key, upload_id)] = server.uploads(bucket)
    rows = server.client.list_parts(Bucket=bucket, Key=key, UploadId=upload_id).get("Parts", [])
    return {row["PartNumber"]: row["ETag"] for row in rows}


def test_a_killed_put_is_gone_on_with(s3_server, bucket, store, behind, proxy, recording, name):
    def kill(_exchange: object) -> None:
        wait_until(lambda: len(listed(s3_server, bucket)) >= 2)
        child.send_signal(signal.SIGKILL)
        child.wait()
        raise CutError

    proxy.faults.append(Fault("UploadPart", skip=PARTS - 1, before=kill))
    with subprocess.Popen(
        [sys.executable, "-c", PUT, store.url, str(recording)],
        env={**os.environ, "AWS_ENDPOINT_URL_S3": proxy.url},
    ) as child:
        assert child.wait() == -signal.SIGKILL
    wait_until(lambda: proxy.under_way == 0)
    there = len(listed(s3_server, bucket))
    assert s3_server.objects(bucket) == []
    assert 2 <= there < PARTS
    proxy.seen.clear()

    stored = behind().put(recording, content_type=TYPE)

    assert proxy.count("UploadPart") == PARTS - there
    assert proxy.count("CreateMultipartUpload") == 0
    assert s3_server.held(bucket) == [name]
    assert store.read_all(stored.key, sha256=stored.sha256, size=stored.size) == recording.read_bytes()


def test_a_put_whose_network_went_away_is_gone_on_with(
    s3_server, bucket, behind, proxy, recording, name, monkeypatch
):
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.02)))
    proxy.cuts("UploadPart", skip=2, times=99)
    with pytest.raises(UnavailableError):
        behind(attempts=2).put(recording, content_type=TYPE)
    proxy.faults.clear()
    proxy.seen.clear()
    there = len(listed(s3_server, bucket))

    behind().put(recording, content_type=TYPE)

    assert there == 2
    assert proxy.count("UploadPart") == PARTS - there
    assert s3_server.held(bucket) == [name]


def test_a_part_with_other_bytes_is_sent_again(
    s3_server, bucket, store, behind, proxy, recording, parts, name
):
    """Somebody began the upload from a source that changed while it was read."""
    right = recording.read_bytes()
    digest = parts.sha256
    upload = s3_server.client.create_multipart_upload(Bucket=bucket, Key=name, Metadata={"sha256": digest})
    for number, block in ((1, right[:PART_BYTES]), (2, b"X" * PART_BYTES)):
        s3_server.client.upload_part(
            Bucket=bucket, Key=name, UploadId=upload["UploadId"], PartNumber=number, Body=block
        )

    stored = behind().put(recording, content_type=TYPE)

    assert proxy.count("UploadPart") == PARTS - 1
    assert store.read_all(stored.key, sha256=digest, size=stored.size) == right


def test_the_same_upload_completed_by_who_does_not_look_is_wrong_and_found(
    s3_server, bucket, store, recording, parts, name
):
    """The positive control: parts taken as they are listed make an object of other bytes."""
    right = recording.read_bytes()
    client, size = s3_server.client, len(right)
    upload_id = client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
    blocks = [right[start : start + PART_BYTES] for start in range(0, size, PART_BYTES)]
    blocks[1] = b"X" * PART_BYTES
    for number, block in enumerate(blocks, 1):
        client.upload_part(Bucket=bucket, Key=name, UploadId=upload_id, PartNumber=number, Body=block)
    tags = [{"PartNumber": n, "ETag": tag} for n, tag in listed(s3_server, bucket).items()]
    client.complete_multipart_upload(
        Bucket=bucket, Key=name, UploadId=upload_id, MultipartUpload={"Parts": tags}
    )

    with pytest.raises(IntegrityError):
        store.read_all(key_of(parts.sha256), sha256=parts.sha256, size=size)


def test_an_upload_in_parts_of_another_size_is_not_joined(s3_server, bucket, store, recording, name, parts):
    right = recording.read_bytes()
    upload = s3_server.client.create_multipart_upload(Bucket=bucket, Key=name)
    s3_server.client.upload_part(
        Bucket=bucket, Key=name, UploadId=upload["UploadId"], PartNumber=1, Body=right[: 6 << 20]
    )

    stored = store.put(recording, content_type=TYPE)

    assert store.read_all(stored.key, sha256=parts.sha256, size=stored.size) == right
    assert s3_server.held(bucket) == [name, f"upload of {name}"]  # for gc to end
