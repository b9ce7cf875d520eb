"""Damaged versions get their bytes back: from a source of the same hash, or by a put of the same content."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from emboflow_dagster.blobs.examine import Content, Damage, damages, look
from emboflow_dagster.blobs.homes import Homes
from emboflow_dagster.blobs.quarantine import Quarantine
from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError, NotFoundError
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo import objects, restored
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.object_storage.payload import Source, StoredObject, filling
from emboflow_dagster.object_storage.store import ObjectStore

_CHUNK = 1 << 20


class Repairs:
    """What is wrong with versions of one workspace, and how that is put right."""

    def __init__(
        self, mongo: Mongo, store: ObjectStore, homes: Homes, scope: Scope, quarantine: Quarantine
    ) -> None:
        self._mongo = mongo
        self._store = store
        self._homes = homes
        self._scope = scope
        self._quarantine = quarantine

    def examine(self, blob: BlobObject) -> list[Damage]:
        """Read a version and its parts whole; everything that is wrong with it.

        Raises:
            UnavailableError: The store cannot be reached.
        """
        return list(damages(self._mongo, self._store, self._homes, blob))

    def repair(self, blob: BlobObject, source: Source | None) -> bool:
        """Give a version its bytes back and take it out of quarantine.

        Args:
            blob: The version.
            source: Its bytes, those of a damaged file of it, or a folder with such files. Without one the
                version is only read again: its bytes may have been restored by other means.

        Returns:
            Whether it was in quarantine.

        Raises:
            IntegrityError: It is still damaged.
            InvalidInputError: The source has not the recorded hash; nothing was written.
        """
        wrong = self.examine(blob)
        touched = {damage.key for damage in wrong}
        if wrong and source is not None:
            self._bring(blob, wrong, source)
            # In GridFS the bytes are another file by now.
            blob = objects.at_version(self._mongo, blob.workspace_id, blob.object_id, blob.version)
            wrong = self.examine(blob)
        if wrong:
            for damage in wrong:
                self._quarantine.note(blob, damage)
            raise _still(blob, wrong[0])
        note = self._quarantine.of(blob.object_id, blob.version)
        lifted = self._quarantine.lift(blob)
        for key in touched | ({note["key"]} if note else set()):
            if key is not None:  # what shares the payload was set aside for the same reason
                self.healed(key)
        return lifted

    def healed(self, key: str) -> None:
        """Look again at every noted version that the payload under ``key`` damaged."""
        for row in list(self._quarantine.notes()):
            if row["key"] == key:
                self._look_again(row["objectId"], row["version"])

    def _look_again(self, object_id: str, version: int) -> None:
        with suppress(NotFoundError):
            blob = objects.at_version(self._mongo, self._scope.workspace_id, object_id, version)
            if not self.examine(blob):
                self._quarantine.lift(blob)

    def _bring(self, blob: BlobObject, wrong: list[Damage], source: Source) -> None:
        wanted = {damage.recorded.sha256: damage for damage in wrong if damage.code != "hash-recorded-wrong"}
        if isinstance(source, Path) and source.is_dir():
            sizes = {damage.recorded.size for damage in wanted.values()}
            for path in sorted(source.rglob("*")):
                if path.is_file() and path.stat().st_size in sizes and _digest(path) in wanted:
                    self._write(blob, path)
            return
        with again(source) as reopened:
            found = _digest(reopened())
            if found not in wanted:
                needed = ", ".join(sorted(wanted)) or "none: the record is wrong, not the bytes"
                raise InvalidInputError(
                    f"the source has sha256 {found}; needed is {needed}",
                    kind=ErrorKind.HASH_MISMATCH,
                    hint="nothing was changed; give the bytes that were stored as this version",
                )
            self._write(blob, reopened())

    def _write(self, blob: BlobObject, source: Source) -> None:
        if blob.storage_type is StorageType.OBJECT_STORE:
            self._store.put(source, content_type=blob.content_type, replace=True)
            return
        placed = self._homes.place(blob.storage_type, source, blob.content_type)
        restored.put_back(self._mongo, blob, data=placed.data, grid_fs_file_id=placed.grid_fs_file_id)


class HealingStore:
    """An object store whose puts do not trust a payload that is noted as damaged; else the store itself."""

    def __init__(self, store: ObjectStore, quarantine: Quarantine, healed: Callable[[str], None]) -> None:
        self._store = store
        self._quarantine = quarantine
        self._healed = healed

    def put(self, source: Source, *, content_type: str) -> StoredObject:
        """As the store's; what is there already under the same name is replaced when it is damaged."""
        if not self._quarantine.anything():
            return self._store.put(source, content_type=content_type)
        with again(source) as reopened:
            put = self._store.put(reopened(), content_type=content_type)
            if not self._quarantine.holds_key(put.key):
                return put
            if look(self._store, put.key) != Content(put.sha256, put.size):
                put = self._store.put(reopened(), content_type=content_type, replace=True)
        self._healed(put.key)
        return put

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@contextmanager
def again(source: Source) -> Iterator[Callable[[], Source]]:
    """A source that can be read more than once; what can only be read once is kept in a temporary file."""
    if isinstance(source, bytes | bytearray | memoryview | Path):
        yield lambda: source
        return
    if hasattr(source, "seekable") and cast("IO[bytes]", source).seekable():
        stream = cast("IO[bytes]", source)
        start = stream.tell()
        yield lambda: _at(stream, start)
        return
    with tempfile.TemporaryFile(prefix="emboflow-") as kept:
        with filling(source) as fill:
            buffer = memoryview(bytearray(_CHUNK))
            while filled := fill(buffer):
                kept.write(buffer[:filled])
        yield lambda: _at(kept, 0)


def _at(stream: IO[bytes], start: int) -> IO[bytes]:
    stream.seek(start)
    return stream


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    with filling(source) as fill:
        buffer = memoryview(bytearray(_CHUNK))
        while filled := fill(buffer):
            digest.update(buffer[:filled])
    return digest.hexdigest()


def _still(blob: BlobObject, damage: Damage) -> IntegrityError:
    hint = "give the right bytes: --from FILE (in Python: source=)"
    if damage.code is ErrorKind.HASH_RECORDED_WRONG:
        hint = f"the bytes are whole: {damage.field} of the record was changed; set it right in MongoDB"
    error = IntegrityError(
        f"{blob.object_id} version {blob.version}: {damage.message}", kind=damage.code, hint=hint
    )
    error.found = damage.found
    return error
