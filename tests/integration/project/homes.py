"""One version in each home, and the ways in which its bytes are damaged behind the library's back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bson.binary import Binary

from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.project.handle import EmboFlow

CONTENT = b"the joint angles of one arm"


@dataclass
class Stored:
    """A version and its bytes, wherever they are."""

    ef: EmboFlow
    blob: BlobObject

    @property
    def path(self) -> Path:
        assert self.blob.storage_ref is not None
        path = self.ef.store.path_of(self.blob.storage_ref.key)
        assert path is not None
        return path

    def become(self, content: bytes | None) -> None:
        """Replace the stored bytes by others, ``None`` for none at all."""
        row = {"object_id": self.blob.object_id, "version": self.blob.version}
        if self.blob.storage_ref is None:
            change = {"$unset": {"data": ""}} if content is None else {"$set": {"data": Binary(content)}}
            done = [self.ef.mongo[n].update_one(row, change) for n in ("objects", "object_history")]
            assert sum(d.matched_count for d in done) == 1
        elif content is None:
            self.path.unlink()
        else:
            self.path.chmod(0o644)
            self.path.write_bytes(content)

    def record(self, **fields: object) -> None:
        """Replace what the version records."""
        row = {"object_id": self.blob.object_id, "version": self.blob.version}
        done = [self.ef.mongo[n].update_one(row, {"$set": fields}) for n in ("objects", "object_history")]
        assert sum(d.matched_count for d in done) == 1


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


#: Name to what becomes of the bytes and the code of it.
DAMAGES: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "flipped": (flipped, "hash-mismatch"),
    "truncated": (lambda content: content[:-1], "size-mismatch"),
    "too-long": (lambda content: content + b"!", "size-mismatch"),
    "deleted": (lambda _: None, "payload-missing"),
}
