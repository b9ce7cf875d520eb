"""Temporary blobs: bytes for somebody else to fetch, without version or owner, gone after a while.

They are never in `objects`: a note (`_emboflow_meta`, kind ``temporary``) has the reference until it expires.
The id is the key to the bytes, so it is long and random.

Source: Voedger (spec/parity.md P-39).
"""

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, Final
from uuid import uuid4

from emboflow_dagster.blobs.bounded import bounded
from emboflow_dagster.blobs.durations import duration
from emboflow_dagster.errors import ErrorKind, NotFoundError
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.object_storage.payload import Source

if TYPE_CHECKING:
    from emboflow_dagster.blobs.homes import Homes

LONGEST: Final = timedelta(days=30)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class TemporaryBlob:
    """A temporary blob: its id of 43 characters, type, size in bytes, hex sha256, and end in UTC."""

    id: str
    content_type: str
    size: int
    sha256: str
    expires_at: datetime

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "id": self.id,
            "contentType": self.content_type,
            "size": self.size,
            "sha256": self.sha256,
            "expiresAt": self.expires_at.isoformat(),
        }


def new_temporary_id() -> str:
    """A UUID and 16 random bytes, url-safe base64 without padding: 43 characters nobody guesses.

    None begins with a dash: a command line would take it for an option.
    """
    while True:
        made = base64.urlsafe_b64encode(uuid4().bytes + secrets.token_bytes(16)).rstrip(b"=").decode()
        if not made.startswith("-"):
            return made


class Temporary:
    """Putting and opening temporary blobs, as verbs of the blobs of one workspace."""

    if TYPE_CHECKING:
        _mongo: Mongo
        _scope: Scope
        _homes: Homes

        def open_ref(self, ref: StorageRef) -> IO[bytes]: ...  # noqa: D102

    def put_temporary(
        self,
        source: Source,
        *,
        content_type: str = "application/octet-stream",
        ttl: timedelta | str = "1d",
    ) -> TemporaryBlob:
        """Store a payload for a while.

        Args:
            source: Bytes, a file's path, an open binary file, or chunks of bytes. Streamed.
            content_type: MIME type of the payload.
            ttl: How long it can be read, ``"1s"`` to ``"30d"``, by the database server's clock.

        Raises:
            InvalidInputError: ``ttl`` or the payload is not allowed (kind ``blob-quota``: too large).
        """
        lasts = duration(ttl, "ttl", most=LONGEST)
        with self._homes.pending.writing():  # not collected before it is recorded
            ref = self._homes.store(bounded(source, self._homes.max_bytes), content_type)
            id_, until = new_temporary_id(), self._mongo.server_time() + lasts
            marks.write(
                self._mongo,
                Mark.TEMPORARY,
                id_,
                self._scope.workspace_id,
                ref=ref.to_mongo(),
                contentType=content_type,
                expiresAt=until,
                createdBy=self._scope.actor,
            )
        return TemporaryBlob(id_, content_type, ref.size, ref.sha256, until)

    def get_temporary(self, temporary_id: str) -> TemporaryBlob:
        """What is known of a temporary blob.

        Raises:
            NotFoundError: There is none in this workspace; kind ``blob-expired`` when it is past its time.
        """
        ref, until = self._live(temporary_id)
        return TemporaryBlob(temporary_id, ref.content_type, ref.size, ref.sha256, until)

    def open_temporary(self, temporary_id: str) -> IO[bytes]:
        """A verified stream over a temporary blob.

        Raises:
            NotFoundError: As :meth:`get_temporary`.
            IntegrityError: Its bytes are missing or do not match.
        """
        return self.open_ref(self._live(temporary_id)[0])

    def _live(self, temporary_id: str) -> tuple[StorageRef, datetime]:
        known = isinstance(temporary_id, str) and _ID.fullmatch(temporary_id)
        note = marks.read(self._mongo, Mark.TEMPORARY, temporary_id) if known else None
        if note is None or note["workspaceId"] != self._scope.workspace_id:
            raise NotFoundError("there is no such temporary blob in this workspace")
        if self._mongo.server_time() >= note["expiresAt"]:
            raise NotFoundError(
                f"the temporary blob has expired at {note['expiresAt']:%Y-%m-%d %H:%M:%S} UTC",
                kind=ErrorKind.BLOB_EXPIRED,
            )
        return StorageRef.model_validate(note["ref"]), note["expiresAt"]
