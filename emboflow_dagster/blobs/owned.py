"""Reading a blob by the record that owns it: (collection, record id, field), never by a bare id.

Whoever may see the record may see its bytes; the scope is checked with the record.

Source: Voedger (spec/parity.md P-32, P-34, P-43, P-44); texts after P-34.
"""

import base64
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.blob_fields import check_field, stored_ref
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.text import check_id
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.object_storage.store import ObjectStore

TEXT_BYTES: Final = 10_000
_LONGEST_CHARACTER: Final = 4


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a record's blob is: a name, a MIME type, a size in bytes."""

    name: str
    content_type: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """As Voedger's ``blobinfo`` spells it."""
        return {"name": self.name, "mimetype": self.content_type, "size": self.size}


@dataclass(frozen=True, slots=True)
class BlobText:
    """A piece of a payload: text, or base64 of what is none; ``following`` is where the next one begins."""

    text: str
    is_base64: bool
    start: int
    following: int | None


class Owned:
    """Reads by owner, as verbs of the blobs of one workspace."""

    if TYPE_CHECKING:
        _mongo: Mongo
        _scope: Scope
        _store: ObjectStore

        def get(self, object_id: str, version: int | None = None) -> BlobObject: ...  # noqa: D102
        def open_blob(self, blob: BlobObject) -> IO[bytes]: ...  # noqa: D102

    def get_owned(self, collection: str, record_id: str, field: str) -> BlobObject:
        """The version that a field of a record names.

        Raises:
            NotFoundError: There is no such record in this project, or its blob went to another one.
            InvalidInputError: No such collection or field, not of the blob type, or the field names no blob
                (kind ``blob-field``).
        """
        check_field(collection, field)
        documents: Documents[Any] = Documents(self._mongo, self._scope, COLLECTIONS[collection].document)
        record = documents.find_one({"_id": check_id(record_id)})
        if record is None:
            raise NotFoundError(f"document {collection} with ID {record_id} not found")
        ref = stored_ref(record.to_mongo().get(field))
        if ref is None:
            raise InvalidInputError(
                f"no value for owner field {field} in blob owner doc {collection}", kind=ErrorKind.BLOB_FIELD
            )
        blob = self.get(ref.object_id, ref.version)
        if blob.owner_record_id not in (None, record_id):
            raise NotFoundError(
                f"{collection} {record_id}.{field}: the blob was let go and belongs to another record"
            )
        return blob

    def open_owned(self, collection: str, record_id: str, field: str) -> IO[bytes]:
        """A verified stream over the blob of a record.

        Raises:
            NotFoundError: As :meth:`get_owned`; so does InvalidInputError.
            IntegrityError: The upload is not complete, or bytes are missing or do not match.
        """
        return self.open_blob(self.get_owned(collection, record_id, field))

    def read_owned(self, collection: str, record_id: str, field: str) -> bytes:
        """The whole verified payload; for small ones."""
        with self.open_owned(collection, record_id, field) as stream:
            return stream.read()

    def info(self, collection: str, record_id: str, field: str) -> BlobInfo:
        """Name, type and size of a record's blob; nothing is read."""
        blob = self.get_owned(collection, record_id, field)
        name = blob.custom_metadata.get("name") or f"{blob.object_id}.v{blob.version}.bin"
        return BlobInfo(str(name), blob.content_type, blob.size)

    def text(self, collection: str, record_id: str, field: str, *, start: int = 0) -> BlobText:
        """At most 10,000 bytes of a record's blob from byte ``start``: text or JSON, else base64.

        A piece is not verified as a whole payload is; it never ends inside of a character.
        """
        if type(start) is not int or start < 0:
            raise InvalidInputError(
                f"start: found {start!r}; a byte offset from 0 is needed", kind=ErrorKind.SIZE
            )
        blob = self.get_owned(collection, record_id, field)
        size = blob.size
        piece = self._piece(blob, start, min(TEXT_BYTES, size - start)) if start < size else b""
        plain = blob.content_type.partition(";")[0].strip().lower()
        if not (plain.startswith("text/") or plain == "application/json" or plain.endswith("+json")):
            end = start + len(piece)
            return BlobText(base64.b64encode(piece).decode(), True, start, end if end < size else None)
        if start + len(piece) < size:
            piece = _whole_characters(piece)
        end = start + len(piece)
        return BlobText(piece.decode(errors="replace"), False, start, end if end < size else None)

    def _piece(self, blob: BlobObject, start: int, length: int) -> bytes:
        if blob.storage_ref is not None:
            blob.require_completed()
            with self._store.open(
                blob.storage_ref.key, sha256=blob.sha256, size=blob.size, offset=start, length=length
            ) as stream:
                return stream.read()
        with self.open_blob(blob) as stream:
            left = start
            while left and (skipped := stream.read(min(left, 1 << 20))):
                left -= len(skipped)
            return stream.read(length)


def _whole_characters(piece: bytes) -> bytes:
    """Without the character that the end cuts."""
    for back in range(1, min(_LONGEST_CHARACTER, len(piece)) + 1):
        byte = piece[-back]
        if byte >= 0xC0:  # noqa: PLR2004 - the first byte of a longer one
            needed = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004 - UTF-8
            return piece[:-back] if needed > back else piece
        if byte < 0x80:  # noqa: PLR2004 - ASCII
            return piece
    return piece
