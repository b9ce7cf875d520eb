"""What every home of payloads can do, and which home a URL means."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, Protocol, runtime_checkable

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.object_storage.local import LocalObjectStore
from emboflow_dagster.object_storage.payload import (
    STALE_AFTER_S,
    ObjectStat,
    Source,
    StaleUpload,
    StoredObject,
)
from emboflow_dagster.object_storage.s3 import S3ObjectStore


class ObjectStore(Protocol):
    """Payloads addressed by their sha256. A payload is there whole, or not at all."""

    @property
    def bucket(self) -> str:
        """What `StorageRef.bucket` says."""
        ...

    def put(self, source: Source, *, content_type: str, replace: bool = False) -> StoredObject:
        """Store a payload durably and return where it is; memory does not grow with its size.

        With ``replace`` it is written, at once or not at all, although one of its name is there: that one is
        damaged.

        Raises:
            InvalidInputError: ``source`` is no payload.
            UnavailableError: The store cannot take it; kind `disk-full` when there is no room.
        """
        ...

    def open(
        self, key: str, *, sha256: str, size: int, offset: int = 0, length: int | None = None
    ) -> IO[bytes]:
        """A stream over the payload, hashed as it is read; the last byte of a damaged one is never returned.

        With ``offset`` or ``length`` (bytes) only the size is checked.

        Raises:
            IntegrityError: It is missing, or not of that size; from a read: its digest is another one.
        """
        ...

    def read_all(self, key: str, *, sha256: str, size: int) -> bytes:
        """The whole verified payload in memory.

        Raises:
            IntegrityError: As :meth:`open`.
        """
        ...

    def get_to(self, key: str, path: Path, *, sha256: str, size: int) -> Path:
        """Copy the verified payload to ``path``, which is replaced only when all of it is right.

        Raises:
            IntegrityError: As :meth:`open`.
        """
        ...

    def path_of(self, key: str) -> Path | None:
        """The payload's own file, for reading only, where the store is a folder; else ``None``."""
        ...

    def uri_of(self, key: str) -> str:
        """The URI of a key; a function of bucket and key."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a payload under the key."""
        ...

    def stat(self, key: str) -> ObjectStat:
        """Size and time without reading it.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def delete(self, key: str) -> bool:
        """Remove a payload; whether there was one."""
        ...

    def iter_keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with ``prefix``, in order, without holding them all in memory."""
        ...

    def stale_uploads(self, *, older_than_s: float = STALE_AFTER_S) -> Iterable[StaleUpload]:
        """Puts that began and did not go on for ``older_than_s`` seconds: what `gc` may abort."""
        ...

    def abort_upload(self, stale: StaleUpload) -> None:
        """End such a put and free what it holds; nothing happens when it has ended since."""
        ...

    def check(self) -> str:
        """Whether the store can be reached, changing nothing; which one it is, for people.

        Raises:
            UnavailableError: It does not answer.
            ConfigurationError: Kind `store-refused`: credentials, bucket or endpoint.
        """
        ...


@runtime_checkable
class Aside(Protocol):
    """A store that can take a payload aside before it is removed, and knows who is writing (decision 13).

    Other stores are collected by notes in the database: see `blobs.pending`.
    """

    def writing(self) -> AbstractContextManager[None]:
        """What is put inside the block is not collected before the block ends."""
        ...

    def safe_before(self, grace_s: float) -> float:
        """Payloads last put before this time may be collected: grace over, no writer at work."""
        ...

    def condemn(self, key: str, before: float) -> bool:
        """Take a payload aside; ``False``, and it stays, when it was put at or after ``before``."""
        ...

    def spare(self, key: str) -> bool:
        """Put back what was taken aside; whether there was something."""
        ...

    def destroy(self, key: str) -> bool:
        """Remove what was taken aside; whether it was there."""
        ...

    def condemned(self, shard: str) -> list[str]:
        """The keys that a collection which was interrupted left aside in a shard."""
        ...


def writing(store: ObjectStore) -> AbstractContextManager[None]:
    """What is put inside the block is not collected before the block ends, where the store can know."""
    return store.writing() if isinstance(store, Aside) else nullcontext()


@dataclass(frozen=True, slots=True)
class How:
    """What a store needs beside its URL; a folder needs none of it."""

    client: Callable[[], Any] | None = None
    spool: Path | None = None


def _s3(url: str, how: How) -> ObjectStore:
    return S3ObjectStore.from_url(url, client=how.client, spool=how.spool)


def _folder(url: str, how: How) -> ObjectStore:
    del how
    return LocalObjectStore.from_url(url)


#: Scheme to what opens it. A new home is one module and its row here.
HOMES: Final[Mapping[str, Callable[[str, How], ObjectStore]]] = MappingProxyType(
    {"file": _folder, "": _folder, "s3": _s3}  # "": a plain path
)


def open_store(
    url: str, *, client: Callable[[], Any] | None = None, spool: Path | None = None
) -> ObjectStore:
    """The store that a URL (or a plain path) means. Nothing is connected yet.

    Args:
        url: `file:///folder`, a path, or `s3://bucket/prefix`.
        client: Makes the S3 client; by default the standard AWS variables, files and roles say how.
        spool: Folder for streams on their way to S3; by default the system's for temporary files.

    Raises:
        ConfigurationError: No home has this scheme, or its URL is not understood.
    """
    scheme = url.partition(":")[0].lower() if "://" in url or url.startswith("file:") else ""
    home = HOMES.get(scheme)
    if home is None:
        raise ConfigurationError(
            f"EMBOFLOW_OBJECT_STORE has the scheme {scheme!r}; known are file:// and s3://",
            hint="set EMBOFLOW_OBJECT_STORE=file:///folder or s3://bucket/prefix",
        )
    return home(url, How(client, spool))
