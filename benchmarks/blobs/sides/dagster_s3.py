"""dagster-aws: the S3 pickle IO manager against a moto server on this machine."""

from pathlib import Path
from typing import Any

from sides.dagster_files import Side as Files


class Side(Files):
    """The IO manager called as a step calls it."""

    BUCKET = "bench"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import boto3
        from dagster_aws.s3.io_manager import PickledObjectS3IOManager

        super().__init__(folder, options)
        self.s3: Any = boto3.client(
            "s3",
            endpoint_url=options["s3"],
            region_name="us-east-1",
            aws_access_key_id="bench",
            aws_secret_access_key="bench",  # noqa: S106 - moto takes any
        )
        if not options.get("joins"):
            self.s3.create_bucket(Bucket=self.BUCKET)
        self.manager = PickledObjectS3IOManager(s3_bucket=self.BUCKET, s3_session=self.s3, s3_prefix="p")

    def versions(self) -> str:
        from importlib.metadata import version

        return f"dagster-aws {version('dagster-aws')}, moto {version('moto')}"

    def damage(self, handle: str) -> bool:
        key = f"p/{handle}"
        content = bytearray(self.s3.get_object(Bucket=self.BUCKET, Key=key)["Body"].read())
        content[205] ^= 0xFF
        self.s3.put_object(Bucket=self.BUCKET, Key=key, Body=bytes(content))
        return True

    def clean(self, names: list[str]) -> None:
        for name in names:
            self.s3.delete_object(Bucket=self.BUCKET, Key=f"p/{name}")
