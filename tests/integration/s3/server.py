"""A server of S3's protocol (moto) in a process of its own, and how tests look into it beside the store.

``EMBOFLOW_TEST_S3`` is the endpoint of another one that runs already (docs/object-store.md: `make test-s3`);
``EMBOFLOW_TEST_S3_KEY``, ``..._SECRET``, ``..._REGION``, ``..._STYLE`` (``path`` or ``virtual``) say how it
is reached. Tests make buckets there and remove them, or use ``..._BUCKET``: empty before, and after.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Self
from uuid import uuid4

#: Ends with whoever started it: its standard input is closed then.
PROGRAM = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
ENDPOINT = os.environ.get("EMBOFLOW_TEST_S3") or None
BUCKET = os.environ.get("EMBOFLOW_TEST_S3_BUCKET") or None
REGION = os.environ.get("EMBOFLOW_TEST_S3_REGION", "us-east-1")
STYLE = os.environ.get("EMBOFLOW_TEST_S3_STYLE", "path")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": os.environ.get("EMBOFLOW_TEST_S3_KEY", "AKIATESTTESTTESTTEST"),
    "AWS_SECRET_ACCESS_KEY": os.environ.get("EMBOFLOW_TEST_S3_SECRET", "s3cret-of-the-tests"),
}
ENVIRONMENT = {**CREDENTIALS, "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}


def client_at(url: str, *, read_timeout: float = 20, attempts: int = 4, **config: Any) -> Any:
    """A client of the server at ``url``, with none of the store's precautions but its number of attempts."""
    import boto3.session
    from botocore.config import Config

    made = Config(
        retries={"mode": "standard", "max_attempts": attempts},
        connect_timeout=5,
        read_timeout=read_timeout,
        max_pool_connections=16,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": STYLE},
        **config,
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=made,
    )


class Server:
    """The process; ``url`` is its endpoint."""

    def __init__(self) -> None:
        if ENDPOINT is not None:
            self._process = None
            self.url = ENDPOINT
            self.client = client_at(self.url)
            return
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.client = client_at(self.url)

    def close(self) -> None:
        """End it, where it was started here."""
        if self._process is None:
            self.client.close()
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def bucket(self, name: str = "lake") -> Iterator[str]:
        """An empty bucket: made and removed, or the one that is there to be tested in, emptied again."""
        bucket = BUCKET or f"{name}-{uuid4().hex[:12]}"
        if BUCKET:
            assert not self.held(bucket), (
                f"EMBOFLOW_TEST_S3_BUCKET={bucket}: it is not empty, nothing was done"
            )
        else:
            where = {} if REGION == "us-east-1" else {"LocationConstraint": REGION}
            how = {"CreateBucketConfiguration": where} if where else {}
            self.client.create_bucket(Bucket=bucket, **how)
        try:
            yield bucket
        finally:
            self.empty(bucket)
            if not BUCKET:
                self.client.delete_bucket(Bucket=bucket)

    def empty(self, bucket: str) -> None:
        """Remove all that a bucket holds."""
        for key, upload_id in self.uploads(bucket):
            with contextlib.suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        for key in self.objects(bucket):
            self.client.delete_object(Bucket=bucket, Key=key)

    def objects(self, bucket: str) -> list[str]:
        """The names of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [row["Key"] for page in pages for row in page.get("Contents", [])]

    def uploads(self, bucket: str) -> list[tuple[str, str]]:
        """Key and id of all multipart uploads that are neither completed nor aborted."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        try:
            return [(row["Key"], row["UploadId"]) for page in pages for row in page.get("Uploads", [])]
        except self.client.exceptions.NoSuchUpload:  # rclone's way to say: none
            return []

    def held(self, bucket: str) -> list[str]:
        """All that the bucket holds: objects and open uploads."""
        return self.objects(bucket) + [f"upload of {key}" for key, _ in self.uploads(bucket)]
