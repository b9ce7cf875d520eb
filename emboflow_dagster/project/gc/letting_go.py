"""Who lets versions go, and who takes them back: people, rules and Dagster; each change has its audit row."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from emboflow_dagster.errors import ConflictError, ErrorKind, ForbiddenError, InvalidInputError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo import audit, marks
from emboflow_dagster.mongo.client import Mongo, Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.liveness import FIELDS, Liveness, Verdict
from emboflow_dagster.project.gc.report import GcReport
from emboflow_dagster.project.gc.tombstones import of_kind

BATCH: Final = 500
GC: Final = "system:gc"
MAX_REASON: Final = 500
MAX_KEPT: Final = 1_000_000
# What a person cannot decide over: somebody else needs it.
_NEEDED: Final = frozenset({EdgeKind.OWNER, EdgeKind.RECORD, EdgeKind.RUN, EdgeKind.HOLD})


def note_rules(mongo: Mongo, verdicts: Iterable[Verdict], now: datetime, report: GcReport) -> None:
    """Note what rules let go now, and take back what they do not let go any more."""
    fresh = [v for v in verdicts if v.newly and all(edge.kind is EdgeKind.GRACE for edge in v.edges)]
    back = [v for v in verdicts if v.outdated and v not in fresh]
    report.let_go += len(fresh)
    report.reclaimed += len(back)
    if report.dry_run:
        return
    for verdict in fresh:
        marks.write(
            mongo,
            Mark.RELEASE,
            verdict.name,
            verdict.row["workspace_id"],
            releasedAt=now,
            releasedBy=GC,
            reason=verdict.newly,
            rule=verdict.rule,
        )
    if back:
        ids = [f"{Mark.RELEASE.value}:{verdict.name}" for verdict in back]
        with translated():
            mongo[META].delete_many({"_id": {"$in": ids}, "rule": {"$type": "string"}})


def versions_of(mongo: Mongo, scope: Scope, object_id: str, head: Raw) -> Iterator[list[Raw]]:
    """Every version of a blob, newest first, some hundreds at a time."""
    newest = [head, *reversed(head.get("tail") or [])]
    yield newest
    twice = {row["version"] for row in newest}  # on its way, a version is in the tail and in history
    older = {"object_id": object_id, "workspace_id": scope.workspace_id, "version": {"$lt": head["version"]}}
    with translated():
        rows = mongo["object_history"].find(older, dict.fromkeys(FIELDS, 1)).sort("version", -1)
        history = iter(rows)
        while batch := list(islice(history, BATCH)):
            yield [row for row in batch if row["version"] not in twice]


def refuse_needed(verdicts: Sequence[Verdict]) -> None:
    """Raise when one of them is needed by somebody.

    Raises:
        ForbiddenError: Kind `legal-hold`.
        ConflictError: A record owns or names one; the message names the edges.
    """
    for verdict in verdicts:
        name = f"{verdict.row['object_id']} version {verdict.row['version']}"
        needed = [edge for edge in verdict.edges if edge.kind in _NEEDED]
        if any(edge.kind is EdgeKind.HOLD for edge in needed):
            raise ForbiddenError(
                f"{name}: {next(e.text for e in needed if e.kind is EdgeKind.HOLD)}; nothing was withdrawn",
                kind=ErrorKind.LEGAL_HOLD,
                hint="lift the hold first: `emboflow blob retain ID --no-hold`",
            )
        if needed:
            texts = "; ".join(dict.fromkeys(edge.text for edge in needed))
            raise ConflictError(f"{name}: {texts}; nothing was withdrawn")


def release(
    mongo: Mongo,
    scope: Scope,
    object_id: str,
    versions: Sequence[int],
    *,
    since: datetime,
    reason: str,
    rule: str,
) -> int:
    """Note that versions are let go, with an audit row; how many were not before.

    Args:
        mongo: The open database.
        scope: Whose blob, and who lets go.
        object_id: Which blob.
        versions: Which of its versions.
        since: From when on: the grace begins.
        reason: Why, in words.
        rule: ``withdrawn`` or ``wiped``.
    """
    done = 0
    for start in range(0, len(versions), BATCH):
        batch = versions[start : start + BATCH]

        def body(session: Session, batch: Sequence[int] = batch) -> int:
            ids = {
                f"{kind.value}:{name_of(object_id, n)}"
                for n in batch
                for kind in (Mark.RELEASE, Mark.TOMBSTONE)
            }
            there = {row["name"] for row in mongo[META].find({"_id": {"$in": sorted(ids)}}, session=session)}
            hold = marks.read(mongo, Mark.HOLD, object_id, session)
            if hold and hold.get("hold"):
                raise ForbiddenError(f"{object_id}: is under legal hold", kind=ErrorKind.LEGAL_HOLD)
            fresh = [number for number in batch if name_of(object_id, number) not in there]
            if not fresh:
                return 0
            rows = [_row(scope, object_id, n, since=since, reason=reason, rule=rule) for n in fresh]
            mongo[META].insert_many(rows, session=session)
            summary = {"versions": len(fresh), "first": min(fresh), "last": max(fresh), "reason": reason}
            audit.record(mongo, scope, session, "blob.withdraw", "objects", object_id, after=summary)
            return len(fresh)

        done += mongo.in_transaction(body)
    return done


def _row(scope: Scope, object_id: str, version: int, **said: Any) -> Raw:
    name = name_of(object_id, version)
    return {
        "_id": f"{Mark.RELEASE.value}:{name}",
        "kind": Mark.RELEASE.value,
        "name": name,
        "workspaceId": scope.workspace_id,
        "createdAt": utc_now(),
        "releasedAt": said["since"],
        "releasedBy": scope.actor,
        "reason": said["reason"],
        "rule": said["rule"],
    }


def reinstate(mongo: Mongo, scope: Scope, object_id: str, version: int | None, reason: str) -> list[int]:
    """Take back versions that were withdrawn and are not collected yet; their numbers."""

    def body(session: Session) -> list[int]:
        filter_ = of_kind(Mark.RELEASE, f"{object_id}.v")
        if version is not None:
            filter_ = {"_id": f"{Mark.RELEASE.value}:{name_of(object_id, version)}"}
        mine = {**filter_, "workspaceId": scope.workspace_id, "recordId": {"$exists": False}}
        names = [row["name"] for row in mongo[META].find(mine, {"name": 1}, session=session)]
        numbers = sorted(int(name.rpartition(".v")[2]) for name in names)
        if numbers:
            mongo[META].delete_many(mine, session=session)
            summary = {"versions": len(numbers), "first": numbers[0], "last": numbers[-1], "reason": reason}
            audit.record(mongo, scope, session, "blob.reinstate", "objects", object_id, after=summary)
        return numbers

    return mongo.in_transaction(body)


def retain(
    mongo: Mongo,
    scope: Scope,
    object_id: str,
    *,
    keep_last: int | None,
    keep_days: int | None,
    hold: bool | None,
    reason: str | None,
) -> Raw:
    """Set the retention rule of a blob, or only its legal hold; the note that says so now."""
    for name, value in (("keep_last", keep_last), ("keep_days", keep_days)):
        if value is not None and not (type(value) is int and 1 <= value <= MAX_KEPT):
            raise InvalidInputError(
                f"{name}: found {value!r}; allowed is a whole number from 1 to {MAX_KEPT}"
            )
    only_hold = hold is not None and keep_last is None and keep_days is None

    def body(session: Session) -> Raw:
        before = marks.read(mongo, Mark.HOLD, object_id, session) or {}
        now = {
            "keepLast": before.get("keepLast") if only_hold else keep_last,
            "keepDays": before.get("keepDays") if only_hold else keep_days,
            "hold": bool(before.get("hold")) if hold is None else hold,
        }
        same = {name: before.get(name) for name in now}
        if before and same == now:
            return before
        said = {**now, "reason": reason, "by": scope.actor}
        marks.write(mongo, Mark.HOLD, object_id, scope.workspace_id, session, **said)
        # A collection that is about to bury one of them meets this write, and looks again.
        mongo[META].update_many(
            of_kind(Mark.RELEASE, f"{object_id}.v"), {"$set": {"lookedAt": utc_now()}}, session=session
        )
        after = {**now, "reason": reason}
        audit.record(
            mongo,
            scope,
            session,
            "blob.retain",
            "objects",
            object_id,
            before=same if before else None,
            after=after,
        )
        return marks.read(mongo, Mark.HOLD, object_id, session) or {}

    return mongo.in_transaction(body)


def check_reason(reason: str) -> str:
    """Why something is let go: said by a person, kept in the audit log."""
    text = reason.strip() if isinstance(reason, str) else ""
    if not text or len(text) > MAX_REASON or not text.isprintable():
        raise InvalidInputError(f"reason: allowed is one line of 1 to {MAX_REASON} characters")
    return text


def needed(liveness: Liveness, rows: list[Raw], head: int) -> list[Verdict]:
    """The verdicts on versions as if they were let go: only what somebody else says is in them."""
    verdicts = liveness.judge(rows, {rows[0]["object_id"]: head}, thorough=True) if rows else []
    for verdict in verdicts:
        verdict.edges = [edge for edge in verdict.edges if edge.kind in _NEEDED]
    return verdicts
