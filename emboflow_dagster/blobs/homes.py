"""The homes that the bytes of a version can have, behind one pair of verbs: place and open (C-03).

===============  =========================================  =======================================
home             what the version's document keeps          when
===============  =========================================  =======================================
``object_store`` ``storage_ref``                            by default, at any size
``in_object``    ``data``, the bytes themselves             asked for; at most 256 KiB
``gridfs``       ``grid_fs_file_id``                        asked for, where the deployment allows it
===============  =========================================  =======================================
"""

import io
from dataclasses import dataclass
from hashlib import sha256
from typing import IO

from emboflow_dagster.blobs import gridfs
from emboflow_dagster.blobs.bounded import bounded
from emboflow_dagster.blobs.pending import Pending
from emboflow_dagster.errors import ConfigurationError, ErrorKind, IntegrityError, InvalidInputError, shown
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.storage import IN_OBJECT_BYTES, StorageRef
from emboflow_dagster.mongo import gridfs as mongo_gridfs
from emboflow_dagster.mongo import objects
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.object_storage.payload import Source, filling
from emboflow_dagster.object_storage.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Placed:
    """A payload that is in its home, or, for one inside a document, about to go there with it."""

    sha256: str
    size: int
    storage_ref: StorageRef | None = None
    grid_fs_file_id: str | None = None
    data: bytes | None = None


class Homes:
    """Places and opens payloads, wherever they live."""

    def __init__(
        self,
        mongo: Mongo,
        store: ObjectStore,
        workspace_id: str,
        *,
        allow_gridfs: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        self._mongo = mongo
        self._store = store
        self._workspace_id = workspace_id
        self.pending = Pending(mongo, store, workspace_id)
        self._allow_gridfs = allow_gridfs
        self.max_bytes = max_bytes

    def place(self, home: StorageType | str, source: Source, content_type: str) -> Placed:
        """Bring a payload to its home, streamed, with its hash computed on the way.

        Raises:
            InvalidInputError: It is no payload, or too large for a document, or for this deployment (kind
                ``blob-quota``).
            ConfigurationError: This deployment does not allow that home.
            UnavailableError: The home cannot take it.
        """
        home, source = self.require(home), bounded(source, self.max_bytes)
        if home is StorageType.IN_OBJECT:
            content = _small(source)
            return Placed(sha256(content).hexdigest(), len(content), data=content)
        if home is StorageType.GRIDFS:
            file_id, found = gridfs.put(
                self._mongo, source, workspace_id=self._workspace_id, content_type=content_type
            )
            return Placed(found.sha256, found.size, grid_fs_file_id=file_id)
        ref = self.store(source, content_type)
        return Placed(ref.sha256, ref.size, storage_ref=ref)

    def require(self, home: StorageType | str) -> StorageType:
        """The home of that name.

        Raises:
            InvalidInputError: There is none.
            ConfigurationError: This deployment does not allow it.
        """
        found = _home(home)
        if found is StorageType.GRIDFS and not self._allow_gridfs:
            raise ConfigurationError(
                "GridFS is not allowed in this deployment; payloads go to the object store",
                hint="leave the home out, or allow it: EMBOFLOW_ALLOW_GRIDFS=1",
            )
        return found

    def store(self, source: Source, content_type: str) -> StorageRef:
        """Bring a payload to the object store."""
        put = self._store.put(source, content_type=content_type)
        self.pending.announce(put.key, young=put.young)
        return StorageRef(
            bucket=put.bucket,
            key=put.key,
            uri=put.uri,
            checksum=f"sha256:{put.sha256}",
            content_type=content_type,
            size=put.size,
        )

    def discard(self, placed: Placed) -> None:
        """Take back a payload that no version came to refer to, where it is the put's alone.

        A payload in the object store may be another version's too: gc judges that.
        """
        if placed.grid_fs_file_id is not None:
            mongo_gridfs.delete(self._mongo, placed.grid_fs_file_id)

    def reopen(self, placed: Placed) -> IO[bytes]:
        """A stream over a payload that is its put's alone: one for a document, or a file in GridFS."""
        if placed.data is not None or placed.grid_fs_file_id is None:
            return io.BytesIO(placed.data or b"")
        return gridfs.open_verified(
            self._mongo, placed.grid_fs_file_id, sha256=placed.sha256, size=placed.size
        )

    def open(self, blob: BlobObject, data: bytes | None = None) -> IO[bytes]:
        """A stream over the payload that is verified as it is read.

        Args:
            blob: The version.
            data: What its document holds, where that was read with it.

        Raises:
            IntegrityError: It is not complete, missing, or not what was recorded.
        """
        blob.require_completed()
        digest, size = blob.sha256, blob.size
        if blob.storage_ref is not None:
            return self._store.open(blob.storage_ref.key, sha256=blob.storage_ref.sha256, size=size)
        if blob.grid_fs_file_id is not None:
            # What was written while GridFS was allowed stays readable.
            return gridfs.open_verified(self._mongo, blob.grid_fs_file_id, sha256=digest, size=size)
        content = data
        if content is None:
            content = objects.data(self._mongo, blob.workspace_id, blob.object_id, blob.version)
        found = sha256(content).hexdigest()
        if (found, len(content)) != (digest, size):
            kind = ErrorKind.SIZE_MISMATCH if len(content) != size else ErrorKind.HASH_MISMATCH
            raise IntegrityError(
                f"the document has {len(content)} bytes of sha256 {found}; recorded are {size} of {digest}",
                kind=kind,
            ).with_found(found, len(content))
        return io.BytesIO(content)


def _home(home: StorageType | str) -> StorageType:
    try:
        return StorageType(home)
    except ValueError:
        allowed = ", ".join(StorageType)
        raise InvalidInputError(f"home: found {shown(home)}; allowed are {allowed}") from None


def _small(source: Source) -> bytes:
    if isinstance(source, bytes) and len(source) <= IN_OBJECT_BYTES:
        return source
    with filling(source) as fill:
        buffer = memoryview(bytearray(IN_OBJECT_BYTES + 1))
        filled = fill(buffer)
    if filled > IN_OBJECT_BYTES:
        raise InvalidInputError(
            f"the payload is larger than {IN_OBJECT_BYTES >> 10} KiB, the most that a document may hold",
            kind=ErrorKind.SIZE,
            hint="leave the home out: the object store takes any size",
        )
    return bytes(buffer[:filled])
