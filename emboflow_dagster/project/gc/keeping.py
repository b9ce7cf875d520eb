"""``ef.blobs`` with what lets versions go and what says why they are kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from emboflow_dagster.blobs.flowcept import FlowceptBlobs
from emboflow_dagster.blobs.standing import Standing, standing
from emboflow_dagster.blobs.withdrawn import explained
from emboflow_dagster.errors import ErrorKind, IntegrityError, NotFoundError, ObjectNotFoundError
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.storage import LISTING_TYPE, MANIFEST_TYPE
from emboflow_dagster.model.text import check_object_id, check_version
from emboflow_dagster.mongo import marks, objects
from emboflow_dagster.mongo.client import Raw, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.project.gc import letting_go
from emboflow_dagster.project.gc.edges import Edge, EdgeKind
from emboflow_dagster.project.gc.liveness import FIELDS, Liveness, rows_of
from emboflow_dagster.project.gc.marking import named_inside
from emboflow_dagster.project.gc.tombstones import of_kind

GRACE: Final = timedelta(hours=24)
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class LetGo:
    """What a withdrawal did: which versions, and from when on gc may take their bytes."""

    object_id: str
    versions: int
    collected_after: datetime

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "objectId": self.object_id,
            "versions": self.versions,
            "collectedAfter": self.collected_after.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Retention:
    """What is to be kept of a blob: its last versions, those of the last days, or all while it is on hold."""

    object_id: str
    keep_last: int | None
    keep_days: int | None
    hold: bool
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "objectId": self.object_id,
            "keepLast": self.keep_last,
            "keepDays": self.keep_days,
            "hold": self.hold,
            "reason": self.reason,
        }


class KeptBlobs(FlowceptBlobs):
    """The blobs of one workspace, and what is kept of them."""

    def withdraw(self, object_id: str, version: int | None = None, *, reason: str) -> LetGo:
        """Let one version of a blob go, or (without ``version``) all that there are now.

        Their bytes are collected by `emboflow gc` when the grace is over; until then they can be read, and
        :meth:`reinstate` takes them back. Bytes inside of a document stay: it is never changed.

        Raises:
            NotFoundError: There is no such object or version in this workspace.
            ConflictError: A record owns or names one; nothing was withdrawn.
            ForbiddenError: The blob is under legal hold (kind `legal-hold`).
            InvalidInputError: The reason is empty or too long.
        """
        why = letting_go.check_reason(reason)
        now = self._mongo.server_time()
        numbers = self._to_let_go(object_id, version, now)
        done = letting_go.release(
            self._mongo, self._scope, object_id, numbers, since=now, reason=why, rule="withdrawn"
        )
        return LetGo(object_id, done, now + GRACE)

    def _to_let_go(self, object_id: str, version: int | None, now: datetime) -> list[int]:
        liveness = Liveness(self._mongo, now, timedelta(0))
        head = self._head(object_id)
        if version is not None:
            rows, _ = rows_of(self._mongo, [(object_id, self.get(object_id, version).version)])
            pages = iter([rows])
        else:
            pages = letting_go.versions_of(self._mongo, self._scope, object_id, head)
        numbers: set[int] = set()
        for rows in pages:
            verdicts = letting_go.needed(liveness, rows, head["version"])
            letting_go.refuse_needed([v for v in verdicts if v.tombstone is None])
            numbers |= {v.row["version"] for v in verdicts}
        return sorted(numbers)

    def _head(self, object_id: str) -> Raw:
        check_object_id(object_id)
        fields = dict.fromkeys((*FIELDS, *(f"tail.{name}" for name in FIELDS)), 1)
        with translated():
            raw = self._mongo["objects"].find_one(
                {"_id": object_id, "workspace_id": self._scope.workspace_id}, fields
            )
        if raw is None:
            raise ObjectNotFoundError(f"Object not found for object_id={object_id}.")
        return raw

    def let_go_unless_needed(
        self, object_id: str, *, until: datetime, reason: str, rule: str, but: frozenset[int] = frozenset()
    ) -> int:
        """Let go of the versions made up to a time that nobody needs; how many. For rules, not for people.

        Args:
            object_id: Which blob; nothing happens when there is none.
            until: Versions made later stay.
            reason: Why, in words.
            rule: Its kind.
            but: Versions that stay.
        """
        try:
            head = self._head(object_id)
        except NotFoundError:
            return 0
        liveness = Liveness(self._mongo, self._mongo.server_time(), timedelta(0))
        numbers: set[int] = set()
        for rows in letting_go.versions_of(self._mongo, self._scope, object_id, head):
            asked = [row for row in rows if row["updated_at"] <= until and row["version"] not in but]
            verdicts = letting_go.needed(liveness, asked, head["version"])
            numbers |= {v.row["version"] for v in verdicts if not v.edges and v.tombstone is None}
        return letting_go.release(
            self._mongo,
            self._scope,
            object_id,
            sorted(numbers),
            since=liveness.now,
            reason=reason,
            rule=rule,
        )

    def reinstate(self, object_id: str, version: int | None = None, *, reason: str) -> list[int]:
        """Take back withdrawn versions that are not collected yet; their numbers.

        Raises:
            NotFoundError: There is no such object or version.
            IntegrityError: Its bytes are collected already (kind `blob-withdrawn`).
        """
        why = letting_go.check_reason(reason)
        found = self.get(object_id, version)
        numbers = letting_go.reinstate(self._mongo, self._scope, object_id, version, why)
        if version is not None and not numbers:
            self.refuse_collected(found.object_id, found.version)
        return numbers

    def retain(
        self,
        object_id: str,
        *,
        keep_last: int | None = None,
        keep_days: int | None = None,
        hold: bool | None = None,
        reason: str | None = None,
    ) -> Retention:
        """Say what is kept of a blob from now on.

        A version stays that is among the last ``keep_last``, or younger than ``keep_days``, or the newest, or
        needed by anybody; the others are let go by the next `emboflow gc`. Without both numbers every version
        stays. ``hold`` protects all of them until it is lifted; given alone it leaves the rule as it is.

        Raises:
            NotFoundError: There is no such object in this workspace.
            InvalidInputError: A number is not allowed.
        """
        objects.head(self._mongo, self._scope.workspace_id, check_object_id(object_id))
        why = letting_go.check_reason(reason) if reason is not None else None
        note = letting_go.retain(
            self._mongo,
            self._scope,
            object_id,
            keep_last=keep_last,
            keep_days=keep_days,
            hold=hold,
            reason=why,
        )
        return _retention(object_id, note)

    def retention(self, object_id: str) -> Retention:
        """What is kept of a blob.

        Raises:
            NotFoundError: There is no such object in this workspace.
        """
        objects.head(self._mongo, self._scope.workspace_id, check_object_id(object_id))
        return _retention(object_id, marks.read(self._mongo, Mark.HOLD, object_id) or {})

    def standing(self, object_id: str, versions: Iterable[int]) -> dict[int, Standing]:
        """Version to what became of it; those that are simply there are left out."""
        return standing(self._mongo, self._scope.workspace_id, check_object_id(object_id), versions)

    def refuse_collected(self, object_id: str, version: int) -> None:
        """Raise when the bytes of a version were collected.

        Raises:
            IntegrityError: They were; says when and why.
        """
        missing = IntegrityError(f"{object_id} version {version}", kind=ErrorKind.PAYLOAD_MISSING)
        known = explained(self._mongo, self._scope.workspace_id, object_id, version, missing)
        if known is not missing:
            raise known

    def why_kept(self, object_id: str, version: int | None = None, *, grace: timedelta = GRACE) -> list[Edge]:
        """Every edge that keeps a version (the newest by default); none when gc would collect it now.

        Says nothing about other workspaces, whose versions may have the same bytes.

        Args:
            object_id: Which blob.
            version: Which of its versions.
            grace: The grace of the collection that is asked about.

        Raises:
            NotFoundError: There is no such object or version in this workspace.
            IntegrityError: Its bytes were collected (kind `blob-withdrawn`).
        """
        found = self.get(object_id, None if version is None else check_version(version))
        self.refuse_collected(object_id, found.version)
        liveness = Liveness(self._mongo, self._mongo.server_time(), grace)
        rows, heads = rows_of(self._mongo, [(object_id, found.version)])
        [verdict] = liveness.judge(rows, heads, thorough=True)
        edges = list(verdict.edges)
        row = rows[0]
        if row.get("storage_ref"):
            edges += self._of_payload(liveness, row, scan=not edges)
        elif not row.get("grid_fs_file_id"):
            text = "its bytes are part of its document, which is never changed"
            edges.append(Edge(EdgeKind.DOCUMENT, text, "objects", object_id))
        return edges

    def _of_payload(self, liveness: Liveness, row: Raw, *, scan: bool) -> list[Edge]:
        key = row["storage_ref"]["key"]
        edges = [self._same(twin) for twin in self._twins(liveness, row)]
        with translated():
            waiting = self._mongo[META].count_documents(of_kind(Mark.PENDING, f"{key}:"))
        if waiting:
            edges.append(Edge(EdgeKind.PENDING, f"{waiting} writers are about to refer to it"))
        for note in marks.every(self._mongo, Mark.TEMPORARY, workspace_id=self._scope.workspace_id):
            if (note.get("ref") or {}).get("key") == key and note["expiresAt"] > liveness.now:
                text = f"bytes of a temporary blob until {note['expiresAt']:%Y-%m-%d %H:%M} UTC"
                edges.append(Edge(EdgeKind.TEMPORARY, text, until=note["expiresAt"]))
        try:
            until = self._store.stat(key).modified_at.astimezone(UTC) + liveness.grace
        except NotFoundError:
            return edges
        if until > liveness.now:
            text = f"put lately: too young until {until:%Y-%m-%d %H:%M} UTC"
            edges.append(Edge(EdgeKind.YOUNG, text, until=until))
        return edges + (self._listed(liveness, row) if scan else [])

    def _twins(self, liveness: Liveness, row: Raw) -> list[Raw]:
        """Other versions of the workspace with the same bytes that are kept."""
        same = {"storage_ref.key": row["storage_ref"]["key"], "workspace_id": self._scope.workspace_id}
        with translated():
            found = [
                (raw["object_id"], raw["version"])
                for name in ("objects", "object_history")
                for raw in self._mongo[name].find(same, {"object_id": 1, "version": 1}).limit(_SHOWN)
                if (raw["object_id"], raw["version"]) != (row["object_id"], row["version"])
            ]
        rows, heads = rows_of(self._mongo, found)
        return [v.row for v in liveness.judge(rows, heads) if v.edges]

    def _same(self, twin: Raw) -> Edge:
        text = f"has the same bytes as {twin['object_id']} version {twin['version']}"
        return Edge(EdgeKind.SHARED, text, "objects", name_of(twin["object_id"], twin["version"]))

    def _listed(self, liveness: Liveness, row: Raw) -> list[Edge]:
        """Folders and datasets of the workspace that name the payload."""
        edges: list[Edge] = []
        lists = {
            "workspace_id": self._scope.workspace_id,
            "storage_ref.contentType": {"$in": [LISTING_TYPE, MANIFEST_TYPE]},
        }
        with translated():
            found = [
                (raw["object_id"], raw["version"])
                for name in ("objects", "object_history")
                for raw in self._mongo[name].find(lists, {"object_id": 1, "version": 1})
            ]
        rows, heads = rows_of(self._mongo, found)
        for verdict in liveness.judge(rows, heads):
            ref = verdict.row["storage_ref"]
            if verdict.edges and row["data_sha256"] in named_inside(self, ref):
                kind = EdgeKind.LISTING if ref["contentType"] == LISTING_TYPE else EdgeKind.DATASET
                text = f"named inside of {verdict.row['object_id']} version {verdict.row['version']}"
                edges.append(Edge(kind, text, "objects", verdict.name))
        return edges


def _retention(object_id: str, note: Raw) -> Retention:
    return Retention(
        object_id, note.get("keepLast"), note.get("keepDays"), bool(note.get("hold")), note.get("reason")
    )
