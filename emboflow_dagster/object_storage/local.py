"""Payloads in a folder of this machine.

::

    <root>/sha256/ab/cdef...   one read-only file a payload, named by its hash
    <root>/tmp/put-...         being written; whatever is old here was left by a crash
    <root>/condemned/...       about to be collected: see `collecting`
"""

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from emboflow_dagster.errors import (
    ConfigurationError,
    ErrorKind,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from emboflow_dagster.model.storage import LOCAL_BUCKET, check_key, uri_of
from emboflow_dagster.object_storage.collecting import TEMP, Collecting
from emboflow_dagster.object_storage.disk import Writer, append, create, names, naming_failures, sync_folder
from emboflow_dagster.object_storage.flights import Flights
from emboflow_dagster.object_storage.payload import (
    PREFIX,
    ObjectStat,
    Source,
    StoredObject,
    filling,
    from_stream,
    key_of,
)
from emboflow_dagster.object_storage.pump import BUFFER_BYTES, Digest, Write, new_buffer, pump, pump_memory
from emboflow_dagster.object_storage.verified import VerifiedReader, mismatch, open_verified, part_of

SMALL_BYTES: Final = 1024 * 1024  # bytes up to here are hashed and written as they are
_A_FEW: Final = 16


class LocalObjectStore(Collecting):
    """A content-addressed folder. A file under its final name is whole, on disk, and never changes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.bucket = LOCAL_BUCKET
        self.flights = Flights(self.root / TEMP)
        self._uri = self.root.as_uri()
        self._durable_shards: set[str] = set()
        self._made = 0

    @classmethod
    def from_url(cls, url: str) -> "LocalObjectStore":
        """The store of `file:///folder` (percent-encoded) or of a plain path.

        Raises:
            ConfigurationError: The URL names a host, or is no folder; a user that it names is not there.
        """
        if not url.startswith("file:"):
            try:
                return cls(Path(url).expanduser())
            except RuntimeError:
                raise ConfigurationError(
                    f"EMBOFLOW_OBJECT_STORE is {url}: there is no user of that name",
                    hint="write file:///folder, or ./~name for a folder that is called so",
                ) from None
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.startswith("/"):
            raise ConfigurationError(
                "EMBOFLOW_OBJECT_STORE is not a folder of this machine",
                hint="write file:///folder, with three slashes",
            )
        return cls(Path(path))

    def put(
        self,
        source: Source,
        *,
        content_type: str,  # noqa: ARG002 - files have no type
        replace: bool = False,
    ) -> StoredObject:
        """Store a payload durably; see :meth:`ObjectStore.put`."""
        if isinstance(source, bytes | bytearray) and len(source) <= SMALL_BYTES:
            return self._put_block(memoryview(source), replace=replace)
        if isinstance(source, bytes | bytearray | memoryview):
            content = memoryview(source).cast("B")
            return self._put_long(lambda write: pump_memory(content, write), replace=replace)
        with filling(source) as fill:
            first = new_buffer()
            filled = fill(first)
            if filled < BUFFER_BYTES:
                return self._put_block(first[:filled], replace=replace)
            return self._put_long(lambda write: pump(fill, write, first, filled), replace=replace)

    def open(
        self, key: str, *, sha256: str, size: int, offset: int = 0, length: int | None = None
    ) -> VerifiedReader:
        """A verified stream; see :meth:`ObjectStore.open`."""
        part = {"offset": offset, "length": length}
        with naming_failures(self.root), self._there(key, sha256):
            try:
                return open_verified(self._path(key), key, sha256=sha256, size=size, **part)
            except FileNotFoundError:
                if not self.spare(key):  # gc has it aside
                    raise
                return open_verified(self._path(key), key, sha256=sha256, size=size, **part)

    def read_all(self, key: str, *, sha256: str, size: int) -> bytes:
        """The whole verified payload."""
        with self.open(key, sha256=sha256, size=size) as stream, naming_failures(self.root):
            return stream.read()

    def get_to(self, key: str, path: Path, *, sha256: str, size: int) -> Path:
        """Copy the verified payload to ``path``; see :meth:`ObjectStore.get_to`."""
        part = part_of(path)
        with naming_failures(self.root), self._there(key, sha256):
            stored = io.FileIO(self.path_of(key))
        with stored:
            with naming_failures(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                out = io.FileIO(part, "x")
            try:
                with out:
                    fill, first = from_stream(stored), new_buffer()
                    with naming_failures(self.root):
                        found = pump(fill, partial(append, out.fileno(), path.parent), first, fill(first))
                if found != (sha256, size):
                    raise mismatch(key, found.sha256, found.size, sha256, size)
                with naming_failures(path.parent):
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return path

    def path_of(self, key: str) -> Path:
        """The payload's own file, for reading only."""
        path = self._path(key)
        if not path.exists():
            self.spare(key)
        return path

    def uri_of(self, key: str) -> str:
        """`file://` and the percent-encoded path."""
        return uri_of(self._uri, check_key(key))

    def exists(self, key: str) -> bool:
        """Whether there is a payload under the key."""
        return self._path(key).is_file()

    def stat(self, key: str) -> ObjectStat:
        """Size and time of the last put; see :meth:`ObjectStore.stat`."""
        with naming_failures(self.root):
            try:
                found = self._path(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(f"there is no payload {key}") from None
        return ObjectStat(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def delete(self, key: str) -> bool:
        """Remove a payload; whether there was one."""
        with naming_failures(self.root):
            try:
                self._path(key).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def iter_keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with ``prefix``, in order; one shard in memory at a time."""
        for shard in names(self.root / PREFIX):
            start = f"{PREFIX}/{shard}/"
            if start.startswith(prefix) or prefix.startswith(start):
                for name in names(self.root / PREFIX / shard):
                    if (start + name).startswith(prefix):
                        yield start + name

    def check(self) -> str:
        """The folder; see :meth:`ObjectStore.check`."""
        with naming_failures(self.root):
            names(self.root)
        return str(self.root)

    def _put_block(self, block: memoryview, *, replace: bool) -> StoredObject:
        digest = Digest(hashlib.sha256(block).hexdigest(), len(block))
        if replace or not self._kept(digest):
            with self._temporary() as (path, fd):
                Writer(fd, self.root).write(block)
                self._publish(path, fd, digest)
        return self._stored(digest)

    def _put_long(self, pumped: Callable[[Write], Digest], *, replace: bool) -> StoredObject:
        with self._temporary() as (path, fd):
            digest = pumped(Writer(fd, self.root).write)
            if replace or not self._kept(digest):
                self._publish(path, fd, digest)
        return self._stored(digest)

    def _stored(self, digest: Digest) -> StoredObject:
        key = key_of(digest.sha256)
        return StoredObject(self.bucket, key, self.uri_of(key), digest.sha256, digest.size, young=True)

    def _kept(self, digest: Digest) -> bool:
        """Whether the payload is there already; then it is as good as put now."""
        path = self._path(key_of(digest.sha256))
        with naming_failures(self.root):
            try:
                if os.stat(path).st_size != digest.size:  # noqa: PTH116 - on the way of every put
                    return False  # damaged: the good copy takes its place
                os.utime(path)  # gc spares what was put lately
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return False  # gone, or another user's: a new copy takes its place
            self._sync_shard(path.parent)
        return True

    def _publish(self, temporary: Path, fd: int, digest: Digest) -> None:
        path = self._path(key_of(digest.sha256))
        with naming_failures(self.root):
            os.fchmod(fd, 0o444)
            os.fsync(fd)
            try:
                temporary.replace(path)
            except FileNotFoundError:  # the first of its shard
                self._make_shard(path.parent)
                temporary.replace(path)
            self._sync_shard(path.parent)

    def _make_shard(self, shard: Path) -> None:
        shard.mkdir(parents=True, exist_ok=True)
        self._durable_shards.discard(shard.name)
        self._made += 1
        if self._made == _A_FEW:  # a process that goes on needs all of them: one sync instead of 200
            with suppress(OSError):  # the others are for later
                for number in range(256):
                    (shard.parent / f"{number:02x}").mkdir(exist_ok=True)

    def _sync_shard(self, shard: Path) -> None:
        sync_folder(shard)
        # A name is durable when its folder is synced. Who made the folders that are there may have died
        # before doing it: the first put of a process does it for all of them, and not each for its own.
        if shard.name in self._durable_shards:
            return
        there = set(names(shard.parent))
        sync_folder(shard.parent)
        if not self._durable_shards:
            for folder in (self.root, self.root.parent):
                sync_folder(folder)
        self._durable_shards |= there

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        path = self.root / TEMP / f"put-{os.getpid()}-{secrets.token_hex(8)}"
        with naming_failures(self.root):
            fd = create(path, os.O_WRONLY, 0o600)
        try:
            yield path, fd
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _there(self, key: str, sha256: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if not (self.root / PREFIX).is_dir():  # no payload is lost: none can be seen
                raise UnavailableError(
                    f"{self.root}: the folder of the payloads is not there",
                    hint="is its disk mounted? EMBOFLOW_OBJECT_STORE names it",
                ) from None
            raise IntegrityError(
                f"{key}: the payload is missing (sha256 {sha256})", kind=ErrorKind.PAYLOAD_MISSING
            ) from None
