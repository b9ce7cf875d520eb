"""What an import from Flowcept, or an export to it, moved, and what it found wrong on the way."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Code(StrEnum):
    """What can be wrong with a row; stable, scripts match on them."""

    HASH_MISMATCH = "hash-mismatch"  #: the bytes are not those of the recorded sha256; came over as they are
    SIZE_MISMATCH = "size-mismatch"  #: the recorded size is not that of the bytes; came over as they are
    HASH_MISSING = "hash-missing"  #: none was recorded (P-26); computed
    STALE_DATA = "stale-data"  #: Flowcept returns old bytes (P-22); the right ones came over from GridFS
    STALE_POINTER = "stale-pointer"  #: a left-over GridFS pointer beside the right bytes (P-22); ignored
    DATA_NOT_BYTES = "data-not-bytes"  #: a Python value as payload; came over as Extended JSON
    GRIDFS_MISSING = "gridfs-missing"  #: there is no such file
    GRIDFS_DAMAGED = "gridfs-damaged"  #: chunks of the file are missing
    PAYLOAD_MISSING = "payload-missing"  #: neither bytes nor a pointer
    HISTORY_GAP = "history-gap"  #: versions that nobody kept
    HISTORY_DUPLICATE = "history-duplicate"  #: several rows of one version; the first that is whole came over
    HISTORY_BEYOND_HEAD = "history-beyond-head"  #: rows of versions that the head does not have yet
    HISTORY_ORPHAN = "history-orphan"  #: a history without an object (P-25)
    NEWEST_LOST = "newest-lost"  #: the newest versions are lost; an older one is the newest here
    ID_CHANGED = "id-changed"  #: the id is not allowed here; the old one is in `custom_metadata`
    METADATA_AS_TEXT = "metadata-as-text"  #: keys or values are not allowed here; kept as Extended JSON
    METADATA_DROPPED = "metadata-dropped"  #: ... and too large even for that
    TYPE_REPLACED = "type-replaced"  #: no usable type; `artifact`
    TIME_REPLACED = "time-replaced"  #: no usable time; the time of the import
    FIELD_IGNORED = "field-ignored"  #: fields that no blob has
    CONFLICT = "conflict"  #: there is an object of that id already, with another history
    INCOMPLETE = "incomplete"  #: an upload without its bytes
    DAMAGED = "damaged"  #: the payload here is missing or altered


#: What left something behind.
LOSSES: Final = frozenset(
    {
        Code.GRIDFS_MISSING,
        Code.GRIDFS_DAMAGED,
        Code.PAYLOAD_MISSING,
        Code.HISTORY_ORPHAN,
        Code.HISTORY_BEYOND_HEAD,
        Code.NEWEST_LOST,
        Code.METADATA_DROPPED,
        Code.CONFLICT,
        Code.INCOMPLETE,
        Code.DAMAGED,
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; ``version`` ``None`` is about the object."""

    object_id: str
    version: int | None
    code: Code
    message: str

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "objectId": self.object_id,
            "version": self.version,
            "code": self.code.value,
            "message": self.message,
        }


@dataclass(slots=True)
class TransferReport:
    """Counts, and every finding in the order of the objects.

    ``counts``: ``objects``, ``versions`` (looked at), ``new``, ``unchanged`` (there already), ``lost``,
    ``bytes``.
    """

    database: str
    dry_run: bool
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether everything is on the other side."""
        return not any(finding.code in LOSSES for finding in self.findings)

    def add(self, object_id: str, version: int | None, code: Code, message: str) -> None:
        """One more finding."""
        self.findings.append(Finding(object_id, version, code, message))

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        names = ("objects", "versions", "new", "unchanged", "lost", "bytes")
        return {
            "ok": self.ok,
            "database": self.database,
            "dryRun": self.dry_run,
            "counts": {name: self.counts[name] for name in names},
            "findings": [finding.to_json() for finding in self.findings],
        }
