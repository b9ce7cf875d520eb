"""A server of S3's protocol (moto) in a process of its own, and how tests look into it beside the store.

``EMBOFLOW_TEST_S3_ENDPOINT``, ``..._KEY``, ``..._SECRET`` name another one that runs already: MinIO, Ceph and
others. The tests make buckets there and leave them, empty.
"""

import contextlib
import os
import subprocess
import sys
from typing import Any, Self
from urllib.parse import urlsplit

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
ENDPOINT = os.environ.get("EMBOFLOW_TEST_S3_ENDPOINT")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": os.environ.get("EMBOFLOW_TEST_S3_KEY", "AKIATESTTESTTESTTEST"),
    "AWS_SECRET_ACCESS_KEY": os.environ.get("EMBOFLOW_TEST_S3_SECRET", "s3cret-of-the-tests"),
}
ENVIRONMENT = {**CREDENTIALS, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}


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
        **config,
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=made,
    )


class Server:
    """The process; ``url`` is its endpoint."""

    def __init__(self) -> None:
        if ENDPOINT is not None:
            self._process = None
            self.url, self.port = ENDPOINT, urlsplit(ENDPOINT).port or 443
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
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
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

    def objects(self, bucket: str) -> list[str]:
        """The names of all objects."""
        return [row["Key"] for row in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def uploads(self, bucket: str) -> list[tuple[str, str]]:
        """Key and id of all multipart uploads that are neither completed nor aborted."""
        rows = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [(row["Key"], row["UploadId"]) for row in rows]

    def held(self, bucket: str) -> list[str]:
        """All that the bucket holds: objects and open uploads."""
        return self.objects(bucket) + [f"upload of {key}" for key, _ in self.uploads(bucket)]
