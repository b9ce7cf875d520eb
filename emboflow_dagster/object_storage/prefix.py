"""A prefix of a bucket that belongs to others: listed page by page, lent by the object for ranged reads.

Nothing is ever written or removed there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.model.storage import check_bucket
from emboflow_dagster.object_storage.prefix_object import Listed, bring
from emboflow_dagster.object_storage.s3_bucket import Bucket, ClientMaker

__all__ = ["Listed", "Prefix"]
SCHEME: Final = "s3://"
LENT_SECONDS: Final = 3_600


class Prefix:
    """What stands below ``s3://bucket/prefix``.

    Args:
        url: The prefix; objects below it and the object of that very name count.
        client: Makes the S3 client; by default the standard AWS variables, files and roles say how.
        page: Objects that one request lists.

    Raises:
        InvalidInputError: It is no such URL.
    """

    def __init__(self, url: str, *, client: ClientMaker | None = None, page: int = 1_000) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or "@" in parts.netloc or parts.query or parts.fragment:
            hint = "credentials and endpoint come from AWS_* variables"
            raise InvalidInputError("a prefix is written s3://bucket/prefix", kind=ErrorKind.URI, hint=hint)
        self.bucket = check_bucket(parts.netloc)
        self.prefix = parts.path.lstrip("/")
        self.url = f"{SCHEME}{self.bucket}/{self.prefix}"
        self._s3 = Bucket(self.bucket, client)
        self._page = page

    def objects(self) -> Iterator[Listed]:
        """Every object, in the order of the keys; a page is in memory at a time.

        Markers of folders (empty, with a name that ends in ``/``) are left out.
        """
        root = self.prefix if not self.prefix or self.prefix.endswith("/") else f"{self.prefix}/"
        for row in self._s3.pages("list_objects_v2", "Contents", Prefix=self.prefix, MaxKeys=self._page):
            key = row["Key"]
            if (key.endswith("/") and not row["Size"]) or not (key.startswith(root) or key == self.prefix):
                continue
            path = key[len(root) :] if key.startswith(root) else key.rpartition("/")[2]
            yield Listed(path, row["Size"], row["ETag"].strip('"'))

    def lend(self, path: str) -> str:
        """A URL that reads one object for an hour, for a process that has no credentials."""
        client, _ = self._s3.client()
        return client.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": self._key(path)}, ExpiresIn=LENT_SECONDS
        )

    def bring(self, found: Listed, target: Path) -> None:
        """Write one object to a file, as it was when it was listed.

        Raises:
            IntegrityError: Kind ``object-changed`` or ``payload-missing``: it is another one, or gone;
                ``hash-mismatch``: it came altered twice.
            UnavailableError, ConfigurationError: The object store does not answer, or refuses.
        """
        bring(self._s3, self._key(found.path), found, target)

    def _key(self, path: str) -> str:
        if self.is_single(path):
            return self.prefix
        root = self.prefix if not self.prefix or self.prefix.endswith("/") else f"{self.prefix}/"
        return f"{root}{path}"

    def is_single(self, path: str) -> bool:
        """Whether the object of this path is the one that is called as the prefix itself."""
        return self.prefix.rpartition("/")[2] == path and not self.prefix.endswith("/")
