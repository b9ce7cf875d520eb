"""What every home of payloads can do, and which home a URL means."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.object_storage.local import LocalObjectStore
from emboflow_dagster.object_storage.payload import ObjectStat, Source, StaleUpload, StoredObject


class ObjectStore(Protocol):
    """Payloads addressed by their sha256. A payload is there whole, or not at all."""

    @property
    def bucket(self) -> str:
        """What `StorageRef.bucket` says."""
        ...

    def put(self, source: Source, *, content_type: str) -> StoredObject:
        """Store a payload durably and return where it is; memory does not grow with its size.

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


@runtime_checkable
class Uploading(Protocol):
    """A store whose interrupted uploads can be found and ended."""

    def stale_uploads(self, *, older_than_s: float) -> list[StaleUpload]:
        """Puts that began and did not go on for ``older_than_s`` seconds: what `gc` may abort."""
        ...

    def abort_upload(self, stale: StaleUpload) -> None:
        """End such a put and free what it holds; nothing happens when it has ended since."""
        ...


def writing(store: ObjectStore) -> AbstractContextManager[None]:
    """What is put inside the block is not collected before the block ends, where the store can know."""
    return store.writing() if isinstance(store, Aside) else nullcontext()


def _unavailable(url: str) -> ObjectStore:
    scheme = urlsplit(url).scheme
    raise ConfigurationError(
        f"EMBOFLOW_OBJECT_STORE names {scheme}://; this installation keeps payloads in a folder only",
        kind=ErrorKind.EXTRA_MISSING,
        hint="set EMBOFLOW_OBJECT_STORE=file:///folder, or leave it unset for EMBOFLOW_HOME/objects",
    )


#: Scheme to what opens it. A new home is one module and its row here.
HOMES: Final[Mapping[str, Callable[[str], ObjectStore]]] = MappingProxyType(
    {
        "file": LocalObjectStore.from_url,
        "": LocalObjectStore.from_url,  # a plain path
        "s3": _unavailable,
    }
)


def open_store(url: str) -> ObjectStore:
    """The store that a URL (or a plain path) means.

    Raises:
        ConfigurationError: No home has this scheme, or its URL is not understood.
    """
    scheme = urlsplit(url).scheme if "://" in url or url.startswith("file:") else ""
    home = HOMES.get(scheme)
    if home is None:
        raise ConfigurationError(
            f"EMBOFLOW_OBJECT_STORE has the scheme {scheme!r}; known are file:// and s3://",
            hint="set EMBOFLOW_OBJECT_STORE=file:///folder",
        )
    return home(url)
