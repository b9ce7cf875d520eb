"""Takes away what nothing names, shard by shard; see `liveness` for the rule and decision 13 for the order.

For every payload: the tombstones of its versions, then out of reach, then one more look, then away. A kill
in between leaves something that the next collection, or the next reader, puts right.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from emboflow_dagster.blobs.pending import CONDEMNED_FOR_S, SINCE
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.object_storage.payload import PREFIX
from emboflow_dagster.object_storage.store import Aside, ObjectStore
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.report import NAMES_SHOWN, GcReport
from emboflow_dagster.project.gc.shards import SHARDS, Shards, digest_of
from emboflow_dagster.project.gc.tombstones import bury, is_collected, of_kind

BATCH: Final = 100
#: The store's clock and the database's are not one: by so much a payload may look older than its writer's
#: note (a bucket tells whole seconds, a file system ticks of some milliseconds).
CLOCKS_APART_S: Final = 60.0
# A time of the store is told in whole microseconds: what looks older by less is as young.
_ROUNDED_S: Final = 0.001
Versions = list[dict[str, Any]]
#: Judges versions once more; those that may still go.
Again = Callable[[Versions], Versions]


class Sweep:
    """One pass over the payloads.

    Args:
        mongo: The open database.
        store: Where the payloads are.
        shards: What is kept and what may go.
        before: Payloads put at or after this time (seconds) stay.
        again: The rule, once more, for versions about to be collected.
        report: Where it is counted.
        scope: Workspace whose names may be told, and who collects.
    """

    def __init__(
        self,
        mongo: Mongo,
        store: ObjectStore,
        shards: Shards,
        before: float,
        again: Again,
        report: GcReport,
        scope: tuple[str, str],
    ) -> None:
        self.mongo = mongo
        self.store = store
        self.shards = shards
        self.before = before
        self.again = again
        self.report = report
        self.workspace_id, self.by = scope
        self.going: set[str] = set()

    def count(self) -> tuple[int, int]:
        """How many payloads there are, and how many of them the database does not know at all.

        Also counts what is kept, and notes in which shards there is something to collect.
        """
        unknown = 0
        for key, known in look(self.store, self.shards):
            self.report.payloads += 1
            if isinstance(known, EdgeKind):
                self.report.kept[known.value] += 1
                continue
            unknown += not known
            self.going.add(key.removeprefix(f"{PREFIX}/")[:2])
        return self.report.payloads, unknown

    def shard(self, shard: str) -> None:
        """Collect one shard, once :meth:`count` has looked at it."""
        if not (self._left_aside(shard) or shard in self.going):
            return
        kept, gone = self.shards.kept(shard), self.shards.gone(shard)
        for batch in self._batches(shard, kept):
            going = {key: (size, gone.get(key, [])) for key, size in batch}
            if self.report.dry_run:
                self._count(going, {key: [v["name"] for v in found[1]] for key, found in going.items()})
                continue
            self._collect(going)

    def spared(self, key: str) -> bool:
        """Whether a payload is there, put back first where an interrupted collection has it aside."""
        if isinstance(self.store, Aside):
            self.store.spare(key)
        return self.store.exists(key)

    def destroy(self, payloads: dict[str, int]) -> None:
        """Collect payloads, keys to sizes, of which the caller knows that nothing names them.

        What a writer put or announced meanwhile stays, as in every collection.
        """
        self._collect({key: (size, []) for key, size in payloads.items()})

    def _batches(self, shard: str, kept: dict[bytes, EdgeKind]) -> Iterator[list[tuple[str, int]]]:
        batch: list[tuple[str, int]] = []
        for key in self.store.iter_keys(f"{PREFIX}/{shard}/"):
            digest = digest_of(key)
            if digest is None or digest in kept:
                continue
            try:
                stat = self.store.stat(key)
            except NotFoundError:  # another collection was faster
                continue
            if stat.modified_at.timestamp() >= self.before - _ROUNDED_S:
                self.report.kept[EdgeKind.YOUNG.value] += 1
                continue
            batch.append((key, stat.size))
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _collect(self, going: dict[str, tuple[int, Versions]]) -> None:
        pending = self._pending(list(going))
        if pending:
            self.report.kept[EdgeKind.PENDING.value] += len(pending)
        going = {key: found for key, found in going.items() if key not in pending}
        going, buried = self._bury(going)
        if isinstance(self.store, Aside):
            gone = self._aside(self.store, list(going), buried)
        else:
            gone = self._noted(list(going), buried)
        self.report.spared += len(going) - len(gone)
        self._count({key: going[key] for key in gone}, {})
        for key in going:
            self._tell(buried.get(key, []))

    def _bury(
        self, going: dict[str, tuple[int, Versions]]
    ) -> tuple[dict[str, tuple[int, Versions]], dict[str, Versions]]:
        """Write the tombstones; a payload of which somebody took up a version stays."""
        still = {v["name"] for v in self.again([v for _, found in going.values() for v in found])}
        payloads = {key: found for key, (_, found) in going.items() if all(v["name"] in still for v in found)}
        fine = bury(self.mongo, payloads, self.by)
        self.report.spared += len(going) - len(fine)
        return {key: going[key] for key in going if key in fine}, {key: payloads[key] for key in fine}

    def _aside(self, store: Aside, keys: list[str], buried: dict[str, Versions]) -> list[str]:
        aside = [key for key in keys if store.condemn(key, self.before)]
        named = self._named(aside, buried)
        gone: list[str] = []
        for key in aside:
            if key in named:
                store.spare(key)
            elif store.destroy(key):
                gone.append(key)
        return gone

    def _noted(self, keys: list[str], buried: dict[str, Versions]) -> list[str]:
        """For a store that takes nothing aside: say it, look for writers, and only then remove it."""
        begun = time.monotonic()
        for key in keys:
            marks.write(self.mongo, Mark.CONDEMNED, key, self.workspace_id)
        pending, named = self._pending(keys), self._named(keys, buried)
        gone: list[str] = []
        for key in keys:
            late = time.monotonic() - begun > CONDEMNED_FOR_S  # writers wait no longer than twice that
            if key not in pending and key not in named and not late and self._still_old(key):
                gone += [key] if self.store.delete(key) else []
            marks.erase(self.mongo, Mark.CONDEMNED, key)
        return gone

    def _still_old(self, key: str) -> bool:
        try:
            return self.store.stat(key).modified_at.timestamp() < self.before - _ROUNDED_S
        except NotFoundError:
            return False

    def _pending(self, keys: list[str]) -> set[str]:
        """Payloads that a writer is about to refer to."""
        if not keys:
            return set()
        first, last = min(keys), max(keys)
        between = {"$gte": f"{Mark.PENDING.value}:{first}:", "$lt": f"{Mark.PENDING.value}:{last};"}
        with translated():
            found = {str(row.get("key")) for row in self.mongo[META].find({"_id": between}, {"key": 1})}
        return found & set(keys)

    def _named(self, keys: list[str], buried: dict[str, Versions]) -> set[str]:
        """Payloads that a version names which has no tombstone."""
        if not keys:
            return set()
        known = {v["name"] for versions in buried.values() for v in versions}
        found: dict[str, set[str]] = {}
        with translated():
            for row in self._rows(keys, {v["object_id"] for versions in buried.values() for v in versions}):
                version = name_of(row["object_id"], row["version"])
                if version not in known:
                    found.setdefault(row["storage_ref"]["key"], set()).add(version)
        collected = is_collected(self.mongo, [v for versions in found.values() for v in versions])
        return {key for key, versions in found.items() if versions - collected}

    def _rows(self, keys: list[str], objects: set[str]) -> Iterator[dict[str, Any]]:
        """The versions that name payloads, in the order in which they move, so that none is missed.

        Without a put of its own, which makes the payload young, only another version of the same object comes
        to name one (new metadata): on its way to the history it is in the tail, where no index finds it.
        """
        shape = {"object_id": 1, "version": 1, "storage_ref.key": 1}
        yield from self.mongo["objects"].find({"storage_ref.key": {"$in": keys}}, shape)
        tails = {f"tail.{name}": 1 for name in shape}
        for head in self.mongo["objects"].find({"_id": {"$in": sorted(objects)}}, tails):
            for row in head.get("tail") or []:
                if (row.get("storage_ref") or {}).get("key") in keys:
                    yield row
        yield from self.mongo["object_history"].find({"storage_ref.key": {"$in": keys}}, shape)

    def buried(self, key: str, size: int, versions: Versions) -> bool:
        """The same decision for a payload in another home; whether it may be removed now."""
        going = {key: (size, versions)}
        if self.report.dry_run:
            self._count(going, {key: []})
            return False
        fine, said = self._bury(going)
        self._count(fine, {})
        self._tell(said.get(key, []))
        return bool(fine)

    def _left_aside(self, shard: str) -> bool:
        """Put back what an interrupted collection left: it is judged like everything else."""
        if not isinstance(self.store, Aside) or self.report.dry_run:
            return False
        return sum(self.store.spare(key) for key in self.store.condemned(shard)) > 0

    def _count(self, gone: dict[str, tuple[int, Versions]], names: dict[str, list[str]]) -> None:
        for key, (size, versions) in gone.items():
            self.report.freed_payloads += 1
            self.report.freed_bytes += size
            self.report.orphans += not versions
            if key in names:  # a dry run: what would be said
                self._tell(versions)

    def _tell(self, versions: Versions) -> None:
        self.report.tombstones += len(versions)
        for version in versions:
            if version["workspace_id"] == self.workspace_id and len(self.report.versions) < NAMES_SHOWN:
                self.report.versions.append(version["name"])


def look(store: ObjectStore, shards: Shards) -> Iterator[tuple[str, EdgeKind | bool]]:
    """Every payload, and what keeps it, else whether the database knows it; a shard in memory at a time."""
    shard, kept, gone = -1, {}, {}
    for key in store.iter_keys(f"{PREFIX}/"):
        digest = digest_of(key)
        if digest is None:
            continue
        if digest[0] != shard:
            shard = digest[0]
            kept, gone = shards.kept(SHARDS[shard]), shards.gone(SHARDS[shard])
        yield key, kept.get(digest) or key in gone


def cutoff(store: ObjectStore, mongo: Mongo, grace_s: float) -> float:
    """Payloads put before this time (seconds) may go: the grace is over, and no writer at work means them."""
    aside = isinstance(store, Aside)
    limit = store.safe_before(grace_s) if aside else utc_now().timestamp() - grace_s
    with translated():
        rows = mongo[META].find(of_kind(Mark.PENDING, f"{SINCE}:"), {"since": 1})
        return min([limit, *(row["since"].timestamp() - CLOCKS_APART_S for row in rows)])
