"""Blobs: bytes first, metadata second, every read verified."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

from emboflow_dagster.blobs import withdrawn
from emboflow_dagster.blobs.context import current_work
from emboflow_dagster.blobs.examine import Content
from emboflow_dagster.blobs.homes import Homes, Placed
from emboflow_dagster.blobs.owned import Owned
from emboflow_dagster.blobs.owning import Owning
from emboflow_dagster.blobs.quarantine import Quarantine
from emboflow_dagster.blobs.repair import HealingStore, Repairs
from emboflow_dagster.blobs.temporary import Temporary
from emboflow_dagster.blobs.uploads import Uploads
from emboflow_dagster.blobs.watched import NamedStream, Watch
from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConflictError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
)
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.text import check_object_id, check_version
from emboflow_dagster.mongo import objects
from emboflow_dagster.mongo.client import Mongo, Session
from emboflow_dagster.object_storage.payload import Source
from emboflow_dagster.object_storage.store import ObjectStore, writing
from emboflow_dagster.object_storage.verified import save


class Blobs(Owned, Owning, Uploads, Temporary):
    """The blobs of one workspace.

    Payloads go to the object store under their sha256; a crash before the metadata is written leaves an
    unreferenced payload, never a record that points at nothing.
    """

    def __init__(
        self,
        mongo: Mongo,
        store: ObjectStore,
        scope: Scope,
        *,
        allow_gridfs: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        self._mongo = mongo
        self._store = store
        self._scope = scope
        self.quarantine = Quarantine(mongo, scope)
        homes = Homes(mongo, store, scope.workspace_id, allow_gridfs=allow_gridfs)
        self.repairs = Repairs(mongo, store, homes, scope, self.quarantine)
        healing = cast("ObjectStore", HealingStore(store, self.quarantine, self.repairs.healed))
        self._homes = Homes(
            mongo, healing, scope.workspace_id, allow_gridfs=allow_gridfs, max_bytes=max_bytes
        )

    def put(
        self,
        source: Source,
        *,
        object_id: str | None = None,
        type: str | None = None,  # noqa: A002 - the seed's word
        content_type: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
        workflow_id: str | None = None,
        task_id: str | None = None,
        serializer: str | None = None,
        owner: tuple[str, str] | None = None,
        request_id: str | None = None,
        home: StorageType | str = StorageType.OBJECT_STORE,
        control_version: bool = True,
        by_content: bool = False,
    ) -> BlobObject:
        """Store a payload as the next version of a blob.

        Args:
            source: Bytes, a file's path, an open binary file, or chunks of bytes. Streamed.
            object_id: Which blob; a new one when omitted.
            type: The caller's category, for example ``ml_model``; by default that of the version before, and
                ``artifact`` of a new blob.
            content_type: MIME type of the payload; by default ``application/octet-stream``.
            custom_metadata: Free-form dict, at most 64 KiB.
            tags: Short labels.
            workflow_id: The run this belongs to; by default the one being executed.
            task_id: Likewise for the task.
            serializer: How the payload was made from a Python object.
            owner: Record type and field that are to own it; claimed with the record.
            request_id: Repeating a put with the same id makes no second version.
            home: Where the bytes go; each version has its own.
            control_version: Keep the version before this one (C-08).
            by_content: The bytes alone decide whether there is a new version. Else type, content type,
                metadata and tags do too, where they are given: nothing that was said is lost.

        Returns:
            The version that this put made, or that it made when it was asked for first. Content equal to the
            latest, in the same home and with nothing new said of it, makes no new version.

        Raises:
            InvalidInputError: An id or the metadata is not allowed, or the payload is too large for its home,
                or for this deployment (kind ``blob-quota``).
            ConfigurationError: The home is not allowed in this deployment.
            ConflictError: The object's versions are kept, and this put would not keep the one before.
            UnavailableError: The database or the store cannot be reached.
        """
        key = check_object_id(object_id) if object_id is not None else new_id("obj")
        work = current_work()
        said = {"type": type, "content_type": content_type, "custom_metadata": custom_metadata, "tags": tags}
        draft = {
            **self._draft(key, type or "artifact", content_type or "application/octet-stream"),
            "workflow_id": workflow_id or (work.workflow_id if work else None),
            "task_id": task_id or (work.task_id if work else None),
            "custom_metadata": custom_metadata or {},
            "tags": tags or [],
            "serializer": serializer,
            "owner_record": owner[0] if owner else None,
            "owner_record_field": owner[1] if owner else None,
        }
        return self._put(
            source,
            home,
            draft,
            request_id=request_id,
            controlled=control_version,
            fresh=object_id is None,
            keep=() if type else ("type",),
            alike=() if by_content else [name for name, value in said.items() if value is not None],
        )

    def _put(self, source: Source, home: StorageType | str, draft: dict[str, Any], **how: Any) -> BlobObject:
        # Checked before the bytes move: a refused dict leaves nothing behind.
        checked = BlobObject.checked(**draft, object_size_bytes=0, data_sha256="0" * 64)
        in_document = home == StorageType.IN_OBJECT  # gc never looks for those bytes
        # What was put is not collected before it is recorded.
        with nullcontext() if in_document else writing(self._store):
            placed = self._homes.place(home, source, draft["content_type"])
            blob = checked.model_copy(
                update={
                    "object_size_bytes": placed.size,
                    "data_sha256": placed.sha256,
                    "storage_ref": placed.storage_ref,
                    "grid_fs_file_id": placed.grid_fs_file_id,
                }
            )
            try:
                put = objects.put_version(self._mongo, blob, data=placed.data, **how)
                put = withdrawn.kept(self._mongo, put, blob, data=placed.data, **how)
            except (AlreadyExistsError, ConflictError, IntegrityError, InvalidInputError):
                self._homes.discard(placed)  # refused for sure; after an outage nobody knows
                raise
            if not put.new:
                try:
                    self._put_back(put.blob, placed)
                finally:
                    self._homes.discard(placed)
        return put.blob

    def _put_back(self, blob: BlobObject, placed: Placed) -> None:
        """Content that made no new version because it is there already: unless that is damaged.

        A payload in the object store was healed where it was put.
        """
        if placed.storage_ref is not None or blob.data_sha256 != placed.sha256:
            return
        if self.quarantine.holds(blob.object_id, blob.version, None):
            with self._homes.reopen(placed) as source:
                self.repairs.repair(blob, source)

    def record_owned(
        self,
        ref: StorageRef,
        session: Session,
        *,
        type: str,  # noqa: A002 - the seed's word
        record: str,
        field: str,
        record_id: str,
    ) -> StorageRef:
        """Make a stored payload a new blob of the record that is written in the same transaction.

        Blob and record appear together: a crash, or another writer who was first, leaves only bytes that
        nothing refers to.

        Returns:
            The reference, naming the blob.
        """
        key = new_id("obj")
        blob = BlobObject.checked(
            **self._draft(key, type, ref.content_type),
            object_size_bytes=ref.size,
            data_sha256=ref.sha256,
            storage_ref=ref,
            owner_record=record,
            owner_record_field=field,
            owner_record_id=record_id,
        )
        objects.insert_owned(self._mongo, blob, session)
        return self.ref(blob)

    def _draft(self, key: str, kind: str, content_type: str) -> dict[str, Any]:
        now = utc_now()
        return {
            "id": key,
            "object_id": key,
            "version": 0,
            "type": kind,
            "created_at": now,
            "created_by": self._scope.actor,
            "updated_at": now,
            "updated_by": self._scope.actor,
            "content_type": content_type,
            "workspace_id": self._scope.workspace_id,
            "project_id": self._scope.project_id,
        }

    def writing(self) -> AbstractContextManager[None]:
        """Payloads that are put inside the block, and referred to by its end, are not collected meanwhile."""
        return self._homes.pending.writing()

    def put_payload(self, source: Source, *, content_type: str) -> StorageRef:
        """Only the bytes: what a listing or a manifest refers to by hash.

        Refer to it inside the same :meth:`writing` block.
        """
        return self._homes.store(source, content_type)

    def get(self, object_id: str, version: int | None = None) -> BlobObject:
        """The metadata of the newest or one exact version.

        Raises:
            NotFoundError: There is no such object or version in this workspace.
        """
        check_object_id(object_id)
        if version is None:
            return objects.head(self._mongo, self._scope.workspace_id, object_id)
        return objects.at_version(self._mongo, self._scope.workspace_id, object_id, check_version(version))

    def history(self, object_id: str, *, below: int | None = None, limit: int = 100) -> list[BlobObject]:
        """Versions newest first; pages by ``below``."""
        check_object_id(object_id)
        return objects.history(self._mongo, self._scope.workspace_id, object_id, below=below, limit=limit)

    def open(self, object_id: str, version: int | None = None) -> IO[bytes]:
        """A stream over the payload, hashed as it is read; the end of a damaged one raises.

        Raises:
            IntegrityError: Bytes are missing or do not match; names object, version and digests. From then on
                the version is in quarantine (kind ``blob-quarantined``) until it is repaired.
        """
        check_object_id(object_id)
        number = None if version is None else check_version(version)
        return self._open(*objects.with_data(self._mongo, self._scope.workspace_id, object_id, number))

    def open_blob(self, blob: BlobObject) -> IO[bytes]:
        """As :meth:`open`, for metadata that is there already."""
        return self._open(blob, None)

    def _open(self, blob: BlobObject, data: bytes | None) -> IO[bytes]:
        blob.require_completed()
        watch = self._watch_blob(blob)
        with watch:
            _require_agreement(blob)
            stream = self._homes.open(blob, data)
        return cast("IO[bytes]", NamedStream(stream, watch))

    def read(self, object_id: str, version: int | None = None) -> bytes:
        """The whole verified payload; for small ones."""
        with self.open(object_id, version) as stream:
            return stream.read()

    def fetch(self, object_id: str, target: Path, version: int | None = None) -> Path:
        """Copy the verified payload to a file; nothing is left there when it is damaged."""
        blob = self.get(object_id, version)
        if blob.storage_ref is not None:
            return self.fetch_ref(self.ref(blob), target)
        with self.open_blob(blob) as stream:
            return save(stream, target)

    def ref(self, blob: BlobObject) -> StorageRef:
        """Where the payload is, naming blob and version.

        Raises:
            IntegrityError: The upload is not complete, the bytes are not in the object store, or the recorded
                hash is not that of the reference.
        """
        blob.require_completed()
        if blob.storage_ref is None:
            raise IntegrityError(
                f"{blob.object_id} version {blob.version}: its home is {blob.storage_type}, "
                "not the object store",
                kind=ErrorKind.PAYLOAD_MISSING,
            )
        _require_agreement(blob)
        return blob.storage_ref.model_copy(update={"object_id": blob.object_id, "version": blob.version})

    def open_ref(self, ref: StorageRef) -> IO[bytes]:
        """A verified stream over what a stored reference names."""
        watch = self._watch(ref)
        with watch:
            stream = self._store.open(ref.key, sha256=ref.sha256, size=ref.size)
        if ref.object_id is None:
            return stream
        return cast("IO[bytes]", NamedStream(stream, watch))

    def read_ref(self, ref: StorageRef) -> bytes:
        """The whole verified payload of a stored reference; for small ones."""
        with self._watch(ref):
            return self._store.read_all(ref.key, sha256=ref.sha256, size=ref.size)

    def local_path(self, ref: StorageRef) -> Path | None:
        """The payload's own file when the store is a folder of this machine; for reading only."""
        return self._store.path_of(ref.key)

    def fetch_ref(self, ref: StorageRef, target: Path) -> Path:
        """Copy what a stored reference names to ``target``, verified."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._watch(ref):
            return self._store.get_to(ref.key, target, sha256=ref.sha256, size=ref.size)

    def repair(self, object_id: str, version: int, source: Source | None = None) -> BlobObject:
        """Take a version out of quarantine: its bytes are right again, or ``source`` has them.

        Args:
            object_id: The blob.
            version: Its version.
            source: The payload's bytes, those of a damaged file of a folder or dataset version, or a folder
                in which such files are. Left out: the version is only read again.

        Raises:
            IntegrityError: It is still damaged; names both digests.
            InvalidInputError: The source has not the recorded hash (kind ``hash-mismatch``); nothing was
                changed.
        """
        blob = self.get(object_id, version)
        self.repairs.repair(blob, source)
        return blob

    def _watch(self, ref: StorageRef) -> Watch:
        return Watch(self.quarantine, ref.object_id, ref.version, ref, Content(ref.sha256, ref.size))

    def _watch_blob(self, blob: BlobObject) -> Watch:
        recorded = Content(blob.sha256, blob.size)
        return Watch(self.quarantine, blob.object_id, blob.version, blob.storage_ref, recorded)


def _require_agreement(blob: BlobObject) -> None:
    """A reference is read by its own hash: the one that the version records must be the same."""
    ref = blob.storage_ref
    if ref is not None and ref.sha256 != blob.data_sha256:
        raise IntegrityError(
            f"{blob.object_id} version {blob.version}: recorded is sha256 {blob.data_sha256}, its payload "
            f"{ref.key} is that of {ref.sha256}",
            kind=ErrorKind.HASH_RECORDED_WRONG,
        )
