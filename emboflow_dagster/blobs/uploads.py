"""Uploads: announced with their owner before the record exists, written, completed; readable only then.

What is announced is a head without bytes, and a note with its end (`_emboflow_meta`, kind ``upload``). Bytes
come first here too: what a crash leaves is an upload that can be repeated. One never completed expires.

Source: Voedger (spec/parity.md P-30, P-33, P-38); R-389..R-430.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from emboflow_dagster.blobs.bounded import bounded, refuse_above
from emboflow_dagster.blobs.durations import duration
from emboflow_dagster.errors import (
    ConflictError,
    ErrorKind,
    IntegrityError,
    NotFoundError,
    TransitionError,
    shown,
)
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.blob import BlobObject, UploadStatus
from emboflow_dagster.model.blob_fields import check_owner
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import CONTENT_TYPE_PATTERN, MAX_SIZE, StorageRef
from emboflow_dagster.model.text import check_name, check_object_id, check_sha256, refuse
from emboflow_dagster.mongo import marks, objects
from emboflow_dagster.mongo.client import Mongo, Raw, Session, find_one_and_update, translated
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.object_storage.payload import Source

if TYPE_CHECKING:
    from emboflow_dagster.blobs.homes import Homes

LONGEST: Final = timedelta(days=30)
_OPEN: Final = {"$in": [UploadStatus.ANNOUNCED.value, UploadStatus.WRITTEN.value]}


class Uploads:
    """Announcing, uploading and abandoning, as verbs of the blobs of one workspace."""

    if TYPE_CHECKING:
        _mongo: Mongo
        _scope: Scope
        _homes: Homes

    def announce(
        self,
        *,
        owner: tuple[str, str],
        name: str,
        content_type: str = "application/octet-stream",
        size: int | None = None,
        expires: timedelta | str = "1d",
    ) -> BlobObject:
        """Say that bytes will come, and which field of which collection is to own them.

        Args:
            owner: Collection and field; a record becomes the owner by `ef.cud`.
            name: What people call it, for example a file name.
            content_type: MIME type of the payload.
            size: Bytes that are to come, when it is known: others are refused.
            expires: How long the upload may take, ``"1s"`` to ``"30d"``.

        Returns:
            The blob: version 0 without hash and size, which nobody can read or claim.

        Raises:
            InvalidInputError: No such collection or field, not of the blob type (kind ``blob-field``), or a
                name, type, size or time that is not allowed; larger than this deployment takes (kind
                ``blob-quota``).
        """
        owner = check_owner(owner)
        check_name(name)
        _check(content_type, size)
        refuse_above(size or 0, self._homes.max_bytes)
        lasts = duration(expires, "expires", most=LONGEST)
        key, now = new_id("obj"), utc_now()
        blob = BlobObject.checked(
            id=key,
            object_id=key,
            version=0,
            type="upload",
            created_at=now,
            created_by=self._scope.actor,
            updated_at=now,
            updated_by=self._scope.actor,
            content_type=content_type,
            custom_metadata={"name": name},
            upload_status=UploadStatus.ANNOUNCED,
            owner_record=owner[0],
            owner_record_field=owner[1],
            workspace_id=self._scope.workspace_id,
            project_id=self._scope.project_id,
        )
        until = self._mongo.server_time() + lasts

        def body(session: Session) -> None:
            objects.insert_owned(self._mongo, blob, session)
            marks.write(
                self._mongo,
                Mark.UPLOAD,
                key,
                self._scope.workspace_id,
                session=session,
                expiresAt=until,
                size=size,
                record=owner[0],
                field=owner[1],
            )

        self._mongo.in_transaction(body)
        return blob

    def upload(self, object_id: str, source: Source, *, sha256: str | None = None) -> BlobObject:
        """Bring the bytes of an announced upload, streamed; afterwards it can be read and claimed.

        Args:
            object_id: What :meth:`announce` gave.
            source: Bytes, a file's path, an open binary file, or chunks of bytes.
            sha256: What they must hash to, when it is known.

        Returns:
            The completed blob.

        Raises:
            NotFoundError: No such upload, or it has expired (kind ``blob-expired``).
            InvalidInputError: It is no payload, or larger than this deployment takes (kind ``blob-quota``).
            IntegrityError: Not the announced size, or not ``sha256``; the upload stays as it was.
            TransitionError: It is completed already.
            ConflictError: Another upload of the same blob was faster.
        """
        if sha256 is not None:
            check_sha256(sha256)
        blob, note = self._announced(object_id)
        with self._homes.pending.writing():  # not collected before it is recorded
            ref = self._homes.store(bounded(source, self._homes.max_bytes), blob.content_type)
            _compare(blob, ref, note.get("size"), sha256)
            self._refuse_expired(object_id, note)
            mine = {"_id": object_id, "workspace_id": self._scope.workspace_id}
            put_id = uuid4().hex
            # Two steps, so that one who dies between them leaves what can be told from an empty announcement.
            self._advance(
                {**mine, "upload_status": _OPEN},
                {
                    "upload_status": UploadStatus.WRITTEN.value,
                    "storage_ref": ref.to_mongo(),
                    "object_size_bytes": ref.size,
                    "put_id": put_id,
                },
                object_id,
            )
            done = self._advance(
                {**mine, "upload_status": UploadStatus.WRITTEN.value, "put_id": put_id},
                {
                    "upload_status": UploadStatus.COMPLETED.value,
                    "data_sha256": ref.sha256,
                    "updated_at": utc_now(),
                    "updated_by": self._scope.actor,
                },
                object_id,
            )
        # Left behind by a crash, it says nothing about a completed blob.
        marks.erase(self._mongo, Mark.UPLOAD, object_id)
        return done

    def abandon(self, object_id: str) -> None:
        """Take an announcement back; one that is not completed, expired or not.

        Raises:
            NotFoundError: There is no such upload.
            TransitionError: It is completed: it is a blob now.
        """
        check_object_id(object_id)
        mongo, scoped = self._mongo, {"_id": object_id, "workspace_id": self._scope.workspace_id}

        def body(session: Session) -> None:
            with translated():
                gone = mongo["objects"].delete_one({**scoped, "upload_status": _OPEN}, session=session)
            if gone.deleted_count != 1:
                raise _completed(objects.head(mongo, self._scope.workspace_id, object_id, session=session))
            marks.erase(mongo, Mark.UPLOAD, object_id, session)

        mongo.in_transaction(body)

    def _announced(self, object_id: str) -> tuple[BlobObject, Raw]:
        check_object_id(object_id)
        blob = objects.head(self._mongo, self._scope.workspace_id, object_id)
        if blob.completed:
            raise _completed(blob)
        note = marks.read(self._mongo, Mark.UPLOAD, object_id) or {}
        self._refuse_expired(object_id, note)
        return blob, note

    def _refuse_expired(self, object_id: str, note: Raw) -> None:
        until = note.get("expiresAt")
        if until is None or self._mongo.server_time() >= until:
            raise NotFoundError(
                f"{object_id}: the upload has expired"
                + (f" at {until:%Y-%m-%d %H:%M:%S} UTC" if until else ""),
                kind=ErrorKind.BLOB_EXPIRED,
                hint="announce it again",
            )

    def _advance(self, expected: dict[str, Any], changes: dict[str, Any], object_id: str) -> BlobObject:
        with translated():
            raw = find_one_and_update(
                self._mongo["objects"], expected, {"$set": changes}, return_document=True
            )
        if raw is None:
            blob = objects.head(self._mongo, self._scope.workspace_id, object_id)
            if blob.completed:
                raise _completed(blob)
            raise ConflictError(
                f"{object_id}: another upload of it began meanwhile; this one was left out",
                hint="look at it with ef.blobs.get; upload again when it does not complete",
            )
        return BlobObject.from_mongo(raw)


def _check(content_type: object, size: object) -> None:
    import re

    if type(content_type) is not str or not re.fullmatch(CONTENT_TYPE_PATTERN[1:-1], content_type):
        raise refuse(
            ErrorKind.CONTENT_TYPE,
            "content_type",
            f"found {shown(content_type)}; needed is a type such as text/csv",
        )
    if size is not None and (type(size) is not int or not 0 <= size <= MAX_SIZE):
        raise refuse(ErrorKind.SIZE, "size", f"found {shown(size)}; an int from 0 to 2**50 is needed")


def _compare(blob: BlobObject, ref: StorageRef, size: object, sha256: str | None) -> None:
    name = f"{blob.object_id}: the upload is not completed"
    if size is not None and ref.size != size:
        raise IntegrityError(
            f"{name}: found {ref.size} bytes, announced are {size}",
            kind=ErrorKind.SIZE_MISMATCH,
            hint="upload all of its bytes again",
        )
    if sha256 is not None and ref.sha256 != sha256:
        raise IntegrityError(
            f"{name}: found {ref.size} bytes with sha256 {ref.sha256}, expected is {sha256}",
            hint="upload all of its bytes again",
        )


def _completed(blob: BlobObject) -> TransitionError:
    return TransitionError(
        f"{blob.object_id}: the upload is completed, with sha256 {blob.data_sha256}; nothing was changed",
        hint="new content is a new version: ef.blobs.put, before a record owns it",
    )
