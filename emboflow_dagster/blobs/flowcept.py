"""Flowcept's blob calls, with its names and texts and without its defects (P-01..P-27; docs/parity.md).

What differs from Flowcept 1.0.3, on purpose: versions are kept by default (``control_version=True``); nothing
is pickled; a payload that is no document's goes to the object store unless GridFS is asked for; queries are
checked and stay in their workspace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from emboflow_dagster.blobs.context import current_work, working_for
from emboflow_dagster.blobs.flowcept_export import Exporter
from emboflow_dagster.blobs.flowcept_import import Importer
from emboflow_dagster.blobs.flowcept_object import FlowceptObject, filename
from emboflow_dagster.blobs.flowcept_query import DATASET, DATASETS, ML_MODEL, FlowceptQueries
from emboflow_dagster.blobs.flowcept_report import TransferReport
from emboflow_dagster.errors import ErrorKind, InvalidInputError, ObjectNotFoundError
from emboflow_dagster.model.base import new_id
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.text import check_object_id, refuse
from emboflow_dagster.mongo import object_metadata, object_queries
from emboflow_dagster.mongo.flowcept import FlowceptDatabase
from emboflow_dagster.object_storage.payload import Source

#: What a caller may say about a payload; what is not said stays as it was.
METADATA: Final = ("type", "custom_metadata", "tags", "task_id", "workflow_id")
_CHUNK: Final = 1 << 20
Payload: TypeAlias = Source | str


class FlowceptBlobs(FlowceptQueries):
    """:class:`Blobs` with the calls that programs written for Flowcept make."""

    def save_or_update_object(
        self,
        object: Payload,
        object_id: str | None = None,
        task_id: str | None = None,
        workflow_id: str | None = None,
        type: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
        save_data_in_collection: bool = False,
        pickle: bool = False,
        control_version: bool = True,
        tags: list[str] | None = None,
        *,
        object_type: str | None = None,
        home: StorageType | str | None = None,
        request_id: str | None = None,
        content_type: str = "application/octet-stream",
    ) -> str:
        """Store a payload as the next version of a blob, and its metadata.

        Metadata that is not given stays as it was in the version before. Content and given metadata equal to
        the newest version, in the same home, make no new version; a difference in either of them does.

        Args:
            object: Bytes, a ``Path``, an open binary file or chunks of bytes, streamed; a ``str`` is stored
                as UTF-8.
            object_id: Which blob; a new one when omitted.
            task_id: The task it belongs to; by default the one being executed.
            workflow_id: The run it belongs to; by default the one being executed.
            type: The caller's category; ``artifact`` when nobody said.
            custom_metadata: Free-form dict, at most 64 KiB.
            save_data_in_collection: Keep the bytes inside the document (at most 256 KiB).
            pickle: Refused: a pickle executes what it holds.
            control_version: Keep the version before this one.
            tags: Short labels.
            object_type: As ``type``.
            home: Where the bytes go instead of the object store, for example ``gridfs``.
            request_id: Repeating a save with the same id makes no second version.
            content_type: MIME type of the payload.

        Returns:
            The object's id.

        Raises:
            InvalidInputError: An argument is not allowed; ``pickle`` is asked for (kind
                ``serialised-unsafe``).
            ConfigurationError: The home is not allowed in this deployment.
            ConflictError: The object's versions are kept, and this save would not keep the one before.
            UnavailableError: The database or the store cannot be reached.
        """
        if pickle:
            raise refuse(
                ErrorKind.SERIALISED_UNSAFE,
                "pickle",
                "a pickle executes what it holds when it is read; store bytes in a format of their own",
            )
        key = check_object_id(object_id) if object_id is not None else new_id("obj")
        given = _given(
            type=_one_type(type, object_type),
            custom_metadata=custom_metadata,
            tags=tags,
            task_id=task_id,
            workflow_id=workflow_id,
        )
        work = current_work()
        running = _given(
            workflow_id=work.workflow_id if work else None, task_id=work.task_id if work else None
        )
        draft = {
            **self._draft(key, "artifact", content_type),
            "custom_metadata": {},
            "tags": [],
            **running,
            **given,
        }
        blob = self._put(
            object.encode() if isinstance(object, str) else object,
            _home(home, in_object=save_data_in_collection),
            draft,
            request_id=request_id,
            controlled=control_version,
            keep=[name for name in METADATA if name not in given and name not in running],
            alike=list(given),
        )
        return blob.object_id

    def get_blob_object(self, object_id: str, version: int | None = None) -> FlowceptObject:
        """The newest or one exact version; its payload is read when ``data`` is asked for.

        Raises:
            ObjectNotFoundError: ``Object not found for object_id=X, version=N.`` (a ``ValueError``, as in
                Flowcept).
        """
        return FlowceptObject(self.get(object_id, version), self.open_blob)

    def get_blob_fingerprint(self, object_id: str, version: int | None = None) -> dict[str, Any]:
        """What tells a payload from another, none of it read.

        Returns:
            ``object_id``, ``version``, ``object_size_bytes``, ``data_sha256``, ``data_hash_algo`` and
            ``storage_type``.
        """
        blob = self.get(object_id, version)
        return {
            "object_id": blob.object_id,
            "version": blob.version,
            "object_size_bytes": blob.object_size_bytes,
            "data_sha256": blob.data_sha256,
            "data_hash_algo": blob.data_hash_algo,
            "storage_type": blob.storage_type.value,
        }

    def blob_objects_equal(
        self,
        object_id_a: str,
        object_id_b: str,
        version_a: int | None = None,
        version_b: int | None = None,
        fallback_to_payload: bool = False,
    ) -> bool:
        """Whether two versions have the same bytes, by their recorded hashes: no payload is read (R-410).

        Where a hash is missing (an upload that is not complete), different sizes are different, and anything
        else is ``False``, unless ``fallback_to_payload`` asks for the bytes themselves, which raises for
        bytes that are not there.
        """
        a, b = self.get(object_id_a, version_a), self.get(object_id_b, version_b)
        if a.data_sha256 and b.data_sha256 and a.data_hash_algo == b.data_hash_algo:
            return a.data_sha256 == b.data_sha256
        sizes = (a.object_size_bytes, b.object_size_bytes)
        if (None not in sizes and sizes[0] != sizes[1]) or not fallback_to_payload:
            return False
        with self.open_blob(a) as left, self.open_blob(b) as right:
            return _same_bytes(left, right)

    def update_object_metadata(
        self,
        object_id: str,
        custom_metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
        type: str | None = None,
        task_id: str | None = None,
        workflow_id: str | None = None,
        control_version: bool = True,
        *,
        object_type: str | None = None,
    ) -> str:
        """Make a version with other metadata and the same payload, which is neither read nor written (P-12).

        Returns:
            The object's id. With no field given, or none that differs, nothing happens.

        Raises:
            InvalidInputError: A value is not allowed, or ``object_id`` is ``None``.
            ObjectNotFoundError: ``Object not found for object_id=X.``
            ConflictError: The object's versions are kept, and this update would not keep the one before.
        """
        if object_id is None:  # Flowcept's own check and text
            raise InvalidInputError("object_id must not be None.", kind=ErrorKind.ID_TYPE)
        key = check_object_id(object_id)
        changes = _given(
            type=_one_type(type, object_type),
            custom_metadata=custom_metadata,
            tags=tags,
            task_id=task_id,
            workflow_id=workflow_id,
        )
        if changes:
            draft = {**self._draft(key, "artifact", "application/octet-stream"), **changes}
            BlobObject.checked(**draft, object_size_bytes=0, data_sha256="0" * 64)
            object_metadata.update_metadata(
                self._mongo,
                self._scope.workspace_id,
                key,
                changes,
                actor=self._scope.actor,
                controlled=control_version,
            )
        return key

    def download_object(self, object_id: str, folder: Path | str = ".", version: int | None = None) -> Path:
        """Copy a verified payload into a folder, as ``<object_id>.v<version>.bin``; returns its path."""
        blob = self.get(object_id, version)
        return self.fetch(object_id, Path(folder) / filename(blob), blob.version)

    def save_or_update_ml_model(self, object: Payload, *args: Any, **kwargs: Any) -> str:
        """:meth:`save_or_update_object` with the type ``ml_model``; the same arguments but ``type``."""
        return self._save_as(ML_MODEL, object, args, kwargs)

    def save_or_update_dataset(self, object: Payload, *args: Any, **kwargs: Any) -> str:
        """:meth:`save_or_update_object` with the type ``dataset_snapshot`` (C-05); as above."""
        return self._save_as(DATASET, object, args, kwargs)

    def get_ml_model(self, object_id: str, version: int | None = None) -> FlowceptObject:
        """As :meth:`get_blob_object`; a blob of another type is not found (P-18)."""
        return self._get_of(object_id, version, (ML_MODEL,))

    def get_dataset(self, object_id: str, version: int | None = None) -> FlowceptObject:
        """As :meth:`get_blob_object`; a blob of another type is not found (P-18)."""
        return self._get_of(object_id, version, DATASETS)

    # The names since Flowcept 1.0.
    insert_or_update_object = save_or_update_object
    insert_or_update_ml_model = save_or_update_ml_model
    insert_or_update_dataset = save_or_update_dataset

    def context(self, workflow_id: str, task_id: str | None = None) -> AbstractContextManager[None]:
        """Everything stored inside the ``with`` block belongs to that run and task unless it says otherwise.

        Contexts nest: leaving one restores the one around it. A new thread starts outside of every context;
        ``contextvars.copy_context().run(...)`` takes it along, as ``asyncio`` does by itself. Child processes
        are told through their arguments.
        """
        return working_for(workflow_id, task_id)

    @property
    def current_workflow_id(self) -> str | None:
        """The run that the calling code is executed for, ``None`` outside of one."""
        work = current_work()
        return work.workflow_id if work else None

    @property
    def current_task_id(self) -> str | None:
        """The task that the calling code is executed for, ``None`` outside of one."""
        work = current_work()
        return work.task_id if work else None

    def import_flowcept(
        self,
        uri: str,
        database: str = "flowcept",
        *,
        prefix: str = "",
        home: StorageType | str = StorageType.OBJECT_STORE,
        dry_run: bool = False,
        progress: Callable[[TransferReport], None] | None = None,
    ) -> TransferReport:
        """Bring every object of a Flowcept database here, with its versions; repeated, it adds what is new.

        Args:
            uri: The server of Flowcept's database; a standalone one will do.
            database: Its name.
            prefix: Before every id, to import beside objects that have the same ids.
            home: Where payloads go that are not small and inside their document.
            dry_run: Read and hash everything, write nothing.
            progress: Called with the report so far, after each version.

        Returns:
            Counts, and every damage found; ``ok`` when nothing was left behind.

        Raises:
            NotFoundError: Flowcept stored nothing there.
            ConfigurationError: It is no Flowcept database, or the home is not allowed here.
            UnavailableError: A server cannot be reached.
        """
        where = self._homes.require(home)
        if where is StorageType.IN_OBJECT:
            raise refuse(ErrorKind.INVALID_INPUT, "home", "found 'in_object'; large payloads fit no document")
        with FlowceptDatabase(uri, database) as source:
            report = TransferReport(database, dry_run)
            importer = Importer(self._mongo, self._homes, self._scope, source, report, prefix, where)
            return importer.everything(progress)

    def export_flowcept(
        self,
        uri: str,
        database: str = "flowcept",
        *,
        object_ids: Iterable[str] | None = None,
        dry_run: bool = False,
        progress: Callable[[TransferReport], None] | None = None,
    ) -> TransferReport:
        """Write blobs of this workspace into a database that Flowcept reads; repeated, nothing twice.

        Args:
            uri: The server of Flowcept's database.
            database: Its name; made when it is not there.
            object_ids: Which blobs; all of the workspace when omitted.
            dry_run: Read and verify everything, write nothing.
            progress: Called with the report so far, after each version.

        Raises:
            NotFoundError: There is no such blob.
            ConfigurationError: The database is one of EmboFlow's.
            UnavailableError: A server cannot be reached.
        """
        heads = iter([self.get(id_) for id_ in object_ids]) if object_ids is not None else self._heads()
        with FlowceptDatabase(uri, database) as target:
            return Exporter(self, target, TransferReport(database, dry_run)).everything(heads, progress)

    def _heads(self) -> Iterator[BlobObject]:
        for row in object_queries.every(self._mongo, self._scope.workspace_id):
            yield BlobObject.from_mongo(row)

    def _save_as(self, kind: str, payload: Payload, args: tuple[Any, ...], how: Mapping[str, Any]) -> str:
        # Flowcept's aliases have the same order of arguments, without the type: it is the fifth.
        if len(args) > 3:  # noqa: PLR2004 - object_id, task_id, workflow_id
            args = (*args[:3], kind, *args[3:])
            return self.save_or_update_object(payload, *args, **how)
        return self.save_or_update_object(payload, *args, **{**how, "type": kind})

    def _get_of(self, object_id: str, version: int | None, types: Iterable[str]) -> FlowceptObject:
        found = self.get_blob_object(object_id, version)
        if found.type not in types:
            exact = "" if version is None else f", version={version}"
            raise ObjectNotFoundError(f"Object not found for object_id={object_id}{exact}.")
        return found


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _one_type(kind: str | None, object_type: str | None) -> str | None:
    if kind is not None and object_type is not None and kind != object_type:
        raise refuse(ErrorKind.INVALID_INPUT, "type", f"found {kind!r} and, as object_type, {object_type!r}")
    return kind if kind is not None else object_type


def _home(home: StorageType | str | None, *, in_object: bool) -> StorageType | str:
    if home is None:
        return StorageType.IN_OBJECT if in_object else StorageType.OBJECT_STORE
    if in_object and home != StorageType.IN_OBJECT:
        raise refuse(
            ErrorKind.INVALID_INPUT, "home", f"found {home!r}; save_data_in_collection means 'in_object'"
        )
    return home


def _same_bytes(left: IO[bytes], right: IO[bytes]) -> bool:
    while True:
        a, b = left.read(_CHUNK), right.read(_CHUNK)
        if a != b:
            return False
        if not a:
            return True
