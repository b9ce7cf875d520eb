"""`emboflow gc`: what nothing needs any more is taken away, and nothing else (decision 13)."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.expiry import remove_expired
from emboflow_dagster.blobs.pending import CONDEMNED_FOR_S, PENDING_FOR
from emboflow_dagster.errors import ConfigurationError, InvalidInputError
from emboflow_dagster.model.collections import CACHE, META
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.mongo.setup import is_current
from emboflow_dagster.object_storage.store import ObjectStore
from emboflow_dagster.project.gc.gridfs import collect_files
from emboflow_dagster.project.gc.letting_go import note_rules
from emboflow_dagster.project.gc.liveness import Liveness, rows_of
from emboflow_dagster.project.gc.marking import Marking
from emboflow_dagster.project.gc.report import GcReport
from emboflow_dagster.project.gc.shards import SHARDS, Shards, leftover
from emboflow_dagster.project.gc.sweep import Sweep, Versions, cutoff
from emboflow_dagster.project.gc.tombstones import of_kind
from emboflow_dagster.project.opened import Opened

__all__ = ["DAY_S", "GcReport", "gc"]

DAY_S: Final = 24 * 3600
MIN_GRACE_S: Final = 3600
UNSAFE: Final = "EMBOFLOW_GC_UNSAFE_GRACE"
# More of the store than this unknown to the database: it is another one's store, or the wrong database.
_STRANGE_SHARE: Final = 0.5
_STRANGE_COUNT: Final = 1000
#: What a task left so long ago is looked for by nobody; the entry keeps nothing, losing it costs time alone.
_CACHED_FOR: Final = timedelta(days=180)

Progress = Callable[[str, int, int | None], None]
"""Called with the step, how much of it is done, and of how much where that is known."""


def gc(
    opened: Opened,
    *,
    dry_run: bool = False,
    grace_s: float = DAY_S,
    force: bool = False,
    progress: Progress | None = None,
) -> GcReport:
    """Collect what nothing needs: idempotent, safe beside writers and beside itself, over all workspaces.

    Args:
        opened: The deployment; its scope says whose names may be told.
        dry_run: Change nothing; report what would be done.
        grace_s: How long, in seconds, something stays after it was put or let go.
        force: Also when the database looks as if it were not the one that belongs to the store.
        progress: Told how far it is.

    Raises:
        InvalidInputError: The grace is below an hour and the environment does not allow that.
        ConfigurationError: The database knows too little of the store, or is newer than this release.
        IntegrityError: A folder's listing or a dataset's manifest cannot be read; nothing was collected.
        UnavailableError: The database or the store cannot be reached.
    """
    refuse_short(grace_s)
    is_current(opened.mongo)
    tell = progress or (lambda *_: None)
    report = GcReport(dry_run=dry_run, grace_s=grace_s)
    folder = opened.settings.home / "work"
    if not dry_run:
        _tidy(opened.mongo, folder, report)
    # First of all: whatever is put from here on is too young.
    before = cutoff(opened.store, opened.mongo, grace_s)
    liveness = Liveness(opened.mongo, opened.mongo.server_time(), timedelta(seconds=grace_s))
    with Shards(folder) as shards:
        marking = Marking(opened.mongo, opened.blobs, liveness, shards)
        for verdicts in marking.versions_of_all(archive=not dry_run):
            note_rules(opened.mongo, verdicts, liveness.now, report)
            tell("looking at versions", marking.versions, None)
        marking.records()
        shards.flush()
        report.archived_tails = marking.tails
        sweep = Sweep(
            opened.mongo,
            opened.store,
            shards,
            before,
            lambda versions: still_let_go(liveness, versions),
            report,
            (opened.scope.workspace_id, opened.scope.actor),
        )
        total, unknown = sweep.count()
        if not force:
            refuse_strange(shards, total, unknown)
        for number, shard in enumerate(SHARDS, 1):
            sweep.shard(shard)
            tell("collecting", number, len(SHARDS))
        collect_files(
            opened.mongo, shards, sweep, liveness.now - timedelta(seconds=max(grace_s, MIN_GRACE_S))
        )
    _uploads(opened.mongo, opened.store, liveness.now, report)
    return report


def refuse_short(grace_s: float) -> None:
    """A grace that a slow upload or a stopped clock could outlast is for tests alone."""
    if grace_s < 0 or (grace_s < MIN_GRACE_S and os.environ.get(UNSAFE) != "1"):
        raise InvalidInputError(
            f"grace: found {grace_s:g} s; allowed is {MIN_GRACE_S} s (one hour) and more",
            hint=f"for a test on data that nobody needs: {UNSAFE}=1",
        )


def refuse_strange(shards: Shards, total: int, unknown: int) -> None:
    """A database that knows (almost) nothing of a full store is hardly the one that belongs to it."""
    if (shards.marked == 0 and unknown > 0 and total >= _STRANGE_COUNT) or (
        unknown >= _STRANGE_COUNT and unknown > total * _STRANGE_SHARE
    ):
        raise ConfigurationError(
            f"of {total} payloads in the store this database knows {total - unknown}; nothing was collected",
            hint="does it belong to EMBOFLOW_OBJECT_STORE? Two must not share one; when sure: --force",
        )


def still_let_go(liveness: Liveness, versions: Sequence[dict[str, Any]]) -> Versions:
    """Which versions the rule still lets go, at the last moment."""
    if not versions:
        return []
    rows, heads = rows_of(liveness.mongo, [(v["object_id"], v["version"]) for v in versions])
    fine = {verdict.name for verdict in liveness.judge(rows, heads) if not verdict.edges}
    return [version for version in versions if version["name"] in fine]


def _uploads(mongo: Mongo, store: ObjectStore, now: datetime, report: GcReport) -> None:
    """What uploads left that ended long ago, announced ones that nobody completed, temporary blobs of old."""
    for stale in list(store.stale_uploads(older_than_s=DAY_S)):
        if not report.dry_run:
            store.abort_upload(stale)
        report.aborted_uploads += 1
        report.aborted_bytes += stale.size or 0
    expired = remove_expired(mongo, now, dry_run=report.dry_run)
    report.expired_uploads, report.expired_temporary = expired.uploads, expired.temporary


def _tidy(mongo: Mongo, folder: Path, report: GcReport) -> None:
    """What writers and collections left that were killed."""
    now = mongo.server_time()
    with translated():
        for kind, age in (
            (Mark.PENDING, PENDING_FOR),
            (Mark.CONDEMNED, timedelta(seconds=4 * CONDEMNED_FOR_S)),
        ):
            old = {**of_kind(kind), "createdAt": {"$lt": now - age}}
            report.notes += mongo[META].delete_many(old).deleted_count
        forgotten = {"$not": {"$gte": now - _CACHED_FOR}}
        report.cached += mongo[CACHE].delete_many({"begunAt": forgotten, "storedAt": forgotten}).deleted_count
    for path in leftover(folder):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > DAY_S:
                shutil.rmtree(path, ignore_errors=True)
