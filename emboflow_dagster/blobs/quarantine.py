"""Damaged versions are set aside: noted once, refused from then on, until they are repaired.

Notes lie in the database, so every process knows them. A reader asks its own copy of them, which is a few
seconds old at most: that costs no round trip, and a note it does not know yet costs nothing but the better
message, because every read is hashed anyway. What the copy says is asked again before anything is refused.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.blobs import withdrawn
from emboflow_dagster.blobs.examine import Content, Damage, is_folder, judged
from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo import audit, marks, objects
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark

logger: Final = logging.getLogger("emboflow")
#: Damages of bytes; everything else a read can fail with says nothing about the payload.
SET_ASIDE: Final = frozenset(
    {
        ErrorKind.HASH_MISMATCH,
        ErrorKind.SIZE_MISMATCH,
        ErrorKind.PAYLOAD_MISSING,
        ErrorKind.HASH_RECORDED_WRONG,
    }
)
FRESH_S: Final = 5.0
_AFTER_OUTAGE_S: Final = 60.0
# Very many notes are read less often: at most this part of the time goes into reading them.
_SHARE: Final = 20
_MAX_SHARING: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Known:
    """A copy of the notes: damaged payloads by key, versions by name; each with the note's name."""

    keys: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    until: float = 0.0


class Quarantine:
    """The damaged versions of one workspace."""

    def __init__(self, mongo: Mongo, scope: Scope) -> None:
        self._mongo = mongo
        self._scope = scope
        self._known = _Known()
        self._refreshing = threading.Lock()

    # --------------------------------------------------------------------------------------- asking

    def notes(self, object_id: str | None = None) -> Iterator[Raw]:
        """The notes, in order; of one blob or of all.

        Fields: ``objectId``, ``version``, ``damage`` (code), ``foundSha256``, ``foundSize``,
        ``recordedSha256``, ``recordedSize``, ``storageType``, ``key``, ``part``, ``seenBy``, ``seenAt``.
        """
        prefix = "" if object_id is None else f"{object_id}.v"
        for row in marks.every(self._mongo, Mark.QUARANTINE, prefix, self._scope.workspace_id):
            if object_id in (None, row["objectId"]):
                yield row

    def of(self, object_id: str, version: int) -> Raw | None:
        """The note of one version."""
        row = marks.read(self._mongo, Mark.QUARANTINE, marks.name_of(object_id, version))
        return row if row and row["workspaceId"] == self._scope.workspace_id else None

    def holds(self, object_id: str, version: int | None, key: str | None) -> Raw | None:
        """The note that a read of a payload is refused by, ``None`` when there is none.

        A payload in the object store is refused wherever it is used. Of a folder with a damaged file the
        file is refused, not its neighbours.
        """
        known = self._copy()
        name = known.keys.get(key) if key is not None else None
        if name is None and version is not None and marks.name_of(object_id, version) in known.names:
            name = marks.name_of(object_id, version)
        if name is None:
            return None
        row = marks.read(self._mongo, Mark.QUARANTINE, name)
        if row is None:  # lifted since
            self.forget()
        return row

    def holds_key(self, key: str) -> bool:
        """Whether the payload under ``key`` is noted as damaged."""
        return key in self._copy().keys

    def anything(self) -> bool:
        """Whether there is any note."""
        known = self._copy()
        return bool(known.keys or known.names)

    def refuse(self, object_id: str, version: int | None, key: str | None) -> None:
        """Refuse a read of a payload that is noted as damaged.

        Raises:
            IntegrityError: It is (kind ``blob-quarantined``).
        """
        row = self.holds(object_id, version, key)
        if row is not None:
            raise IntegrityError(
                f"{object_id} version {version}: quarantined since {row['seenAt']:%Y-%m-%d %H:%M:%S} UTC: "
                f"{described(row)}",
                kind=ErrorKind.BLOB_QUARANTINED,
                hint=f"bring the right bytes back: emboflow blob repair {row['objectId']} "
                f"--version {row['version']} --from FILE",
            )

    # --------------------------------------------------------------------------------------- noting

    def saw(
        self, object_id: str, version: int | None, key: str | None, recorded: Content, error: IntegrityError
    ) -> None:
        """Note what a read stumbled over. Never raises: the read's own error is the one that counts."""
        if version is None or error.kind not in SET_ASIDE:
            return
        try:
            self._saw(object_id, version, key, recorded, error)
        except Exception as other:  # noqa: BLE001 - whatever it is, the integrity error must not be hidden
            logger.warning("%s version %s is damaged; noting it failed: %s", object_id, version, other)

    def _saw(
        self, object_id: str, version: int, key: str | None, recorded: Content, error: IntegrityError
    ) -> None:
        try:
            blob = objects.at_version(self._mongo, self._scope.workspace_id, object_id, version)
        except EmboflowError:
            return  # a version that is gone, or of another workspace: nothing to set aside
        ref = blob.storage_ref
        own = (ref.key if ref else None) == key
        if not own and not (ref and is_folder(ref.content_type)):
            return  # the reader's reference was wrong, not the version
        found = Content(*error.found) if error.found else None
        if own and found == Content(blob.sha256, blob.size):
            return
        self.note(blob, Damage(error.kind, "", error.message, recorded, found, key, None if own else key))

    def collected(self, object_id: str, version: int | None, error: IntegrityError) -> IntegrityError | None:
        """The failure of a read of a version whose bytes were collected on purpose; ``None`` of any other."""
        if version is None or error.kind is not ErrorKind.PAYLOAD_MISSING:
            return None
        try:
            told = withdrawn.explained(self._mongo, self._scope.workspace_id, object_id, version, error)
        except EmboflowError:  # the read's own error is the one that counts
            return None
        return None if told is error else told

    def note(self, blob: BlobObject, damage: Damage) -> bool:
        """Set a version aside, and those that share its payload; whether any was not yet.

        A version whose bytes were collected on purpose is left alone.
        """
        known = marks.read(self._mongo, Mark.QUARANTINE, marks.name_of(blob.object_id, blob.version))
        if known is not None or self._collected(blob):
            return False
        made = self._write(blob.object_id, blob.version, blob.storage_type, damage)
        if damage.key and damage.part is None and damage.code is not ErrorKind.HASH_RECORDED_WRONG:
            for object_id, version in self._sharing(damage.key):
                made |= self._write(object_id, version, blob.storage_type, damage)
        self.forget()
        return made

    def _collected(self, blob: BlobObject) -> bool:
        name = marks.name_of(blob.object_id, blob.version)
        return marks.read(self._mongo, Mark.TOMBSTONE, name) is not None

    def _write(self, object_id: str, version: int, home: str, damage: Damage) -> bool:
        return marks.once(
            self._mongo,
            Mark.QUARANTINE,
            marks.name_of(object_id, version),
            self._scope.workspace_id,
            objectId=object_id,
            version=version,
            damage=damage.code.value,
            foundSha256=damage.found.sha256 if damage.found else None,
            foundSize=damage.found.size if damage.found else None,
            recordedSha256=damage.recorded.sha256,
            recordedSize=damage.recorded.size,
            storageType=str(home),
            key=damage.key,
            part=damage.part,
            seenBy=self._scope.actor,
            seenAt=utc_now(),
        )

    def _sharing(self, key: str) -> Iterator[tuple[str, int]]:
        filter_ = {"storage_ref.key": key, "workspace_id": self._scope.workspace_id}
        with translated():
            for name in ("objects", "object_history"):
                rows = self._mongo[name].find(filter_, {"object_id": 1, "version": 1}).limit(_MAX_SHARING)
                yield from ((row["object_id"], row["version"]) for row in rows)

    # -------------------------------------------------------------------------------------- lifting

    def lift(self, blob: BlobObject) -> bool:
        """Take a version out of quarantine, with a row in the audit log; whether it was in it."""
        name = marks.name_of(blob.object_id, blob.version)

        def body(session: Session) -> bool:
            row = marks.read(self._mongo, Mark.QUARANTINE, name, session)
            if row is None:
                return False
            marks.erase(self._mongo, Mark.QUARANTINE, name, session)
            audit.record(
                self._mongo,
                self._scope,
                session,
                "blob.repair",
                "objects",
                blob.object_id,
                before={
                    "version": blob.version,
                    "damage": row["damage"],
                    "foundSha256": row["foundSha256"],
                    "key": row["key"],
                },
                after={"version": blob.version, "sha256": blob.sha256},
            )
            return True

        lifted = self._mongo.in_transaction(body)
        self.forget()
        return lifted

    # ------------------------------------------------------------------------------------- the copy

    def forget(self) -> None:
        """Ask the database at the next read."""
        self._known = _Known()

    def _copy(self) -> _Known:
        known = self._known
        if time.monotonic() < known.until or not self._scope.workspace_id:
            return known
        with self._refreshing:
            if time.monotonic() >= self._known.until:
                self._known = self._read(self._known)
            return self._known

    def _read(self, before: _Known) -> _Known:
        began = time.monotonic()
        keys: dict[str, str] = {}
        names: set[str] = set()
        try:
            for row in self.notes():
                if row["key"] and row["damage"] != ErrorKind.HASH_RECORDED_WRONG.value:
                    keys[row["key"]] = row["name"]
                else:
                    names.add(row["name"])
        except EmboflowError:  # a read by reference goes on without the database
            return _Known(before.keys, before.names, time.monotonic() + _AFTER_OUTAGE_S)
        took = time.monotonic() - began
        return _Known(keys, names, time.monotonic() + max(FRESH_S, _SHARE * took))


def described(row: Raw) -> str:
    """A note in one line: the damage, and both digests.

    >>> described({"damage": "payload-missing", "part": None, "foundSha256": None, "recordedSha256": "ab"})
    'payload-missing: recorded is sha256 ab'
    """
    part = f" in {row['part']}" if row.get("part") else ""
    recorded = f"recorded is sha256 {row['recordedSha256']}"
    if row.get("foundSha256") is None:
        return f"{row['damage']}{part}: {recorded}"
    return f"{row['damage']}{part}: found sha256 {row['foundSha256']} ({row['foundSize']} bytes), {recorded}"


def named(error: IntegrityError, name: str, key: str | None, recorded: Content | None) -> IntegrityError:
    """``error`` with the blob's name before it, and the code that the content's own name proves."""
    message = error.message if error.message.startswith(name) else f"{name}: {error.message}"
    kind = error.kind
    if error.found and key and recorded and kind in SET_ASIDE:
        damage = judged(recorded, Content(*error.found), key=key)
        if damage is not None and damage.code is ErrorKind.HASH_RECORDED_WRONG:
            kind = damage.code
    result = IntegrityError(message, kind=kind, hint=error.hint)
    result.found = error.found
    return result


def row_json(row: Raw) -> dict[str, Any]:
    """A note as ``--json`` prints it."""
    hidden = ("_id", "kind", "workspaceId", "createdAt")
    result = {key: value for key, value in row.items() if key not in hidden}
    result["seenAt"] = row["seenAt"].isoformat()
    return result
